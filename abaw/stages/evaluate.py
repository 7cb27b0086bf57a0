"""`abaw evaluate`: official metrics of predictions stores against the labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config import Config
from abaw.console import Summary
from abaw.data.annotations import Labels, concatenate
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import (
    SPLIT,
    describe_tracks,
    is_measurable,
    labelled_task,
    labelled_tracks,
    predictions_labels,
)
from abaw.errors import AbawError
from abaw.postprocess import FILE_NAME
from abaw.scored import Predictions
from abaw.tasks import TASKS, Problem, Task, measure

logger = logging.getLogger(__name__)

PARTS_PER_LINE = 6


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one predictions store, and how many labelled rows and tracks they rest on.

    ``tracks``: which ones, in words; ``post``: where the post-processing was chosen, None where none was applied.
    """

    name: str
    task: str
    metrics: dict[str, float]
    num_tracks: int
    num_rows: int
    coverage: float
    tracks: str = f"{SPLIT} tracks"
    post: str | None = None


def run(cfg: Config, *, predictions: Sequence[Path] = (), raw: bool = False) -> Summary:
    """Evaluate predictions stores: those given, else those of the config, else all under predictions/.

    Of all, those without any labelled track are left out with a warning. ``raw`` leaves post.json aside. Raises
    AbawError when a labelled track has no predictions.
    """
    named = list(predictions) or list(cfg.evaluate.predictions)
    stores = [Predictions(path, raw=raw) for path in named] or _all_predictions(cfg, raw=raw)
    manifest = Manifest.from_config(cfg.data, need_media=False)
    results = [evaluate(cfg, store, manifest) for store in stores]
    data: dict[str, Any] = {"results": [vars(result) for result in results]}
    return Summary("evaluate", [], data=data, text="\n\n".join(_table(result) for result in results))


def _all_predictions(cfg: Config, *, raw: bool) -> list[Predictions]:
    folder = cfg.run.output / "predictions"
    stores = [Predictions(path.parent, raw=raw) for path in sorted(folder.glob("*/store.json"))]
    found = [store for store in stores if is_measurable(store)]
    for store in stores:
        if store not in found:
            logger.warning(
                f"{store.store.path.name} is left out: it holds no labelled track that its folds have not seen"
            )
    if not found:
        raise AbawError(
            "there are no predictions to evaluate",
            where=str(folder),
            fix="run `abaw finetune` or `abaw fuse` first, or name a predictions store",
        )
    return found


def evaluate(cfg: Config, predictions: Predictions, manifest: Manifest) -> Evaluation:
    """Metrics over all labelled rows of the tracks that the store is measured by, pooled."""
    task = labelled_task(predictions)
    source = predictions_labels(cfg, predictions, manifest)
    tracks = labelled_tracks(predictions, source)
    labels: dict[str, list[Labels]] = {head.name: [] for head in task.heads}
    decisions: dict[str, list[np.ndarray]] = {head.name: [] for head in task.heads}
    valid = []
    for track_id in tracks:
        num_rows = predictions.store.num_rows(track_id)
        decided = predictions.decide(track_id, gap=cfg.submit_for(predictions.task.name).gap)
        for name, own in source.labels(track_id, num_rows, SPLIT).items():
            labels[name].append(own)
            decisions[name].append(decided.decisions[name])
        valid.append(decided.valid)
    for text in source.notes():
        logger.warning(text)
    pooled = {name: concatenate(parts) for name, parts in labels.items()}
    metrics = measure(
        task,
        {name: np.concatenate(parts) for name, parts in decisions.items()},
        pooled,
        element_mask=cfg.evaluate.au_mask == "element",
    )
    labelled = np.any([part.mask.any(axis=1) for part in pooled.values()], axis=0)
    num_rows = int(labelled.sum())
    if not num_rows:
        raise AbawError(
            f"no row of the {describe_tracks(predictions)} has a label of task {task.name}",
            where=str(source.path),
            fix="check data.annotations: every row is marked as not annotated",
        )
    coverage = float(np.concatenate(valid)[labelled].mean())
    name, kind = predictions.store.path.name, describe_tracks(predictions)
    if not predictions.store.header.settings.get("out_of_fold", True):
        kind += " (not out-of-fold: a model behind the scores may have seen their labels)"
    return Evaluation(name, task.name, metrics, len(tracks), num_rows, coverage, kind, _post(predictions))


def _post(predictions: Predictions) -> str | None:
    """Where the post-processing that changes decisions was chosen; None where there is none."""
    used = predictions.post
    if used.is_raw:
        return None
    return used.fitted_on or "unknown"


def _table(result: Evaluation) -> str:
    """The official score, then its parts, a few to a line."""
    score, *parts = result.metrics.items()
    kind = "tracks" if result.tracks == f"{SPLIT} tracks" else result.tracks
    lines = [
        f"{result.name}: {_describe(TASKS[result.task])} {score[1]:.4f}",
        f"  {result.num_tracks} {kind}, {result.num_rows} labelled rows, {result.coverage:.1%} with data of their own",
    ]
    if result.post is not None:
        lines.append(f"  after {FILE_NAME}, fitted on {result.post}; --raw leaves it aside")
    shown = [f"{name.rpartition('.')[2]} {value:.3f}" for name, value in parts if name.count(".") > 1]
    width = max(map(len, shown))
    lines += [
        "  " + "  ".join(f"{text:<{width}}" for text in shown[start : start + PARTS_PER_LINE]).rstrip()
        for start in range(0, len(shown), PARTS_PER_LINE)
    ]
    return "\n".join(lines)


def _describe(task: Task) -> str:
    """Name of the official score, e.g. "mean F1 of 12 units"."""
    if len(task.heads) > 1:
        return "sum of the heads' scores"
    head = task.heads[0]
    if head.problem is Problem.REGRESSION:
        return "mean CCC"
    return f"mean F1 over {head.output_dim} {'units' if head.problem is Problem.MULTILABEL else 'classes'}"
