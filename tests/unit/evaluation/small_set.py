"""Label files, predictions and faces stores of a few rows, and the official metrics by other means than ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr
from sklearn.metrics import f1_score

from abaw.config_file import load_config
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import predictions_labels
from abaw.evaluation import Evaluation, evaluate_tracks
from abaw.scored import Predictions
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS, Head, Problem

MTL_HEADER = "image,valence,arousal,expression,aus"


# -- writing ---------------------------------------------------------------------------------------------------------
def write_config(root: Path, task: str, more: str = "") -> None:
    (root / "data.toml").write_text(f'[data]\nannotations = {{ {task} = "labels" }}\n{more}')


def write_labels(root: Path, task: str, tracks: Mapping[str, np.ndarray], split: str = "Validation_Set") -> None:
    """Label files as the organisers write them: values [T, columns] with -1 and -5 where not annotated."""
    if task == "mtl":
        lines = [f"{name}/{k:05d}.jpg,{_row(row)}" for name, rows in tracks.items() for k, row in enumerate(rows, 1)]
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels/validation_set_annotations.txt").write_text("\n".join([MTL_HEADER, *lines, ""]))
        return
    header = ",".join(TASKS[task].heads[0].labels)
    for name, rows in tracks.items():
        path = root / "labels" / split / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *map(_row, rows), ""]))


def _row(values: np.ndarray) -> str:
    return ",".join(f"{value:g}" for value in values)


def write_scores(
    root: Path,
    name: str,
    task: str,
    tracks: Mapping[str, dict[str, np.ndarray]],
    valid: Mapping[str, np.ndarray] | None = None,
    **settings: Any,
) -> Path:
    """A predictions store of scores [T, L] by track and head; rows that are not ``valid`` hold zeros."""
    heads = TASKS[task].heads
    arrays = {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in heads}
    order = {head.name: list(head.labels) for head in heads}
    header = StoreHeader("predictions", name, arrays, {"run": name, **settings}, label_order=order)
    store = FeatureStore.create(root / "predictions" / name, header)
    for track_id, scores in tracks.items():
        rows = len(next(iter(scores.values())))
        own = np.ones(rows, bool) if valid is None else valid[track_id]
        blocks = {f"scores/{head}": np.where(own[:, None], one, 0).astype(np.float32) for head, one in scores.items()}
        store.write(track_id, {"valid": own, **blocks}, fps=30)
    return store.path


def write_faces(root: Path, tracks: Mapping[str, np.ndarray]) -> FeatureStore:
    """A faces store of nothing but which rows have a face."""
    store = FeatureStore.create(root / "features/faces", StoreHeader("faces", "faces", {}, {}))
    for name, own in tracks.items():
        store.write(name, {"valid": own}, fps=30)
    return store


def evaluated(root: Path, name: str, *overrides: str, faces: FeatureStore | None = None) -> Evaluation:
    """The evaluation of a store against the label files."""
    cfg = load_config(root / "data.toml", overrides=list(overrides))
    scored = Predictions(root / "predictions" / name)
    source = predictions_labels(cfg, scored, Manifest.from_config(cfg.data, need_media=False))
    return evaluate_tracks(cfg, scored, source, faces=faces)


# -- making ----------------------------------------------------------------------------------------------------------
def random_labels(head: Head, rows: int, rng: np.random.Generator, *, missing: float = 0.1) -> np.ndarray:
    """Label values [rows, columns]; single entries are missing, so that a row may lack a part of its labels."""
    shape = (rows, head.target_dim)
    if head.problem is Problem.REGRESSION:
        return np.where(rng.random(shape) < missing, -5, rng.integers(-100, 101, shape) / 100)
    top = head.output_dim if head.problem is Problem.MULTICLASS else 2
    return np.where(rng.random(shape) < missing, -1, rng.integers(0, top, shape))


def random_scores(head: Head, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scores float32 [rows, L] that have something to do with the labels."""
    noise = rng.random((len(labels), head.output_dim))
    if head.problem is Problem.REGRESSION:
        return (0.5 * np.clip(labels, -1, 1) + 0.8 * (noise - 0.5)).astype(np.float32)
    truth = np.eye(head.output_dim)[labels[:, 0].astype(int)] if head.problem is Problem.MULTICLASS else labels > 0
    return (0.7 * noise + 0.3 * truth).astype(np.float32)


# -- the metrics by other means --------------------------------------------------------------------------------------
def reference(head: Head, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The metric of each label by scikit-learn or scipy; rows with any label missing are left out."""
    kept = (labels != (-5 if head.problem is Problem.REGRESSION else -1)).all(axis=1)
    scores, labels = scores[kept], labels[kept]
    if head.problem is Problem.MULTICLASS:
        names = range(head.output_dim)
        return np.asarray(f1_score(labels[:, 0], scores.argmax(1), labels=names, average=None, zero_division=0))
    if head.problem is Problem.MULTILABEL:
        return np.asarray(f1_score(labels.astype(int), (scores >= 0.5).astype(int), average=None, zero_division=0))
    return np.array([ccc(x, y) for x, y in zip(np.clip(scores, -1, 1).T, labels.T, strict=True)])


def ccc(x: np.ndarray, y: np.ndarray) -> float:
    """From Pearson's correlation and population deviations (Lin 1989)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(2 * pearsonr(x, y)[0] * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def plain(data: Any) -> Any:
    """As a reader of the JSON gets it; ValueError for NaN."""
    return json.loads(json.dumps(data, allow_nan=False))
