"""csv files with a header line and a row per frame: any program's, OpenFace's and py-feat's.

OpenFace (FeatureExtraction, FaceLandmarkVidMulti) counts frames from 1, marks failed tracking by success = 0, and
leaves a frame without any face out where it follows several faces; py-feat counts from 0 and leaves the fields of a
frame without a face empty. Either has several rows for a frame that shows several faces.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from abaw.data.foreign_features.source import Block, Item, stated_reasons, unreadable
from abaw.errors import AbawError, ExitCode, closest
from abaw.store_header import Reason

FRAME = "frame"
# How programs write a number that is not there; Python's float() knows nan and inf.
MISSING = frozenset({"", "na", "n/a", "null", "none", "-nan(ind)", "nan(ind)", "-1.#ind", "1.#qnan"})
TRUE, FALSE = frozenset({"1", "true", "1.0"}), frozenset({"0", "false", "0.0"})
REASONS = {reason.name.lower(): int(reason) for reason in Reason}
LARGEST = float(np.finfo(np.float32).max)
OURS = frozenset({FRAME, "valid", "reason"})  # of `abaw export`, which may hold another program's columns
POINTS = 68  # of OpenFace's face model
MAX_SHOWN = 5
PLAIN = "save it as plain text in UTF-8, with commas between the fields"


@dataclass(frozen=True)
class Dialect:
    """What one program writes: columns that only it has, those that are no features, and how it counts frames.

    ``first``: number of the first frame; None where the files tell. ``box``: columns of a face's place. ``on_request``:
    columns that are features only where they are asked for.
    """

    marks: frozenset[str]
    outside: frozenset[str]
    first: int | None
    box: tuple[str, ...] = ()
    on_request: str = ""


DIALECTS = {
    "openface": Dialect(
        frozenset({FRAME, "timestamp", "confidence", "success"}),
        frozenset({FRAME, "face_id", "timestamp", "confidence", "success"}),
        first=1,
        box=tuple(f"{axis}_{number}" for axis in "xy" for number in range(POINTS)),
    ),
    "py-feat": Dialect(
        frozenset({FRAME, "FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"}),
        frozenset({FRAME, "input", "approx_time", "Identity", "FaceScore", "FrameHeight", "FrameWidth"}),
        first=0,
        box=("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"),
        on_request="Identity_*",  # who it is, and often empty
    ),
    "csv": Dialect(frozenset(), frozenset({FRAME, "time", "timestamp", "valid", "reason"}), first=None),
}


def recognise(path: Path) -> str:
    """Which program wrote a file, by its columns. Raises AbawError for one without a header."""
    names = set(read_header(Item(path.stem, path)))
    if names >= OURS:
        return "csv"
    return next(name for name, dialect in DIALECTS.items() if dialect.marks <= names)


def read_header(item: Item) -> list[str]:
    """Names of a file's columns. Raises AbawError for an empty file, one with other separators, or a name twice."""
    for _, fields in _lines(item):
        return _checked_header(item, fields)
    raise unreadable(item, "is empty", "make the file again, or remove it")


def first_frame(item: Item) -> int | None:
    """Number in the first row's column `frame`; None where there is none."""
    lines = _lines(item)
    header = _checked_header(item, next(lines, (1, []))[1])
    if FRAME not in header:
        return None
    place = header.index(FRAME)
    return next((_frame(item, line, fields[place]) for line, fields in lines if len(fields) > place), None)


def feature_columns(item: Item, dialect: str, patterns: Sequence[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a file's feature columns, in its order, and of those that are left out.

    ``patterns``: only columns of these names, ``*`` standing for anything. Raises AbawError for a file of another
    program, for a pattern that fits no column, and where nothing is left.
    """
    header = read_header(item)
    own = DIALECTS[dialect]
    lacking = sorted(own.marks - set(header))
    if lacking:
        raise unreadable(
            item,
            f"is not {dialect}'s: it has no column {', '.join(lacking)}",
            "give --format csv, or let --format auto find out"
            + ("; FaceLandmarkImg writes no frames, FeatureExtraction does" if dialect == "openface" else ""),
        )
    columns = [name for name in header if name not in own.outside and not _is_index(name)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in columns):
            raise _no_column(item, pattern, columns)
    plain = [name for name in columns if not own.on_request or not fnmatchcase(name, own.on_request)]
    chosen = tuple(n for n in columns if any(fnmatchcase(n, pattern) for pattern in patterns)) or tuple(plain)
    if not chosen:
        raise unreadable(item, "has no feature column", f"its first line must name them: frame,f0,f1,... ({header})")
    asked = set(columns if patterns else plain)
    return chosen, tuple(name for name in header if name != FRAME and name not in asked)


def _is_index(name: str) -> bool:
    """The row numbers that pandas writes without being asked."""
    return not name or name.startswith("Unnamed: ")


def _no_column(item: Item, pattern: str, columns: Sequence[str]) -> AbawError:
    near = closest(pattern, columns)
    shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    return AbawError(
        f'no column of {item.path.name} is named "{pattern}"',
        where=f"--columns, {item.path}",
        fix=f"{f'did you mean {near}? ' if near else ''}its feature columns are {shown}",
        code=ExitCode.USAGE,
    )


# -- reading -----------------------------------------------------------------------------------------------------------
def read_table(item: Item, dialect: str, columns: Sequence[str], first: int) -> Block:
    """The rows of a file; those its program calls failed have a reason.

    Raises AbawError with the line for a row of another length, text in a column of numbers, or a frame that is none.
    """
    lines = _lines(item)
    header = _checked_header(item, next(lines, (1, []))[1])
    lacking = [name for name in columns if name not in header]
    if lacking:
        what = f"lacks {len(lacking)} columns that the first file has: {', '.join(lacking[:MAX_SHOWN])}"
        raise unreadable(item, what, "make all files with the same program and options, or choose with --columns")
    own = DIALECTS[dialect]
    numbered = FRAME in header
    box = own.box if set(own.box) <= set(header) else ()
    wanted = [header.index(name) for name in (*columns, *box)]
    states = {name: header.index(name) for name in ("success", "valid", "reason") if name in own.outside & {*header}}
    rows: list[np.ndarray] = []
    frames: list[int] = []
    said: dict[str, list[str]] = {name: [] for name in states}
    for line, fields in lines:
        if len(fields) != len(header):
            what = f"has {len(fields)} fields in line {line}, and {len(header)} columns"
            raise unreadable(item, what, "make the file again: it is cut off, or a field holds a comma")
        rows.append(_numbers(item, line, fields, wanted, header))
        if numbered:
            frames.append(_frame(item, line, fields[header.index(FRAME)]) - first)
        for name, place in states.items():
            said[name].append(fields[place].strip().lower())
    if not rows:
        raise unreadable(item, "has a header and no rows", "make the file again, or remove it")
    table = np.stack(rows)
    values, boxes = table[:, : len(columns)], _boxes(dialect, table[:, len(columns) :]) if box else None
    reason = _stated(item, said, len(rows))
    if boxes is not None and dialect == "py-feat":
        reason[np.isnan(boxes).any(axis=1)] = Reason.NO_FACE
    return Block(values, np.array(frames, np.int64) if numbered else None, reason, boxes)


def _lines(item: Item) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of every line that is not blank. Raises AbawError for what is no text in UTF-8."""
    try:
        with item.path.open(newline="", encoding="utf-8-sig") as file:
            reader, before = csv.reader(file, skipinitialspace=True), 0  # a quoted field may hold line breaks
            for fields in reader:
                if len(fields) > 1 or (fields and fields[0].strip()):
                    yield before + 1, fields
                before = reader.line_num
    except UnicodeDecodeError as error:
        raise unreadable(item, "is no text in UTF-8 (a spreadsheet's own format, or UTF-16?)", PLAIN) from error
    except (OSError, csv.Error) as error:
        raise unreadable(item, f"cannot be read ({error})", PLAIN) from error


def _checked_header(item: Item, fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    if not names:
        raise unreadable(item, "is empty", "make the file again, or remove it")
    if len(names) == 1:
        for mark, word in ((";", "semicolons"), ("\t", "tabs")):
            if mark in names[0]:
                what = f"has its fields separated by {word}, not by commas"
                raise unreadable(item, what, "save it with commas between the fields and points in the numbers")
    if all(_is_number(name) for name in names):
        raise unreadable(item, "has no header: its first line holds numbers", "add a first line: frame,f0,f1,...")
    twice = sorted({name for name in names if name and names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise unreadable(item, f"has a column twice: {', '.join(twice[:MAX_SHOWN])}", "rename or remove one of them")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _frame(item: Item, line: int, text: str) -> int:
    try:
        number = float(text)
        if number >= 0 and number == math.floor(number):
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise unreadable(item, f"has the frame {text!r} in line {line}", "a frame is a whole number from 0 or 1 on")


def _numbers(item: Item, line: int, fields: list[str], wanted: list[int], header: list[str]) -> np.ndarray:
    """float32 of the wanted fields; NaN where nothing stands. What float32 cannot hold stays as large as it can be."""
    try:
        exact = np.array([float(fields[place]) for place in wanted])
    except ValueError:
        exact = np.array([_number(item, line, fields[place], header[place]) for place in wanted])
    finite = np.isfinite(exact)
    return np.where(finite, np.clip(exact, -LARGEST, LARGEST), exact).astype(np.float32)


def _number(item: Item, line: int, text: str, name: str) -> float:
    if text.strip().lower() in MISSING:
        return math.nan
    try:
        return float(text)
    except ValueError:
        pass
    fix = f'leave the column out with --columns, or make it numbers (columns that fit: --columns "{name[:4]}*")'
    raise unreadable(item, f"has the text {text[:40]!r} in line {line}, column {name}", fix)


def _stated(item: Item, said: dict[str, list[str]], num_rows: int) -> np.ndarray:
    """Reasons from the columns in which a program says which rows failed."""
    if "success" in said:
        return np.where(_flags(item, "success", said["success"]), Reason.VALID, Reason.NO_FACE).astype(np.uint8)
    valid = _flags(item, "valid", said["valid"]) if "valid" in said else None
    words = said.get("reason") if valid is not None else None
    reason = np.array([REASONS.get(word, Reason.NO_VALUE) for word in words]) if words is not None else None
    return stated_reasons(num_rows, valid, reason)


def _flags(item: Item, name: str, texts: Sequence[str]) -> np.ndarray:
    """bool [N]. Raises AbawError for what is neither 0 nor 1."""
    odd = next((text for text in texts if text not in TRUE and text not in FALSE), None)
    if odd is not None:
        raise unreadable(item, f"has {odd!r} in column {name}", "write 1 for rows that hold data, 0 for others")
    return np.array([text in TRUE for text in texts], bool)


def _boxes(dialect: str, places: np.ndarray) -> np.ndarray:
    """float32 [N, 4], x0 y0 x1 y1, of py-feat's corner and size, or around OpenFace's points."""
    if dialect == "py-feat":
        return np.concatenate([places[:, :2], places[:, :2] + places[:, 2:]], axis=1)
    x, y = places[:, :POINTS], places[:, POINTS:]
    return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)
