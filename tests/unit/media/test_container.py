from __future__ import annotations

import errno
import os
from pathlib import Path

import av
import pytest

from abaw.errors import AbawError
from abaw.media.audio import read_waveform
from abaw.media.container import Damage, open_container
from abaw.media.video import VideoReader

READERS = [lambda path: list(VideoReader(path)), lambda path: read_waveform(path, 16000)]


class FailingContainer:
    """Stands in for a container of PyAV on a disk that fails after so many packets."""

    def __init__(self, inner, error: OSError, packets: int) -> None:
        self.inner, self.error, self.packets = inner, error, packets

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.inner.close()

    def demux(self, stream):
        for _, packet in zip(range(self.packets), self.inner.demux(stream), strict=False):
            yield packet
        raise self.error


@pytest.fixture
def failing(monkeypatch):
    """``failing(number, packets)``: files opened from now on fail with that errno after so many packets."""
    real = av.open

    def fail(number: int, packets: int) -> None:
        error = OSError(number, os.strerror(number))
        monkeypatch.setattr(av, "open", lambda *args, **kw: FailingContainer(real(*args, **kw), error, packets))

    return fail


@pytest.mark.parametrize("read", READERS, ids=["video", "audio"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENXIO])
def test_a_disk_that_fails_midway_fails_the_file(make_video, blank, tone, failing, read, number):
    path = make_video("a.mp4", [blank] * 12, sound=tone)
    failing(number, 5)
    with pytest.raises(AbawError, match="reading a.mp4 failed: ") as caught:
        read(path)
    assert "mount" in caught.value.fix


@pytest.mark.parametrize("read", READERS, ids=["video", "audio"])
def test_a_container_that_breaks_off_gives_what_came_before(make_video, blank, tone, failing, read):
    path = make_video("a.mp4", [blank] * 12, sound=tone)
    failing(errno.EINVAL, 5)
    read(path)


def test_a_disk_that_fails_when_the_file_is_opened_is_named():
    """Reading a process's memory from address 0 is an input/output error of the real kind."""
    with pytest.raises(AbawError, match="reading mem failed: Input/output error"):
        open_container(Path("/proc/self/mem"), kind="video")


def test_complaints_are_counted_and_the_first_is_kept(tmp_path):
    damage = Damage(tmp_path / "a.mp4")
    damage.note("first")
    damage.note(ValueError("second"))
    assert (damage.errors, damage.first_error) == (2, "first")
