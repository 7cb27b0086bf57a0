"""What training may use: tasks with labels of their own, frames with both a face and a label, and their hashes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from abaw.data.annotations import LabelReader, Labels, concatenate
from abaw.data.frames import FrameRef, spread
from abaw.data.manifest import Track
from abaw.errors import AbawError, ExitCode, choose
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledFrames:
    """Frames of many tracks and their labels by head; row i of the labels belongs to the i-th frame."""

    refs: list[FrameRef]
    labels: dict[str, Labels]

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
                where=f"data.annotations, {len(labels)} tracks of task {task.name}",
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


def labelled_frames(
    store: FeatureStore, tracks: Sequence[Track], reader: LabelReader, *, split: str, per_track: int = 0
) -> LabelledFrames:
    """Rows with a face and at least one label; at most `per_track` of a track, evenly spread (0 = all).

    Tracks the store lacks are counted in a warning. Raises AbawError when nothing is left.
    """
    refs: list[FrameRef] = []
    parts: dict[str, list[Labels]] = {head.name: [] for head in reader.task.heads}
    lacking = [track.track_id for track in tracks if track.track_id not in store]
    for track in tracks:
        if track.track_id in store:
            valid = store.valid(track.track_id)
            labels = reader.labels(track, len(valid))
            labelled = np.any([own.mask.any(axis=1) for own in labels.values()], axis=0)
            rows = spread(np.flatnonzero(valid & labelled), per_track)
            if len(rows):
                refs.append(FrameRef(store, track.track_id, rows))
                for name, own in labels.items():
                    parts[name].append(Labels(own.values[rows], own.mask[rows]))
    if not refs:
        raise AbawError(
            f"no labelled face for task {reader.task.name}, split {split}: {len(tracks)} labelled tracks, "
            f"{len(tracks) - len(lacking)} of them in the faces store",
            where=f"{store.path} and {reader.path}",
            fix="run `abaw align` on the labelled videos, or correct data.annotations",
        )
    if lacking:
        logger.warning(
            "%d of %d %s tracks are not in %s: %s", len(lacking), len(tracks), split, store.path, ", ".join(lacking[:5])
        )
    return LabelledFrames(refs, {name: concatenate(own) for name, own in parts.items()})
