"""Aligned 112 x 112 face crops, made from known landmarks.

Knows nothing of videos and labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from abaw.media.warp import TEMPLATE_112, fit_similarity

SIZE_PX = 112


def crop(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The face of ``frame`` with ``landmarks`` [5, 2] on the template: uint8 [112, 112, 3]."""
    import cv2

    matrix = fit_similarity(landmarks, TEMPLATE_112)
    assert matrix is not None  # five points of a face never coincide
    return cv2.warpAffine(frame, matrix, (SIZE_PX, SIZE_PX), flags=cv2.INTER_LINEAR)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an RGB image as JPEG, quality 92."""
    import cv2

    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    path.write_bytes(data.tobytes())
