"""A recording on its way through `extract-audio`: its sound, and the rows of the tracks that hear it.

Shapes: ``T`` rows of a track, ``D`` feature dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from abaw import timeline
from abaw.data.manifest import Track
from abaw.encoders.audio import AudioEncoder, Piece
from abaw.media.audio import Waveform, read_waveform
from abaw.media.video import video_times
from abaw.stages.extract_audio.setup import Plan
from abaw.store import FeatureStore, Reason
from abaw.timeline import FrameSums


@dataclass(eq=False)
class Rows:
    """A track's rows: the sums that become its features, and why a row is none. Or what went wrong with it."""

    track: Track
    fps: float = 0.0
    reason: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    sums: FrameSums | None = None
    error: Exception | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays of the track file; raises what went wrong. Rows that are not valid are zeros."""
        if self.error is not None or self.sums is None:
            raise self.error or ValueError("a track without sums")
        valid = self.reason == Reason.VALID
        features = self.sums.features()
        features[~valid] = 0
        return {"features": features, "reason": self.reason, "valid": valid}


@dataclass(eq=False)
class Recording:
    """A sound and the tracks that hear it; ``waiting`` pieces have not been added to their sums yet.

    ``samples`` are dropped when the last piece is cut out of them.
    """

    tracks: list[Rows]
    pieces: Sequence[Piece] = ()
    statistics: tuple[float, float] = (0.0, 1.0)
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    waiting: int = 0
    decode_errors: int = 0

    def add(self, piece: Piece, tokens: np.ndarray) -> None:
        """Take in what the encoder made of a piece, ``[n, D]``."""
        kept = tokens[piece.first : piece.first + piece.count]
        with np.errstate(over="ignore"):  # the store names the row
            for sums in {id(rows.sums): rows.sums for rows in self.tracks if rows.sums is not None}.values():
                sums.add(piece.token, kept)
        self.waiting -= 1


def read_recording(group: list[Track], faces: FeatureStore, plan: Plan, encoder: AudioEncoder) -> Recording:
    """Decode the sound of some tracks that share it. What goes wrong is kept, to be raised where it is written."""
    try:
        shifts = faces.facts(group[0].track_id).get("clock_shifts_s", [])
        video = group[0].video
        waveform = read_waveform(video, encoder.sample_rate, shifts_s=shifts) if video else None
    except Exception as error:  # one bad file must not end the others of its unit
        return Recording([Rows(track, error=error) for track in group])
    samples = waveform.samples if waveform else np.zeros(0, np.float32)
    shared: dict[bytes, Rows] = {}  # two people of one video hear the same: summed once
    tracks = [_rows(track, waveform, faces, plan, encoder, shared) for track in group]
    pieces = encoder.pieces(len(samples))
    errors = waveform.errors if waveform else 0
    return Recording(tracks, pieces, encoder.statistics(samples), samples, len(pieces), errors)


def _rows(
    track: Track,
    waveform: Waveform | None,
    faces: FeatureStore,
    plan: Plan,
    encoder: AudioEncoder,
    shared: dict[bytes, Rows],
) -> Rows:
    try:
        fps, times = faces.fps(track.track_id), faces.read(track.track_id, "time")
        if plan.nominal and track.video is not None:
            times = video_times(track.video, times, nominal_fps=fps)
        known = shared.get(times.tobytes())
        if known is None:
            num_tokens = encoder.num_tokens(len(waveform.samples)) if waveform else 0
            known = shared[times.tobytes()] = Rows(
                track,
                reason=row_reasons(
                    waveform, times, window_s=encoder.window_s, silence_db=plan.silence_db, num_tokens=num_tokens
                ),
                sums=FrameSums(
                    times,
                    num_tokens=num_tokens,
                    dim=encoder.dim,
                    offset_s=(waveform.start_s if waveform else 0.0) + encoder.offset_s,
                    hop_s=encoder.hop_s,
                    dtype=np.float16,
                ),
            )
    except Exception as error:
        return Rows(track, error=error)
    return Rows(track, fps, known.reason, known.sums)


def row_reasons(
    waveform: Waveform | None, times: np.ndarray, *, window_s: float, silence_db: float, num_tokens: int
) -> np.ndarray:
    """Why each row holds no sound, uint8 ``[T]``; 0 where it does.

    ``window_s``: what a token sees; ``num_tokens``: of the sound, which may be too short to have one.
    """
    if waveform is None:
        return np.full(len(times), Reason.NO_SOUND, dtype=np.uint8)
    reason = np.full(len(times), Reason.VALID if num_tokens else Reason.NO_VALUE, dtype=np.uint8)
    reason[frame_levels(waveform, times, window_s=window_s) < silence_db] = Reason.SILENT
    reason[timeline.frames_outside(times, start_s=waveform.start_s, stop_s=waveform.stop_s)] = Reason.BEYOND_SOUND
    return reason


def frame_levels(waveform: Waveform, times: np.ndarray, *, window_s: float) -> np.ndarray:
    """Level of every frame in dB of full scale (RMS), float64 [T]; -inf for digital silence.

    A frame's level is that of all samples its tokens see: the frame widened by half a window on both sides.
    """
    edges = timeline.frame_edges(times) - waveform.start_s
    last = len(waveform.samples)
    low = np.clip(np.round((edges[:-1] - window_s / 2) * waveform.sample_rate), 0, last).astype(np.int64)
    high = np.clip(np.round((edges[1:] + window_s / 2) * waveform.sample_rate), 0, last).astype(np.int64)
    parts = (waveform.samples[start:stop] for start, stop in zip(low.tolist(), high.tolist(), strict=True))
    power = np.array([float(np.dot(part, part)) / max(len(part), 1) for part in parts])
    with np.errstate(divide="ignore"):
        return 10 * np.log10(power)
