"""Small media files made on the spot: videos with and without a face, with any sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data

TICKS = 90_000


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    fps: float = 25,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound: np.ndarray | None = None,
    sound_start_s: float = 0.0,
    sample_rate: int = 16000,
    index_first: bool = False,
) -> Path:
    """Write RGB pictures, shown at ``times`` (default: row / fps), with an optional mono sound track as AAC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if index_first else {}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, TICKS)
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "12"}
        audio = container.add_stream("aac", rate=sample_rate, layout="mono") if sound is not None else None
        for row, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[row] * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(np.float32(sound)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
            frame.pts = round(sound_start_s * sample_rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def place_face(canvas: np.ndarray, *, x: int, y: int, side: int, mirrored: bool = False) -> np.ndarray:
    """The canvas with the astronaut's portrait, ``side`` pixels, pasted at a corner."""
    portrait = data.astronaut()[:240, 110:350]
    portrait = portrait[:, ::-1] if mirrored else portrait
    picture = canvas.copy()
    picture[y : y + side, x : x + side] = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    return picture


@pytest.fixture(scope="session")
def blank() -> np.ndarray:
    """A picture without a face, 160 x 120."""
    ramp = np.linspace(40, 120, 160)[None, :, None] * np.ones((120, 1, 3))
    return ramp.astype(np.uint8)


@pytest.fixture(scope="session")
def face_pictures(blank: np.ndarray) -> list[np.ndarray]:
    """Twelve pictures of one face that drifts to the right."""
    return [place_face(blank, x=20 + row, y=5, side=100) for row in range(12)]


@pytest.fixture(scope="session")
def pair_pictures() -> list[np.ndarray]:
    """Twelve pictures of two people side by side, composed from one portrait and its mirror image."""
    canvas = np.full((120, 240, 3), 90, dtype=np.uint8)
    left = [place_face(canvas, x=5 + row % 3, y=8, side=100) for row in range(12)]
    return [place_face(picture, x=130, y=8, side=100, mirrored=True) for picture in left]


@pytest.fixture(scope="session")
def tone() -> np.ndarray:
    """Half a second of a 440 Hz tone at 16 kHz."""
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)).astype(np.float32)


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """``make_video(name, images, ...)`` writes a file below the test's folder and returns its path."""

    def make(name: str, images: Sequence[np.ndarray], **options: object) -> Path:
        return write_video(tmp_path / name, images, **options)  # type: ignore[arg-type]

    return make
