"""The sound track of a media file as one mono waveform on the container's clock, by PyAV and soundfile.

Knows nothing of encoders, frames or stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from abaw.errors import AbawError
from abaw.media.container import Damage, is_restart, open_container, refuse_disk_error

# Files that libsndfile reads; everything else goes through PyAV.
SOUND_FILES = frozenset({".wav", ".flac", ".mp3"})
# A hole in the sound's time stamps longer than this is filled with silence, so that later sound keeps its time.
GAP_S = 0.1
BLOCK_SAMPLES = 4096  # of a sound file at once; what is lost where its decoder gives up
MANY_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class Waveform:
    """``samples`` float32 mono ``[S]``, nominally in [-1, 1]; sample 0 is heard at ``start_s`` of the container.

    ``errors`` counts the decoder's complaints; ``first_error`` is the first of them.
    """

    samples: np.ndarray
    sample_rate: int
    start_s: float
    errors: int = 0
    first_error: str = ""

    @property
    def stop_s(self) -> float:
        """End of the sound in seconds of the container's clock."""
        return self.start_s + len(self.samples) / self.sample_rate


def read_waveform(path: Path, sample_rate: int, *, shifts_s: Sequence[float] = ()) -> Waveform | None:
    """Decode the first sound track, mix it to mono (mean of channels) and resample it once to ``sample_rate``.

    Returns None where the file has no sound track or one without a sample. Decoding streams block by block;
    what stays in memory is the result. Where a file breaks off or is damaged, what decodes is kept and the errors are
    counted. ``shifts_s``: what is to be added to the stamps after each restart of the container's clock, as the picture
    has it (`VideoReader.shifts_s`). Raises AbawError where the file cannot be opened, nothing of its sound decodes, or
    its disk fails.
    """
    path = Path(path)
    damage = Damage(path)
    blocks = (_sound_file_blocks if path.suffix.lower() in SOUND_FILES else _container_blocks)(path, damage)
    start_s = None
    heard = bytearray()  # grows in place: joining a list of blocks would hold everything twice
    resampler = _Resampler(sample_rate)
    for time_s, restarted, rate, block in _continued(blocks, shifts_s):
        if start_s is None:
            start_s = 0.0 if time_s is None else time_s
            resampler.begin(rate)
        elif restarted or rate != resampler.rate or _hole(time_s, start_s, resampler):
            heard += resampler.flush()
            missing = 0 if time_s is None else round((time_s - start_s) * sample_rate) - len(heard) // 4
            heard += bytes(4 * max(missing, 0))
            if restarted and missing < 0:  # the sound of the recording before outlasts its picture
                del heard[max(0, len(heard) + 4 * missing) :]
            resampler.begin(rate, at_s=len(heard) / 4 / sample_rate)
        heard += resampler.push(_finite(block, damage))
    if start_s is not None:
        heard += resampler.flush()
    if not heard and damage.errors:
        what = f"the sound of {path.name} does not decode ({damage.first_error})"
        fix = "replace the file by a whole copy, or take its sound track out: ffmpeg -i OLD -c copy -an NEW"
        raise AbawError(what, where=str(path), fix=fix)
    if start_s is None or not heard:
        return None
    samples = np.frombuffer(heard, dtype=np.float32)
    return Waveform(samples, sample_rate, start_s, damage.errors, damage.first_error)


def _continued(
    blocks: Iterable[tuple[float | None, int, np.ndarray]], shifts_s: Sequence[float]
) -> Iterator[tuple[float | None, bool, int, np.ndarray]]:
    """Time on the continued clock, whether it starts anew here, rate, and samples of each block.

    Restarts beyond those of the picture are left alone: their sound follows what was there.
    """
    before, restarts = None, 0
    for time_s, rate, block in blocks:
        restarted = restarts < len(shifts_s) and is_restart(time_s, before)
        restarts += restarted
        before = before if time_s is None else time_s
        shift = shifts_s[restarts - 1] if restarts else 0.0
        yield None if time_s is None else time_s + shift, restarted, rate, block


def _finite(block: np.ndarray, damage: Damage) -> np.ndarray:
    """The block with zeros for what is no number, which sound in floats may hold."""
    finite = np.isfinite(block)
    if finite.all():
        return block
    damage.note("samples that are no numbers")
    return np.where(finite, block, np.float32(0))


def _hole(time_s: float | None, start_s: float, resampler: _Resampler) -> bool:
    return time_s is not None and time_s - start_s - resampler.pushed_s > GAP_S


class _Resampler:
    """Mono float32 blocks at any rate in, bytes of float32 samples at one rate out."""

    def __init__(self, sample_rate: int) -> None:
        self.rate = 0
        self._out_rate = sample_rate

    def begin(self, rate: int, *, at_s: float = 0.0) -> None:
        self.rate = rate
        self._origin_s = at_s
        self._pushed = 0
        self._inner = av.AudioResampler(format="flt", layout="mono", rate=self._out_rate)

    @property
    def pushed_s(self) -> float:
        """Seconds since the sound's start up to the end of what was pushed."""
        return self._origin_s + self._pushed / self.rate

    def push(self, block: np.ndarray) -> bytes:
        self._pushed += len(block)
        if self.rate == self._out_rate:
            return block.astype(np.float32).tobytes()
        frame = av.AudioFrame.from_ndarray(block.astype(np.float32)[None], format="flt", layout="mono")
        frame.sample_rate = self.rate
        return self._take(frame)

    def flush(self) -> bytes:
        if self.rate == self._out_rate or self._pushed == 0:
            return b""
        return self._take(None)

    def _take(self, frame: av.AudioFrame | None) -> bytes:
        return b"".join(out.to_ndarray().astype(np.float32).tobytes() for out in self._inner.resample(frame))


def _container_blocks(path: Path, damage: Damage) -> Iterator[tuple[float | None, int, np.ndarray]]:
    """Decoded blocks of a container's first sound track: time in seconds, rate, mono float32 samples."""
    with open_container(path, kind="media file") as container:
        if not container.streams.audio:
            return
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        packets, interleave = container.demux(stream), _Interleaver()
        while True:
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                return
            except (av.error.FFmpegError, OSError) as err:  # the container breaks off
                damage.note(err)
                return
            try:
                frames = packet.decode()
            except EOFError:
                return
            except (av.error.FFmpegError, OSError) as err:  # the hole is filled by the next packet's time
                damage.note(err)
                continue
            for frame in frames:
                yield frame.time, frame.sample_rate, _mono(interleave(frame))


class _Interleaver:
    """The same samples with the channels of an instant side by side, for frames of many channels.

    PyAV (18.1) looks for planes beyond the eighth in frames that keep eight channels apart, and crashes.
    """

    def __init__(self) -> None:
        self._converters: dict[tuple[str, str, int], av.AudioResampler] = {}

    def __call__(self, frame: av.AudioFrame) -> av.AudioFrame:
        if not frame.format.is_planar or frame.layout.nb_channels < MANY_CHANNELS:
            return frame
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind not in self._converters:
            self._converters[kind] = av.AudioResampler(format=frame.format.packed.name)
        (converted,) = self._converters[kind].resample(frame)
        return converted


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """Mean of the channels, float32 in [-1, 1], from any sample format."""
    samples = frame.to_ndarray()  # [channels, S] planar, [1, S * channels] packed
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        return samples.mean(axis=0, dtype=np.float32)
    middle, full = (128.0, 128.0) if samples.dtype == np.uint8 else (0.0, float(2 ** (8 * samples.itemsize - 1)))
    return ((samples.mean(axis=0, dtype=np.float64) - middle) / full).astype(np.float32)


def _sound_file_blocks(path: Path, damage: Damage) -> Iterator[tuple[float | None, int, np.ndarray]]:
    import soundfile

    try:
        path.open("rb").close()  # libsndfile does not say why it cannot open a file
        file = soundfile.SoundFile(str(path))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as err:
        what = f"cannot read sound file {path.name}: {err.strerror}"
        raise AbawError(what, where=str(path), fix="check the path and its permissions") from err
    except (soundfile.LibsndfileError, OSError) as err:
        refuse_disk_error(err, path)
        what = f"{path.name} is not a readable sound file ({err})"
        raise AbawError(what, where=str(path), fix="replace the file by a whole copy, or remove it") from err
    with file:
        while True:
            try:
                block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, OSError) as err:  # the sound breaks off
                damage.note(err)
                return
            if not len(block):
                return
            yield None, file.samplerate, block.mean(axis=1, dtype=np.float32)
