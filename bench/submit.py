"""How long `abaw submit` takes for a million rows: the sample read, the file written, checked and archived."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from abaw.editions import EDITIONS, Submission, check_submission, format_rows, read_sample
from abaw.provenance import trained_on_record
from abaw.scored import Predictions
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS, Head, Problem
from bench.record import make_record

EDITION = "10"
TASKS_TIMED = ("va", "expr", "au")
TRACKS, ROWS = 200, 5_000
WITHOUT_FACE = 0.02
LIMIT_S = 6.0
TURNS = 3


def run(work: Path | None) -> list[dict[str, Any]]:
    """Seconds of the whole command, in a process of its own, for each task."""
    return [_measure(task, work) for task in TASKS_TIMED]


def _measure(task: str, work: Path | None) -> dict[str, Any]:
    submission = EDITIONS[EDITION].submissions[task]
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        (folder / "data.toml").write_text('[data]\nvideos = "videos"\n')
        sample, store = _make_sample(folder, submission), _make_store(folder, task)
        command = ["-m", "abaw", "submit", str(store), "--task", task, "--edition", EDITION, "--sample", str(sample)]
        if "torch" in _imported(command, folder):
            msg = "the command imports torch, which takes seconds of its own"
            raise RuntimeError(msg)
        seconds, parts = [], []
        for _ in range(TURNS):
            shutil.rmtree(folder / "submissions")
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
            parts.append(_parts(folder, submission, sample, store))
        size = next((folder / "submissions").rglob("predictions.txt")).stat().st_size
    named = {name: round(float(np.median([part[name] for part in parts])), 2) for name in parts[0]}
    note = (
        f"`abaw submit` as a whole process without torch: {TRACKS * ROWS} rows of {TRACKS} tracks, "
        f"{WITHOUT_FACE:.0%} unscored, a file of {size >> 20} MiB; "
        "parts timed one by one in a process that has them loaded: "
        + ", ".join(f"{name} {value} s" for name, value in named.items())
        + "; the rest is the process itself, the archive, its hashes and the statement"
    )
    return make_record(
        f"submit.{task}",
        seconds,
        "s",
        limit=LIMIT_S,
        higher_is_better=False,
        note=note,
        parts_s=named,
    )


def _parts(folder: Path, submission: Submission, sample: Path, store: Path) -> dict[str, float]:
    """Seconds of what the stage is made of."""
    clock = [time.perf_counter()]
    rows = read_sample(sample, submission)
    clock.append(time.perf_counter())
    scored = Predictions(store)
    decided = [scored.decide(track_id, gap="hold").decisions for track_id in scored.track_ids()]
    clock.append(time.perf_counter())
    texts = [text for decisions in decided for text in format_rows(scored.task, decisions)]
    clock.append(time.perf_counter())
    (folder / "parts.txt").write_bytes(
        "\n".join([submission.header, *map(",".join, zip(rows.images, texts, strict=True)), ""]).encode()
    )
    clock.append(time.perf_counter())
    if not check_submission(folder / "parts.txt", submission, rows).ok:
        raise RuntimeError
    clock.append(time.perf_counter())
    names = ("sample read", "scores read and decided", "rows formatted", "file written", "file checked")
    return dict(zip(names, np.diff(clock).tolist(), strict=True))


def _imported(command: list[str], folder: Path) -> set[str]:
    """Modules that the command imports; the first run, which is not timed."""
    found = subprocess.run(
        [sys.executable, "-X", "importtime", *command], check=True, cwd=folder, capture_output=True, text=True
    )
    return {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}


def _track_ids() -> list[str]:
    return [f"{number:03d}-30-1280x720" for number in range(TRACKS)]


def _make_sample(folder: Path, submission: Submission) -> Path:
    path = folder / "sample.txt"
    dummy = ",0" * (2 if submission.task == "va" else 12 if submission.task == "au" else 1)
    rows = (f"{track_id}/{row:05d}.jpg{dummy}" for track_id in _track_ids() for row in range(1, ROWS + 1))
    path.write_text("\n".join([submission.header, *rows, ""]))
    return path


def _make_store(folder: Path, task: str) -> Path:
    head, rng = TASKS[task].heads[0], np.random.default_rng(0)
    name = f"fuse-{task}-bench"
    header = StoreHeader(
        "predictions",
        name,
        {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,))},
        {"run": name},
        trained_on=[trained_on_record(dataset="aff-wild2", edition="10", labels=task, split_file="x", track_ids=[])],
        label_order={head.name: list(head.labels)},
    )
    store = FeatureStore.create(folder / "predictions" / name, header)
    for track_id in _track_ids():
        valid = rng.random(ROWS) > WITHOUT_FACE
        scores = np.where(valid[:, None], _scores(head, rng), 0).astype(np.float32)
        store.write(track_id, {"valid": valid, f"scores/{head.name}": scores}, fps=30)
    return store.path


def _scores(head: Head, rng: np.random.Generator) -> np.ndarray:
    if head.problem is Problem.REGRESSION:
        return rng.uniform(-1, 1, (ROWS, head.output_dim))
    scores = rng.random((ROWS, head.output_dim))
    return scores / scores.sum(axis=1, keepdims=True) if head.problem is Problem.MULTICLASS else scores
