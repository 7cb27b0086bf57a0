"""A faces store of any length made in a moment: a few JPEGs of grainy pictures, again and again. No media packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from abaw.provenance import unknown_recipe
from abaw.store import ArraySpec, Chunks, FeatureStore, StoreHeader

FPS = 30
DISTINCT = 50
QUALITY = 95
GRAIN = 3.0  # standard deviation of the noise; files are then as large as those of real crops
ARRAYS = {
    "jpeg": ArraySpec("uint8", (), "ragged"),
    "offsets": ArraySpec("int64", (), "T+1"),
    "time": ArraySpec("float64"),
    "reason": ArraySpec("uint8"),
    "box": ArraySpec("float32", (4,)),
    "landmarks": ArraySpec("float32", (5, 2)),
    "warp": ArraySpec("float32", (2, 3)),
    "score": ArraySpec("float32"),
}


def make_faces_store(path: Path, side: int, *, tracks: int, rows: int) -> FeatureStore:
    """Tracks "0", "1", ... of so many rows, every one with a crop of `side` pixels."""
    files = [_jpeg(np.random.default_rng(number), side) for number in range(DISTINCT)]
    store = FeatureStore.create(path, StoreHeader("faces", "faces", ARRAYS, {"side": side}, unknown_recipe()))
    sizes = np.array([len(files[row % DISTINCT]) for row in range(rows)], np.int64)
    for number in range(tracks):
        arrays = {
            "valid": np.ones(rows, bool),
            "jpeg": Chunks(int(sizes.sum()), _blocks(files, rows)),
            "offsets": np.concatenate([[0], np.cumsum(sizes)]),
            "time": np.arange(rows) / FPS,
            "reason": np.zeros(rows, np.uint8),
            "box": np.tile(np.array([0, 0, side, side], np.float32), (rows, 1)),
            "landmarks": np.full((rows, 5, 2), side / 2, np.float32),
            "warp": np.tile(np.eye(2, 3, dtype=np.float32), (rows, 1, 1)),
            "score": np.ones(rows, np.float32),
        }
        store.write(str(number), arrays, fps=FPS)
    return store


def _blocks(files: list[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    for row in range(rows):
        yield files[row % len(files)]


def _jpeg(rng: np.random.Generator, side: int) -> np.ndarray:
    smooth = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    picture = (0.8 * smooth + rng.normal(0, GRAIN, (side, side, 1))).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])
