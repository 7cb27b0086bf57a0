"""The clips of the alignment benchmark, composed from real recordings: one talking face on a still picture, and none.

Composed, not recorded: a GRID speaker is enlarged to 720x576, played forwards and backwards without a jump, and
drifts slowly over a photograph. Long videos repeat the packets of a short one, with later times and no new encoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT, FPS, FRAMES = 1280, 720, 25, 1500
FACE_WIDTH, FACE_HEIGHT = 720, 576
# Real recordings are never part of the checkout; `--real-data DIR` names another place.
REAL_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
DRIFT_PERIOD = 600  # frames of one tour of the face around its place
BACKGROUND = "fa_grass_noface.jpg"
FACELESS = ("pyfeat_no_face.mp4", "no_duration.webm", "rotated180_vfr_noface.mp4", "bbb_1s.webm")
X264 = {"preset": "veryfast", "crf": "21", "bframes": "0"}


def recording(folder: str, name: str) -> Path:
    """A file of the real recordings; SystemExit that says what is missing."""
    path = REAL_DATA / folder / name
    if not path.is_file():
        raise SystemExit(f"{path} is missing: name a folder of real recordings (videos/, images/, weights/)")
    return path


def talking_face(path: Path, *, speaker: str, frames: int = FRAMES) -> Path:
    """1280x720 H.264, 25 fps: one speaker (name of a GRID clip) whose picture drifts over a photograph."""
    clip, photograph = recording("videos", f"{speaker}.mpg"), recording("images", BACKGROUND)
    pictures = [_sized(image, FACE_WIDTH, FACE_HEIGHT) for image in _pictures(clip)]
    there_and_back = itertools.cycle(pictures + pictures[-2:0:-1])
    background = _sized(cv2.imread(str(photograph))[..., ::-1], WIDTH, HEIGHT)
    return _encode(path, itertools.islice(_drifting(background, there_and_back), frames))


def no_face(path: Path, *, frames: int) -> Path:
    """1280x720 H.264, 25 fps: clips without a face, one after the other, over and over."""
    files = itertools.cycle([recording("videos", name) for name in FACELESS])
    clips = itertools.chain.from_iterable(map(_pictures, files))
    return _encode(path, (_sized(image, WIDTH, HEIGHT) for image in itertools.islice(clips, frames)))


def lengthened(path: Path, source: Path, *, frames: int) -> Path:
    """The packets of ``source`` over and over, ``frames`` in all, with times that go on; nothing is encoded anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as target:
        stream, written = None, 0
        while written < frames:
            with av.open(str(source)) as container:
                picture = container.streams.video[0]
                stream = stream or target.add_stream_from_template(picture)
                step = round(1 / (FPS * picture.time_base))
                for packet in itertools.islice((p for p in container.demux(picture) if p.size), frames - written):
                    packet.pts = packet.dts = written * step  # no B-frames: decoded and shown in one order
                    packet.stream = stream
                    target.mux(packet)
                    written += 1
    return path


def _pictures(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _sized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _drifting(background: np.ndarray, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    room_x, room_y = (WIDTH - FACE_WIDTH) / 2, (HEIGHT - FACE_HEIGHT) / 2
    for row, picture in enumerate(pictures):
        angle = 2 * np.pi * row / DRIFT_PERIOD
        x, y = round(room_x * (1 + np.cos(angle))), round(room_y * (1 + np.sin(angle)))
        frame = background.copy()
        frame[y : y + FACE_HEIGHT, x : x + FACE_WIDTH] = picture
        yield frame


def _encode(path: Path, pictures: Iterable[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options=X264)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return path
