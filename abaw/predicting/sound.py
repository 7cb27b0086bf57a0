"""The sound of a video on its way into another file: packets as they are where the new file can hold them, else AAC.

Works in step with the pictures, so that memory does not grow with the length. Knows nothing of pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from abaw.media.audio import GAP_S
from abaw.media.container import is_restart, open_container

logger = logging.getLogger(__name__)

KEPT = ("aac",)  # what every player of mp4 plays
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # of AAC, Hz
USUAL_RATE = 48000
BIT_RATE = 128_000
SILENCE = 4096  # samples of a hole that are written at once


class Sound:
    """The first sound track of a file; ``is_there`` says whether there is one. A context manager.

    ``origin_s`` of the container's clock becomes 0; ``shifts_s`` is what the picture's times were shifted by after
    each restart of that clock (`VideoReader.shifts_s`).
    """

    def __init__(
        self,
        source: Path,
        target: av.container.OutputContainer,
        *,
        origin_s: float,
        shifts_s: Sequence[float] = (),
    ) -> None:
        self._source = open_container(source, kind="video")
        self._target, self._origin_s, self._shifts = target, origin_s, list(shifts_s)
        self._name = source.name
        streams: Any = self._source.streams.audio
        self.is_there = bool(streams)
        self._written_s = -float("inf")
        self._packets: Iterator[av.Packet] = iter(())
        if not self.is_there:
            return
        self._stream: Any = streams[0]
        self._stream.codec_context.thread_count = 1
        is_kept = self._stream.codec_context.name in KEPT and not self._shifts
        self._out: Any = target.add_stream_from_template(self._stream) if is_kept else self._encoder()
        self._packets = self._copied() if is_kept else self._encoded()

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: object, trace: TracebackType | None) -> None:
        self._source.close()

    def write_until(self, time_s: float) -> None:
        """Write what is heard up to this time of the new file; what is damaged ends the sound with a warning."""
        while self._written_s < time_s:
            try:
                packet = next(self._packets, None)
            except (av.error.FFmpegError, OSError) as error:
                logger.warning("the sound of %s breaks off in the overlay: %s", self._name, error)
                packet = None
            if packet is None:
                self._written_s = float("inf")
                return
            if packet.pts is not None and packet.time_base is not None:
                self._written_s = float(packet.pts * packet.time_base)
            self._target.mux(packet)

    # -- as it is ----------------------------------------------------------------------------------------------------
    def _copied(self) -> Iterator[av.Packet]:
        last: int | None = None
        for packet in self._source.demux(self._stream):
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue
            shift = round(self._origin_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.pts + (packet.duration or 0) < 0 or (last is not None and packet.dts <= last):
                continue  # before the first picture, or a second time
            last = packet.dts
            packet.stream = self._out
            yield packet

    # -- anew --------------------------------------------------------------------------------------------------------
    def _encoder(self) -> Any:
        context = self._stream.codec_context
        rate = context.sample_rate if context.sample_rate in RATES else USUAL_RATE
        stream: Any = self._target.add_stream("aac", rate=rate)
        stream.layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        stream.bit_rate = BIT_RATE
        return stream

    def _encoded(self) -> Iterator[av.Packet]:
        """Samples count the time; a hole in the stamps is filled with silence, what overlaps is left out."""
        rate, layout = self._out.rate, self._out.layout.name
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        count: int | None = None
        for time_s, frame in self._decoded():
            wanted = count or 0 if time_s is None else round((time_s - self._origin_s) * rate)
            if wanted + frame.samples * rate // frame.sample_rate <= 0:
                continue  # heard before the first picture
            count = wanted if count is None else count
            if wanted - count < -GAP_S * rate:
                continue
            hole = wanted - count if wanted - count > GAP_S * rate else 0
            for start in range(0, hole, SILENCE):
                silence = self._silence(min(SILENCE, hole - start), layout)
                yield from self._out.encode(_at(silence, count, rate))
                count += silence.samples
            frame.pts = None
            for block in resampler.resample(frame):
                yield from self._out.encode(_at(block, count, rate))
                count += block.samples
        yield from self._out.encode(None)

    def _decoded(self) -> Iterator[tuple[float | None, av.AudioFrame]]:
        before, restarts = None, 0
        for packet in self._source.demux(self._stream):
            try:
                frames: Any = packet.decode()
            except EOFError:
                return
            except av.error.InvalidDataError:  # one bad packet: silence takes its place
                continue
            for frame in frames:
                time_s = frame.time
                restarts += restarts < len(self._shifts) and is_restart(time_s, before)
                before = before if time_s is None else time_s
                shift = self._shifts[restarts - 1] if restarts else 0.0
                yield None if time_s is None else time_s + shift, frame

    def _silence(self, samples: int, layout: str) -> av.AudioFrame:
        frame = av.AudioFrame(format="fltp", layout=layout, samples=samples)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = self._out.rate
        return frame


def _at(frame: av.AudioFrame, sample: int, rate: int) -> av.AudioFrame:
    frame.pts, frame.time_base = sample, Fraction(1, rate)
    return frame
