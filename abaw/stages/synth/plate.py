"""The plate: the part of the eye-to-eye frame that the picture of an identity covers, and how it is read.

Knows nothing of what is on it.
"""

from __future__ import annotations

import numpy as np

UNIT_PX = 64
LEFT, RIGHT, TOP, BOTTOM = -3.2, 3.2, -2.3, 4.4
WIDTH_PX = int(round((RIGHT - LEFT) * UNIT_PX))
HEIGHT_PX = int(round((BOTTOM - TOP) * UNIT_PX))


def plate_points(points: np.ndarray) -> np.ndarray:
    """Eye-to-eye frame -> plate pixels; whole numbers are centres of pixels."""
    return (points - np.array([LEFT, TOP])) * UNIT_PX - 0.5


def plate_axes(*, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Eye-to-eye x [1, W] and y [H, 1] of the pixels of a plate reduced to ``scale``."""
    xs = (np.arange(int(round(WIDTH_PX * scale)), dtype=np.float32)[None] + 0.5) / (UNIT_PX * scale) + LEFT
    ys = (np.arange(int(round(HEIGHT_PX * scale)), dtype=np.float32)[:, None] + 0.5) / (UNIT_PX * scale) + TOP
    return xs, ys


def sampled(image: np.ndarray, places: np.ndarray, *, cubic: bool = False) -> np.ndarray:
    """``image`` [H, W, ...] at the pixels ``places`` float32 [h, w, 2]; outside, its border is repeated."""
    import cv2

    flag = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return cv2.remap(image, places, None, flag, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
