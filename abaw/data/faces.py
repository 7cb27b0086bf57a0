"""Geometry of a faces store: landmarks and boxes in the crop's own coordinates."""

from __future__ import annotations

import cv2
import numpy as np

from abaw.store import FeatureStore


def crop_geometry(store: FeatureStore, track_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks float32 [T, 5, 2] and box corners float32 [T, 4] in units of the crop's side, (0, 0) top left.

    The stored ones are in source pixels; `warp` takes them into the crop. A turned box keeps its two corners. Rows
    without a face are zeros.
    """
    valid = store.valid(track_id)
    warp = store.read(track_id, "warp")
    points = np.concatenate([store.read(track_id, "landmarks"), store.read(track_id, "box").reshape(-1, 2, 2)], axis=1)
    moved = points @ warp[:, :, :2].transpose(0, 2, 1) + warp[:, None, :, 2]
    moved = np.where(valid[:, None, None], moved / _side(store, track_id, valid), 0).astype(np.float32)
    return moved[:, :5], moved[:, 5:].reshape(-1, 4)


def _side(store: FeatureStore, track_id: str, valid: np.ndarray) -> int:
    """Side of the track's crops in pixels, from the first that can be read; 1 where there is none."""
    offsets = store.read(track_id, "offsets")
    for row in np.flatnonzero(valid)[:1]:
        image = cv2.imdecode(store.read(track_id, "jpeg", slice(offsets[row], offsets[row + 1])), cv2.IMREAD_GRAYSCALE)
        if image is not None:
            return int(image.shape[0])
    return 1
