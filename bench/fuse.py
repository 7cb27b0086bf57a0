"""`fuse` at the real size: opening the stores, windows a second, waiting for data, memory, growth with rows, scoring.

600 tracks of 150 to 29,095 rows, 1.6 million rows, 768 + 896 float16 columns: 5.3 GB, or as much as the disk has room
for; times of opening and of epochs are then extrapolated linearly.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.fuse_arms import BATCH, CORES, WINDOW, opening_seconds, predicting, read_pages, training, window_rates
from bench.fuse_store import Stores, make_stores, share_with_room
from bench.plain_hdf5 import measure
from bench.record import make_record

PASSES, STEPS = 6, 150  # of reading windows
TRAIN_STEPS, WARM, TURNS = 24, 4, 5
SCORED_BATCHES = 24
OPEN_LIMIT_S, WINDOWS_LIMIT, WAIT_LIMIT, MEMORY_LIMIT_MB = 2.0, 5_000, 0.10, 2048
GROWTH_LIMIT, SCORING_LIMIT = 1.1, 0.9


def run(work: Path | None, *, share: float | None = None) -> list[dict[str, Any]]:
    """Records of all limits; ``share`` of the real size, default what the disk has room for."""
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        stores = make_stores(folder, share_with_room(folder) if share is None else share)
        note = f"{len(stores.lengths)} tracks, {stores.rows} rows, 768 + 896 float16 columns, pages cached"
        if stores.factor > 1.01:
            note += f"; extrapolated {stores.factor:.3g} times to 1.6 million rows"
        return [*_reading(stores, note), *_training(stores, note, work), *_predicting(stores, note, work)]
    finally:
        shutil.rmtree(folder)


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Result of a function in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _reading(stores: Stores, note: str) -> list[dict[str, Any]]:
    opening = [_alone(opening_seconds, stores) * stores.factor for _ in range(TURNS)]
    rates = _alone(_cached_rates, stores)
    bare = _alone(_bare_rates, stores)
    _forget_pages(stores)
    cold = _alone(_cold_rates, stores)
    return [
        make_record(
            "fuse.open",
            opening,
            "s",
            limit=OPEN_LIMIT_S,
            higher_is_better=False,
            note=f"both stores: every file opened, rows compared, valid rows read, in a new process each turn; {note}",
        ),
        make_record(
            "fuse.windows",
            rates,
            "windows/s",
            limit=WINDOWS_LIMIT,
            higher_is_better=True,
            note=f"{WINDOW}-row windows of both streams in batches of {BATCH} with labels, one reader, gaps filled, "
            f"NaN looked for, fresh random windows every pass, all files open; {note}",
            first_pass=rates[0],
            bare_windows_per_s=bare,
        ),
        make_record(
            "fuse.windows-cold",
            cold,
            "windows/s",
            higher_is_better=True,
            note="the same, first pass after the system was asked to forget the files' pages; files opened on the way",
        ),
    ]


def _cached_rates(stores: Stores) -> list[float]:
    return window_rates(stores, STEPS, PASSES, cached=True)


def _cold_rates(stores: Stores) -> list[float]:
    return window_rates(stores, STEPS, 1, cached=False)


def _forget_pages(stores: Stores) -> None:
    for path in (stores.visual, stores.audio):
        for name in stores.lengths:
            descriptor = os.open(path / f"{name}.h5", os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _bare_rates(stores: Stores) -> list[float]:
    """Both streams of random windows a second with plain h5py, in the same process one after the other."""
    read_pages(stores)
    names = list(stores.lengths)
    lengths = np.array(list(stores.lengths.values()))
    rates = []
    for number in range(PASSES):
        rng = np.random.default_rng([number, 7])
        tracks = rng.choice(len(names), STEPS * BATCH, p=lengths / lengths.sum())
        starts = (rng.random(len(tracks)) * (lengths[tracks] - WINDOW)).astype(int)
        files = [[str(path / f"{name}.h5") for name in names] for path in (stores.visual, stores.audio)]
        both = [measure(own, tracks.tolist(), starts.tolist(), WINDOW) for own in files]
        rates.append(1 / sum(1 / rate for rate in both))
    return rates


def _training(stores: Stores, note: str, work: Path | None) -> list[dict[str, Any]]:
    found = _alone(training, stores, TRAIN_STEPS, WARM, TURNS, work)
    what = f"netease, windows of {WINDOW}, batch {BATCH}, fp32, steps of `fit` on {CORES} cores"
    epochs = {
        name: [seconds * found["windows"][name] / BATCH for seconds in found[f"{name}_s"]]
        for name in ("quarter", "whole")
    }
    by_row = {name: np.array(seconds) / found["rows"][name] for name, seconds in epochs.items()}
    return [
        make_record(
            "fuse.wait",
            found["share"],
            "share",
            limit=WAIT_LIMIT,
            higher_is_better=False,
            note=f"of a step spent on making its batch, which nothing does ahead on a CPU; {what}; {note}",
            step_s=found["whole_s"],
        ),
        make_record(
            "fuse.memory",
            [found["peak_mb"] - found["model_mb"]],
            "MB",
            limit=MEMORY_LIMIT_MB,
            higher_is_better=False,
            note="peak of the process that opens all files, computes statistics, trains and scores the longest track, "
            f"less its peak in steps on two batches made before; {what}; {note}",
            peak_mb=found["peak_mb"],
            model_mb=found["model_mb"],
        ),
        make_record(
            "fuse.epoch-growth",
            (by_row["whole"] / by_row["quarter"]).tolist(),
            "ratio",
            limit=GROWTH_LIMIT,
            higher_is_better=False,
            note=f"an epoch's seconds for a row, of all tracks over a quarter of them, in turn; {what}; {note}",
            rows=found["rows"],
        ),
        make_record(
            "fuse.epoch",
            [seconds * stores.factor for seconds in epochs["whole"]],
            "s",
            higher_is_better=False,
            note=f"steps of an epoch times the seconds of one; {what}; {note}",
        ),
        make_record(
            "fuse.statistics",
            [found["statistics_s"] * stores.factor],
            "s",
            higher_is_better=False,
            note=f"mean and deviation of all columns over valid rows, once a run; {note}",
        ),
    ]


def _predicting(stores: Stores, note: str, work: Path | None) -> list[dict[str, Any]]:
    found = _alone(predicting, stores, SCORED_BATCHES, TURNS, work)
    return [
        make_record(
            "fuse.scoring",
            [ours / bare for ours, bare in zip(found["ours"], found["bare"], strict=True)],
            "ratio",
            limit=SCORING_LIMIT,
            higher_is_better=True,
            note="rows a second of `score_tracks` (read, scored, put together) over those of forward passes on the "
            f"same batches in memory, in turn; netease, batch {BATCH}, fp32, {CORES} cores; {note}",
            rows_per_s=found["ours"],
            bare_rows_per_s=found["bare"],
        )
    ]
