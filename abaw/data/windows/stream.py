"""One feature store as an input of the fusion: rows of a window with its gaps filled, and its columns' statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from abaw.data.windows.cutting import Window
from abaw.errors import AbawError
from abaw.gaps import blend
from abaw.store import FeatureStore

MIN_STD = 1e-4  # below it a column counts as constant and is only centred
BLOCK_ROWS = 256  # read at once, but for windows
# float16 bits of infinity; those of NaN are larger. Read as integers with and without sign, positive and negative
# values that are not finite are the largest: a hundred times cheaper than np.isfinite.
INFINITY, NEGATIVE_INFINITY = 0x7C00, 0xFC00


@dataclass
class Stream:
    """A store, how its gaps are filled (`gaps`), and whether tracks stay in memory once they are read."""

    name: str
    kind: str
    store: FeatureStore
    gap: str
    in_memory: bool = False
    _tracks: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def dim(self) -> int:
        """Columns of its features."""
        return int(self.store.header.arrays["features"].shape[0])

    def read_into(self, window: Window, valid: np.ndarray, features: np.ndarray, present: np.ndarray) -> None:
        """Fill ``features`` float16 [N, dim] of a window's rows and ``present`` bool [N]: filled or own.

        ``valid``: bool [T] of the track. Gaps take their values from the rows around them, also from outside the
        window; rows of a track without any data are zeros and False. Raises AbawError for NaN or infinity, naming
        store, track and row.
        """
        own = valid[window.start : window.stop]
        features[:] = self._rows(window.track_id, window.start, window.stop)
        present[:] = own
        if self.gap != "mask" and not own.all() and valid.any():
            self._fill(window, valid, np.flatnonzero(~own), features)
            present[:] = True

    def _fill(self, window: Window, valid: np.ndarray, missing: np.ndarray, features: np.ndarray) -> None:
        """Fill the ``missing`` rows of the window, which are counted from its start."""
        before, after, share = blend(valid, self.gap, window.start + missing)
        left = self._known(window, before, features)
        if share.any():
            weight = share[:, None]
            features[missing] = left * (1 - weight) + self._known(window, after, features) * weight
        else:
            features[missing] = left

    def _known(self, window: Window, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Values [N, dim] of rows with data: those of the window, and the nearest outside, one on either side."""
        inside = (window.start <= rows) & (rows < window.stop)
        values = features[np.where(inside, rows - window.start, 0)]
        for row in np.unique(rows[~inside]).tolist():
            values[rows == row] = self._rows(window.track_id, row, row + 1)
        return values

    def statistics(self, tracks: Iterable[tuple[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation float32 [dim] over rows with data; ``tracks``: name and bool [T] of each.

        A block at a time, each around its own mean, since a sum of squares would lose a small deviation beside a large
        mean. Raises AbawError when no row has data.
        """
        count, mean, squares = 0, np.zeros(self.dim), np.zeros(self.dim)
        for block in self._blocks(tracks):
            centred = block.astype(np.float32)
            shift = centred.mean(0)
            centred -= shift
            total = centred.sum(0).astype(np.float64)
            own_squares = np.einsum("ij,ij->j", centred, centred) - total**2 / len(block)
            apart = shift + total / len(block) - mean
            # two groups' squares around their common mean (Chan, Golub and LeVeque 1983)
            squares += own_squares + apart**2 * (count * len(block) / (count + len(block)))
            count += len(block)
            mean += apart * (len(block) / count)
        if count == 0:
            raise AbawError(
                f"{self.name} has no row with data in any training track",
                where=str(self.store.path),
                fix=f"`abaw inspect {self.store.path}` says why its rows lack data; if there are other stores, "
                f"leave this one out of fuse.{self.kind}",
            )
        std = np.sqrt(np.maximum(squares / count, 0))
        return mean.astype(np.float32), np.where(std < MIN_STD, 1.0, std).astype(np.float32)

    def require_finite(self, track_id: str, num_rows: int) -> None:
        """Read a track's rows, a bounded number at a time; raises AbawError for NaN or infinity, as reading does."""
        for start in range(0, num_rows, BLOCK_ROWS):
            self._rows(track_id, start, min(start + BLOCK_ROWS, num_rows))

    def close(self) -> None:
        """Close the files held open and forget the tracks in memory."""
        self._tracks.clear()
        self.store.close()

    def _blocks(self, tracks: Iterable[tuple[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Rows with data, a bounded number at a time; never empty."""
        for track_id, valid in tracks:
            for start in range(0, len(valid), BLOCK_ROWS):
                own = valid[start : start + BLOCK_ROWS]
                if own.any():
                    block = self._rows(track_id, start, start + len(own))
                    yield block if own.all() else block[own]

    def _rows(self, track_id: str, start: int, stop: int) -> np.ndarray:
        if not self.in_memory:
            return self._finite(self.store.read(track_id, "features", slice(start, stop)), track_id, start)
        if track_id not in self._tracks:
            self._tracks[track_id] = self._finite(self.store.read(track_id, "features"), track_id, 0)
        return self._tracks[track_id][start:stop]

    def _finite(self, block: np.ndarray, track_id: str, start: int) -> np.ndarray:
        """The block as float16; AbawError when it holds a value that is no number."""
        block = block.astype(np.float16, copy=False)
        if not block.size:
            return block
        if block.view(np.int16).max() < INFINITY and block.view(np.uint16).max() < NEGATIVE_INFINITY:
            return block
        row = start + int(np.argwhere(~np.isfinite(block))[0][0])
        path = self.store.track_path(track_id)
        raise AbawError(
            f"{self.name} holds NaN or infinity in track {track_id}, first in row {row}",
            where=str(path),
            fix=f"delete {path} and run what made the store again: it redoes only what is missing",
        )
