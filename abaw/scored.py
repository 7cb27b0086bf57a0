"""Reading a predictions store for evaluation and submission: gaps filled, then decided by the one rule.

Owns the way from stored scores to decisions, so that `evaluate` and `submit` cannot differ. Knows nothing of labels
or of file formats.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.errors import AbawError
from abaw.gaps import fill
from abaw.postprocess import Post, load_post
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Task, decide

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackDecisions:
    """Decisions [T, target_dim] by head for one track, and which rows bool [T] had a score of their own."""

    decisions: dict[str, np.ndarray]
    valid: np.ndarray


class Predictions:
    """A predictions store with its task and post-processing."""

    def __init__(self, path: Path, *, raw: bool = False) -> None:
        self.store = FeatureStore.open(path, kind="predictions")
        self.task = _task_of(self.store)
        self.post = Post() if raw else load_post(path)
        _require_known_heads(self.post, self.task, path)
        for head in self.task.heads:
            given = len(self.post.thresholds.get(head.name, [0.0] * head.output_dim))
            if given != head.output_dim:
                raise AbawError(
                    f"post.json has {given} thresholds for the {head.output_dim} outputs of {head.name}",
                    where=str(path / "post.json"),
                    fix="give one for each output, or delete the file to use 0.5 for all",
                )

    def filled(self, track_id: str, *, gap: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Undecided scores float32 [T, L] of a track by head, and which rows bool [T] had one of their own.

        Rows without a score are filled by ``gap``; a track without any has zeros, and a warning says so.
        """
        valid = self.store.valid(track_id)
        if not valid.any():
            logger.warning("track %s has no scored row: it gets value 0, the first class, no unit", track_id)
        scores = {
            head.name: fill(self.store.read(track_id, f"scores/{head.name}"), valid, gap) for head in self.task.heads
        }
        return scores, valid

    def decide(self, track_id: str, *, gap: str, num_rows: int | None = None) -> TrackDecisions:
        """Decisions of a track; rows without a score are filled by ``gap``, rows past the end repeat the last.

        Raises AbawError when the track is missing.
        """
        scores, valid = self.filled(track_id, gap=gap)
        # Decided on the track's own rows, so that smoothing sees the same neighbours whoever asks.
        decisions = decide(self.task, scores, self.post)
        if num_rows is not None and len(valid):
            take = np.minimum(np.arange(num_rows), len(valid) - 1)
            decisions = {name: block[take] for name, block in decisions.items()}
            valid = valid[take] & (np.arange(num_rows) < len(valid))
        return TrackDecisions(decisions, valid)


def _require_known_heads(post: Post, task: Task, path: Path) -> None:
    """A setting of a head that is not there would do nothing, silently."""
    known = [head.name for head in task.heads]
    named = [name for table in (post.half_width, post.filter, post.thresholds, post.min_run) for name in table]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise AbawError(
            f"post.json has settings of {unknown[0]}, the scores are of {', '.join(known)}",
            where=str(path / "post.json"),
            fix="correct the name, or delete the file to use the raw scores",
        )


def _task_of(store: FeatureStore) -> Task:
    """The task whose heads and label order a predictions store holds. Raises AbawError when none fits."""
    order = store.header.label_order
    for task in TASKS.values():
        if {head.name: list(head.labels) for head in task.heads} == order:
            return task
    raise AbawError(
        f"the scores of {store.path} fit no known task: {order}",
        where=str(store.path / "store.json"),
        fix="use a store written by finetune or fuse of this version",
    )
