"""Label tables of single images: a csv file with a header line, the image's path first, then its labels by name.

Columns are matched by name: `label` (or `expression`) is the class, `valence` and `arousal` the values, `AU1` ... the
units. What a head does not know is left out and counted, never guessed.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from abaw.data.annotations import CLASS_INVALID, VA_INVALID, Labels, in_range, to_labels
from abaw.errors import AbawError
from abaw.label_spaces import LabelSpace, by_name, class_names, label_space
from abaw.tasks import Head, Problem

PATH_COLUMNS = ("path", "image", "key", "file", "filename")
CLASS_COLUMNS = ("label", "expression", "class", "emotion")
UNLABELLED = ("", "-1", "-1.0")
AFFECTNET_UNLABELLED = -2.0  # its valence and arousal where the face shows no clear expression
MAX_NAMED = 5


class _Row(NamedTuple):
    """A row's fields, and the line of the file it begins in, counted from 1."""

    line: int
    fields: list[str]


@dataclass(frozen=True)
class KeyTable:
    """Labels of images by head; row i belongs to the i-th of ``keys``. ``notes`` say what was left out, in words."""

    keys: list[str]
    labels: dict[str, Labels]
    notes: list[str] = field(default_factory=list)


def normal_key(text: str) -> str:
    """A path as the keys of a collection are written: "/" between its parts, no "./" before them."""
    return text.strip().replace("\\", "/").removeprefix("./")


def read_key_csv(path: Path, heads: Sequence[Head], *, space: str = "", where: str = "") -> KeyTable:
    """Read a csv file of labelled images.

    ``space`` names the label space of its classes; without one they are the head's own, by name or index. An empty
    field, -1 (class, unit) and -5 or -2 (value) mean not annotated; rows without any content are passed over.
    ``where`` names the file's place in the configuration. Raises AbawError for an unknown label space and a missing
    file, and, with the line, for a header without any label of the heads or with a column twice, a row of another
    length, a value no label can have, or an image with two different labels.
    """
    source = label_space(space, where=f"labels, for {path}") if space else None
    rows = _read_rows(path, where or str(path))
    header = _header(path, rows[0], heads)
    keys, kept = _keys(path, rows)
    lines = [row.line for row in kept]
    columns = {name: [row.fields[number] for row in kept] for number, name in enumerate(header) if number}
    labels: dict[str, Labels] = {}
    notes: list[str] = []
    used = {header[0]}
    for head in heads:
        if head.problem is Problem.MULTICLASS:
            name = next((name for name in CLASS_COLUMNS if name in columns), None)
            found = [] if name is None else [name]
            if name is not None:
                labels[head.name], dropped = _classes(path, columns[name], lines, head, source, space)
                notes += dropped
        else:
            found = [name for name in map(_plain, head.labels) if name in columns]
            if found:
                labels[head.name] = _numbers(path, columns, lines, head)
        used.update(found)
        labels.setdefault(head.name, _nothing(len(keys), head))
    if used == {header[0]}:
        raise _bad_header(path, rows[0], heads)
    unused = [name for name, plain in zip(rows[0].fields, header, strict=True) if plain not in used]
    if unused:
        notes.append(f"{path.name}: {len(unused)} columns were left out, the first {', '.join(unused[:MAX_NAMED])}")
    return KeyTable(keys, labels, notes)


def _plain(name: str) -> str:
    return re.sub(r"[\s_]", "", name).lower()


def _read_rows(path: Path, where: str) -> list[_Row]:
    """Header and rows, without those that have no content."""
    rows: list[_Row] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader, before = csv.reader(file), 0  # a quoted field may hold line breaks
            for fields in reader:
                if any(field.strip() for field in fields):
                    rows.append(_Row(before + 1, fields))
                before = reader.line_num
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        missing = isinstance(error, FileNotFoundError)
        raise AbawError(
            f"label file {path.name} {'is missing' if missing else f'cannot be read ({error})'}",
            where=f"{where}\n{path}" if where != str(path) else where,
            fix="correct the path; the file must be plain text in UTF-8, path,label in its first line",
        ) from error
    if len(rows) < 2:
        fix = "it must begin with a header line such as path,label, and name an image in every other line"
        raise AbawError(f"label file {path.name} holds no labelled image", where=str(path), fix=fix)
    return rows


def _header(path: Path, first: _Row, heads: Sequence[Head]) -> list[str]:
    """Plain names of the columns. Raises AbawError where the first is no path, or two of them are the same."""
    header = [_plain(name) for name in first.fields]
    if header[0] not in PATH_COLUMNS:
        raise _bad_header(path, first, heads)
    twice = [name for name, plain in zip(first.fields, header, strict=True) if plain and header.count(plain) > 1]
    if twice:
        raise AbawError(
            f"label file {path.name} has a column twice: {' and '.join(twice[:MAX_NAMED])}",
            where=f"{path}, line {first.line}",
            fix="remove or rename one of them: which one holds the labels cannot be told",
        )
    return header


def _bad_header(path: Path, first: _Row, heads: Sequence[Head]) -> AbawError:
    wanted = [
        "path,"
        + ("label" if head.problem is Problem.MULTICLASS else ",".join(head.labels[:3]))
        + (",..." if len(head.labels) > 3 and head.problem is not Problem.MULTICLASS else "")
        for head in heads
    ]
    return AbawError(
        f"label file {path.name} has the header {','.join(first.fields)[:80]!r}",
        where=f"{path}, line {first.line}",
        fix=f"its first line must be {' or '.join(wanted)}",
    )


def _keys(path: Path, rows: list[_Row]) -> tuple[list[str], list[_Row]]:
    """Images and their rows; one that is repeated as it is counts once."""
    header, seen = rows[0].fields, dict[str, _Row]()
    for row in rows[1:]:
        key = normal_key(row.fields[0])
        if len(row.fields) != len(header) or not key:
            raise AbawError(
                f"label file {path.name} has a row of {len(row.fields)} fields: {','.join(row.fields)[:80]!r}",
                where=f"{path}, line {row.line}",
                fix=f"every row is {','.join(header)[:80]}; put quotes around a path with a comma in it",
            )
        first = seen.setdefault(key, row)
        if first.fields[1:] != row.fields[1:]:
            raise AbawError(
                f"label file {path.name} gives {key} two different labels",
                where=f"{path}, lines {first.line} and {row.line}",
                fix="remove the wrong one",
            )
    return list(seen), list(seen.values())


def _nothing(count: int, head: Head) -> Labels:
    return Labels(np.zeros((count, head.target_dim), np.float32), np.zeros((count, head.target_dim), bool))


def _classes(
    path: Path, texts: list[str], lines: list[int], head: Head, source: LabelSpace | None, space: str
) -> tuple[Labels, list[str]]:
    """Class labels, mapped by name into the head's order; classes it lacks stay unlabelled and are counted."""
    source, name = (source, f'"{space}"') if source else (LabelSpace(head.labels), f"of {head.name}")
    values, first, which = np.unique([text.strip() for text in texts], return_index=True, return_inverse=True)
    counts = np.bincount(which, minlength=len(values))
    indices = np.full(len(values), CLASS_INVALID, np.float32)
    left = Counter[str]()
    for number, value in enumerate(values.tolist()):
        if value not in UNLABELLED:
            (one,) = class_names([value], source, name=name, where=f"{path}, line {lines[first[number]]}")
            indices[number] = by_name([one], head.labels)[0]
            if indices[number] < 0:
                left[one] += int(counts[number])
    notes = [f"{path.name}: images of class {one}, which {head.name} lacks: {count}" for one, count in left.items()]
    return to_labels(indices[which][:, None], head), notes


def _numbers(path: Path, columns: dict[str, list[str]], lines: list[int], head: Head) -> Labels:
    """Values or units of the columns that are there; the others stay unlabelled."""
    invalid = VA_INVALID if head.problem is Problem.REGRESSION else CLASS_INVALID
    table = np.full((len(lines), head.target_dim), invalid, np.float32)
    for number, label in enumerate(head.labels):
        texts = columns.get(_plain(label))
        if texts is None:
            continue
        table[:, number] = [_number(text, invalid) for text in texts]
    if head.problem is Problem.REGRESSION:
        table[table == AFFECTNET_UNLABELLED] = invalid
    bad = np.flatnonzero(~in_range(table, head).all(axis=1))
    if len(bad):
        raise AbawError(
            f"label file {path.name} has a value that no {head.name} label can have",
            where=f"{path}, line {lines[bad[0]]}",
            fix="valence and arousal lie in -1..1 (-5 = not annotated), units are 0 or 1 (-1 = not annotated)",
        )
    return to_labels(table, head)


def _number(text: str, invalid: float) -> float:
    try:
        return float(text) if text.strip() else invalid
    except ValueError:
        return np.nan
