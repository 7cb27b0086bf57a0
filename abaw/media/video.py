"""Frames of a video file with the container's clock, by PyAV.

Owns decoding, presentation times and the container's rotation. Knows nothing of faces, tracks or stores.
A row is a frame that the decoder delivers, in presentation order; frame counts in headers are never trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from abaw.errors import AbawError
from abaw.media.container import Damage, is_restart, open_container

FALLBACK_FPS = 25.0
# A frame whose time is not after the previous one's is put this share of a nominal frame after it.
TIE_STEP = 0.1
# A rate that was rounded to a whole number differs by less than this share.
ROUNDING = 0.02


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One decoded frame: ``time_s`` on the container's clock, ``image`` RGB uint8 ``[H, W, 3]``.

    ``image`` is None where the frame came damaged out of the decoder or could not be converted.
    """

    row: int
    time_s: float
    image: np.ndarray | None


class VideoReader:
    """One pass over the frames of a file; ``errors``, ``first_error`` and ``sound`` are complete after the last frame.

    ``first_error_row`` is the number of rows before the decoder's first complaint.

    Times are the presentation times of the container (start offset kept, the same clock as the sound), made
    strictly increasing: a missing time is the previous one plus ``1 / fps``, one that does not increase is the
    previous one plus a tenth of that. Where the clock starts anew it goes on instead: ``shifts_s`` is what was added to
    the stamps after each such place. Packets that do not decode give no row and are counted, as in a plain
    decode. Raises AbawError where the file cannot be opened, has no picture, or yields no frame, and where its disk
    fails on the way.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.path = Path(path)
        self.num_rows = 0
        self._damage = Damage(self.path)
        self._container = open_container(self.path, kind="video")
        self.num_bytes = self.path.stat().st_size
        self._converter = VideoReformatter()  # one for all frames; of its own a frame sets up threads for itself
        self._upright: Upright | None = None
        self._stream = _picture_stream(self._container, self.path)
        self._sound_stream = next(iter(self._container.streams.audio), None)
        self.first_error_row: int | None = None
        self.shifts_s: list[float] = []
        self._stamp_s: float | None = None  # of the frame before, as it came
        self._sounds: list[tuple[float, float]] = []  # start and end between two restarts, as they came
        self._stream.codec_context.thread_count = threads
        if threads == 1:
            self._stream.thread_type = "NONE"
        self.header_frames = self._stream.frames
        duration = self._container.duration
        self.header_duration_s = None if duration is None or duration <= 0 else duration / av.time_base
        self.fps = _nominal_fps(self._stream)
        start, base = self._stream.start_time, self._stream.time_base
        self.start_s = float(start * base) if start is not None and base is not None else 0.0

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: object, trace: TracebackType | None) -> None:
        self.close()

    @property
    def errors(self) -> int:
        """How often the decoder complained."""
        return self._damage.errors

    @property
    def first_error(self) -> str:
        """Its first complaint."""
        return self._damage.first_error

    @property
    def sound(self) -> tuple[float, float] | None:
        """Start and end of the sound on the same clock, by its packets; None where there is none."""
        shifts = [0.0, *self.shifts_s]
        spans = [(start + shift, end + shift) for (start, end), shift in zip(self._sounds, shifts, strict=False)]
        return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        previous = None
        for frame in self._decode():
            previous = self._time_after(previous, frame.time)
            yield VideoFrame(self.num_rows, previous, self._image(frame))
            self.num_rows += 1
        if self.num_rows == 0:
            reason = f" ({self.first_error})" if self.first_error else ""
            what = f"video {self.path.name} has no decodable frame{reason}"
            raise AbawError(what, where=str(self.path), fix="replace or remove the file")

    def _decode(self) -> Iterator[av.VideoFrame]:
        streams = [stream for stream in (self._stream, self._sound_stream) if stream is not None]
        packets = self._container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                return
            except (av.error.FFmpegError, OSError) as err:  # the container breaks off
                self._note(err)
                yield from self._flush()
                return
            if packet.stream is not self._stream:
                self._hear(packet)
                continue
            try:
                yield from self._stream.decode(packet)
            except EOFError:
                return
            except av.error.FFmpegError as err:
                self._note(err)

    def _note(self, err: object) -> None:
        self._damage.note(err)
        if self.first_error_row is None:
            self.first_error_row = self.num_rows

    def _hear(self, packet: av.Packet) -> None:
        """Note the span of a packet of sound; it is not decoded."""
        if packet.pts is None or packet.time_base is None:
            return
        start = float(packet.pts * packet.time_base)
        end = start + float((packet.duration or 0) * packet.time_base)
        if not self._sounds or is_restart(start, self._sounds[-1][1]):
            self._sounds.append((start, end))
        first, last = self._sounds[-1]
        self._sounds[-1] = min(first, start), max(last, end)

    def _flush(self) -> Iterator[av.VideoFrame]:
        """Frames that the decoder still holds back."""
        try:
            yield from self._stream.codec_context.decode(None)
        except (av.error.FFmpegError, EOFError) as err:
            self._note(err)

    def _time_after(self, previous: float | None, time: float | None) -> float:
        if previous is None:
            self._stamp_s = None if time is None else float(time)
            return 0.0 if time is None else float(time)
        if time is None:
            return previous + 1 / self.fps
        if is_restart(time, self._stamp_s):
            self.shifts_s.append(previous + 1 / self.fps - float(time))
        self._stamp_s = float(time)
        time = float(time) + (self.shifts_s[-1] if self.shifts_s else 0.0)
        return time if time > previous else previous + TIE_STEP / self.fps

    def _image(self, frame: av.VideoFrame) -> np.ndarray | None:
        if frame.is_corrupt:
            self._note("the decoder marks a frame as corrupt")
            return None
        try:
            image = self._converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        except (av.error.FFmpegError, ValueError) as err:
            self._note(err)
            return None
        if self._upright is None:
            # Once: a frame whose side data was looked at is kept until Python looks for cycles, and frames pile up.
            self._upright = _upright_of(frame)
        return self._upright.turn(image)


def video_times(path: Path, nominal_s: np.ndarray, *, nominal_fps: float) -> np.ndarray:
    """Times counted in frames of a rounded rate put on the container's clock, by its header alone; [T] seconds.

    A file's name says 24 where the video runs at 23.976: after ten minutes that is 0.6 s. Where the rates differ by
    more than ``ROUNDING`` the rows are not this video's frames one by one, and the times stay.
    """
    with VideoReader(path) as reader:
        if abs(reader.fps / nominal_fps - 1) > ROUNDING:
            return nominal_s
        return reader.start_s + nominal_s * (nominal_fps / reader.fps)


def read_frames(path: Path, *, threads: int = 1) -> Iterator[VideoFrame]:
    """All frames of a file in order of presentation; see `VideoReader`."""
    with VideoReader(path, threads=threads) as reader:
        yield from reader


def _picture_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        container.close()
        what = f"{path.name} has no picture (it holds: {kinds})"
        raise AbawError(what, where=str(path), fix="give a video file, or remove this one from the videos folder")
    return streams[0]


def _nominal_fps(stream: av.VideoStream) -> float:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0.1 <= float(rate) <= 1000:
            return float(rate)
    return FALLBACK_FPS


class Upright(NamedTuple):
    """How to show a picture as the container asks to: ``swap`` x and y first, then mirror along them."""

    swap: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def turn(self, image: np.ndarray) -> np.ndarray:
        """The picture, upright."""
        if not any(self):
            return image
        image = image.transpose(1, 0, 2) if self.swap else image
        return np.ascontiguousarray(image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


def _upright_of(frame: av.VideoFrame) -> Upright:
    """From the display matrix: quarter turns and mirrors."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return Upright()
    # Nine int32: (a b u, c d v, x y w), 16.16 fixed point; a point (x, y) goes to (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()  # type: ignore[call-overload]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Upright(True, flip_x=c < 0, flip_y=b < 0)
    return Upright(False, flip_x=a < 0, flip_y=d < 0)
