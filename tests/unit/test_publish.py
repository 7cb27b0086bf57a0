"""Files appear whole or not at all."""

import os

import pytest

from abaw.errors import AbawError
from abaw.publish import discard, publish, publish_text


def fill_and_fail(path):
    path.write_text("half")
    raise OSError(28, "No space left on device")


def test_text_is_written_byte_for_byte(tmp_path):
    publish_text(tmp_path / "deep/a.txt", "x\r\nä\n")
    assert (tmp_path / "deep/a.txt").read_bytes() == "x\r\nä\n".encode()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    publish_text(tmp_path / "a.txt", "old")
    with pytest.raises(AbawError, match="No space left on device"):
        publish(tmp_path / "a.txt", fill_and_fail)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_bug_in_the_writer_stays_a_bug(tmp_path):
    with pytest.raises(ZeroDivisionError):
        publish(tmp_path / "a.txt", lambda path: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_200_bytes_can_be_published(tmp_path):
    publish_text(tmp_path / ("é" * 100), "x")
    assert (tmp_path / ("é" * 100)).is_file()


def test_a_folder_in_the_way_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(AbawError, match="could not be written"):
        publish_text(tmp_path / "file/a.txt", "x")


def test_a_discarded_folder_leaves_nothing(tmp_path):
    publish_text(tmp_path / "s/a.txt", "x")
    discard(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_published_file_has_the_users_ordinary_mode(tmp_path):
    def write_private(path):
        path.unlink()
        path.write_text("x")
        path.chmod(0o600)

    publish_text(tmp_path / "a.txt", "x")
    publish(tmp_path / "b.txt", write_private)
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_text_that_is_there_already_keeps_its_time(tmp_path):
    path = tmp_path / "a.txt"
    publish_text(path, "one\r\n")
    os.utime(path, ns=(1, 1))
    publish_text(path, "one\r\n")
    assert path.stat().st_mtime_ns == 1
    publish_text(path, "two\n")
    assert (path.read_bytes(), path.stat().st_mtime_ns > 1) == (b"two\n", True)
