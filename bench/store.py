"""Random windows from a float16 store of the real size: 600 tracks, 1.6 million rows, 768 columns."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from abaw.store import ArraySpec, FeatureStore, StoreHeader
from bench.plain_hdf5 import measure
from bench.record import make_record

TRACKS, ROWS, DIM, WINDOW = 600, 1_600_000, 768, 100
DRAWS, PAIRS = 6_000, 5
LIMIT = 5_000


def run(work: Path | None) -> list[dict[str, Any]]:
    """Windows a second through the store, beside plain h5py on the same files, fresh windows in every pass."""
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        lengths, write_rate = _make(folder / "store")
        return [*_read(folder / "store", lengths), write_rate]
    finally:
        shutil.rmtree(folder)


def _make(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(0)
    shares = rng.lognormal(0, 0.8, TRACKS)
    lengths = np.maximum(150, shares / shares.sum() * ROWS).astype(int)
    store = FeatureStore.create(path, StoreHeader("visual", "x", {"features": ArraySpec("float16", (DIM,))}, {}))
    noise = rng.standard_normal((lengths.max(), DIM), np.float32).astype(np.float16)
    start = time.perf_counter()
    for index, length in enumerate(lengths):
        store.write(f"t{index}", {"valid": np.ones(length, bool), "features": noise[:length]}, fps=30)
    seconds = time.perf_counter() - start
    rate = lengths.sum() * DIM * 2 / 1e6 / seconds
    note = "float16 rows written and brought to disk, one file a track"
    return lengths, make_record("store.write", [rate], "MB/s", higher_is_better=True, note=note)


def _read(path: Path, lengths: np.ndarray) -> list[dict[str, Any]]:
    store = FeatureStore.open(path)
    files = [str(path / f"t{index}.h5") for index in range(len(lengths))]
    ours, limit, memory = [], [], []
    # HDF5 shares a file opened twice in one process, so the bare loop has a process of its own.
    with multiprocessing.get_context("spawn").Pool(1) as other:
        for number in range(PAIRS + 1):
            tracks, starts = _draw(number, lengths)
            ours.append(_pass(store, tracks, starts))
            limit.append(other.apply(measure, (files, *_draw(number + 100, lengths), WINDOW)))
            memory.append(_current_rss_mb())
    ratios = [a / b for a, b in zip(ours[1:], limit[1:], strict=True)]
    note = f"{WINDOW}-row windows, {TRACKS} tracks, {int(lengths.sum())} rows, pages cached; fresh windows every pass"
    return [
        make_record(
            "store.windows",
            ours[1:],
            "windows/s",
            limit=LIMIT,
            higher_is_better=True,
            note=note,
            rss_mb_per_pass=memory,
        ),
        make_record(
            "store.windows-vs-h5py",
            ratios,
            "ratio",
            higher_is_better=True,
            note="ours over plain h5py with all files held open; ours also looks up track, process and fingerprint",
            bare_windows_per_s=limit[1:],
        ),
    ]


def _draw(seed: int, lengths: np.ndarray) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng([seed, 7])
    tracks = rng.choice(len(lengths), DRAWS, p=lengths / lengths.sum())
    starts = (rng.random(DRAWS) * (lengths[tracks] - WINDOW)).astype(int)
    return tracks.tolist(), starts.tolist()


def _pass(store: FeatureStore, tracks: list[int], starts: list[int]) -> float:
    start = time.perf_counter()
    for track, row in zip(tracks, starts, strict=True):
        store.read(f"t{track}", "features", slice(row, row + WINDOW))
    return DRAWS / (time.perf_counter() - start)


def _current_rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)
