"""Label files -> values and masks of tracks. The sentinels -1 and -5 and 1-based frame numbers end here.

Knows nothing of media, stores or models.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from abaw.config import DataConfig
from abaw.data.label_files import read_label_file
from abaw.data.labels import CLASS_INVALID, VA_INVALID, Labels, concatenate, in_range, to_labels
from abaw.data.manifest import MTL_FILES, SPLIT_FOLDERS, Track
from abaw.data.mtl_files import MTL_COLUMNS, MTL_FIELDS, read_mtl_file
from abaw.errors import AbawError
from abaw.tasks import TASKS, Task

__all__ = [
    "CLASS_INVALID",
    "MTL_COLUMNS",
    "VA_INVALID",
    "LabelReader",
    "Labels",
    "concatenate",
    "in_range",
    "read_label_file",
    "read_mtl_file",
    "to_labels",
]

logger = logging.getLogger(__name__)


class LabelReader:
    """Labels of one task's tracks, cut or padded to the rows of their media.

    ``files``: the label file of each track, for those that lie in no folders of splits; of the multi-task challenge
    the one file that names all rows, under any name.
    """

    def __init__(self, data: DataConfig, task: Task, *, files: Mapping[str, Path] | None = None) -> None:
        source = task.name
        if source not in data.annotations:
            raise AbawError(
                f"no labels are configured for task {source}",
                where="data.annotations",
                fix=f'add {source} = "FOLDER" to annotations under [data]',
            )
        self.task = TASKS[source]
        self.path = data.annotations[source]
        self._files = files
        self._tolerance = data.max_row_difference
        self._last: tuple[tuple[Path, int, int] | None, Labels] | None = None
        self._mtl: dict[str, np.ndarray] | None = None
        self.differences: dict[str, int] = {}

    def labels(self, track: Track, num_rows: int) -> dict[str, Labels]:
        """Labels by head name, each with ``num_rows`` rows.

        A file with up to ``data.max_row_difference`` rows more or less than the media is cut or padded with
        unlabelled rows and noted in ``differences``; AbawError beyond that.
        """
        if self.sparse:
            return self._mtl_labels(track, num_rows)
        labels = self._read(track)
        difference = labels.num_rows - num_rows
        self._note_difference(track, difference, f"{labels.num_rows} label rows but {num_rows} frames")
        return {self.task.heads[0].name: labels.fit(num_rows)}

    @property
    def sparse(self) -> bool:
        """Labels name single rows of a track, not all of them."""
        return self.task.name == "mtl"

    def named_tracks(self) -> list[str]:
        """Tracks that the multi-task files name, sorted."""
        return sorted(self._mtl_table())

    def count(self, track: Track) -> int:
        """Rows that the labels give a track: those of its file, or the number of the last that is named.

        The file is read whole: AbawError for one that `labels` would refuse.
        """
        if self.sparse:
            rows = self._mtl_rows(track)
            return int(rows[:, 0].max()) + 1 if len(rows) else 0
        return self._read(track).num_rows

    def _read(self, track: Track) -> Labels:
        """The labels of a track's file; the last one is kept, since its rows are counted before they are asked for."""
        path = self.file(track)
        try:
            now = path.stat()
            state = (path, now.st_mtime_ns, now.st_size)
        except OSError:  # reading says why
            state = None
        if state is None or self._last is None or self._last[0] != state:
            self._last = state, read_label_file(path, self.task.heads[0])
        return self._last[1]

    def file(self, track: Track) -> Path:
        """The label file of a track."""
        if self._files is not None and track.track_id in self._files:
            return self._files[track.track_id]
        split = track.splits.get(self.task.name)
        for folder, name in SPLIT_FOLDERS.items():
            if name == split:
                return self.path / folder / f"{track.track_id}.txt"
        raise AbawError(
            f"track {track.track_id} has no labels for task {self.task.name} (split: {split})",
            where=str(self.path),
            fix="choose a labelled split",
        )

    def _note_difference(self, track: Track, difference: int, what: str) -> None:
        if difference:
            self.differences[track.track_id] = difference
        if abs(difference) > self._tolerance:
            raise AbawError(
                f"track {track.track_id} has {what}",
                where=str(self.path if self.sparse else self.file(track)),
                fix="check that labels and media belong together, or raise data.max_row_difference",
            )

    def report_differences(self) -> None:
        """Say once how many tracks had label rows unlike their frames."""
        if self.differences:
            shown = ", ".join(f"{name} {number:+d}" for name, number in list(self.differences.items())[:5])
            logger.warning("%d tracks have label rows unlike their frames: %s", len(self.differences), shown)

    def _mtl_rows(self, track: Track) -> np.ndarray:
        return self._mtl_table().get(track.track_id, np.zeros((0, MTL_FIELDS), np.float32))

    def _mtl_table(self) -> dict[str, np.ndarray]:
        if self._mtl is None:
            files: Sequence[Path] = [self.path / name for name in MTL_FILES if (self.path / name).is_file()]
            if self._files is not None:
                files = list(self._files.values())
            self._mtl = {track_id: rows for file in files for track_id, rows in read_mtl_file(file).items()}
        return self._mtl

    def _mtl_labels(self, track: Track, num_rows: int) -> dict[str, Labels]:
        rows = self._mtl_rows(track)
        inside = rows[rows[:, 0] < num_rows]
        beyond = int(rows[:, 0].max()) + 1 - num_rows if len(inside) < len(rows) else 0
        self._note_difference(track, beyond, f"{num_rows + beyond} label rows but {num_rows} frames")
        table = np.full((num_rows, MTL_FIELDS - 1), CLASS_INVALID, np.float32)
        table[:, :2] = VA_INVALID
        table[inside[:, 0].astype(np.int64)] = inside[:, 1:]
        return {head.name: to_labels(table[:, MTL_COLUMNS[head.name]], head) for head in self.task.heads}
