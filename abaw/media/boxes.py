"""Geometry of boxes: overlap, non-maximum suppression, repair. Numpy only.

Boxes are float ``[N, 4]`` as x0 y0 x1 y1 in pixels, x1 and y1 exclusive.
"""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """Area of every box; 0 for turned-over ones."""
    sides = np.clip(boxes[..., 2:] - boxes[..., :2], 0, None)
    return sides[..., 0] * sides[..., 1]


def _intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    return sides[..., 0] * sides[..., 1]


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair, ``[N, M]``."""
    common = _intersections(first, second)
    union = areas(first)[:, None] + areas(second)[None] - common
    return common / np.maximum(union, 1e-9)


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: float, *, of_smaller: bool = False) -> np.ndarray:
    """Indices of the boxes kept by greedy non-maximum suppression, best score first.

    A box goes when its overlap with a better one exceeds ``limit``: intersection over union, or over the area of
    the smaller box with ``of_smaller``. Equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    sizes = areas(boxes)
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        common = _intersections(boxes[best : best + 1], boxes[rest])[0]
        whole = np.minimum(sizes[best], sizes[rest]) if of_smaller else sizes[best] + sizes[rest] - common
        order = rest[common <= limit * np.maximum(whole, 1e-9)]
    return np.asarray(kept, dtype=np.int64)


def clean_boxes(boxes: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """``boxes``, with ``fallback`` in place of those that are not finite or have a side below one pixel."""
    sides = boxes[:, 2:] - boxes[:, :2]
    sound = np.isfinite(boxes).all(axis=1) & (sides >= 1).all(axis=1)
    return np.where(sound[:, None], boxes, fallback)
