"""What the validator finds where there is a file per video."""

import zipfile

import pytest

from abaw.editions import EDITIONS, check_submission, read_sample
from abaw.errors import AbawError

VA = EDITIONS["3"].submissions["va"]


@pytest.fixture
def sample(tmp_path):
    (tmp_path / "list.txt").write_text("b,2\na,3\n")
    return read_sample(tmp_path / "list.txt", VA)


def hand_in(folder, **files):
    texts = {"a": "valence,arousal\n0,0\n0.5,0\n1,1\n", "b": "valence,arousal\n0,0\n-1,0.5\n"} | files
    folder.mkdir()
    for name, text in texts.items():
        if text is not None:
            (folder / f"{name}.txt").write_text(text)
    return folder


def found(verdict):
    return [(offence.file, offence.line, offence.message) for offence in verdict.offences]


@pytest.mark.parametrize("block_bytes", [1, 9, 1 << 20])
def test_a_file_for_each_video_is_accepted(tmp_path, sample, block_bytes):
    verdict = check_submission(hand_in(tmp_path / "out"), VA, sample, block_bytes=block_bytes)
    assert verdict.ok
    assert verdict.rows == 5
    assert verdict.notes == []


def test_the_folder_above_the_files_will_do(tmp_path, sample):
    (tmp_path / "out").mkdir()
    hand_in(tmp_path / "out" / "predictions")
    (tmp_path / "out" / "statement.md").write_text("x")
    assert check_submission(tmp_path / "out", VA, sample).ok


def test_files_that_are_missing_or_unknown_are_found(tmp_path, sample):
    verdict = check_submission(hand_in(tmp_path / "out", a=None, c="valence,arousal\n"), VA, sample)
    assert found(verdict) == [
        ("a.txt", 0, "is not there: 3 rows are missing"),
        ("c.txt", 0, "is there, but the sample has no such video, or it is there twice"),
    ]


def test_rows_too_few_and_too_many_are_found(tmp_path, sample):
    texts = {"a": "valence,arousal\n0,0\n0,0\n", "b": "valence,arousal\n0,0\n0,0\n0,0\n0,0\n"}
    assert found(check_submission(hand_in(tmp_path / "out", **texts), VA, sample)) == [
        ("a.txt", 4, "the file ends after 2 of 3 rows"),
        ("b.txt", 4, "is past the 2 rows of this video; what follows was not read"),
    ]


def test_rows_with_image_names_are_found(tmp_path, sample):
    texts = {"b": "valence,arousal\nb/00001.jpg,0,0\n0,0\n"}
    verdict = check_submission(hand_in(tmp_path / "out", **texts), VA, sample)
    assert found(verdict) == [("b.txt", 2, "has 3 instead of 2 values")]


def test_the_header_of_a_single_file_is_recognised(tmp_path, sample):
    texts = {"b": "image_location,valence,arousal\n0,0\n0,0\n"}
    verdict = check_submission(hand_in(tmp_path / "out", **texts), VA, sample)
    assert found(verdict)[0][2].startswith("is the header of task va, edition 5, 6, 8, 9, 10")


def test_a_missing_header_is_one_offence(tmp_path, sample):
    verdict = check_submission(hand_in(tmp_path / "out", b="0,0\n-1,-1\n"), VA, sample)
    assert found(verdict) == [("b.txt", 1, "the header is missing: valence,arousal")]


def test_a_zip_of_the_files_is_checked(tmp_path, sample):
    folder = hand_in(tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"out/{file.name}")
    verdict = check_submission(tmp_path / "out.zip", VA, sample)
    assert verdict.ok
    assert verdict.notes == ["the files lie in 1 folder of the archive"]


def test_a_single_file_is_no_submission(tmp_path, sample):
    with pytest.raises(AbawError, match="a file per video"):
        check_submission(tmp_path / "list.txt", VA, sample)
