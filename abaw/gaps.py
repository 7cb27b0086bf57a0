"""Rows without data: which other row they take their value from.

Gaps are filled only when read, never in a store. Knows nothing of what the rows hold.
"""

from __future__ import annotations

import numpy as np

POLICIES = ("mask", "hold", "nearest", "linear")


def neighbours(valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest valid row at or before, and at or after, each row of ``valid`` bool [T]: two int64 [T].

    Where one side has none, it is the other side's. Raises ValueError when no row is valid.
    """
    known = np.flatnonzero(valid)
    if len(known) == 0:
        msg = "no valid row"
        raise ValueError(msg)
    rows = np.arange(len(valid))
    before = known[np.clip(np.searchsorted(known, rows, side="right") - 1, 0, None)]
    after = known[np.clip(np.searchsorted(known, rows), None, len(known) - 1)]
    return before, after


def sources(valid: np.ndarray, policy: str) -> np.ndarray:
    """Row int64 [T] that each row's value is taken from.

    "hold": the nearest earlier valid row, before the first one the first; "nearest": the nearest of both sides, the
    earlier one on a tie.
    """
    before, after = neighbours(valid)
    if policy == "hold":
        return before
    rows = np.arange(len(valid))
    return np.where(np.abs(rows - before) <= np.abs(after - rows), before, after)


def fill(values: np.ndarray, valid: np.ndarray, policy: str) -> np.ndarray:
    """Values [T, L] with the rows that are not ``valid`` bool [T] filled: "mask" = zeros, "linear" = interpolated
    between both neighbours, others as ``sources``. All zeros where no row is valid.
    """
    if not valid.any() or policy == "mask":
        return np.where(valid[:, None], values, 0)
    if policy != "linear":
        return values[sources(valid, policy)]
    before, after = neighbours(valid)
    rows = np.arange(len(valid))
    inside = (before < rows) & (rows < after)
    share = np.where(inside, (rows - before) / np.maximum(after - before, 1), 0.0).astype(np.float32)[:, None]
    return values[before] * (1 - share) + values[after] * share
