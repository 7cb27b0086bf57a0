"""A finished run of two small videos with everything that `abaw report` reads, and with names meant to do harm."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config import Config
from abaw.config_file import load_config
from abaw.provenance import make_recipe
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS
from tests.unit.faces_store import make_faces, picture

HOSTILE = "<img src=x onerror=alert(1)>"
PLAIN = "10-25-480x360"
RUN = "fuse-va-netease"
ROWS = 30
GAP = slice(10, 14)  # rows of the second video without a score
NO_FACE = slice(20, 25)  # rows of the second video without a face
TOML = """
[data]
annotations = { va = "VA", expr = "EXPR", au = "AU" }
[evaluate]
resamples = 50
[report]
face_crops = 3
"""
HOST = "the-name-of-a-machine"


def truth(task: str, track: int) -> np.ndarray:
    """Labels [ROWS, target_dim] of a task."""
    rows = np.arange(ROWS)
    if task == "va":
        return np.stack([np.sin(rows / 5 + track), np.cos(rows / 7 + track)], axis=1).round(3)
    if task == "expr":
        return (rows[:, None] // 4 + track) % 8
    return (rows[:, None] + track) // np.arange(2, 14) % 2


def scores(task: str, track: int) -> np.ndarray:
    """Scores [ROWS, output_dim] that decide as the labels say, but for the first video's first third."""
    labels = truth(task, track)
    found = np.eye(8)[labels[:, 0]] * 0.9 if task == "expr" else labels.astype(float)
    if track == 0:
        found[: ROWS // 3] = found[: ROWS // 3] * -1 if task == "va" else 1 - found[: ROWS // 3]
    return found.astype(np.float32)


def write_labels(folder: Path, task: str, names: list[str]) -> None:
    """A label folder with the videos as validation set and one more to train on."""
    head = TASKS[task].heads[0]
    for place, name in enumerate([*names, "trained"]):
        lines = [",".join(f"{value:g}" for value in row) for row in truth(task, place)]
        path = folder / ("Validation_Set" if name in names else "Train_Set") / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([",".join(head.labels), *lines]) + "\n")


def write_store(path: Path, task: str, names: list[str], settings: dict[str, Any]) -> FeatureStore:
    """A predictions store of the videos."""
    head = TASKS[task].heads[0]
    header = StoreHeader(
        "predictions",
        path.name,
        {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,))},
        settings,
        make_recipe({"detector": "mtcnn", "margin": 0.0}),
        [{"dataset": "<script>alert(2)</script>", "edition": "10", "labels": "va", "tracks_sha256": "ab" * 32}],
        {head.name: list(head.labels)},
    )
    store = FeatureStore.create(path, header)
    for place, name in enumerate(names):
        valid = np.ones(ROWS, bool)
        valid[GAP] = place != 1
        values = np.where(valid[:, None], scores(task, place), 0).astype(np.float32)
        store.write(name, {"valid": valid, f"scores/{head.name}": values}, fps=25)
    return store


def write_run(path: Path, *, weights: bytes = b"weights", config: dict[str, Any] | None = None) -> str:
    """A run folder; returns the sha256 of its weights."""
    path.mkdir(parents=True)
    record = {
        "format_version": 1,
        "stage": "fuse",
        "inputs": {"streams": [{"name": "visual-x", "kind": "visual", "fingerprint": "0123456789abcdef"}]},
        "versions": {"abaw": "0.1.0", "torch": "<b>2.13</b>"},
        "host": HOST,
        "device": "cpu",
        "warnings": ["</td></table><script>alert(3)</script>"],
    }
    (path / "run.json").write_text(json.dumps(record))
    (path / "config.json").write_text(json.dumps({"lr": 0.001, "note": "\"'><svg onload=alert(4)>", **(config or {})}))
    lines = [{"step": 10 * k, "loss": 1 / k, "val score": k / 10, "lr": 0.1} for k in range(1, 6)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "done").write_text(json.dumps({"steps": 50, "best_step": 50, "device": "cpu"}))
    (path / "best.safetensors").write_bytes(weights)
    return hashlib.sha256(weights).hexdigest()


def make_reported(root: Path, *, videos: int = 1) -> Config:
    """Labels of three tasks, faces, a finished va run with its scores, and scores of the other tasks without a run.

    ``videos``: timelines that a page shows; every one takes a fraction of a second.
    """
    names = [HOSTILE, PLAIN]
    for task in ("va", "expr", "au"):
        write_labels(root / task.upper(), task, names)
    sha256 = write_run(root / "runs" / RUN)
    write_store(root / "predictions" / RUN, "va", names, {"run": RUN, "weights": sha256})
    for task in ("expr", "au"):
        write_store(root / "predictions" / f"fuse-{task}-netease", task, names, {"run": "x"})
    rows: list[Any] = [picture(row) for row in range(ROWS)]
    gappy = [None if row in range(*NO_FACE.indices(ROWS)) else one for row, one in enumerate(rows)]
    make_faces(root / "features" / "faces", {HOSTILE: rows, PLAIN: gappy})
    (root / "data.toml").write_text(TOML + f"videos = {videos}\n")
    return load_config(root / "data.toml")
