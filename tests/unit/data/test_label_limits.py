"""Label files of gigabytes: refused by what they are, with little memory."""

import tracemalloc

import pytest

from abaw.data.annotations import read_label_file, read_mtl_file
from abaw.errors import AbawError
from abaw.tasks import TASKS

VA = TASKS["va"].heads[0]


def sparse(tmp_path, beginning, size):
    path = tmp_path / "train_set.txt"
    path.write_bytes(beginning)
    with path.open("r+b") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("beginning", "size", "what"),
    [
        (b"valence,arousal\n0,0\n", 3 << 30, "is larger than 64 MB"),
        (b"Neutral,Anger\n", 3 << 30, "has the header 'Neutral,Anger', not of va"),
        (b"", 3 << 30, "has the header"),
        (b"\xff\xfev\x00", 3 << 30, "is in UTF-16"),
    ],
)
def test_a_label_file_of_gigabytes_is_refused_by_its_beginning(tmp_path, beginning, size, what):
    assert_refused(lambda path: read_label_file(path, VA), sparse(tmp_path, beginning, size), what)


@pytest.mark.parametrize(
    ("beginning", "size", "what"),
    [
        (b"image,valence\n", 3 << 30, "is larger than 1024 MB"),
        (b"image,valence\n", 900 << 20, "is no table: a line has no end"),
        (b"image,valence\nv/00001.jpg,0\n", 900 << 20, "is no table|no multi-task label"),
    ],
)
def test_a_multi_task_file_of_garbage_is_refused_before_memory_grows(tmp_path, beginning, size, what):
    assert_refused(read_mtl_file, sparse(tmp_path, beginning, size), what)


def assert_refused(read, path, what):
    tracemalloc.start()
    with pytest.raises(AbawError, match=what):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_a_label_file_of_ten_megabytes_takes_a_few_times_its_size(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"valence,arousal\n" + b"-0.12345,0.12345\n" * 600_000)
    tracemalloc.start()
    assert read_label_file(path, VA).num_rows == 600_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
