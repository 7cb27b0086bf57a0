"""Rows without data: which other row they take their value from.

Gaps are filled only when read, never in a store. Knows nothing of what the rows hold.
"""

from __future__ import annotations

import numpy as np

POLICIES = ("mask", "hold", "nearest", "linear")


def neighbours(valid: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Nearest valid row at or before, and at or after, each of ``rows`` (default all) of ``valid`` bool [T]: int64 [N].

    Where one side has none, it is the other side's. Raises ValueError when no row is valid.
    """
    known = np.flatnonzero(valid)
    if len(known) == 0:
        msg = "no valid row"
        raise ValueError(msg)
    rows = np.arange(len(valid)) if rows is None else rows
    before = known[np.clip(np.searchsorted(known, rows, side="right") - 1, 0, None)]
    after = known[np.clip(np.searchsorted(known, rows), None, len(known) - 1)]
    return before, after


def sources(valid: np.ndarray, policy: str, rows: np.ndarray | None = None) -> np.ndarray:
    """Row int64 [N] that the value of each of ``rows`` (default all) is taken from.

    "hold": the nearest earlier valid row, before the first one the first; "nearest": the nearest of both sides, the
    earlier one on a tie.
    """
    before, after = neighbours(valid, rows)
    if policy == "hold":
        return before
    rows = np.arange(len(valid)) if rows is None else rows
    return np.where(np.abs(rows - before) <= np.abs(after - rows), before, after)


def blend(valid: np.ndarray, policy: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rows int64 [N] that each of ``rows`` takes its value from, and the second one's share float32 [N].

    "linear": both neighbours by their distance, at the ends the only one; others as ``sources``, with a share of 0.
    """
    if policy != "linear":
        source = sources(valid, policy, rows)
        return source, source, np.zeros(len(rows), np.float32)
    before, after = neighbours(valid, rows)
    inside = (before < rows) & (rows < after)
    share = np.where(inside, (rows - before) / np.maximum(after - before, 1), 0.0).astype(np.float32)
    return before, after, share


def fill(values: np.ndarray, valid: np.ndarray, policy: str) -> np.ndarray:
    """Values [T, L] with the rows that are not ``valid`` bool [T] filled: "mask" = zeros, "linear" = interpolated
    between both neighbours, others as ``sources``. All zeros where no row is valid.
    """
    if not valid.any() or policy == "mask":
        return np.where(valid[:, None], values, 0)
    before, after, share = blend(valid, policy, np.arange(len(valid)))
    if not share.any():
        return values[before]
    return values[before] * (1 - share[:, None]) + values[after] * share[:, None]
