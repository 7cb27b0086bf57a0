"""Windows over the rows of a track, and scores of windows as scores of rows.

Owns window starts and what counts where windows overlap. Knows nothing of stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from abaw.errors import AbawError, ExitCode


@dataclass(frozen=True)
class Window:
    """Half-open rows [start, stop) of a track."""

    track_id: str
    start: int
    stop: int


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


def check_cut(num_rows: Mapping[str, int], *, window: int, strides: Mapping[str, int], where: str) -> list[str]:
    """Refuse strides that skip rows; warnings to record for windows longer than every training track (``num_rows``).

    ``where`` names the table of ``window`` and of the keys of ``strides``. Raises AbawError. Longer windows do no harm
    but padding: each track is one window.
    """
    for key, stride in strides.items():
        if stride > window:
            raise AbawError(
                f"{key} {stride} is larger than window {window}: rows would be skipped",
                where=f"{where}.{key}",
                fix=f"set it to at most {window}",
                code=ExitCode.CONFIG,
            )
    longest = max(num_rows, key=lambda track_id: num_rows[track_id], default=None)
    if longest is None or num_rows[longest] >= window:
        return []
    return [
        f"{where}.window = {window} is longer than every training track: each is one window, and padding takes time; "
        f"the longest, {longest}, has {num_rows[longest]} rows"
    ]


def _even(num_rows: int) -> np.ndarray:
    return np.ones(num_rows)


def _tent(num_rows: int) -> np.ndarray:
    """Distance to the nearer end of the window, counted from 1: a row sees most on both sides in the middle."""
    rows = np.arange(num_rows)
    return np.minimum(rows + 1, num_rows - rows).astype(np.float64)


# Weight of each row of a window of N rows; None = the last window that holds a row counts alone.
STITCHES: dict[str, Callable[[int], np.ndarray] | None] = {"mean": _even, "centre": _tent, "last": None}


class Stitcher:
    """Scores of a track, put together window by window in the order of `cut`."""

    def __init__(self, num_rows: int, num_columns: int, how: str = "mean") -> None:
        self._weigh = STITCHES[how]
        self._total = np.zeros((num_rows, num_columns))
        self._weight = np.zeros(num_rows)

    def add(self, window: Window, scores: np.ndarray) -> None:
        """Take the scores [N, L] of a window's rows."""
        rows = slice(window.start, window.stop)
        if self._weigh is None:
            self._total[rows], self._weight[rows] = scores, 1
            return
        weight = self._weigh(window.stop - window.start)
        self._total[rows] += scores * weight[:, None]
        self._weight[rows] += weight

    def result(self) -> np.ndarray:
        """float32 [T, L]. Raises ValueError when a row is covered by no window."""
        if not self._weight.all():
            msg = f"row {int(np.flatnonzero(self._weight == 0)[0])} lies in no window"
            raise ValueError(msg)
        return (self._total / self._weight[:, None]).astype(np.float32)


def stitch(num_rows: int, windows: Sequence[Window], scores: Sequence[np.ndarray], how: str = "mean") -> np.ndarray:
    """The inverse of `cut`: scores [N, L] per window -> float32 [num_rows, L], every row once.

    Where windows overlap: "mean" of them, "centre" = weighted by the distance to a window's nearer end, "last" = the
    one that comes last. Raises ValueError when a row is covered by no window.
    """
    stitcher = Stitcher(num_rows, scores[0].shape[1] if scores else 0, how)
    for window, block in zip(windows, scores, strict=True):
        stitcher.add(window, block)
    return stitcher.result()
