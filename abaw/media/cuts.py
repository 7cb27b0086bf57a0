"""Where a picture jumps to another one, by thumbnails.

Knows nothing of faces. A cut is assumed where a thumbnail differs from the one before by much, or by less but out of
nothing: two speakers before one background differ by little, and nothing else moves as suddenly.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

SIZE = (32, 18)
LEVEL = 12.0  # mean absolute difference of two thumbnails, in grey levels
SUDDEN_LEVEL = 6.0
SUDDEN_RATIO = 8.0  # times the mean difference of the frames before
STILL = 0.5  # grey levels: less counts as this much
FRAMES_BEFORE = 8

SETTINGS = {
    "size": list(SIZE),
    "level": LEVEL,
    "sudden_level": SUDDEN_LEVEL,
    "sudden_ratio": SUDDEN_RATIO,
    "still": STILL,
    "frames_before": FRAMES_BEFORE,
}


def thumbnail_of(image: np.ndarray) -> np.ndarray:
    """Grey thumbnail of an RGB picture, float64 [18, 32]."""
    return cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA).mean(axis=2)


class CutDetector:
    """Tells cuts from the thumbnails of a video in order."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._differences: deque[float] = deque(maxlen=FRAMES_BEFORE)

    def is_cut(self, thumbnail: np.ndarray | None) -> bool:
        """Whether the picture jumps here; a frame without a picture is left out."""
        if thumbnail is None:
            return False
        before, self._before = self._before, thumbnail
        if before is None:
            return False
        difference = float(np.abs(before - thumbnail).mean())
        usual = max(STILL, float(np.mean(self._differences))) if self._differences else np.inf
        cut = difference > LEVEL or (difference > SUDDEN_LEVEL and difference > SUDDEN_RATIO * usual)
        if cut:
            self._differences.clear()
        else:
            self._differences.append(difference)
        return cut
