"""Odd and damaged media: each is read right, or refused by its name."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.people import AlignSettings, align_video
from abaw.media.video import VideoReader, read_frames
from abaw.store import Reason

COLOURS = [(200, 60, 40), (40, 170, 70), (50, 70, 190), (120, 120, 120)]
MAX_8K_MB = 1500  # thirty frames of 8k alone are 2,990 MB
PEAK = """
import sys
from pathlib import Path
from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.people import AlignSettings, align_video
with align_video(Path(sys.argv[1]), [None], build_detector("mtcnn", DetectorOptions()), AlignSettings()) as found:
    print(len(found.tracks[0]["valid"]))
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024)
"""


def quarters() -> np.ndarray:
    """Four fields of one colour each, 64 x 48."""
    picture = np.zeros((48, 64, 3), np.uint8)
    for number, colour in enumerate(COLOURS):
        row, col = divmod(number, 2)
        picture[24 * row : 24 * row + 24, 32 * col : 32 * col + 32] = colour
    return picture


def centres(image: np.ndarray) -> np.ndarray:
    """Mean colour inside each of the four fields, [4, 3]."""
    return np.stack([image[r : r + 12, c : c + 20].mean(axis=(0, 1)) for r in (6, 30) for c in (6, 38)])


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuv422p"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mp4", "libx264", "yuvj420p"),  # full range
        ("a.mp4", "libx264", "yuvj444p"),
        ("a.avi", "mjpeg", "yuvj422p"),
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mp4", "libx264", "yuv444p10le"),
        ("a.mkv", "ffv1", "yuv420p16le"),
        ("a.mkv", "ffv1", "bgra"),  # alpha, opaque
        ("a.mov", "png", "rgba"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.mkv", "ffv1", "gbrp10le"),
    ],
)
def test_colours_of_a_known_picture_come_out_within_a_few_levels(make_video, name, codec, pix_fmt):
    image = next(read_frames(make_video(name, [quarters()] * 3, codec=codec, pix_fmt=pix_fmt))).image
    assert centres(image) == pytest.approx(np.array(COLOURS), abs=5)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("ffv1", "gray"), ("ffv1", "gray16le"), ("libx264", "yuvj420p")])
def test_grey_video_has_the_grey_of_its_picture_in_all_three_channels(make_video, codec, pix_fmt):
    grey = np.repeat(cv2.cvtColor(quarters(), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    image = next(read_frames(make_video("a.mkv", [grey] * 3, codec=codec, pix_fmt=pix_fmt))).image
    assert centres(image) == pytest.approx(centres(grey), abs=3)


def test_alpha_is_dropped_and_not_blended(tmp_path):
    """A picture half see-through keeps its own colours: what would lie behind it is unknown."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgra"
        half = np.dstack([quarters()[..., ::-1], np.full((48, 64), 128, np.uint8)])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(half, format="bgra")))
        container.mux(stream.encode(None))
    assert np.array_equal(next(read_frames(path)).image, quarters())


def test_a_video_of_one_frame_is_a_track_of_one_row(make_video, blank):
    detector = build_detector("center", DetectorOptions())
    with align_video(make_video("a.mp4", [blank]), [None], detector, AlignSettings()) as found:
        assert np.asarray(found.tracks[0]["time"]).tolist() == [0.0]
        assert found.facts["duration_s"] == pytest.approx(0.04)


def test_a_video_without_a_frame_is_refused(tmp_path):
    path = tmp_path / "empty.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
    with pytest.raises(AbawError, match="empty.mkv"):
        list(read_frames(path))


def test_a_video_without_any_face_is_rows_of_no_face(make_video, blank):
    detector = build_detector("mtcnn", DetectorOptions())
    with align_video(make_video("a.mp4", [blank] * 9), [None], detector, AlignSettings()) as found:
        assert set(np.asarray(found.tracks[0]["reason"]).tolist()) == {Reason.NO_FACE}
        assert np.asarray(found.tracks[0]["offsets"]).tolist() == [0] * 10


@pytest.fixture(scope="module")
def huge(tmp_path_factory) -> Path:
    """Thirty frames of 7680 x 4320: one encoded picture, thirty times."""
    path = tmp_path_factory.mktemp("huge") / "huge.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuvj420p"
        picture = cv2.resize(quarters(), (7680, 4320), interpolation=cv2.INTER_NEAREST)
        packets = [*stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")), *stream.encode(None)]
        for row in range(30):
            again = av.Packet(bytes(packets[0]))
            again.pts = again.dts = row
            again.time_base, again.is_keyframe, again.stream = Fraction(1, 25), True, stream
            container.mux(again)
    return path


def test_8k_frames_are_read_whole(huge):
    with VideoReader(huge) as reader:
        frame = next(iter(reader))
    assert frame.image.shape == (4320, 7680, 3)
    small = cv2.resize(frame.image, (64, 48), interpolation=cv2.INTER_AREA)
    assert centres(small) == pytest.approx(np.array(COLOURS), abs=5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_8k_frames_are_aligned_in_bounded_memory(huge):
    done = subprocess.run([sys.executable, "-c", PEAK, str(huge)], capture_output=True, text=True, check=True)
    rows, peak_mb = map(int, done.stdout.split())
    assert rows == 30
    assert peak_mb < MAX_8K_MB
