"""What post-processing is chosen on: scores and labels of a predictions store, recording by recording."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from abaw.config import Config
from abaw.data.annotations import Labels, concatenate
from abaw.data.label_sources import LabelSource
from abaw.data.scored_labels import SPLIT
from abaw.data.splits import group_of
from abaw.errors import AbawError
from abaw.scored import Predictions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """The labelled tracks of one recording, by head: scores [T, L] of each track, labels of all their rows in order."""

    name: str
    scores: dict[str, list[np.ndarray]]
    labels: dict[str, Labels]

    @property
    def track_id(self) -> str:
        """The name by which an executor knows it."""
        return self.name

    @property
    def num_labelled(self) -> int:
        """Rows with a label of any head."""
        return int(np.any([own.mask.any(axis=1) for own in self.labels.values()], axis=0).sum())


def read_recordings(cfg: Config, predictions: Predictions, source: LabelSource, tracks: list[str]) -> list[Recording]:
    """Recordings with at least one labelled row, sorted by name; rows without a score are filled as `evaluate` does.

    Raises AbawError where fewer than two are left: settings are chosen on some and measured on others.
    """
    gap = cfg.submit_for(predictions.task.name).gap
    grouped: dict[str, list[str]] = {}
    for track_id in sorted(tracks):
        grouped.setdefault(group_of(track_id), []).append(track_id)
    found = [_read(name, own, predictions, source, gap) for name, own in sorted(grouped.items())]
    for text in source.notes():
        logger.warning(text)
    labelled = [recording for recording in found if recording.num_labelled]
    if len(labelled) < 2:
        raise AbawError(
            f"{predictions.store.path.name} has {len(labelled)} recordings with labels of task {source.task.name}: "
            "a setting is chosen on some and measured on others, which takes two",
            where=str(source.path),
            fix="check data.annotations, or tune scores of more recordings: people and parts of one recording "
            "count as one",
        )
    return labelled


def _read(name: str, tracks: list[str], predictions: Predictions, source: LabelSource, gap: str) -> Recording:
    scores: dict[str, list[np.ndarray]] = {head.name: [] for head in predictions.task.heads}
    labels: dict[str, list[Labels]] = {head.name: [] for head in predictions.task.heads}
    for track_id in tracks:
        filled, _ = predictions.filled(track_id, gap=gap)
        own = source.labels(track_id, predictions.store.num_rows(track_id), SPLIT)
        for head in predictions.task.heads:
            scores[head.name].append(filled[head.name])
            labels[head.name].append(own[head.name])
    return Recording(name, scores, {head: concatenate(parts) for head, parts in labels.items()})
