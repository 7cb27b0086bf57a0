"""A small faces store made from noise pictures, for tests of what reads one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from abaw.provenance import make_recipe, unknown_recipe
from abaw.store import ArraySpec, FeatureStore, StoreHeader

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
Tracks = dict[str, list[np.ndarray | bytes | None]]


def picture(seed: int, side: int = 48) -> np.ndarray:
    """A smooth random RGB picture, so that JPEG keeps it nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def make_faces(
    path: Path, tracks: Tracks, *, recipe: str = "a", keys: Mapping[str, Sequence[str]] | None = None
) -> FeatureStore:
    """A row is an image, the bytes of a JPEG as they are, or None (no face). ``recipe`` may be "unknown".

    ``keys``: paths of the rows by track, which make it the store of an image collection.
    """
    alignment = unknown_recipe() if recipe == "unknown" else make_recipe({"r": recipe})
    specs = ARRAYS if keys is None else {**ARRAYS, "key": ArraySpec("str")}
    store = FeatureStore.create(path, StoreHeader("faces", "faces", specs, {"recipe": recipe}, alignment))
    for track_id, rows in tracks.items():
        files = [row if isinstance(row, bytes) else b"" if row is None else jpeg(row) for row in rows]
        valid = np.array([row is not None for row in rows], bool)
        count = len(rows)
        warp = np.tile(np.array([[0.5, 0, 0], [0, 0.5, 0]], np.float32), (count, 1, 1))
        arrays = {
            "valid": valid,
            "jpeg": np.frombuffer(b"".join(files), np.uint8),
            "offsets": np.concatenate([[0], np.cumsum([len(file) for file in files])]).astype(np.int64),
            "time": np.arange(count) / 25,
            "reason": (~valid).astype(np.uint8),
            "box": np.tile(np.array([0, 0, 96, 96], np.float32), (count, 1)) * valid[:, None],
            "landmarks": np.full((count, 5, 2), 48, np.float32) * valid[:, None, None],
            "warp": warp * valid[:, None, None],
            "score": valid.astype(np.float32),
        }
        if keys is not None:
            arrays["key"] = np.array([*keys[track_id], None], dtype=object)[:-1]
        store.write(track_id, arrays, fps=25)
    return store


def make_images(
    path: Path, keys: Sequence[str], *, shard_size: int = 10_000, faceless: Sequence[str] = ()
) -> FeatureStore:
    """The store of an image collection with these paths; row i of all shows `picture(i)` at 16 pixels."""
    shards = {
        f"photos-{n:05d}": keys[start : start + shard_size] for n, start in enumerate(range(0, len(keys), shard_size))
    }
    rows: Tracks = {
        name: [None if key in faceless else picture(keys.index(key), 16) for key in own] for name, own in shards.items()
    }
    return make_faces(path, rows, keys=shards)
