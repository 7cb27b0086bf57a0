"""How long `tune` searches at the real size: 1.6 million rows of 600 recordings, the default settings of [tune]."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config import TuneConfig
from abaw.data.annotations import Labels
from abaw.stages.tune.recordings import Recording
from abaw.stages.tune.search import settings_of, tune_head
from abaw.tasks import TASKS, Problem
from bench.record import make_record

RECORDINGS, ROWS = 600, 2_700
FOLDS = 5
TASKS_TIMED = ("va", "expr", "au")


def run(work: Path | None) -> list[dict[str, Any]]:
    """Seconds of the search of each task's head, one turn each."""
    cores = len(os.sched_getaffinity(0))
    records = []
    for task in TASKS_TIMED:
        head, tune = TASKS[task].heads[0], TuneConfig()
        recordings = _recordings(task)
        fold_of = np.arange(RECORDINGS) % FOLDS
        start = time.perf_counter()
        tune_head(head, recordings, tune, fold_of, seed=0, workers=cores)
        note = (
            f"{RECORDINGS * ROWS} rows x {head.output_dim} scores of {RECORDINGS} generated recordings, "
            f"{len(settings_of(head, tune))} settings, {FOLDS} nested folds, {tune.resamples} resamples, "
            f"{cores} processes"
        )
        seconds = [time.perf_counter() - start]
        records.append(make_record(f"tune.{task}", seconds, "s", higher_is_better=False, note=note))
    return records


def _recordings(task: str) -> list[Recording]:
    """Slow labels, and noisy scores of them."""
    head, rng = TASKS[task].heads[0], np.random.default_rng(0)
    found = []
    for number in range(RECORDINGS):
        walk = np.cumsum(rng.normal(size=(ROWS, head.output_dim)), axis=0)
        truth = np.sin(walk / 15 + rng.normal(size=head.output_dim))
        noisy = truth + rng.normal(size=truth.shape)
        if head.problem is Problem.MULTILABEL:
            values, scores = truth > 0.5, 1 / (1 + np.exp(-noisy))
        elif head.problem is Problem.MULTICLASS:
            values, scores = truth.argmax(1)[:, None], np.exp(noisy) / np.exp(noisy).sum(1, keepdims=True)
        else:
            values, scores = 0.6 * truth, np.clip(0.6 * noisy, -1, 1)
        labels = Labels(values.astype(np.float32), np.ones(values.shape, bool))
        found.append(Recording(f"r{number}", {task: [scores.astype(np.float32)]}, {task: labels}))
    return found
