"""Tasks as values: heads, label orders, and the one rule that turns scores into decisions and metrics.

Add a task by adding an entry of TASKS: losses, heads, decisions and metrics follow from ``Problem``. Knows nothing of
files, tensors or editions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from abaw import metrics
from abaw.postprocess import Post, smooth, without_short_runs


class Problem(Enum):
    """Kind of output; decides activation, loss, decision and metric."""

    MULTILABEL = "multilabel"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class LabelArrays(Protocol):
    """Ground truth of one head: float32 values [T, target_dim] and bool mask [T, target_dim]."""

    @property
    def values(self) -> np.ndarray: ...
    @property
    def mask(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Head:
    """One block of outputs; the order of ``labels`` is the column order everywhere."""

    name: str
    problem: Problem
    labels: tuple[str, ...]

    @property
    def output_dim(self) -> int:
        """Columns of the scores."""
        return len(self.labels)

    @property
    def target_dim(self) -> int:
        """Columns of the labels: a class index is one column."""
        return 1 if self.problem is Problem.MULTICLASS else len(self.labels)

    @property
    def metric(self) -> str:
        """Name of the official metric: "ccc" or "f1"."""
        return "ccc" if self.problem is Problem.REGRESSION else "f1"

    def decide(self, scores: np.ndarray, post: Post) -> np.ndarray:
        """Scores [T, output_dim] of one track -> decisions [T, target_dim]: smoothed, then as ``settle`` says."""
        return self.settle(smooth(scores, post.half_width.get(self.name, 0), post.filter.get(self.name, "box")), post)

    def settle(self, smoothed: np.ndarray, post: Post) -> np.ndarray:
        """Smoothed scores [T, output_dim] of one track -> decisions [T, target_dim].

        MULTILABEL int8 0/1 (score >= threshold, 0.5 unless tuned), MULTICLASS int8 class index (argmax, the first of
        equals; then without short runs), REGRESSION float32 clipped values.
        """
        if self.problem is Problem.MULTILABEL:
            thresholds = np.asarray(post.thresholds.get(self.name, [0.5] * self.output_dim), np.float32)
            return (smoothed >= thresholds).astype(np.int8)
        if self.problem is Problem.MULTICLASS:
            classes = smoothed.argmax(axis=1).astype(np.int8)
            return without_short_runs(classes, post.min_run.get(self.name, 0), self.output_dim)[:, None]
        return np.clip(smoothed, *post.clip).astype(np.float32)

    def measure(self, decisions: np.ndarray, labels: LabelArrays, *, element_mask: bool = False) -> dict[str, float]:
        """Official metric of decisions [N, target_dim] and its parts, by name: "va.ccc", "va.ccc.valence", ...

        A row with any unlabelled column is dropped, unless ``element_mask`` (multi-label only).
        """
        rows = labels.mask.all(axis=1)
        if self.problem is Problem.MULTICLASS:
            parts = metrics.f1_per_class(decisions[rows, 0], labels.values[rows, 0], self.output_dim)
            return self._named(parts)
        columns = []
        for column in range(self.target_dim):
            keep = labels.mask[:, column] if element_mask and self.problem is Problem.MULTILABEL else rows
            metric = metrics.f1_binary if self.problem is Problem.MULTILABEL else metrics.ccc
            columns.append(metric(decisions[keep, column], labels.values[keep, column]))
        return self._named(np.array(columns))

    def _named(self, parts: np.ndarray) -> dict[str, float]:
        key = f"{self.name}.{self.metric}"
        by_label = {f"{key}.{label}": float(part) for label, part in zip(self.labels, parts, strict=True)}
        return {key: float(parts.mean()), **by_label}


@dataclass(frozen=True)
class Task:
    """What a run is about: one head, or several. ``train_on``: the task whose labels train it, where it has none."""

    name: str
    heads: tuple[Head, ...]
    train_on: str | None = None

    def head(self, name: str) -> Head:
        """The head of that name."""
        return next(head for head in self.heads if head.name == name)


AU_LABELS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")
EXPR_LABELS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
CE_LABELS = (
    "Fearfully_Surprised",
    "Happily_Surprised",
    "Sadly_Surprised",
    "Disgustedly_Surprised",
    "Angrily_Surprised",
    "Sadly_Fearful",
    "Sadly_Angry",
)

_AU = Head("au", Problem.MULTILABEL, AU_LABELS)
_EXPR = Head("expr", Problem.MULTICLASS, EXPR_LABELS)
_VA = Head("va", Problem.REGRESSION, ("valence", "arousal"))
_LSD = Head("lsd", Problem.MULTICLASS, ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"))
_CE = Head("ce", Problem.MULTICLASS, CE_LABELS)
_AU8 = Head("au8", Problem.MULTILABEL, ("AU1", "AU2", "AU4", "AU6", "AU12", "AU15", "AU20", "AU25"))
_EXPR7 = Head("expr7", Problem.MULTICLASS, EXPR_LABELS[:-1])

TASKS: dict[str, Task] = {
    "au": Task("au", (_AU,)),
    "expr": Task("expr", (_EXPR,)),
    "va": Task("va", (_VA,)),
    "mtl": Task("mtl", (_VA, _EXPR, _AU)),
    "lsd": Task("lsd", (_LSD,)),
    "ce": Task("ce", (_CE,), train_on="expr"),
    "au8": Task("au8", (_AU8,)),
    "expr7": Task("expr7", (_EXPR7,)),
}


# The two expressions of each compound one, as its name says.
CE_PARENTS: dict[str, tuple[str, str]] = {
    "Fearfully_Surprised": ("Fear", "Surprise"),
    "Happily_Surprised": ("Happiness", "Surprise"),
    "Sadly_Surprised": ("Sadness", "Surprise"),
    "Disgustedly_Surprised": ("Disgust", "Surprise"),
    "Angrily_Surprised": ("Anger", "Surprise"),
    "Sadly_Fearful": ("Sadness", "Fear"),
    "Sadly_Angry": ("Sadness", "Anger"),
}


def derive(head: Head, task: Task) -> tuple[Head, np.ndarray] | None:
    """The head of ``task`` that ``head`` follows from, and the matrix that turns its scores [T, n] @ [n, L] into ours.

    A head of the same name and labels; one of classes whose labels hold all of ours (the others are left out); and
    for compound expressions the eight expressions, each pair being the sum of its two parents' probabilities (our
    choice: the challenge names no rule). None where there is no such head.
    """
    for source in task.heads:
        if source == head:
            return source, np.eye(head.output_dim, dtype=np.float32)
        if not source.problem is head.problem is Problem.MULTICLASS:
            continue
        parts = [CE_PARENTS.get(label, (label,)) if head is _CE else (label,) for label in head.labels]
        if all(label in source.labels for part in parts for label in part):
            columns = [[float(label in part) for part in parts] for label in source.labels]
            return source, np.array(columns, np.float32)
    return None


def decide(task: Task, scores: Mapping[str, np.ndarray], post: Post | None = None) -> dict[str, np.ndarray]:
    """Scores of one track, by head, -> decisions by head. The only place where scores become labels."""
    used = post or Post()
    return {head.name: head.decide(scores[head.name], used) for head in task.heads}


def measure(
    task: Task,
    decisions: Mapping[str, np.ndarray],
    labels: Mapping[str, LabelArrays],
    *,
    element_mask: bool = False,
) -> dict[str, float]:
    """Metrics of pooled rows, by name; "score" is the official one: the sum over heads of each head's mean."""
    parts = {
        head.name: head.measure(decisions[head.name], labels[head.name], element_mask=element_mask)
        for head in task.heads
    }
    total = sum(next(iter(named.values())) for named in parts.values())
    return {"score": total} | {key: value for named in parts.values() for key, value in named.items()}


def score(task: Task, scores: Mapping[str, np.ndarray], labels: Mapping[str, LabelArrays]) -> dict[str, float]:
    """``measure`` of undecided scores without post-processing, for selecting checkpoints during training."""
    return measure(task, decide(task, scores), labels)
