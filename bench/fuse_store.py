"""A visual and an audio store of the real size, or a smaller cut of it: random features, no media packages."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.data.annotations import Labels
from abaw.store import ArraySpec, FeatureStore, StoreHeader

TRACKS, ROWS, SHORTEST, LONGEST = 600, 1_600_000, 150, 29_095
DIMS = {"visual": 768, "audio": 896}
GAP_EVERY, GAP_ROWS = 1_000, 30  # visual rows between two gaps, and rows of a gap: faces are lost now and then
FREE_SHARE = 0.8  # of the free disk space, at most


@dataclass(frozen=True)
class Stores:
    """Where the stores are, rows of each track, and how often they would fit into the real size."""

    visual: Path
    audio: Path
    lengths: dict[str, int]
    factor: float

    @property
    def rows(self) -> int:
        """Rows of all tracks."""
        return sum(self.lengths.values())

    @property
    def paths(self) -> tuple[list[Path], list[Path]]:
        """Arguments of `FeatureStreams`."""
        return [self.visual], [self.audio]


def share_with_room(folder: Path) -> float:
    """Share of the real size that the disk has room for, at most 1."""
    return min(1.0, FREE_SHARE * shutil.disk_usage(folder).free / (ROWS * 2 * sum(DIMS.values())))


def make_stores(folder: Path, share: float) -> Stores:
    """Tracks t0, t1, ... of lengths spread as in the real set; with a share below 1 so many of them less."""
    lengths = {f"t{number}": int(count) for number, count in enumerate(_lengths(share))}
    rng = np.random.default_rng(0)
    for kind, dim in DIMS.items():
        header = StoreHeader(kind, f"{kind}-x", {"features": ArraySpec("float16", (dim,))}, {})
        store = FeatureStore.create(folder / header.name, header)
        noise = rng.standard_normal((max(lengths.values()), dim), np.float32).astype(np.float16)
        for track_id, count in lengths.items():
            valid = _valid(count) if kind == "visual" else np.ones(count, bool)
            features = np.where(valid[:, None], noise[:count], np.float16(0))
            store.write(track_id, {"valid": valid, "features": features}, fps=30)
    return Stores(folder / "visual-x", folder / "audio-x", lengths, max(1.0, ROWS / sum(lengths.values())))


def random_labels(lengths: dict[str, int]) -> dict[str, dict[str, Labels]]:
    """Valence and arousal of every row."""
    rng = np.random.default_rng(1)
    return {
        track_id: {"va": Labels(rng.uniform(-1, 1, (count, 2)).astype(np.float32), np.ones((count, 2), bool))}
        for track_id, count in lengths.items()
    }


def _lengths(share: float) -> np.ndarray:
    """Rows of each track, in random order; a cut takes tracks evenly from the shortest to the longest."""
    rng = np.random.default_rng(0)
    shares = rng.lognormal(0, 0.8, TRACKS)
    counts = np.sort(np.clip(shares / shares.sum() * ROWS, SHORTEST, LONGEST).astype(int))
    counts[[0, -1]] = SHORTEST, LONGEST
    kept = np.linspace(0, TRACKS - 1, max(2, round(TRACKS * share))).astype(int)
    return rng.permutation(counts[kept])


def _valid(count: int) -> np.ndarray:
    valid = np.ones(count, bool)
    for start in range(GAP_EVERY // 2, count, GAP_EVERY):
        valid[start : start + GAP_ROWS] = False
    return valid
