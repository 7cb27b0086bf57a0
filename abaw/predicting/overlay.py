"""The film: the video with boxes, what the models say, and a trace of valence and arousal; its sound is kept.

Frames are decoded, drawn on and encoded one by one: memory does not grow with the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from abaw.console import progress
from abaw.media.video import VideoFrame, VideoReader
from abaw.predicting.drawing import Drawing, Shown
from abaw.predicting.people import Person
from abaw.predicting.sound import Sound

TICKS = 90_000  # of a second: the times of the frames, as they are, whatever the rate
SETTINGS = {"preset": "veryfast", "crf": "23"}


def write_overlay(path: Path, video: Path, people: Sequence[Person]) -> None:
    """Write an mp4 file (H.264, yuv420p). Raises AbawError where the video cannot be read."""
    shown = [Shown.of(person) for person in people]
    shifts = people[0].faces.facts(people[0].track).get("clock_shifts_s", [])
    total = len(people[0].time)
    origin_s = float(people[0].time[0])
    with VideoReader(video) as reader, av.open(str(path), "w", format="mp4") as target:
        frames = progress(reader, desc=f"overlay {video.name}", total=total, unit="frame")
        first = next(frames)  # a video without a frame is refused by its reader
        film = _Film(target, shown, first, fps=reader.fps, origin_s=origin_s)
        with Sound(video, target, origin_s=origin_s, shifts_s=shifts) as sound:
            film.write(first, sound)
            for frame in frames:
                film.write(frame, sound)
            film.finish(sound)


class _Film:
    """The picture stream of the new file."""

    def __init__(
        self,
        target: av.container.OutputContainer,
        people: Sequence[Shown],
        first: VideoFrame,
        *,
        fps: float,
        origin_s: float,
    ) -> None:
        height, width = (120, 160) if first.image is None else first.image.shape[:2]
        self._target, self._origin_s = target, origin_s
        self._drawing = Drawing(people, width, height)
        self._side, self._scale = (width, height), (1.0, 1.0)
        self._image: Any = np.zeros((height, width, 3), np.uint8)
        self._last = -1
        stream: Any = target.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = self._drawing.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.options = SETTINGS
        self._stream = stream

    def write(self, frame: VideoFrame, sound: Sound) -> None:
        """Draw and encode one frame; a damaged one shows the picture before."""
        time_s = frame.time_s - self._origin_s
        if frame.image is not None:
            height, width = frame.image.shape[:2]
            self._scale = self._side[0] / width, self._side[1] / height
            self._image = frame.image if self._scale == (1, 1) else cv2.resize(frame.image, self._side)
        drawn = self._drawing.draw(self._image, frame.row, frame.time_s, scale=self._scale)
        picture = av.VideoFrame.from_ndarray(drawn, format="rgb24")
        self._last = max(self._last + 1, round(time_s * TICKS))
        picture.pts, picture.time_base = self._last, Fraction(1, TICKS)
        if sound.is_there:
            sound.write_until(time_s)
        self._target.mux(self._stream.encode(picture))

    def finish(self, sound: Sound) -> None:
        """Write what the encoder holds back, and the rest of the sound."""
        self._target.mux(self._stream.encode(None))
        if sound.is_there:
            sound.write_until(float("inf"))
