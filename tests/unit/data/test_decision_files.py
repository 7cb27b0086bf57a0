"""Submission files of any edition, read as decisions or refused by line."""

import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from abaw.data.decisions import read_decisions
from abaw.errors import AbawError
from abaw.tasks import TASKS

VA = "image_location,valence,arousal\n"
EXPR = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n"
AU = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26\n"


def write(tmp_path, text, name="predictions.txt"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path, task=None):
    with pytest.raises(AbawError) as caught:
        read_decisions(path, task=task)
    return caught.value


@pytest.mark.parametrize(
    ("text", "task"),
    [
        (VA + "v/00001.jpg,0.5,-1\n", "va"),
        (f"image_location,{EXPR}v/00001.jpg,7\n", "expr"),
        (f"image_location,{AU}v/00001.jpg{',1' * 12}\n", "au"),
        (f"image,valence,arousal,expression,aus\nv/00001.jpg,0,0,3{',1' * 12}\n", "mtl"),
        ("image,expression\n0.jpg,5\n", "lsd"),
        (
            "image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,Disgustedly_Surprised,"
            "Angrily_Surprised,Sadly_Fearful,Sadly_Angry\n01/00001.jpg,6\n",
            "ce",
        ),
        ("valence,arousal\n0,0\n", "va"),
        (EXPR + "3\n", "expr"),
    ],
)
def test_the_header_tells_the_task(tmp_path, text, task):
    assert read_decisions(write(tmp_path, text), task=None).task == TASKS[task]


def test_rows_are_frames_of_the_track_in_their_folder_counted_from_one(tmp_path):
    text = VA + "b/00002.jpg,0.5,0.25\ncropped_aligned/a/00001.jpg,-1,1\nb/00001.jpg,0.1,0.2\n"
    found = read_decisions(write(tmp_path, text), task=None)
    assert (found.track_ids(), found.num_rows("b"), "a" in found) == (["a", "b"], 2, True)
    assert np.allclose(found.decide("b", gap="hold").decisions["va"], [[0.1, 0.2], [0.5, 0.25]])


def test_rows_that_a_file_lacks_are_filled_and_marked(tmp_path):
    text = VA + "v/00002.jpg,0,0\nv/00004.jpg,1,-1\n"
    decided = read_decisions(write(tmp_path, text), task=None).decide("v", gap="linear")
    assert decided.valid.tolist() == [False, True, False, True]
    assert decided.decisions["va"].tolist() == [[0, 0], [0, 0], [0.5, -0.5], [1, -1]]


def test_classes_are_not_interpolated(tmp_path):
    text = f"image_location,{EXPR}v/00001.jpg,1\nv/00004.jpg,7\n"
    found = read_decisions(write(tmp_path, text), task=None)
    assert found.decide("v", gap="linear").decisions["expr"].tolist() == [[1], [1], [7], [7]]
    assert found.decide("v", gap="hold").decisions["expr"].tolist() == [[1], [1], [1], [7]]


def test_rows_past_the_end_repeat_the_last(tmp_path):
    decided = read_decisions(write(tmp_path, VA + "v/00001.jpg,0.5,0\n"), task=None).decide("v", gap="hold", num_rows=3)
    assert (decided.decisions["va"][:, 0].tolist(), decided.valid.tolist()) == ([0.5] * 3, [True, False, False])


def test_the_heads_of_a_multi_task_row_are_told_apart(tmp_path):
    text = f"image,valence,arousal,expression,aus\nv/00001.jpg,0.5,-0.5,6,1{',0' * 10},1\n"
    decided = read_decisions(write(tmp_path, text), task=None).decide("v", gap="hold").decisions
    assert (decided["va"].tolist(), decided["expr"].tolist()) == ([[0.5, -0.5]], [[6]])
    assert decided["au"].tolist() == [[1] + [0] * 10 + [1]]


def test_images_of_no_video_keep_their_paths_in_order(tmp_path):
    found = read_decisions(write(tmp_path, "image,expression\n1.jpg,5\n./0.jpg,2\n"), task=None)
    assert (found.keys, found.track_ids()) == (["1.jpg", "0.jpg"], ["images"])
    assert found.decide("images", gap="hold").decisions["lsd"].tolist() == [[5], [2]]


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_or_archive_of_a_file_per_video_is_read(tmp_path, packed):
    for name, rows in (("a", "1\n2\n"), ("b_left", "7\r\n")):
        write(tmp_path, EXPR + rows, f"set/{name}.txt")
    write(tmp_path, "x", "set/.hidden.txt")
    path = tmp_path / "set"
    if packed:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((tmp_path / "set").iterdir()):
                archive.write(file, f"predictions/{file.name}")
    found = read_decisions(path, task=None)
    assert (found.task.name, found.track_ids()) == ("expr", ["a", "b_left"])
    assert found.decide("a", gap="hold").decisions["expr"].tolist() == [[1], [2]]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(VA.replace("\n", "\r\n") + "v/00001.jpg,0.5,0\r\n", id="CRLF"),
        pytest.param("\ufeff" + VA + "v/00001.jpg,0.5,0\n", id="byte order mark"),
        pytest.param(VA + "v/00001.jpg,0.5,0", id="no line end"),
        pytest.param(VA + "v/00001.jpg,0.5,0,\n", id="closing comma"),
        pytest.param(VA + "v/1.png, +5e-1 ,0.\n \n\x1a", id="spaces, exponent, blank end"),
        pytest.param("Image, Valence, Arousal\nv\\00001.jpg,.5,-0\n", id="other spelling"),
    ],
)
def test_harmless_quirks_are_read_right(tmp_path, text):
    assert read_decisions(write(tmp_path, text), task=None).decide("v", gap="hold").decisions["va"].tolist() == [
        [0.5, 0]
    ]


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        (VA + "v/00001.jpg,0,0\nv/00002.jpg,nan,0\n", "not made of numbers", "line 3"),
        (VA + "v/00001.jpg,0,inf\n", "not made of numbers", "line 2"),
        (VA + "v/00001.jpg,0,1.5\n", "a value that no decision can have", "line 2"),
        (VA + "v/00001.jpg,-5,-5\n", "marks a row as not annotated", "line 2"),
        (VA + "v/00001.jpg,0\n", "a row of 1 values, not 2", "line 2"),
        (VA + "v/00001.jpg,0,0\n\nv/00002.jpg,0,0\n", "names no frame", "line 3"),
        (VA + "v/00001.jpg,0,0\nv/00000.jpg,0,0\n", "names no frame", "line 3"),
        (VA + "v/00001.jpg,0,0\n0.jpg,0,0\n", "names no frame", "line 3"),
        (VA + "v/00001.jpg,0,0\nv/1.jpg,0,0\n", "frame 1 of track v is given twice", "lines 2 and 3"),
        (VA + "v/00001.jpg,0,0\n../00002.jpg,0,0\n", "'..' cannot be a track name", "line 3"),
        (VA + "v/99999999.jpg,0,0\n", "names frame 99999999", "line 2"),
        (f"image_location,{EXPR}v/00001.jpg,-1\n", "marks a row as not annotated", "line 2"),
        (f"image_location,{EXPR}v/00001.jpg,8\n", "a value that no decision can have", "line 2"),
        (f"image_location,{EXPR}v/00001.jpg,1.5\n", "a value that no decision can have", "line 2"),
        (f"image_location,{AU}v/00001.jpg,2{',0' * 11}\n", "a value that no decision can have", "line 2"),
        ("image,expression\n0.jpg,1\n0.jpg,1\n", "image 0.jpg is given twice", "lines 2 and 3"),
        (VA, "no rows behind the header", ""),
        ("", "is empty", ""),
        ("\n\x1a", "is empty", ""),
        ("image_location,anger\nv/00001.jpg,0\n", "the header is of no task", "line 1"),
        ("v/00001.jpg,0,0\n", "the header is of no task", "line 1"),
        ((VA + "v/00001.jpg,0,0\n").encode("utf-16"), "is in UTF-16, not UTF-8", "line 1"),
        (VA.encode() + b"v/00001.jpg,0,0\nv\xff/00001.jpg,0,0\n", "is in another encoding", "line 3"),
    ],
)
def test_a_bad_file_is_refused_by_line(tmp_path, text, what, line):
    path = write(tmp_path, text)
    error = refused(path)
    assert what in error.what
    assert error.where == (f"{path}, {line}" if line else str(path))


def test_another_task_is_named(tmp_path):
    assert "holds decisions of va, not of au" in refused(write(tmp_path, VA + "v/00001.jpg,0,0\n"), TASKS["au"]).what


def test_an_unknown_track_is_named_with_the_nearest(tmp_path):
    found = read_decisions(write(tmp_path, VA + "video5_left/00001.jpg,0,0\n"), task=None)
    with pytest.raises(AbawError, match="no decisions of track video5_lift") as caught:
        found.decide("video5_lift", gap="hold")
    assert "did you mean video5_left?" in caught.value.fix


@pytest.mark.parametrize("name", ["a.jpg.txt", "a.mp4.txt", "a.txt.txt"])
def test_a_file_named_after_a_file_is_refused(tmp_path, name):
    write(tmp_path, EXPR + "1\n", f"set/{name}")
    error = refused(tmp_path / "set")
    assert "named after a file" in error.what
    assert "rename it to a.txt" in error.fix


def test_files_of_two_kinds_do_not_lie_together(tmp_path):
    write(tmp_path, "valence,arousal\n0,0\n", "set/a.txt")
    write(tmp_path, VA + "v/00001.jpg,0,0\n", "set/b.txt")
    assert "b.txt is of no single video" in refused(tmp_path / "set").what


def test_a_path_that_holds_nothing_is_named(tmp_path):
    assert "does not exist" in refused(tmp_path / "gone.txt").what
    (tmp_path / "empty").mkdir()
    assert "holds no .txt file" in refused(tmp_path / "empty").what


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "x/../../a.txt", "C:/a.txt", "..\\a.txt"])
def test_a_member_that_leads_out_of_its_archive_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(name, EXPR + "1\n")
    assert "leads out of it" in refused(tmp_path / "set.zip").what


def patch_size(path, size):
    """Say another size of the first member in the archive's directory."""
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", size)
    path.write_bytes(content)


def test_an_archive_of_gigabytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", EXPR + "1\n")
    patch_size(path, 3 << 30)
    assert "1 files of 3.0 GB when unpacked" in refused(path).what


def test_an_archive_that_says_less_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", EXPR + "1\n" * 5000)
    patch_size(path, len(EXPR) + 2)
    assert "cannot be read" in refused(path).what


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", EXPR + "1\n" * 5000)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert "cannot be read (Bad CRC-32" in refused(path).what


@pytest.mark.parametrize(
    ("size", "what"), [(3 << 30, "holds 3.0 GB of text"), (900 << 20, "is no table: a line has no end")]
)
def test_gigabytes_of_garbage_are_refused_with_little_memory(tmp_path, size, what):
    path = write(tmp_path, VA)
    with path.open("r+b") as file:
        file.truncate(size)
    tracemalloc.start()
    error = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert what in error.what
    assert peak < 32 << 20


def test_a_zip_whose_member_has_a_name_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("v.txt", "valence,arousal\n0,0\n")
    content = bytearray(path.read_bytes())
    content[7] |= 8  # of the member's own header: its name is UTF-8
    content[30] = 0xFF
    path.write_bytes(content)
    with pytest.raises(AbawError, match="cannot be read"):
        read_decisions(path, task=None)
