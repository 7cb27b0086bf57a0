"""How long `evaluate` takes at the real size: 3 million rows of 600 recordings, their label files read as well."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from abaw.data.annotations import Labels
from abaw.gaps import fill
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS, Head, Problem, decide, measure
from bench.record import make_record

TRACKS, ROWS, PASSES = 600, 3_000_000, 3
LIMIT_S, LIMIT_RESAMPLES_S = 4, 2
RESAMPLES = 1000
TASK_NAMES = ("va", "expr", "au", "mtl")
MTL_FILE = "validation_set_annotations.txt"
# A process of its own, as the command is; what it prints is of `run` alone, without the start and the imports.
CHILD = """
import json, sys, time
from pathlib import Path
from abaw.config_file import load_config
from abaw.stages import evaluate
cfg = load_config(Path(sys.argv[1]), overrides=["evaluate.resamples=" + sys.argv[3]])
start = time.perf_counter()
result = evaluate.run(cfg, predictions=[Path(sys.argv[2])]).data["results"][0]
seconds = time.perf_counter() - start
assert "torch" not in sys.modules
print(json.dumps({"inside": seconds, "metrics": result["metrics"], "rows": result["num_rows"]}))
"""


def run(work: Path | None) -> list[dict[str, Any]]:
    """Wall seconds of processes that evaluate a store, and what 1,000 resamples add; the files are cached."""
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        lengths = _make_set(folder)
        records = []
        for task in TASK_NAMES:
            wanted = _make_task(folder, task, lengths)
            records += _measure(folder, task, wanted)
            shutil.rmtree(folder / "predictions" / task)
            shutil.rmtree(folder / task)
    finally:
        shutil.rmtree(folder)
    return records


def _measure(folder: Path, task: str, wanted: float) -> list[dict[str, Any]]:
    plain, drawn = [], []
    for _ in range(PASSES):
        plain.append(_evaluate(folder, task, 0, wanted))
        drawn.append(_evaluate(folder, task, RESAMPLES, wanted))
    files = "one label file of all" if task == "mtl" else "a label file of each"
    note = f"whole process without torch: {TRACKS} tracks, {ROWS} rows, {files}; predictions and the faces' valid rows"
    inside = {"in_process_s": statistics.median(one[1] for one in plain)}
    added = [after[1] - before[1] for before, after in zip(plain, drawn, strict=True)]
    name, resampled = (
        f"evaluate.{task}",
        f"{RESAMPLES} bootstrap draws of {TRACKS} recordings, inside the process, more than without",
    )
    walls = [one[0] for one in plain]
    return [
        make_record(name, walls, "s", limit=LIMIT_S, higher_is_better=False, note=note, **inside),
        make_record(f"{name}.resamples", added, "s", limit=LIMIT_RESAMPLES_S, higher_is_better=False, note=resampled),
    ]


def _evaluate(folder: Path, task: str, resamples: int, wanted: float) -> tuple[float, float]:
    """Wall seconds of a process, and of the evaluation in it. RuntimeError where its score is not ``wanted``."""
    arguments = [str(folder / "data.toml"), str(folder / "predictions" / task), str(resamples)]
    command = [sys.executable, "-c", CHILD, *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - start
    found = json.loads(done.stdout)
    if abs(found["metrics"]["score"] - wanted) > 1e-9:
        msg = f"the score of {task} is {found['metrics']['score']}, not {wanted}"
        raise RuntimeError(msg)
    return wall, found["inside"]


# -- what is measured ------------------------------------------------------------------------------------------------
def _make_set(folder: Path) -> dict[str, np.ndarray]:
    """A faces store without pictures. Returns the rows with a face of each track, bool [T]."""
    rng = np.random.default_rng(0)
    shares = rng.lognormal(0, 0.8, TRACKS)
    lengths = np.maximum(150, shares / shares.sum() * ROWS).astype(int)
    lengths[-1] += ROWS - lengths.sum()
    store = FeatureStore.create(folder / "features" / "faces", StoreHeader("faces", "faces", {}, {}))
    valid = {f"{index}-30-1280x720": rng.random(length) < 0.97 for index, length in enumerate(lengths.tolist())}
    for name, own in valid.items():
        store.write(name, {"valid": own}, fps=30)
    return valid


def _make_task(folder: Path, task: str, valid: dict[str, np.ndarray]) -> float:
    """Configuration, label files and scores of a task. Returns the official score of all rows pooled."""
    rng, heads = np.random.default_rng(1), TASKS[task].heads
    arrays = {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in heads}
    order = {head.name: list(head.labels) for head in heads}
    store = FeatureStore.create(
        folder / "predictions" / task, StoreHeader("predictions", task, arrays, {"run": task}, label_order=order)
    )
    (folder / task / "Validation_Set").mkdir(parents=True)
    (folder / "data.toml").write_text(f'[data]\nannotations = {{ {task} = "{task}" }}\n')
    decided: dict[str, list[np.ndarray]] = {head.name: [] for head in heads}
    truths: dict[str, list[Labels]] = {head.name: [] for head in heads}
    lines = ["image,valence,arousal,expression,aus"]
    for name, own in valid.items():
        made = {head.name: _head(head, len(own), rng) for head in heads}
        scores = {f"scores/{head}": np.where(own[:, None], scored, 0) for head, (scored, _, _) in made.items()}
        store.write(name, {"valid": own, **scores}, fps=30)
        filled = {head: fill(scores[f"scores/{head}"], own, "hold") for head in made}
        for head, decision in decide(TASKS[task], filled).items():
            decided[head].append(decision)
            truths[head].append(made[head][1])
        rows = [",".join(parts) for parts in zip(*(texts for _, _, texts in made.values()), strict=True)]
        if task == "mtl":
            lines += [f"{name}/{number:05d}.jpg,{row}" for number, row in enumerate(rows, start=1)]
        else:
            text = "\n".join([",".join(heads[0].labels), *rows, ""])
            (folder / task / "Validation_Set" / f"{name}.txt").write_text(text)
    if task == "mtl":
        (folder / task / MTL_FILE).write_text("\n".join([*lines, ""]))
    pooled = {head: Labels(*(np.concatenate(part) for part in _columns(own))) for head, own in truths.items()}
    return measure(TASKS[task], {head: np.concatenate(own) for head, own in decided.items()}, pooled)["score"]


def _columns(parts: list[Labels]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [part.values for part in parts], [part.mask for part in parts]


def _head(head: Head, num_rows: int, rng: np.random.Generator) -> tuple[np.ndarray, Labels, list[str]]:
    """Scores and labels of a head, and the labels as the organisers write them; a hundredth is not annotated."""
    labelled = rng.random((num_rows, 1)) < 0.99
    scores = rng.random((num_rows, head.output_dim), np.float32)
    if head.problem is Problem.REGRESSION:
        values = rng.integers(-1000, 1001, (num_rows, head.target_dim))
        shown = np.where(labelled, values, -5000)
        texts = [f"{valence / 1000:.3f},{arousal / 1000:.3f}" for valence, arousal in shown.tolist()]
        truth = np.array([float(f"{value / 1000:.3f}") for value in range(-1000, 1001)], np.float32)[values + 1000]
        scores = np.float32(2) * scores - np.float32(1)
    else:
        top = head.output_dim if head.problem is Problem.MULTICLASS else 2
        values = rng.integers(0, top, (num_rows, head.target_dim))
        texts = [",".join(map(str, row)) for row in np.where(labelled, values, -1).tolist()]
        truth = values.astype(np.float32)
    return scores, Labels(truth, np.broadcast_to(labelled, truth.shape)), texts
