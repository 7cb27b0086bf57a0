"""Text tables of plain rows, read many rows at once: numbers between commas, behind an image's name or not.

Owns the quick way for rows in their usual form. A piece of a file that has another form anywhere is left to the reader
that asked, which then goes row by row; both must agree on every row. Knows nothing of tasks or of messages.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

BLOCK = 1 << 20
BEGINNING = 1 << 16  # bytes that are read of a file to say what it is
MAX_LINE = 1 << 20
MAX_BLANK = 1 << 26
ENDING = (string.whitespace + "\x1a").encode()  # what may follow the last row; old DOS programs end a text with Ctrl-Z
BOM = b"\xef\xbb\xbf"
COMMA, LINE, MINUS, DOT, SLASH, ZERO, ONE, COLON = b",\n-./01:"
SUFFIX = b".jpg"
MAX_DECIMALS = 15  # more digits than a double holds are left to the C library
MAX_NUMBER = 7  # digits of an image's number
MAX_NAME = 255
WORD = 8
ODD_SHARE = 8  # a block with more than one unusual number in eight is read row by row
POWERS = 10.0 ** np.arange(MAX_DECIMALS + 1)
NUMBER = re.compile(r"[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*")


class Readable(Protocol):
    """A file that is read piece by piece."""

    def read(self, count: int, /) -> bytes: ...


class UnusualTextError(ValueError):
    """A text that is no table: a line without an end, or blank lines without end."""


@dataclass(frozen=True)
class Rows:
    """Rows of one block, in order.

    ``names``: the folder of the image from row ``starts[i]`` on, until the next; ``numbers`` int64 [N]: the number in
    the image's name (both empty without images). ``values`` float32 [N, V], then ``classes`` int8 [N, D], -1 to 9.
    """

    names: list[str]
    starts: np.ndarray
    numbers: np.ndarray
    values: np.ndarray
    classes: np.ndarray


def blocks(file: Readable) -> Iterator[bytes]:
    """Pieces of whole lines, about a megabyte each; every line, the last one too, ends with "\\n".

    Other line ends become that one. A byte order mark and what follows the last row (blank lines, Ctrl-Z) are left
    out. Raises UnusualTextError for a line past MAX_LINE bytes and for blank lines past MAX_BLANK in the middle.
    """
    held, rest = b"", file.read(BLOCK).removeprefix(BOM)
    while piece := file.read(BLOCK):
        rest, block = _cut(rest + piece)
        if len(rest) > MAX_LINE + BLOCK or len(held) > MAX_BLANK:
            msg = "a line has no end" if len(rest) > MAX_LINE else "blank lines have no end"
            raise UnusualTextError(msg)
        if held and block.strip(ENDING):  # blank lines may be the end: they wait for what follows
            yield held
            held = b""
        held += block
    last = (held + _line_ends(rest)).rstrip(ENDING)
    if last:
        yield last + b"\n"


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """What follows the last line end, and what is before it, with line ends of one kind."""
    end = data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, -1) + 1  # a "\r" at the end may be half of a line end
    return data[end:], _line_ends(data[:end])


def _line_ends(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def parse_rows(block: bytes, *, image: bool, values: int, classes: int) -> Rows | None:
    """Rows of ``[<folder>/<number>.jpg,]`` then ``values`` numbers, then ``classes`` digits or -1; None for others.

    ``block``: whole lines, each ended by "\\n".
    """
    if b":" in block:
        return None
    chars = _with_short_minus_one(np.frombuffer(block, np.uint8), image)
    if not image and not values:
        fixed = _fixed_classes(chars, classes)
        none = np.zeros(0, np.int64)
        return None if fixed is None else Rows([], none, none, np.zeros((len(fixed), 0), np.float32), fixed)
    ends = _field_ends(chars, image + values + classes)
    if ends is None:
        return None
    first = np.concatenate([[0], ends[:-1, -1] + 1])
    tail = _classes(chars, ends, first, classes)
    table = np.empty((len(ends), values), np.float32)
    if tail is None:
        return None
    for column in range(values):
        place = column + image
        found = _values(chars, ends[:, place - 1] + 1 if place else first, ends[:, place])
        if found is None:
            return None
        table[:, column] = found
    if not image:
        return Rows([], np.zeros(0, np.int64), np.zeros(0, np.int64), table, tail)
    images = _images(chars, first, ends[:, 0])
    return None if images is None else Rows(*images, table, tail)


def first_folders(block: bytes) -> tuple[list[str], np.ndarray] | None:
    """What stands before the first "/" of each line, and the rows at which that changes; None for unusual lines."""
    chars = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(chars == LINE)
    slashes = np.flatnonzero(chars == SLASH)
    first = np.concatenate([[0], ends[:-1] + 1])
    which = np.searchsorted(slashes, first)
    if not len(slashes) or which[-1] == len(slashes):
        return None
    slash = slashes[which]
    return _names(chars, first, slash) if (slash < ends).all() else None


def _with_short_minus_one(chars: np.ndarray, image: bool) -> np.ndarray:
    """The text with one character, ":", for a -1 that a field begins with, so that all classes have one width."""
    minus = np.flatnonzero(chars[:-1] == MINUS)
    minus = minus[chars[minus + 1] == ONE]
    before = chars[minus - 1]
    minus = minus[(before == COMMA) if image else (before == COMMA) | (before == LINE) | (minus == 0)]
    if not len(minus):
        return chars
    short = chars.copy()
    short[minus + 1] = COLON
    return np.delete(short, minus)


def _field_ends(chars: np.ndarray, width: int) -> np.ndarray | None:
    """Place [N, width] of what ends each field, where every row has that many."""
    line = chars == LINE
    ends = np.flatnonzero(line | (chars == COMMA))
    count = int(np.count_nonzero(line))
    if len(ends) != count * width or not line[ends[width - 1 :: width]].all():
        return None
    return ends.reshape(-1, width)


def _fixed_classes(chars: np.ndarray, count: int) -> np.ndarray | None:
    """Rows of nothing but ``count`` fields of one character: int8 [N, count]."""
    if len(chars) % (2 * count):
        return None
    table = chars.reshape(-1, 2 * count)
    if (table[:, 1:-1:2] != COMMA).any() or (table[:, -1] != LINE).any():
        return None
    return _digits(table[:, ::2] - ZERO)


def _digits(table: np.ndarray) -> np.ndarray | None:
    """Distances uint8 from the letter 0 as classes int8; None where one is no digit and not the sign of -1."""
    if (table > COLON - ZERO).any():
        return None
    table[table == COLON - ZERO] = 255
    return table.view(np.int8)


def _classes(chars: np.ndarray, ends: np.ndarray, first: np.ndarray, count: int) -> np.ndarray | None:
    """The last ``count`` fields int8 [N, count], each of one character."""
    table = np.empty((len(ends), count), np.uint8)
    if not count:
        return table.view(np.int8)
    last = ends[:, -1]
    begin = ends[:, -1 - count] + 1 if ends.shape[1] > count else first
    if (last - begin != 2 * count - 1).any():
        return None
    for column in range(count):
        table[:, column] = chars[begin + 2 * column]
    return _digits(table - ZERO)  # a separator is no digit: then another field is wider


def _values(chars: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """Numbers float32 [N] of fields such as -0.25; the few in other forms one by one."""
    lead = chars[starts]
    minus_one = lead == COLON
    at = starts + (lead == MINUS)
    digit = np.where(minus_one, 1, chars[at] - ZERO)
    decimals = ends - at - 2  # -1 where there is no point
    pointed = (chars.take(at + 1, mode="clip") == DOT) & (decimals >= 0) & (decimals <= MAX_DECIMALS)
    plain = (digit <= 9) & (pointed | (decimals == -1))
    values = digit.astype(np.float64)
    for size in np.flatnonzero(np.bincount(decimals[plain & pointed], minlength=1)).tolist():
        rows = np.flatnonzero(plain & (decimals == size))
        whole, good = _whole(chars, at[rows] + 2, size, digit[rows].astype(np.int64))
        values[rows] = whole / POWERS[size]  # both exact, so that the quotient is rounded once, as strtod does
        plain[rows] = good
    values = np.where(minus_one | (lead == MINUS), -values, values)
    odd = np.flatnonzero(~plain)
    if len(odd) > len(plain) // ODD_SHARE + 1:
        return None
    for row in odd.tolist():
        field = chars[starts[row] : ends[row]].tobytes().replace(b":", b"-1").decode("latin-1")
        if not NUMBER.fullmatch(field):
            return None
        values[row] = float(field)
    with np.errstate(over="ignore"):  # 1e39 is infinite, and then out of range
        return values.astype(np.float32)


def _whole(chars: np.ndarray, starts: np.ndarray, size: int, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers int64 [N] of ``size`` digits behind those of ``before``, and whether all were digits."""
    good = np.ones(len(starts), bool)
    for place in range(size):
        digit = chars.take(starts + place, mode="clip") - ZERO
        good &= digit <= 9
        before = before * 10 + digit
    return before, good


def _images(chars: np.ndarray, first: np.ndarray, ends: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Names of runs of one folder, the rows they start at, and the number of each image."""
    slashes = np.flatnonzero(chars == SLASH)
    which = np.searchsorted(slashes, ends) - 1
    if not len(slashes) or (which < 0).any():
        return None
    slash = slashes[which]
    size = ends - len(SUFFIX) - slash - 1
    if (size < 1).any() or (size > MAX_NUMBER).any():
        return None
    if any((chars[ends - len(SUFFIX) + place] != letter).any() for place, letter in enumerate(SUFFIX)):
        return None
    numbers = np.zeros(len(ends), np.int64)
    for count in np.flatnonzero(np.bincount(size)).tolist():
        rows = np.flatnonzero(size == count)
        numbers[rows], good = _whole(chars, slash[rows] + 1, count, np.zeros(len(rows), np.int64))
        if not good.all():
            return None
    named = _names(chars, first, slash)
    return None if named is None or (numbers < 1).any() else (*named, numbers)


def _names(chars: np.ndarray, first: np.ndarray, slash: np.ndarray) -> tuple[list[str], np.ndarray] | None:
    """The distinct texts [first, slash) of neighbouring rows, and the rows at which they change."""
    length = slash - first
    if (length < 1).any() or (length > MAX_NAME).any():
        return None
    starts = _runs(chars, first, slash)
    try:
        names = [chars[first[row] : slash[row]].tobytes().decode() for row in starts.tolist()]
    except UnicodeDecodeError:
        return None
    return (names, starts) if all(name.isprintable() and name == name.strip(" /") for name in names) else None


def _runs(chars: np.ndarray, first: np.ndarray, slash: np.ndarray) -> np.ndarray:
    """Rows int64 whose name, from ``first`` to ``slash``, is not that of the row before."""
    length = slash - first
    other = length[1:] != length[:-1]
    size = int(length.max())
    if int(length.min()) >= WORD:  # eight characters at a time; the last eight may overlap those before
        words = np.ndarray(len(chars) - WORD + 1, "<u8", np.ascontiguousarray(chars), strides=(1,))
        for place in range(0, size - WORD, WORD):
            own = words[np.minimum(first + place, slash - WORD)]
            other |= own[1:] != own[:-1]
        own = words[slash - WORD]
        other |= own[1:] != own[:-1]
    else:
        letters = chars.take(first[:, None] + np.arange(size), mode="clip")
        letters[np.arange(size) >= length[:, None]] = 0
        other |= (letters[1:] != letters[:-1]).any(axis=1)
    return np.concatenate([[0], np.flatnonzero(other) + 1])
