"""Decisions that were made elsewhere, by track and row, as `evaluate` and `submit` ask for them.

Owns how rows of a file become tracks, and how rows that it lacks are filled. Knows nothing of the files' layouts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from abaw.data.key_csv import normal_key
from abaw.errors import AbawError, closest
from abaw.gaps import fill
from abaw.postprocess import Post
from abaw.scored import TrackDecisions
from abaw.store_header import check_track_id
from abaw.tasks import Head, Problem, Task

logger = logging.getLogger(__name__)

IMAGES = "images"  # the one track of a file whose images are of no video
MAX_FRAMES = 10_000_000  # of a track: 46 hours at 60 frames a second
MAX_ROWS = 20_000_000  # of a file: twenty times the largest test set


@dataclass(frozen=True)
class DecidedRows:
    """Decided rows of one track: ``rows`` int [N], increasing, of ``count`` rows that it has.

    ``values`` float32 [N, V] of the heads of values, ``classes`` int8 [N, D] of the others, in the task's order.
    """

    rows: np.ndarray
    count: int
    values: np.ndarray
    classes: np.ndarray


class FileDecisions:
    """Decisions of a file or folder of files, one of the kinds of ``scored.Scored``.

    ``keys``: the images' paths in order, where they are of no video; they are the rows of the one track IMAGES, and
    their labels are found by path (``label_folders.folder_labels(keys=...)``). None for tracks of videos.
    """

    def __init__(
        self, path: Path, task: Task, tracks: Mapping[str, DecidedRows], *, keys: Sequence[str] | None = None
    ) -> None:
        self.path, self.name = path, path.name
        self.task = task
        self.post = Post()
        self.keys = keys
        self._tracks = dict(sorted(tracks.items()))

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing: a file says nothing of its making."""
        return {}

    def track_ids(self) -> Sequence[str]:
        """Tracks of the file, sorted."""
        return list(self._tracks)

    def __contains__(self, track_id: str) -> bool:
        return track_id in self._tracks

    def num_rows(self, track_id: str) -> int:
        """Rows of a track: up to the highest that the file names. Raises AbawError for an unknown track."""
        return self._own(track_id).count

    def decide(self, track_id: str, *, gap: str, num_rows: int | None = None) -> TrackDecisions:
        """Decisions of a track; rows that the file lacks are filled by ``gap``, rows past the end repeat the last.

        "linear" is of values; classes and units then take the nearest row's. Raises AbawError for an unknown track.
        """
        own = self._own(track_id)
        valid = np.zeros(own.count, bool)
        valid[own.rows] = True
        if not valid.any():
            logger.warning("track %s has no decided row: it gets value 0, the first class, no unit", track_id)
        decisions = {}
        for head, table in zip(self.task.heads, head_columns(self.task, own.values, own.classes), strict=True):
            block = np.zeros((own.count, head.target_dim), table.dtype)
            block[own.rows] = table
            policy = "nearest" if gap == "linear" and head.problem is not Problem.REGRESSION else gap
            decisions[head.name] = block if valid.all() else fill(block, valid, policy).astype(table.dtype)
        if num_rows is not None and own.count:
            take = np.minimum(np.arange(num_rows), own.count - 1)
            decisions = {name: block[take] for name, block in decisions.items()}
            valid = valid[take] & (np.arange(num_rows) < own.count)
        return TrackDecisions(decisions, valid)

    def _own(self, track_id: str) -> DecidedRows:
        found = self._tracks.get(track_id)
        if found is None:
            match = closest(track_id, self._tracks)
            raise AbawError(
                f"{self.name} has no decisions of track {track_id}",
                where=str(self.path),
                fix=f"{f'did you mean {match}? ' if match else ''}it holds {len(self._tracks)} tracks: "
                + ", ".join(list(self._tracks)[:5]),
            )
        return found


def column_counts(task: Task) -> tuple[int, int]:
    """Columns of values, and of classes and units, in a row of a task."""
    values = sum(head.target_dim for head in task.heads if head.problem is Problem.REGRESSION)
    return values, sum(head.target_dim for head in task.heads) - values


def head_columns(task: Task, values: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
    """The columns of each head: those of values come before those of classes and units in every row."""
    found = []
    start = {True: 0, False: 0}
    for head in task.heads:
        kind = head.problem is Problem.REGRESSION
        table = values if kind else classes
        found.append(table[:, start[kind] : start[kind] + head.target_dim])
        start[kind] += head.target_dim
    return found


def can_be(head: Head, table: np.ndarray) -> np.ndarray:
    """bool [N]: rows that are a decision of the head; unlike labels, none can be missing."""
    if head.problem is Problem.REGRESSION:
        return (np.abs(table) <= 1).all(axis=1)
    top = head.output_dim - 1 if head.problem is Problem.MULTICLASS else 1
    return ((table >= 0) & (table <= top) & (table == np.floor(table))).all(axis=1)


def first_bad(task: Task, values: np.ndarray, classes: np.ndarray) -> int | None:
    """The first row that is not a decision of every head; None where all are."""
    tables = head_columns(task, values, classes)
    good = np.all([can_be(head, table) for head, table in zip(task.heads, tables, strict=True)], axis=0)
    return None if good.all() else int(np.argmin(good))


def row_rule(task: Task) -> str:
    """What stands in a row, in words."""
    parts = []
    for head in task.heads:
        if head.problem is Problem.REGRESSION:
            parts.append(f"{head.target_dim} numbers from -1 to 1")
        elif head.problem is Problem.MULTICLASS:
            parts.append(f"a class from 0 to {head.output_dim - 1}")
        else:
            parts.append(f"{head.target_dim} units, each 0 or 1")
    return ", ".join(parts)


class RowCollector:
    """Rows of a file in any order, put together as tracks. ``where``: the file, for messages."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._tracks: dict[str, int] = {}
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._count = 0

    @property
    def track_names(self) -> list[str]:
        """Names by number."""
        return list(self._tracks)

    def folder(self, name: str, line: int) -> int:
        """Number of the track whose images lie in a folder: the last part of its name. Raises AbawError for none."""
        return self.track(normal_key(name).rpartition("/")[2], line)

    def track(self, track_id: str, line: int) -> int:
        """Number of a track. Raises AbawError for a name that no track can have."""
        if track_id not in self._tracks:
            check_track_id(track_id, where=f"{self._where}, line {line}")
        return self._tracks.setdefault(track_id, len(self._tracks))

    def add(
        self, tracks: np.ndarray, rows: np.ndarray, lines: np.ndarray, values: np.ndarray, classes: np.ndarray
    ) -> None:
        """Add rows: numbers of their tracks, rows from 0, and lines of the file, each int [N].

        Raises AbawError for a row that no video has, and for more rows than any test set has.
        """
        far = np.flatnonzero(rows >= MAX_FRAMES)
        if len(far):
            raise AbawError(
                f"a row names frame {rows[far[0]] + 1} of its video",
                where=f"{self._where}, line {lines[far[0]]}",
                fix=f"correct the number: no video has more than {MAX_FRAMES} frames",
            )
        self._count += len(rows)
        if self._count > MAX_ROWS:
            fix = "give a file of one test set"
            raise AbawError(f"there are more than {MAX_ROWS} rows", where=self._where, fix=fix)
        small = (part.astype(np.int32) for part in (tracks, rows, lines))
        self._parts.append((*small, values, classes))

    def finish(self, counts: Mapping[str, int] | None = None) -> dict[str, DecidedRows]:
        """Decided rows by track. ``counts``: rows that a track has at least. Raises AbawError for a row given twice."""
        if not self._parts:
            fix = "give a file with a row per image behind its header"
            raise AbawError("there are no rows behind the header", where=self._where, fix=fix)
        tracks, rows, lines, values, classes = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        self._parts.clear()
        step = np.diff(tracks)
        if not ((step > 0) | ((step == 0) & (np.diff(rows) > 0))).all():
            order = np.lexsort((rows, tracks))
            tracks, rows, lines, values, classes = (part[order] for part in (tracks, rows, lines, values, classes))
            self._require_once(tracks, rows, lines)
        ends = np.searchsorted(tracks, np.arange(len(self._tracks)), side="right")
        found = {}
        for name, number in self._tracks.items():
            own = slice(ends[number - 1] if number else 0, ends[number])
            last = int(rows[own][-1]) + 1 if own.stop > own.start else 0
            count = max(last, (counts or {}).get(name, 0))
            found[name] = DecidedRows(rows[own], count, values[own], classes[own])
        return found

    def _require_once(self, tracks: np.ndarray, rows: np.ndarray, lines: np.ndarray) -> None:
        same = np.flatnonzero((tracks[1:] == tracks[:-1]) & (rows[1:] == rows[:-1]))
        if not len(same):
            return
        later = np.maximum(lines[same], lines[same + 1])
        pair = same[np.argmin(later)]
        first, second = sorted((int(lines[pair]), int(lines[pair + 1])))
        raise AbawError(
            f"frame {rows[pair] + 1} of track {list(self._tracks)[tracks[pair]]} is given twice",
            where=f"{self._where}, lines {first} and {second}",
            fix="remove one of the rows",
        )
