"""The reconciliation report on a set of the real size: 600 tracks, 1.6 million rows, labels of three tasks."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config_file import load_config
from abaw.stages import check
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS
from bench.record import make_record

TRACKS, ROWS, PASSES = 600, 1_600_000, 3
LIMIT_S = 15
TASK_NAMES = ("va", "expr", "au")
ARRAYS = {"time": ArraySpec("float64"), "reason": ArraySpec("uint8"), "person": ArraySpec("uint16")}
TOML = """
[data]
annotations = { va = "va", expr = "expr", au = "au" }
[submit]
sample = "va.txt"
"""


def run(work: Path | None) -> list[dict[str, Any]]:
    """Seconds for the whole report, every label row read and checked; the files' pages are cached."""
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        num_rows = _make(folder)
        cfg = load_config(folder / "data.toml")
        seconds = []
        for _ in range(PASSES):
            start = time.perf_counter()
            summary = check.run(cfg)
            seconds.append(time.perf_counter() - start)
        totals = summary.data["totals"]
        if (totals["ok"], totals["wrong"], totals["frames"]) != (TRACKS, 0, num_rows):
            msg = f"the report is wrong: {totals}"
            raise RuntimeError(msg)
    finally:
        shutil.rmtree(folder)
    note = f"{TRACKS} tracks, {num_rows} rows; {len(TASK_NAMES)} label files each, every row read; a va sample file"
    return [make_record("check.seconds", seconds, "s", limit=LIMIT_S, higher_is_better=False, note=note)]


def _make(folder: Path) -> int:
    """A store without pictures, label files, and a sample file of a third of the tracks. Returns the rows."""
    rng = np.random.default_rng(0)
    shares = rng.lognormal(0, 0.8, TRACKS)
    lengths = np.maximum(150, shares / shares.sum() * ROWS).astype(int)
    store = FeatureStore.create(folder / "features" / "faces", StoreHeader("faces", "faces", ARRAYS, {}))
    texts = _texts(rng, int(lengths.max()))
    for task in TASK_NAMES:
        (folder / task / "Train_Set").mkdir(parents=True)
    with (folder / "va.txt").open("w") as sample:
        sample.write("image_location,valence,arousal\n")
        for index, length in enumerate(lengths.tolist()):
            name = f"{index}-30-1280x720"
            _write_track(store, name, length, rng)
            for task, lines in texts.items():
                header = ",".join(TASKS[task].heads[0].labels)
                (folder / task / "Train_Set" / f"{name}.txt").write_text("\n".join([header, *lines[:length], ""]))
            if index % 3 == 0:
                sample.writelines(f"{name}/{row:05d}.jpg,0,0\n" for row in range(1, length + 1))
    (folder / "data.toml").write_text(TOML)
    return int(lengths.sum())


def _texts(rng: np.random.Generator, count: int) -> dict[str, list[str]]:
    """Label rows of each task, written as the organisers write them."""
    return {
        "va": [f"{valence:.3f},{arousal:.3f}" for valence, arousal in rng.uniform(-1, 1, (count, 2))],
        "expr": [str(label) for label in rng.integers(-1, 8, count)],
        "au": [",".join(map(str, row)) for row in rng.integers(0, 2, (count, 12))],
    }


def _write_track(store: FeatureStore, name: str, length: int, rng: np.random.Generator) -> None:
    valid = rng.random(length) < 0.95
    person = np.where(valid, 1, 0).astype(np.uint16)
    arrays = {"valid": valid, "time": np.arange(length) / 30, "reason": (~valid).astype(np.uint8), "person": person}
    end = length / 30
    facts = {"header_frames": length, "decode_errors": 0, "sound": True, "duration_s": end}
    store.write(name, arrays, fps=30, facts={**facts, "sound_start_s": 0.0, "sound_end_s": end})
