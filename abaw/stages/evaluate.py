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
from abaw.data.annotations import LabelReader, Labels, concatenate
from abaw.data.label_sources import LabelSource, TrackLabels, label_source
from abaw.data.manifest import Manifest
from abaw.errors import AbawError
from abaw.scored import Predictions
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Problem, Task, measure

logger = logging.getLogger(__name__)

SPLIT = "val"  # the split whose tracks finetune and fuse score and that has labels
PARTS_PER_LINE = 6


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one predictions store, and how many labelled rows and tracks they rest on."""

    name: str
    task: str
    metrics: dict[str, float]
    num_tracks: int
    num_rows: int
    coverage: float


def run(cfg: Config, *, predictions: Sequence[Path] = (), raw: bool = False) -> Summary:
    """Evaluate predictions stores: those given, else those of the config, else all under predictions/.

    ``raw`` leaves post.json aside. Raises AbawError when a labelled track has no predictions.
    """
    paths = list(predictions) or list(cfg.evaluate.predictions) or _all_predictions(cfg)
    manifest = Manifest.from_config(cfg.data, need_media=False)
    results = [evaluate(cfg, Predictions(path, raw=raw), manifest) for path in paths]
    data: dict[str, Any] = {"results": [vars(result) for result in results]}
    return Summary("evaluate", [], data=data, text="\n\n".join(_table(result) for result in results))


def _all_predictions(cfg: Config) -> list[Path]:
    folder = cfg.run.output / "predictions"
    found = sorted(path.parent for path in folder.glob("*/store.json"))
    if not found:
        raise AbawError(
            "there are no predictions to evaluate",
            where=str(folder),
            fix="run `abaw finetune` or `abaw fuse` first, or name a predictions store",
        )
    return found


def evaluate(cfg: Config, predictions: Predictions, manifest: Manifest) -> Evaluation:
    """Metrics over all labelled rows of the validation split, pooled over its tracks."""
    task = TASKS[predictions.task.train_on or predictions.task.name]
    source = _source(cfg, manifest, task)
    tracks = _tracks(predictions, source)
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
            f"no row of the {SPLIT} split has a label of task {task.name}",
            where=str(source.path),
            fix="check data.annotations: every row is marked as not annotated",
        )
    coverage = float(np.concatenate(valid)[labelled].mean())
    return Evaluation(predictions.store.path.name, task.name, metrics, len(tracks), num_rows, coverage)


def _source(cfg: Config, manifest: Manifest, task: Task) -> LabelSource:
    """Labels by track, or of an image collection by the paths in its faces store."""
    if cfg.data.kind != "images":
        return TrackLabels(manifest, LabelReader(cfg.data, task))
    faces = FeatureStore.open(cfg.finetune_for(task.name).faces or cfg.faces_store, kind="faces")
    return label_source(cfg.data, task, faces, manifest)


def _tracks(predictions: Predictions, source: LabelSource) -> list[str]:
    """The tracks that are scored: the validation split, or of a cross-validated run those that a fold held out."""
    if "split_file" not in predictions.store.header.settings:
        tracks = source.track_ids(SPLIT)
        _require_tracks(predictions, tracks, source.task.name)
        return tracks
    tracks = list(predictions.store.header.settings["held_out"])
    _require_tracks(predictions, tracks, source.task.name)
    return tracks


def _require_tracks(predictions: Predictions, tracks: list[str], task: str) -> None:
    path = predictions.store.path
    if not tracks:
        raise AbawError(
            f"task {task} has no tracks in the {SPLIT} split",
            where="data.annotations",
            fix="check that the label folder holds Validation_Set with a file per track",
        )
    missing = [track_id for track_id in tracks if track_id not in predictions.store]
    if missing:
        raise AbawError(
            f"{path.name} lacks {len(missing)} of {len(tracks)} {SPLIT} tracks: {', '.join(missing[:5])}",
            where=str(path),
            fix="align and extract them, then run the stage that wrote it again: it adds what is missing",
        )


def _table(result: Evaluation) -> str:
    """The official score, then its parts, a few to a line."""
    score, *parts = result.metrics.items()
    lines = [
        f"{result.name}: {_describe(TASKS[result.task])} {score[1]:.4f}",
        f"  {result.num_tracks} tracks, {result.num_rows} labelled rows, {result.coverage:.1%} with data of their own",
    ]
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
