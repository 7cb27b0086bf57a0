"""Reading a predictions store for evaluation and submission: gaps filled, then decided by the one rule.

Owns the way from stored scores to decisions, so that `evaluate` and `submit` cannot differ. Knows nothing of labels
or of file formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.errors import AbawError
from abaw.gaps import fill
from abaw.postprocess import Post, load_post
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Task, decide


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

    def decide(self, track_id: str, *, gap: str, num_rows: int | None = None) -> TrackDecisions:
        """Decisions of a track; rows without a score are filled by ``gap``, rows past the end repeat the last.

        Raises AbawError when the track is missing or has no scored row at all.
        """
        valid = self.store.valid(track_id)
        if not valid.any():
            raise AbawError(
                f"track {track_id} has no scored row in {self.store.path.name}",
                where=str(self.store.path),
                fix="check that align found a face in it: `abaw inspect` on the faces store shows its coverage",
            )
        scores = {
            head.name: fill(self.store.read(track_id, f"scores/{head.name}"), valid, gap) for head in self.task.heads
        }
        if num_rows is not None:
            take = np.minimum(np.arange(num_rows), len(valid) - 1)
            inside = np.arange(num_rows) < len(valid)
            scores = {name: block[take] for name, block in scores.items()}
            valid = valid[take] & inside
        return TrackDecisions(decide(self.task, scores, self.post), valid)


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
