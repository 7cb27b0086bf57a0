"""Ground truth as values and masks, and which values a label can have.

Owns the sentinels -1 and -5, which end here. Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from abaw.tasks import Head, Problem

VA_INVALID = -5.0
CLASS_INVALID = -1.0


@dataclass(frozen=True, slots=True)
class Labels:
    """Ground truth of one head on the rows of one track.

    ``values`` float32 [T, target_dim], undefined where ``mask`` bool [T, target_dim] is False.
    """

    values: np.ndarray
    mask: np.ndarray

    @property
    def num_rows(self) -> int:
        """T."""
        return len(self.values)

    def fit(self, num_rows: int) -> Labels:
        """Cut, or pad with unlabelled rows, to ``num_rows``."""
        if num_rows == self.num_rows:
            return self
        kept = min(num_rows, self.num_rows)
        values = np.zeros((num_rows, self.values.shape[1]), np.float32)
        mask = np.zeros(values.shape, bool)
        values[:kept], mask[:kept] = self.values[:kept], self.mask[:kept]
        return Labels(values, mask)


def concatenate(parts: list[Labels]) -> Labels:
    """Rows of several tracks, pooled in order."""
    return Labels(np.concatenate([p.values for p in parts]), np.concatenate([p.mask for p in parts]))


def to_labels(table: np.ndarray, head: Head) -> Labels:
    """Values as the organisers write them, -5 and -1 where not annotated, as values and mask."""
    invalid = VA_INVALID if head.problem is Problem.REGRESSION else CLASS_INVALID
    mask = table != invalid
    return Labels(np.where(mask, table, 0).astype(np.float32), mask)


def in_range(table: np.ndarray, head: Head) -> np.ndarray:
    """bool of the same shape: values a label of this head can have, the sentinel included."""
    if head.problem is Problem.REGRESSION:
        return (np.abs(table) <= 1) | (table == VA_INVALID)
    top = head.output_dim - 1 if head.problem is Problem.MULTICLASS else 1
    return (table == np.floor(table)) & (table >= CLASS_INVALID) & (table <= top)
