"""Feature stores joined on the frame clock and cut into windows; `stitch` puts windows together again.

Owns window starts, the join of streams and the gap policy at read time. Numpy only; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.errors import AbawError
from abaw.gaps import fill
from abaw.provenance import check_recipe, combine_trained_on
from abaw.store import FeatureStore

MIN_STD = 1e-4  # below it a column counts as constant and is only centred


@dataclass(frozen=True)
class Stream:
    """One feature store as an input of the fusion."""

    name: str
    kind: str
    store: FeatureStore

    @property
    def dim(self) -> int:
        """Columns of its features."""
        return int(self.store.header.arrays["features"].shape[0])


@dataclass(frozen=True)
class Window:
    """Half-open rows [start, stop) of a track."""

    track_id: str
    start: int
    stop: int


class FeatureStreams:
    """Visual and audio stores, read together row by row."""

    def __init__(self, visual: Sequence[Path], audio: Sequence[Path], *, gap: str) -> None:
        stores = [(path, "visual") for path in visual] + [(path, "audio") for path in audio]
        self.streams = [Stream(path.name, kind, FeatureStore.open(path, kind=kind)) for path, kind in stores]
        self.gap = gap
        self._valid: dict[str, np.ndarray] = {}

    @property
    def dims(self) -> list[int]:
        """Columns of each stream."""
        return [stream.dim for stream in self.streams]

    def check(self, track_ids: Sequence[str], *, accept_recipe_mismatch: bool = False) -> list[str]:
        """Make sure that every stream has every track with the same rows, made from faces aligned the same way.

        Returns warnings to record. Raises AbawError naming what is missing or differs.
        """
        for stream in self.streams:
            missing = [track_id for track_id in track_ids if track_id not in stream.store]
            if missing:
                imported = stream.store.header.settings.get("encoder") == "imported"
                command = "import" if imported else f"extract-{stream.kind}"
                raise AbawError(
                    f"{stream.name} lacks {len(missing)} of {len(track_ids)} tracks: {', '.join(missing[:5])}",
                    where=str(stream.store.path),
                    fix=f"run `abaw {command}` again"
                    + (" with a source that has them" if imported else ": it adds what is missing"),
                )
        for track_id in track_ids:
            counts = {stream.name: stream.store.num_rows(track_id) for stream in self.streams}
            if len(set(counts.values())) > 1:
                shown = ", ".join(f"{count} rows in {name}" for name, count in counts.items())
                raise AbawError(
                    f"track {track_id} has {shown}",
                    where="fuse.visual, fuse.audio",
                    fix="extract it again in all of them from one faces store (delete the track's files first)",
                )
        first = self.streams[0]
        return [
            warning
            for stream in self.streams[1:]
            for warning in check_recipe(
                stream.store.header.recipe,
                first.store.header.recipe,
                what=f"{stream.name} (beside {first.name})",
                where="fuse.visual, fuse.audio",
                accept=accept_recipe_mismatch,
            )
        ]

    def trained_on(self) -> list[dict[str, object]]:
        """Labels behind any of the encoders."""
        return combine_trained_on(stream.store.header.trained_on for stream in self.streams)

    def describe(self) -> list[dict[str, str]]:
        """Name, kind and fingerprint of each stream, in column order."""
        return [{"name": s.name, "kind": s.kind, "fingerprint": s.store.fingerprint} for s in self.streams]

    def num_rows(self, track_id: str) -> int:
        """T of a track."""
        return self.streams[0].store.num_rows(track_id)

    def valid(self, track_id: str) -> np.ndarray:
        """bool [T, streams]: rows with data of their own, before any gap is filled."""
        if track_id not in self._valid:
            self._valid[track_id] = np.stack([stream.store.valid(track_id) for stream in self.streams], axis=1)
        return self._valid[track_id]

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 [N, D] of a window's rows, all streams side by side, and bool [N, streams]: filled or own.

        Gaps are filled by the policy from the rows around them, also from outside the window; rows of a stream that
        has no data in the whole track are zeros and False.
        """
        blocks, present = [], []
        for index, stream in enumerate(self.streams):
            block, known = self._read_stream(stream, self.valid(window.track_id)[:, index], window)
            blocks.append(block)
            present.append(known)
        return np.concatenate(blocks, axis=1), np.stack(present, axis=1)

    def _read_stream(self, stream: Stream, valid: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
        own = valid[window.start : window.stop]
        if own.all() or self.gap == "mask" or not valid.any():
            rows = slice(window.start, window.stop)
            return stream.store.read(window.track_id, "features", rows).astype(np.float32), own
        # The nearest data on either side may lie outside the window.
        known = np.flatnonzero(valid)
        first = int(known[max(0, int(np.searchsorted(known, window.start, side="right")) - 1)])
        last = int(known[min(len(known) - 1, int(np.searchsorted(known, window.stop - 1)))])
        start, stop = min(first, window.start), max(last + 1, window.stop)
        block = stream.store.read(window.track_id, "features", slice(start, stop)).astype(np.float32)
        filled = fill(block, valid[start:stop], self.gap)
        return filled[window.start - start : window.stop - start], np.ones(len(own), bool)

    def statistics(self, track_ids: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation float32 [D] of each column over rows with data of their own."""
        sums = [np.zeros((3, stream.dim)) for stream in self.streams]
        for track_id in track_ids:
            for index, stream in enumerate(self.streams):
                rows = stream.store.read(track_id, "features")[self.valid(track_id)[:, index]].astype(np.float64)
                sums[index] += np.stack([np.full(stream.dim, len(rows)), rows.sum(0), (rows**2).sum(0)])
        count, total, squares = np.concatenate(sums, axis=1)
        mean = total / np.maximum(count, 1)
        std = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
        return mean.astype(np.float32), np.where(std < MIN_STD, 1.0, std).astype(np.float32)


def window_starts(num_rows: int, window: int, stride: int) -> list[int]:
    """First rows of windows that cover every row: every ``stride`` rows, the last one moved back to end with the track.

    A track shorter than a window has one, at 0.
    """
    last = max(0, num_rows - window)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def cut(track_id: str, num_rows: int, *, window: int, stride: int) -> list[Window]:
    """Windows over a track; none when it has no rows."""
    if num_rows == 0:
        return []
    starts = window_starts(num_rows, window, stride)
    return [Window(track_id, start, min(start + window, num_rows)) for start in starts]


def stitch(num_rows: int, windows: Sequence[Window], scores: Sequence[np.ndarray]) -> np.ndarray:
    """The inverse of `cut`: scores [N, L] per window -> [num_rows, L], averaged where windows overlap.

    Raises ValueError when a row is covered by no window.
    """
    total = np.zeros((num_rows, scores[0].shape[1]))
    count = np.zeros(num_rows)
    for window, block in zip(windows, scores, strict=True):
        total[window.start : window.stop] += block
        count[window.start : window.stop] += 1
    if not count.all():
        msg = f"row {int(np.flatnonzero(count == 0)[0])} lies in no window"
        raise ValueError(msg)
    return (total / count[:, None]).astype(np.float32)
