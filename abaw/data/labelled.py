"""What training may use: tasks with labels of their own, frames with both a face and a label, and their hashes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from abaw.data.annotations import Labels, concatenate
from abaw.data.frames import FrameRef, spread
from abaw.data.label_sources import LabelSource
from abaw.errors import AbawError, ExitCode, choose
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Head, Problem, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledFrames:
    """Frames of many tracks and their labels by head; row i of the labels belongs to the i-th frame.

    ``lengths``: frames of each recording in turn, whose neighbours are near-duplicates; default, each track is one.
    """

    refs: list[FrameRef]
    labels: dict[str, Labels]
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.lengths:
            object.__setattr__(self, "lengths", [len(ref) for ref in self.refs])

    def __len__(self) -> int:
        return sum(len(ref) for ref in self.refs)

    def arrays(self) -> dict[str, np.ndarray]:
        """Labels as `<head>.values` and `<head>.mask`, for batches."""
        found: dict[str, np.ndarray] = {}
        for name, labels in self.labels.items():
            found |= {f"{name}.values": labels.values, f"{name}.mask": labels.mask}
        return found

    @property
    def sha256(self) -> str:
        """Hash of tracks, rows and labels: changes when any of them does."""
        digest = hashlib.sha256()
        for ref in self.refs:
            digest.update(f"{ref.track_id}:{len(ref)}\n".encode())
            digest.update(ref.rows.astype("<i8").tobytes())
        digest.update(labels_sha256({"": self.labels}).encode())
        return digest.hexdigest()


def trainable_task(name: str, *, where: str) -> Task:
    """The task of that name. Raises AbawError for an unknown one, or one that has no labels of its own."""
    task = choose(TASKS, name, what="task", where=where)
    if task.train_on is not None:
        raise AbawError(
            f'task "{name}" has no labels of its own to train on',
            where=f"{where} or --task",
            fix=f"train on {task.train_on}: --task {task.train_on}; {name.upper()} is decided from its scores later",
            code=ExitCode.CONFIG,
        )
    return task


def require_labels(labels: Mapping[str, Mapping[str, Labels]], task: Task, *, split: str) -> None:
    """Raise AbawError when a head has no label in any track of a split."""
    for head in task.heads:
        if not any(heads[head.name].mask.any() for heads in labels.values()):
            raise AbawError(
                f"no row of the {split} split has a label of {head.name}",
                where=f"data.annotations.{task.name}",
                fix="check the label files: every row is marked as not annotated",
            )


def labels_sha256(labels: Mapping[str, Mapping[str, Labels]]) -> str:
    """Hash of labels by track and head, in the order of the tracks; what an unlabelled element holds does not count."""
    digest = hashlib.sha256()
    for track_id, heads in labels.items():
        for name in sorted(heads):
            values, mask = heads[name].values, heads[name].mask
            digest.update(f"{track_id}/{name}:{len(mask)}\n".encode())
            digest.update(np.where(mask, values, 0).astype("<f4").tobytes() + mask.tobytes())
    return digest.hexdigest()


def unseen_classes(head: Head, labels: Labels) -> list[str]:
    """Classes, or units, of a head that no labelled row shows; empty for values."""
    if head.problem is Problem.REGRESSION:
        return []
    if head.problem is Problem.MULTICLASS:
        counts = np.bincount(labels.values[labels.mask[:, 0], 0].astype(np.int64), minlength=head.output_dim)
    else:
        counts = (labels.mask & (labels.values > 0.5)).sum(axis=0)
    return [label for label, count in zip(head.labels, counts.tolist(), strict=True) if count == 0]


def labelled_frames(
    store: FeatureStore,
    source: LabelSource,
    split: str,
    *,
    per_track: int = 0,
    tracks: Sequence[str] | None = None,
) -> LabelledFrames:
    """Rows with a face and at least one label; at most `per_track` of a recording, evenly spread (0 = all).

    ``tracks``: these instead of the split's, as for folds; of an image collection, shards. Tracks the store lacks are
    counted in a warning. Raises AbawError when nothing is left, or a head has no label in any row.
    """
    names = source.track_ids(split) if tracks is None else list(tracks)
    refs: list[FrameRef] = []
    lengths: list[int] = []
    parts: dict[str, list[Labels]] = {head.name: [] for head in source.task.heads}
    there = [track_id for track_id in names if track_id in store]
    for track_id in there:
        valid = store.valid(track_id)
        labels = source.labels(track_id, len(valid), split)
        labelled = np.any([own.mask.any(axis=1) for own in labels.values()], axis=0)
        rows, runs = _of_recordings(np.flatnonzero(valid & labelled), source, track_id, len(valid), per_track)
        if len(rows):
            refs.append(FrameRef(store, track_id, rows))
            lengths += runs
            for name, own in labels.items():
                parts[name].append(Labels(own.values[rows], own.mask[rows]))
    if not refs:
        raise _no_frames(store, source, split, known=len(names), there=len(there))
    if len(there) < len(names):
        _warn_of_lacking(store, split, names)
    found = LabelledFrames(refs, {name: concatenate(own) for name, own in parts.items()}, lengths)
    require_labels({"": found.labels}, source.task, split=split)
    return found


def _of_recordings(
    rows: np.ndarray, source: LabelSource, track_id: str, num_rows: int, per_track: int
) -> tuple[np.ndarray, list[int]]:
    """The rows that stay, and how many of each recording follow each other."""
    numbers = source.recordings(track_id, num_rows)
    if per_track:
        kept = [spread(rows[numbers[rows] == number], per_track) for number in np.unique(numbers[rows])]
        rows = np.sort(np.concatenate([rows[:0], *kept]))
    cuts = np.flatnonzero(np.diff(numbers[rows])) + 1
    return rows, np.diff([0, *cuts, len(rows)]).tolist()


def _no_frames(store: FeatureStore, source: LabelSource, split: str, *, known: int, there: int) -> AbawError:
    return AbawError(
        f"no labelled face for task {source.task.name}, split {split}: {known} labelled tracks, "
        f"{there} of them in the faces store",
        where=f"{store.path} and {source.path}",
        fix="run `abaw align` on the labelled videos or images, or correct data.annotations"
        if not there
        else "look at the label files: every row may be marked as not annotated (-1, -5), or show no face; "
        "`abaw check` tells which",
    )


def _warn_of_lacking(store: FeatureStore, split: str, names: Sequence[str]) -> None:
    lacking = [track_id for track_id in names if track_id not in store]
    shown = ", ".join(lacking[:5])
    logger.warning("%d of %d %s tracks are not in %s: %s", len(lacking), len(names), split, store.path, shown)


def joined(parts: Sequence[LabelledFrames]) -> LabelledFrames:
    """Several sets of frames as one, in order; they may lie in different stores."""
    return LabelledFrames(
        [ref for part in parts for ref in part.refs],
        {name: concatenate([part.labels[name] for part in parts]) for name in parts[0].labels},
        [length for part in parts for length in part.lengths],
    )
