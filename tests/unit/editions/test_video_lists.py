"""The samples of edition 3: a list of videos and their rows, or a folder of sample files."""

import pytest

from abaw.editions import EDITIONS, read_sample
from abaw.errors import AbawError

VA = EDITIONS["3"].submissions["va"]


def write(tmp_path, text, name="list.txt"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def refusal(path):
    with pytest.raises(AbawError) as caught:
        read_sample(path, VA)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "b,2\na_left,1\n",
        "\ufeffb, 2\r\na_left.mp4,1,\r\n\r\n",
        "video,frames\nb,2\na_left,1",
    ],
)
def test_a_list_gives_every_row_of_its_videos_in_order(tmp_path, text):
    sample = read_sample(write(tmp_path, text), VA)
    assert sample.images == ["b/00001.jpg", "b/00002.jpg", "a_left/00001.jpg"]
    assert sample.tracks == ["b", "a_left"]
    assert sample.track_index.tolist() == [0, 0, 1]
    assert sample.rows.tolist() == [0, 1, 0]


def test_a_folder_of_sample_files_gives_their_rows(tmp_path):
    write(tmp_path, "valence,arousal\n0,0\n0,0\n\n", "b.txt")
    write(tmp_path, "Valence,Arousal\r\n-5,-5", "a.txt")
    sample = read_sample(tmp_path, VA)
    assert sample.images == ["a/00001.jpg", "b/00001.jpg", "b/00002.jpg"]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a,3\nb\n", "gives no video and its rows", 2),
        ("a,3\nb,0\n", "gives no video and its rows", 2),
        ("a,3\nb,x\n", "gives no video and its rows", 2),
        ("a,3\n../b,2\n", "gives no video and its rows", 2),
        ("a,3\n.b,2\n", "gives no video and its rows", 2),
        ("a,3\na.mp4,3\n", "video a twice", 2),
        ("a,3\n\nb,3\n", "a blank line", 2),
        ("a,3\nb,999999999\n", "more than 5000000 rows", 2),
        ("a" * 5000, "more than 4096 bytes", 1),
        ("image_location,valence,arousal\na/00001.jpg,0,0\n", "header of task va, editions 5, 6, 8, 9, 10", 1),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, text, message, line):
    error = refusal(write(tmp_path, text))
    assert message in error.what
    assert error.where.endswith(f", line {line}")


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_list_is_refused(tmp_path, text):
    assert "has no rows" in refusal(write(tmp_path, text)).what


def test_a_folder_of_another_tasks_files_is_refused(tmp_path):
    write(tmp_path, "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n0\n", "a.txt")
    error = refusal(tmp_path)
    assert "task expr, edition 3" in error.what
    assert "--task expr --edition 3" in error.fix


def test_a_folder_without_files_is_refused(tmp_path):
    assert "has no rows" in refusal(tmp_path).what


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(bytes(range(256)))
    assert "not UTF-8 text" in refusal(path).what
    path.write_bytes(b"a,3\nb\xff,3\n")
    assert refusal(path).where.endswith("line 2")
