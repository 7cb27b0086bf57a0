"""Reading the organisers' sample files."""

import tracemalloc

import pytest

from abaw.editions import EDITIONS, read_sample
from abaw.errors import AbawError

VA = EDITIONS["10"].submissions["va"]
EXPR = EDITIONS["10"].submissions["expr"]
LSD = EDITIONS["4"].submissions["lsd"]


def write(tmp_path, text):
    path = tmp_path / "sample.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path, submission):
    with pytest.raises(AbawError) as caught:
        read_sample(path, submission)
    return caught.value


def test_rows_become_tracks_and_rows_in_order(tmp_path):
    sample = read_sample(write(tmp_path, f"{VA.header}\nb/00002.jpg,0,0\na/00001.jpg,0,0\nb/00001.jpg,0,0\n"), VA)
    assert sample.tracks == ["b", "a"]
    assert sample.track_index.tolist() == [0, 1, 0]
    assert sample.rows.tolist() == [1, 0, 0]
    assert len(sample) == 3
    assert not sample.keyed


def test_numbers_may_have_any_count_of_digits(tmp_path):
    text = f"{VA.header}\na/1.jpg\na/000002.jpg,0,0\na/123456.jpg,0\na/0000000000005.jpg\n"
    assert read_sample(write(tmp_path, text), VA).rows.tolist() == [0, 1, 123455, 4]


def test_a_track_may_lie_in_a_folder(tmp_path):
    sample = read_sample(write(tmp_path, f"{VA.header}\nbatch1/a/00001.jpg,0,0\n/x/00001.jpg\n"), VA)
    assert sample.tracks == ["batch1/a", "/x"]


def test_a_sample_is_read_leniently(tmp_path):
    text = f'\ufeff{VA.header.upper()},,\r\na/00001.jpg\r\n  a/00002.JPG ,x,y,z\r\na/00003.png,"\n\r\n \x1a'
    assert read_sample(write(tmp_path, text), VA).images == ["a/00001.jpg", "a/00002.JPG", "a/00003.png"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block_bytes", [1, 2, 7, 64])
def test_line_ends_and_blocks_do_not_matter(tmp_path, end, block_bytes):
    path = write(tmp_path, end.join([VA.header, "a/00001.jpg,0,0", "a/00002.jpg,0,0", "é/00001.jpg,0,0", ""]))
    sample = read_sample(path, VA, block_bytes=block_bytes)
    assert sample.images == ["a/00001.jpg", "a/00002.jpg", "é/00001.jpg"]


def test_images_named_alone_have_no_track(tmp_path):
    sample = read_sample(write(tmp_path, f"{LSD.header}\n0.jpg,0\n1.jpg,0\n10.jpg,0\n"), LSD)
    assert sample.keyed
    assert sample.images == ["0.jpg", "1.jpg", "10.jpg"]
    assert (sample.tracks, len(sample.rows), len(sample.track_index)) == ([], 0, 0)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "the sample file is empty", 1),
        ("image_location,Neutral\na/00001.jpg,0\n", "does not belong to task va", 1),
        (f"{VA.header}\na/00000.jpg,0,0\n", "names no image", 2),
        (f"{VA.header}\na/00001.jpg,0,0\na.jpg,0,0\n", "names no image", 3),
        (f"{VA.header}\na/00001.jpg,0,0\na/00002.gif,0,0\n", "names no image", 3),
        (f"{VA.header}\na/00001.jpg,0,0\na/1234567890.jpg,0,0\n", "names no image", 3),
        (f"{VA.header}\na/00001.jpg,0,0\n/00001.jpg,0,0\n", "names no image", 3),
        (f"{VA.header}\na/00001.jpg,0,0\n\n\na/00002.jpg,0,0\n", "a blank line between", 3),
        (f"{VA.header}\na/00001.jpg,0,0\na/00001.jpg,0,0\n", "names a/00001.jpg twice", 3),
        (f"{VA.header}\na/00001.jpg,0,0\na/1.jpg,0,0\n", "names a/1.jpg twice", 3),
        (f"{VA.header}\na/00001.jpg,0\0\n", "NUL", 2),
        (f"{VA.header}\na/00001.jpg,".encode() + b"\xff\n", "not UTF-8", 2),
        (f"{VA.header}\n" + "a" * 5000 + "/00001.jpg,0,0\n", "more than 4096 bytes", 2),
    ],
)
def test_a_bad_sample_is_refused_with_its_line(tmp_path, text, message, line):
    error = refusal(write(tmp_path, text), VA)
    assert message in error.what
    assert error.where.endswith(f", line {line}")


def test_a_sample_without_rows_is_refused(tmp_path):
    assert "has no rows" in refusal(write(tmp_path, f"{VA.header}\n\n"), VA).what


def test_a_sample_in_another_encoding_is_refused(tmp_path):
    assert "not UTF-8 text" in refusal(write(tmp_path, f"{VA.header}\na/00001.jpg,0,0\n".encode("utf-16")), VA).what


def test_a_folder_is_no_sample_file(tmp_path):
    assert "cannot be read" in refusal(tmp_path, VA).what


def test_the_sample_of_another_task_is_recognised(tmp_path):
    error = refusal(write(tmp_path, f"{EXPR.header}\na/00001.jpg,0\n"), VA)
    assert "this is the header of task expr, editions 5, 6, 8, 10" in error.what
    assert "--task expr --edition 10" in error.fix


def test_the_sample_of_another_edition_is_recognised(tmp_path):
    path = write(tmp_path, "valence,arousal\n0,0\n")
    error = refusal(path, VA)
    assert "task va, edition 3" in error.what
    assert "--task va --edition 3" in error.fix


def test_the_list_of_edition_3_is_recognised(tmp_path):
    error = refusal(write(tmp_path, "10-60-1280x720,1234\n"), VA)
    assert "edition 3" in error.what
    assert "--edition 3" in error.fix


@pytest.mark.parametrize("task", ["va", "mtl"])
def test_a_line_without_end_is_refused_without_reading_it(tmp_path, task):
    submission = EDITIONS["11" if task == "mtl" else "10"].submissions[task]
    path = write(tmp_path, f"{submission.header}\na/00001.jpg,0,0\n")
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # a gigabyte of NUL that takes no space
    tracemalloc.start()
    error = refusal(path, submission)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than 4096 bytes" in error.what
    assert error.where.endswith("line 3")
    assert peak < 10e6


def test_blank_lines_without_end_are_refused(tmp_path):
    text = f"{VA.header}\na/00001.jpg,0,0\n" + "\n" * 5000
    assert "blank lines" in refusal(write(tmp_path, text), VA).what
