"""Reading a predictions store for evaluation and submission: gaps filled, then decided by the one rule.

Owns the way from stored scores to decisions, so that `evaluate` and `submit` cannot differ, and what both ask of
decisions, whatever they come from. Knows nothing of labels or of file formats.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from abaw.errors import AbawError, choose, closest
from abaw.gaps import fill
from abaw.postprocess import Post, load_post
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Task, decide, derive

logger = logging.getLogger(__name__)

MAX_NAMED = 5


@dataclass(frozen=True)
class TrackDecisions:
    """Decisions [T, target_dim] by head for one track, and which rows bool [T] had a score of their own."""

    decisions: dict[str, np.ndarray]
    valid: np.ndarray


class Scored(Protocol):
    """Decisions of some tracks for a task: of a predictions store, or of a file that was made elsewhere.

    ``name`` for a table, ``path`` for messages; ``settings`` as in a store's header, empty where there is none.
    """

    name: str
    path: Path
    task: Task
    post: Post

    @property
    def settings(self) -> dict[str, Any]: ...

    def track_ids(self) -> Sequence[str]:
        """Tracks that there are decisions of, sorted."""
        ...

    def __contains__(self, track_id: str) -> bool: ...

    def num_rows(self, track_id: str) -> int:
        """T."""
        ...

    def decide(self, track_id: str, *, gap: str, num_rows: int | None = None) -> TrackDecisions:
        """Decisions of a track, of ``num_rows`` rows instead of T: rows without one are filled by ``gap``."""
        ...


class Predictions:
    """A predictions store with its task and post-processing."""

    def __init__(self, path: Path, *, raw: bool = False) -> None:
        if not path.exists():
            raise _no_store(path)
        self.store = FeatureStore.open(path, kind="predictions")
        self.path, self.name = path, path.name
        self.task = _task_of(self.store)
        self.post = Post() if raw else load_post(path)
        self._sources: dict[str, tuple[str, np.ndarray | None]] = {
            head.name: (head.name, None) for head in self.task.heads
        }
        _require_known_heads(self.post, self.task, path)
        for head in self.task.heads:
            given = len(self.post.thresholds.get(head.name, [0.0] * head.output_dim))
            if given != head.output_dim:
                raise AbawError(
                    f"post.json has {given} thresholds for the {head.output_dim} outputs of {head.name}",
                    where=str(path / "post.json"),
                    fix="give one for each output, or delete the file to use 0.5 for all",
                )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in the store's header."""
        return self.store.header.settings

    def track_ids(self) -> Sequence[str]:
        """Tracks of the store, sorted."""
        return self.store.track_ids()

    def __contains__(self, track_id: str) -> bool:
        return track_id in self.store

    def num_rows(self, track_id: str) -> int:
        """T of a track."""
        return self.store.num_rows(track_id)

    def for_task(self, name: str) -> Predictions:
        """The same scores as those of another task that follows from them, see ``tasks.derive``.

        Its scores are smoothed as those they are made of. Raises AbawError when the task does not follow.
        """
        task = choose(TASKS, name, what="task", where="--task")
        if task == self.task:
            return self
        found = {head.name: derive(head, self.task) for head in task.heads}
        if not all(found.values()):
            raise AbawError(
                f"{self.name} holds scores of task {self.task.name}, which say nothing about task {task.name}",
                where=str(self.path),
                fix=f"give the predictions of task {task.train_on or task.name}",
            )
        other = copy(self)
        other.task = task
        other._sources = {name: (source.name, matrix) for name, (source, matrix) in found.items()}  # type: ignore[misc]
        other.post = self.post.of_heads({name: source for name, (source, _) in other._sources.items()})
        return other

    def filled(self, track_id: str, *, gap: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Undecided scores float32 [T, L] of a track by head, and which rows bool [T] had one of their own.

        Rows without a score are filled by ``gap``; a track without any has zeros, and a warning says so.
        """
        valid = self.store.valid(track_id)
        if not valid.any():
            logger.warning("track %s has no scored row: it gets value 0, the first class, no unit", track_id)
        scores = {}
        for name, (source, matrix) in self._sources.items():
            own = fill(self._finite(track_id, source), valid, gap)
            scores[name] = own if matrix is None else own @ matrix
        return scores, valid

    def _finite(self, track_id: str, head: str) -> np.ndarray:
        """A head's stored scores. Raises AbawError for one that is no number: it would become some class or none."""
        scores = self.store.read(track_id, f"scores/{head}")
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
            raise AbawError(
                f"row {row} of track {track_id} has a score of {head} that is not finite",
                where=str(self.store.track_path(track_id)),
                fix="delete that file, and run the stage that wrote it again",
            )
        return scores

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


def _no_store(path: Path) -> AbawError:
    """The error of a store that is not there, with those that are: beside it, or under predictions/."""
    near = [one.parent for folder in (path.parent, path.parent / "predictions") for one in folder.glob("*/store.json")]
    names = {one.name: one for one in sorted(near)}
    match = names.get(path.name) or names.get(closest(path.name, names) or "")
    there = f"there are {', '.join(list(names)[:MAX_NAMED])}{', ...' if len(names) > MAX_NAMED else ''}"
    return AbawError(
        f"there is no predictions store at {path}",
        where=str(path),
        fix=f"{f'did you mean {match}? ' if match else ''}run the stage that writes it first, or correct the path"
        + (f"; {there}" if names else ""),
    )


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
