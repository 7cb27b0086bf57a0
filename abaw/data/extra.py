"""Labelled images from elsewhere, such as AffectNet, that join the training frames of a task.

Their labels are mapped by name only: a class that the task lacks is left out and counted, never guessed.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from abaw.data.annotations import Labels, concatenate
from abaw.data.frames import FrameRef
from abaw.data.key_csv import KeyTable, read_key_csv
from abaw.data.labelled import LabelledFrames
from abaw.errors import AbawError, ExitCode
from abaw.label_spaces import LABEL_SPACES
from abaw.provenance import file_sha256, trained_on_record
from abaw.store import FeatureStore
from abaw.tasks import Problem, Task

logger = logging.getLogger(__name__)


def extra_frames(
    *, store: Path, csv: Path, labels: str, dataset: str, task: Task, where: str = "finetune.extra"
) -> tuple[LabelledFrames, dict[str, Any], list[str]]:
    """Images of an image faces store that a csv file labels, the provenance record of their labels, and warnings.

    ``csv``: `path,label` (or `path,valence,arousal`, `path,AU1,...`), the paths as in the collection; ``labels`` names
    the label space of its classes. The warnings, logged too, tell what is left out: classes the task lacks, images the
    store lacks, images without a face. The record is that of `trained_on_record` with the csv's hash as its split file.
    Raises AbawError for a store without keys, classes without a label space, and where no image is left.
    """
    faces = FeatureStore.open(store, kind="faces")
    if "key" not in faces.header.arrays:
        raise AbawError(
            f"{store} is no store of an image collection: its rows have no paths that {csv.name} could name",
            where=f"{where}.store",
            fix='align the images with data.kind = "images", and name that store',
        )
    table = read_key_csv(csv, task.heads, space=labels, where=f"{where}.csv")
    _check_space(table, task, labels, where=f"{where}.labels: {csv}")
    frames, keys = _frames(faces, table, task)
    if not keys:
        raise AbawError(
            f"no image of {csv.name} can be used for task {task.name}: none has a face in the store and a label",
            where=f"{csv}: images like {table.keys[0]}\n{store}: images like {_first_key(faces)}",
            fix="the paths must agree: write them as they are below the folder that was aligned",
        )
    warnings = [f"{dataset}: {text}" for text in table.notes]
    for text in warnings:
        logger.warning(text)
    record = trained_on_record(
        dataset=dataset,
        edition="external",
        labels=labels or task.name,
        split_file=file_sha256(csv),
        track_ids=keys,
    )
    return frames, record, warnings


def _check_space(table: KeyTable, task: Task, labels: str, *, where: str) -> None:
    """Classes without a named order would be taken for the task's own."""
    classes = [head for head in task.heads if head.problem is Problem.MULTICLASS]
    if not labels and any(table.labels[head.name].mask.any() for head in classes):
        raise AbawError(
            "classes of other data need a label space: the same number is another class elsewhere",
            where=where,
            fix=f'set labels to one of {", ".join(LABEL_SPACES)}, e.g. labels = "affectnet8"',
            code=ExitCode.CONFIG,
        )


def _frames(faces: FeatureStore, table: KeyTable, task: Task) -> tuple[LabelledFrames, list[str]]:
    """Labelled images with a face, shard by shard, and their keys."""
    places = {key: number for number, key in enumerate(table.keys)}
    labelled = np.any([own.mask.any(axis=1) for own in table.labels.values()], axis=0)
    refs: list[FrameRef] = []
    used: list[str] = []
    parts: dict[str, list[Labels]] = {head.name: [] for head in task.heads}
    found = faceless = 0
    for track_id in faces.track_ids():
        valid, keys = faces.valid(track_id), faces.read(track_id, "key").tolist()
        place = np.array([places.get(key, -1) for key in keys], np.int64)
        named = place >= 0
        wanted = named & labelled[place]
        found, faceless = found + int(named.sum()), faceless + int((wanted & ~valid).sum())
        rows = np.flatnonzero(wanted & valid)
        if len(rows):
            refs.append(FrameRef(faces, track_id, rows))
            used += [keys[row] for row in rows.tolist()]
            for name, own in table.labels.items():
                parts[name].append(Labels(own.values[place[rows]], own.mask[place[rows]]))
    if not refs:
        return LabelledFrames([], {}), []
    if found < len(places):
        table.notes.append(f"{len(places) - found} of {len(places)} images are not in {faces.path}")
    if faceless:
        table.notes.append(f"{faceless} labelled images have no face")
    lengths = [1] * len(used)  # single images have no neighbours
    return LabelledFrames(refs, {name: concatenate(own) for name, own in parts.items()}, lengths), used


def _first_key(faces: FeatureStore) -> str:
    for track_id in faces.track_ids():
        keys = faces.read(track_id, "key", slice(0, 1)).tolist()
        if keys:
            return str(keys[0])
    return "(none: the store is empty)"
