"""Where the labels of a faces store's rows come from: the label files of its tracks, or its images' paths.

Both kinds answer the same questions, so that stages need not know which one they have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from abaw.config import DataConfig
from abaw.data.annotations import LabelReader, Labels
from abaw.data.keyed import KeyedLabels
from abaw.data.manifest import Manifest, Track
from abaw.errors import AbawError
from abaw.store import FeatureStore
from abaw.tasks import Task


class LabelSource(Protocol):
    """Labels of one task by track and row.

    ``by_track``: a track is of one split as a whole, so that folds can be made of tracks; False for image collections,
    whose shards hold images of all splits.
    """

    task: Task
    path: Path

    @property
    def by_track(self) -> bool: ...

    def track_ids(self, split: str) -> list[str]:
        """Tracks that hold rows of a split ("train", "val", "test"), in order."""
        ...

    def rows(self, track_id: str, num_rows: int, split: str) -> np.ndarray:
        """bool [num_rows]: rows of a split, labelled or not. All rows of a track, whose split is known as a whole."""
        ...

    def labels(self, track_id: str, num_rows: int, split: str) -> dict[str, Labels]:
        """Labels by head, each of ``num_rows`` rows; rows of another split are unlabelled."""
        ...

    def count(self, track_id: str) -> int:
        """Rows that the labels give a track; 0 where they name single images."""
        ...

    def recordings(self, track_id: str, num_rows: int) -> np.ndarray:
        """int64 [num_rows]: equal for rows of one recording, whose neighbours are near-duplicates.

        Where a track is no whole (``by_track`` False), a recording has the same number in all of them.
        """
        ...

    def raw_recordings(self, track_id: str, num_rows: int) -> np.ndarray:
        """int64 [num_rows]: as ``recordings``, the same for the people and parts of one raw recording, which are shown
        in one scene: what is drawn to tell how sure a result is. Not asked of sources ``by_track``, whose names say it.
        """
        ...

    def notes(self) -> list[str]:
        """What did not fit so far, in words, for the log and the run's record."""
        ...


class TrackLabels:
    """Labels of tracks, from the organisers' files."""

    by_track = True

    def __init__(self, manifest: Manifest, reader: LabelReader) -> None:
        self.task, self.path = reader.task, reader.path
        self._manifest, self._reader = manifest, reader

    def track_ids(self, split: str) -> list[str]:
        """Tracks of a split of the task, sorted."""
        return [track.track_id for track in self._manifest.select(task=self.task.name, split=split)]

    def rows(self, track_id: str, num_rows: int, split: str) -> np.ndarray:
        """bool [num_rows]: all of them."""
        return np.ones(num_rows, bool)

    def labels(self, track_id: str, num_rows: int, split: str) -> dict[str, Labels]:
        """Labels by head from the file of the track's own split, whatever ``split`` is: folds mix the splits.

        Raises AbawError for a track without labels, and where labels and frames do not belong together.
        """
        return self._reader.labels(self._track(track_id), num_rows)

    def count(self, track_id: str) -> int:
        """Rows of the track's label file. Raises AbawError as `labels` does."""
        return self._reader.count(self._track(track_id))

    def _track(self, track_id: str) -> Track:
        track = self._manifest.get(track_id)
        if track is None:
            raise AbawError(
                f"track {track_id} has no labels for task {self.task.name}",
                where=str(self.path),
                fix="choose a labelled track, or correct data.annotations",
            )
        return track

    def recordings(self, track_id: str, num_rows: int) -> np.ndarray:
        """int64 [num_rows]: a track is one recording."""
        return np.zeros(num_rows, np.int64)

    def raw_recordings(self, track_id: str, num_rows: int) -> np.ndarray:
        """int64 [num_rows]: a track is of one recording."""
        return np.zeros(num_rows, np.int64)

    def notes(self) -> list[str]:
        """How many tracks had label rows unlike their frames, among those asked for so far."""
        found = self._reader.differences
        if not found:
            return []
        shown = ", ".join(f"{name} {number:+d}" for name, number in list(found.items())[:5])
        return [f"{len(found)} tracks have label rows unlike their frames: {shown}"]


def label_source(data: DataConfig, task: Task, store: FeatureStore, manifest: Manifest) -> LabelSource:
    """The labels of a task for the rows of a faces store: by key where its rows have keys, else by track.

    Raises AbawError where the configuration names no labels for the task.
    """
    if "key" in store.header.arrays:
        return KeyedLabels(data, task, store)
    return TrackLabels(manifest, LabelReader(data, task))
