"""Label files -> values and masks. The sentinels -1 and -5 and 1-based frame numbers end here.

Owns the organisers' label layouts. Knows nothing of media, stores or models.
"""

from __future__ import annotations

import codecs
import logging
import re
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.config import DataConfig
from abaw.data.manifest import MTL_FILES, SPLIT_FOLDERS, Track
from abaw.errors import AbawError
from abaw.tasks import TASKS, Head, Problem, Task

logger = logging.getLogger(__name__)

VA_INVALID = -5.0
CLASS_INVALID = -1.0
MTL_FIELDS = 16  # image, valence, arousal, expression, twelve units; the header names only five
MTL_COLUMNS = {"va": slice(0, 2), "expr": slice(2, 3), "au": slice(3, 15)}  # behind the image
ENDING = string.whitespace + "\x1a"  # what may follow the last row; old DOS programs end a text with Ctrl-Z
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Labels:
    """Ground truth of one head on the rows of one track.

    ``values`` float32 [T, target_dim], undefined where ``mask`` bool [T, target_dim] is False.
    """

    values: np.ndarray
    mask: np.ndarray

    @property
    def num_rows(self) -> int:
        """T."""
        return len(self.values)

    def fit(self, num_rows: int) -> Labels:
        """Cut, or pad with unlabelled rows, to ``num_rows``."""
        if num_rows == self.num_rows:
            return self
        kept = min(num_rows, self.num_rows)
        values = np.zeros((num_rows, self.values.shape[1]), np.float32)
        mask = np.zeros(values.shape, bool)
        values[:kept], mask[:kept] = self.values[:kept], self.mask[:kept]
        return Labels(values, mask)


def concatenate(parts: list[Labels]) -> Labels:
    """Rows of several tracks, pooled in order."""
    return Labels(np.concatenate([p.values for p in parts]), np.concatenate([p.mask for p in parts]))


class LabelReader:
    """Labels of one task's tracks, cut or padded to the rows of their media."""

    def __init__(self, data: DataConfig, task: Task) -> None:
        source = task.train_on or task.name
        if source not in data.annotations:
            raise AbawError(
                f"no labels are configured for task {source}",
                where="data.annotations",
                fix=f'add {source} = "FOLDER" to annotations under [data]',
            )
        self.task = TASKS[source]
        self.path = data.annotations[source]
        self._tolerance = data.max_row_difference
        self._mtl: dict[str, np.ndarray] | None = None
        self.differences: dict[str, int] = {}

    def labels(self, track: Track, num_rows: int) -> dict[str, Labels]:
        """Labels by head name, each with ``num_rows`` rows.

        A file with up to ``data.max_row_difference`` rows more or less than the media is cut or padded with
        unlabelled rows and noted in ``differences``; AbawError beyond that.
        """
        if self.sparse:
            return self._mtl_labels(track, num_rows)
        path = self.file(track)
        labels = read_label_file(path, self.task.heads[0])
        difference = labels.num_rows - num_rows
        self._note_difference(track, difference, f"{labels.num_rows} label rows but {num_rows} frames")
        return {self.task.heads[0].name: labels.fit(num_rows)}

    @property
    def sparse(self) -> bool:
        """Labels name single rows of a track, not all of them."""
        return self.task.name == "mtl"

    def count(self, track: Track) -> int:
        """Rows that the labels give a track: those of its file, or the number of the last that is named.

        The file is read whole: AbawError for one that `labels` would refuse.
        """
        if self.sparse:
            rows = self._mtl_rows(track)
            return int(rows[:, 0].max()) + 1 if len(rows) else 0
        return read_label_file(self.file(track), self.task.heads[0]).num_rows

    def file(self, track: Track) -> Path:
        """The label file of a track."""
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
        if self._mtl is None:
            files = [self.path / name for name in MTL_FILES if (self.path / name).is_file()]
            self._mtl = {track_id: rows for file in files for track_id, rows in read_mtl_file(file).items()}
        return self._mtl.get(track.track_id, np.zeros((0, MTL_FIELDS), np.float32))

    def _mtl_labels(self, track: Track, num_rows: int) -> dict[str, Labels]:
        rows = self._mtl_rows(track)
        inside = rows[rows[:, 0] < num_rows]
        beyond = int(rows[:, 0].max()) + 1 - num_rows if len(inside) < len(rows) else 0
        self._note_difference(track, beyond, f"{num_rows + beyond} label rows but {num_rows} frames")
        table = np.full((num_rows, MTL_FIELDS - 1), CLASS_INVALID, np.float32)
        table[:, :2] = VA_INVALID
        table[inside[:, 0].astype(np.int64)] = inside[:, 1:]
        return {head.name: to_labels(table[:, MTL_COLUMNS[head.name]], head) for head in self.task.heads}


def to_labels(table: np.ndarray, head: Head) -> Labels:
    """Values as the organisers write them, -5 and -1 where not annotated, as values and mask."""
    invalid = VA_INVALID if head.problem is Problem.REGRESSION else CLASS_INVALID
    mask = table != invalid
    return Labels(np.where(mask, table, 0).astype(np.float32), mask)


def read_label_file(path: Path, head: Head) -> Labels:
    """Read one track's label file: a header line, then a row per frame.

    Accepts other case and spacing in the header, any line ends, a byte order mark, a comma at the end of a line, and
    blank lines or Ctrl-Z at the end. Raises AbawError for a missing or empty file, another encoding, a header of
    another task, a garbled row or a value out of range, with the line's number.
    """
    lines = _read_lines(path)
    _check_header(lines[0], head, path)
    body = lines[1:]
    table = _parse(body, head)
    if len(table) != len(body) or table.shape[1] != head.target_dim or not in_range(table, head).all():
        _explain_rows(body, head, path)
    return to_labels(table, head)


def _parse(body: list[str], head: Head) -> np.ndarray:
    """Table of the rows, float32; without any row where one of them is not made of numbers."""
    try:
        if body:
            return np.loadtxt(body, delimiter=",", dtype=np.float32, ndmin=2, comments=None)
    except ValueError:
        pass
    return np.zeros((0, head.target_dim), np.float32)


def _read_lines(path: Path) -> list[str]:
    """Lines of a text file, at least the first one, without what follows the last row and without closing commas."""
    try:
        content = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = f"label file {path.name} {'is missing' if missing else f'cannot be read ({error})'}"
        raise AbawError(what, where=str(path), fix="restore the file from the organisers' archive") from error
    text = _decode(content, path).rstrip(ENDING)
    if not text:
        what = f"label file {path.name} is empty"
        raise AbawError(what, where=str(path), fix="restore the file from the organisers' archive")
    return [line.rstrip().removesuffix(",") for line in text.splitlines()]


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:  # a byte order mark of UTF-16 is no UTF-8 either
        line = content[: error.start].count(b"\n") + 1
        encoding = "UTF-16" if content.startswith(UTF16) else "another encoding"
    raise AbawError(
        f"label file {path.name} is in {encoding}, not UTF-8",
        where=f"{path}, line {line}",
        fix="restore the file from the organisers' archive, or save it as plain text in UTF-8",
    )


def in_range(table: np.ndarray, head: Head) -> np.ndarray:
    """bool of the same shape: values a label of this head can have, the sentinel included."""
    if head.problem is Problem.REGRESSION:
        return (np.abs(table) <= 1) | (table == VA_INVALID)
    top = head.output_dim - 1 if head.problem is Problem.MULTICLASS else 1
    return (table == np.floor(table)) & (table >= CLASS_INVALID) & (table <= top)


def _normal(text: str) -> list[str]:
    return [re.sub(r"[\s_]", "", part).lower() for part in text.split(",")]


def _check_header(line: str, head: Head, path: Path) -> None:
    given = _normal(line)
    if given == _normal(",".join(head.labels)):
        return
    others = {other.name for task in TASKS.values() for other in task.heads if given == _normal(",".join(other.labels))}
    what = f"holds labels of {'/'.join(sorted(others))}" if others else f"has the header {line[:80]!r}"
    raise AbawError(
        f"label file {path.name} {what}, not of {head.name}",
        where=f"{path}, line 1",
        fix=f"point data.annotations at the folder whose files begin with {','.join(head.labels)}",
    )


def _explain_rows(body: list[str], head: Head, path: Path) -> None:
    """Find the first bad row and raise."""
    for number, line in enumerate(body, start=2):
        parts = line.split(",")
        try:
            row = np.array([[float(part) for part in parts]], np.float32)
        except ValueError:
            row = np.zeros((1, 0), np.float32)
        if row.shape[1] != head.target_dim or not in_range(row, head).all():
            raise AbawError(
                f"label file {path.name} has a row that is no {head.name} label: {line[:80]!r}",
                where=f"{path}, line {number}",
                fix=f"a row is {_row_rule(head)}",
            )
    raise AbawError(
        f"label file {path.name} cannot be read as a table of {head.name} labels",
        where=str(path),
        fix=f"a row is {_row_rule(head)}; nothing else may stand in it",
    )


def _row_rule(head: Head) -> str:
    if head.problem is Problem.REGRESSION:
        return f"{head.target_dim} numbers from -1 to 1 separated by a comma, or -5 where not annotated"
    if head.problem is Problem.MULTICLASS:
        return f"one class index from 0 to {head.output_dim - 1}, or -1 where not annotated"
    return f"{head.target_dim} values 0 or 1 separated by commas, or -1 where not annotated"


def read_mtl_file(path: Path) -> dict[str, np.ndarray]:
    """Rows of an s-Aff-Wild2 file by track: float32 [N, 16] = row (0-based), valence, arousal, class, twelve units.

    The rows are sparse; -5 and -1 stay as they are. The first line is the header, whatever it says. Raises AbawError
    with the line's number for a garbled row, a value out of range, or a row in place of the header.
    """
    lines = _read_lines(path)
    if _mtl_row(lines[0]) is not None:
        what = f"{path.name} has no header: its first line is a label"
        raise AbawError(what, where=f"{path}, line 1", fix="restore the file from the organisers' archive")
    places: dict[str, list[int]] = {}
    table = np.full((len(lines) - 1, MTL_FIELDS), np.nan, np.float32)
    for index, line in enumerate(lines[1:]):
        row = _mtl_row(line)
        if row is None:
            break
        places.setdefault(row[0], []).append(index)
        table[index] = row[1]
    heads = TASKS["mtl"].heads
    good = np.column_stack([in_range(table[:, 1:][:, MTL_COLUMNS[head.name]], head) for head in heads]).all(axis=1)
    if not good.all():
        index = int(np.argmin(good))
        raise AbawError(
            f"{path.name} has a row that is no multi-task label: {lines[index + 1][:80]!r}",
            where=f"{path}, line {index + 2}",
            fix="a row is <track>/00001.jpg,valence,arousal,expression,<twelve action units>: 16 fields, -5 (valence, "
            "arousal) or -1 where not annotated",
        )
    return {track_id: table[indices] for track_id, indices in places.items()}


def _mtl_row(line: str) -> tuple[str, list[float]] | None:
    """Track and 16 numbers of a line; None where it is none."""
    image, *values = line.split(",")
    track_id, slash, name = image.strip().rpartition("/")
    try:
        row = [float(int(name.rpartition(".")[0] or name) - 1), *map(float, values)]
    except ValueError:
        return None
    return (track_id, row) if slash and len(row) == MTL_FIELDS and row[0] >= 0 else None
