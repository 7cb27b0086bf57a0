"""The multi-task challenge's label files (s-Aff-Wild2): rows name images, and hold the labels of all three heads.

Rows in their usual form are read many at once (`row_text`), the others line by line with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from abaw.data.label_text import (
    FIX_FILE,
    beginning,
    decode,
    empty_file,
    pieces,
    read_lines,
    too_large,
    trimmed,
    unreadable_file,
)
from abaw.data.labels import in_range
from abaw.data.row_text import BEGINNING, NUMBER, first_folders, parse_rows
from abaw.errors import AbawError
from abaw.tasks import TASKS

MTL_FIELDS = 16  # image, valence, arousal, expression, twelve units; the header names only five
MTL_COLUMNS = {"va": slice(0, 2), "expr": slice(2, 3), "au": slice(3, 15)}  # behind the image
MAX_MTL_SIZE = 1 << 30
IMAGE_NUMBER = re.compile(r"\s*0*([0-9]{1,7})(\.[^.]*)?", re.ASCII)


def read_mtl_file(path: Path) -> dict[str, np.ndarray]:
    """Rows of an s-Aff-Wild2 file by track: float32 [N, 16] = row (0-based), valence, arousal, class, twelve units.

    The rows are sparse; -5 and -1 stay as they are. The first line is the header, whatever it says. Raises AbawError
    with the line's number for a garbled row, a value out of range, or a row in place of the header, and for a file
    past 1 GB.
    """
    places: dict[str, list[tuple[int, int]]] = {}  # runs of rows of a track
    tables: list[np.ndarray] = []
    count = 0
    for piece in _pieces(path):
        names, starts, table = _mtl_table(piece, path, count + 2)
        for name, start, end in zip(names, starts, [*starts[1:], len(table)], strict=True):
            places.setdefault(name, []).append((count + start, count + end))
        tables.append(table)
        count += len(table)
    table = np.concatenate(tables) if tables else np.zeros((0, MTL_FIELDS), np.float32)
    tables.clear()
    return {name: _joined(table, runs) for name, runs in places.items()}


def _joined(table: np.ndarray, runs: list[tuple[int, int]]) -> np.ndarray:
    if all(end == start for (_, end), (start, _) in zip(runs, runs[1:], strict=False)):
        return table[runs[0][0] : runs[-1][1]]
    return np.concatenate([table[start:end] for start, end in runs])


def mtl_tracks(path: Path) -> dict[str, int]:
    """Tracks that a multi-task file names, and the first line of each; rows are not checked.

    A track is what stands before the first "/" of a line. Raises AbawError where the file cannot be read as text.
    """
    found: dict[str, int] = {}
    line = 2
    try:
        with path.open("rb") as file:
            text = pieces(file, path)
            next(text, None)
            for piece in text:
                folders = first_folders(piece)
                if folders is None:
                    folders = [], np.zeros(0, np.int64)
                    for number, row in enumerate(decode(piece, path, line).split("\n")):
                        if "/" in row:
                            found.setdefault(row.partition("/")[0].strip(), line + number)
                for name, start in zip(folders[0], folders[1].tolist(), strict=True):
                    found.setdefault(name, line + start)
                line += piece.count(b"\n")
    except OSError as error:
        raise unreadable_file(path, error) from error
    return found


def _pieces(path: Path) -> Iterator[bytes]:
    """Rows in pieces of whole lines, behind the header."""
    try:
        with path.open("rb") as file:
            large = path.stat().st_size > MAX_MTL_SIZE
            text = iter([beginning(file.read(BEGINNING), path).encode()]) if large else pieces(file, path)
            header = next(text, None)
            if header is None:
                raise empty_file(path)
            if _mtl_row(trimmed(decode(header, path))) is not None:
                what = f"{path.name} has no header: its first line is a label"
                raise AbawError(what, where=f"{path}, line 1", fix=FIX_FILE)
            if large:
                raise too_large(path, MAX_MTL_SIZE)
            yield from text
    except OSError as error:
        raise unreadable_file(path, error) from error


def _mtl_table(piece: bytes, path: Path, line: int) -> tuple[list[str], list[int], np.ndarray]:
    """Tracks of runs of rows, the rows they start at, and the rows float32 [N, 16]."""
    rows = parse_rows(piece, image=True, values=2, classes=MTL_FIELDS - 3)
    if rows is not None:
        table = np.empty((len(rows.numbers), MTL_FIELDS), np.float32)
        table[:, 0], table[:, 1:3], table[:, 3:] = rows.numbers - 1, rows.values, rows.classes
        if _mtl_good(table).all():
            return rows.names, rows.starts.tolist(), table
    lines = read_lines(piece, path, line)
    found = [_mtl_row(text) for text in lines]
    names = [row[0] for row in found if row is not None]
    with np.errstate(over="ignore"):  # 1e39 is infinite, and then out of range
        table = np.array([[np.nan] * MTL_FIELDS if row is None else row[1] for row in found]).astype(np.float32)
    good = _mtl_good(table)
    if not good.all():
        index = int(np.argmin(good))
        raise AbawError(
            f"{path.name} has a row that is no multi-task label: {lines[index][:80]!r}",
            where=f"{path}, line {line + index}",
            fix="a row is <track>/00001.jpg,valence,arousal,expression,<twelve action units>: 16 fields, -5 (valence, "
            "arousal) or -1 where not annotated",
        )
    return names, list(range(len(names))), table


def _mtl_good(table: np.ndarray) -> np.ndarray:
    """bool [N]: rows whose every value is a label, or missing."""
    columns = [in_range(table[:, 1:][:, MTL_COLUMNS[head.name]], head) for head in TASKS["mtl"].heads]
    return np.logical_and.reduce(np.column_stack(columns), axis=1)


def _mtl_row(line: str) -> tuple[str, list[float]] | None:
    """Track and 16 numbers of a line; None where it is none."""
    image, *values = line.split(",")
    track_id, slash, name = image.strip().rpartition("/")
    number = IMAGE_NUMBER.fullmatch(name)
    if not slash or number is None or len(values) != MTL_FIELDS - 1 or int(number[1]) < 1:
        return None
    if not all(NUMBER.fullmatch(value) for value in values):
        return None
    return track_id, [float(int(number[1]) - 1), *map(float, values)]
