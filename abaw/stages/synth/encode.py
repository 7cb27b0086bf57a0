"""Frames and sound -> one mp4 file (H.264, AAC), the same bytes for the same input on one machine.

Knows nothing of what the frames show.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from abaw.stages.synth.voice import SAMPLE_RATE


def write_mp4(
    path: Path, frames: Iterable[np.ndarray], *, size: tuple[int, int], fps: Fraction, sound: np.ndarray | None
) -> None:
    """Encode RGB ``frames`` uint8 [H, W, 3] and ``sound`` float32 [samples] (None = no sound stream)."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        # x264's output depends on its number of threads, by default that of the cores. The slower presets' macroblock
        # tree (off in this one) gave other bytes on every run where there are B-frames.
        video.options = {"preset": "superfast", "crf": "23", "threads": "1", "x264-params": "mbtree=0"}
        video.codec_context.thread_count = 1
        audio = None if sound is None else _sound_stream(container)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = index
            picture.time_base = 1 / fps
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            for block in _sound_blocks(sound):
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))


def _sound_stream(container):  # type: ignore[no-untyped-def]
    stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
    stream.bit_rate = 64000
    return stream


def _sound_blocks(sound: np.ndarray):  # type: ignore[no-untyped-def]
    import av

    for start in range(0, len(sound), 1024):
        block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
        block.sample_rate = SAMPLE_RATE
        block.pts = start
        block.time_base = Fraction(1, SAMPLE_RATE)
        yield block
