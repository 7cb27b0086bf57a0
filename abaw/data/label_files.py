"""The organisers' label files, one per track: a header line, then a row per frame.

Rows in their usual form are read many at once (`row_text`), the others line by line with the same result.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from abaw.data.label_text import (
    beginning,
    decode,
    empty_file,
    first_line,
    pieces,
    read_lines,
    too_large,
    trimmed,
    unreadable_file,
)
from abaw.data.labels import Labels, in_range, to_labels
from abaw.data.row_text import BEGINNING, ENDING, parse_rows
from abaw.errors import AbawError
from abaw.tasks import TASKS, Head, Problem

MAX_SIZE = 64 << 20  # bytes: twelve hours of units at 60 frames a second


def read_label_file(path: Path, head: Head) -> Labels:
    """Read one track's label file: a header line, then a row per frame.

    Accepts other case and spacing in the header, any line ends, a byte order mark, a comma at the end of a line, and
    blank lines or Ctrl-Z at the end. Raises AbawError for a missing or empty file, another encoding, a header of
    another task, a garbled row or a value out of range, with the line's number, and for a file past 64 MB.
    """
    content = _read(path, head)
    if not content.isascii():
        decode(content, path)
    tables = [np.zeros((0, head.target_dim), np.float32)]
    text = pieces(BytesIO(content), path)
    _check_header(trimmed(next(text).decode()), head, path)
    line = 2
    for piece in text:
        tables.append(_table(piece, head, path, line))
        line += len(tables[-1])
    return to_labels(np.concatenate(tables), head)


def _read(path: Path, head: Head) -> bytes:
    """The whole file. Raises AbawError where it cannot be read, is empty, or too large."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            content = file.read(BEGINNING if size > MAX_SIZE else size)
            more = file.read(1)  # of what is no plain file, or grows
    except OSError as error:
        raise unreadable_file(path, error) from error
    if more:
        _check_header(beginning(content or more, path), head, path)
        raise too_large(path, MAX_SIZE)
    if not content.removeprefix(codecs.BOM_UTF8).rstrip(ENDING):
        raise empty_file(path)
    return content


def describes_task(path: Path) -> bool:
    """Whether the first line of a file is the header of any head's label files, or cannot be told."""
    line = first_line(path)
    heads = [head for task in TASKS.values() for head in task.heads]
    return line is None or any(_normal(line) == _normal(",".join(head.labels)) for head in heads)


def begins_with_header(path: Path, names: Sequence[str]) -> bool:
    """Whether the first line of a file begins with these columns."""
    return _normal(first_line(path) or "")[: len(names)] == _normal(",".join(names))


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


def _normal(text: str) -> list[str]:
    return [re.sub(r"[\s_]", "", part).lower() for part in text.split(",")]


def _table(piece: bytes, head: Head, path: Path, line: int) -> np.ndarray:
    """Rows float32 [N, target_dim] of a piece that begins with a line of the file."""
    regression = head.problem is Problem.REGRESSION
    values, classes = (head.target_dim, 0) if regression else (0, head.target_dim)
    rows = parse_rows(piece, image=False, values=values, classes=classes)
    if rows is not None:
        table = rows.values if regression else rows.classes.astype(np.float32)
        if in_range(table, head).all():
            return table
    lines = read_lines(piece, path, line)
    table = _parse(lines, head)
    if len(table) != len(lines) or table.shape[1] != head.target_dim or not in_range(table, head).all():
        raise _row_error(lines, head, path, line)
    return table


def _parse(lines: list[str], head: Head) -> np.ndarray:
    """Table of the rows, float32; without any row where one of them is not made of numbers."""
    try:
        if all(lines):
            return np.loadtxt(lines, delimiter=",", dtype=np.float32, ndmin=2, comments=None)
    except ValueError:
        pass
    return np.zeros((0, head.target_dim), np.float32)


def _row_error(lines: list[str], head: Head, path: Path, line: int) -> AbawError:
    """The error for the first bad row of some."""
    for number, text in enumerate(lines, start=line):
        try:
            if not text.isascii() or "_" in text:  # which float() would read
                raise ValueError(text)
            with np.errstate(over="ignore"):
                row = np.array([[float(part) for part in text.split(",")]]).astype(np.float32)
        except ValueError:
            row = np.zeros((1, 0), np.float32)
        if row.shape[1] != head.target_dim or not in_range(row, head).all():
            return AbawError(
                f"label file {path.name} has a row that is no {head.name} label: {text[:80]!r}",
                where=f"{path}, line {number}",
                fix=f"a row is {_row_rule(head)}",
            )
    return AbawError(
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
