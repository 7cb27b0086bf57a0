"""The lines of one submitted file, compared with the rows that the sample asks for.

Whole blocks are compared at once; a block with anything unusual is read line by line. Knows nothing of folders and
archives.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from abaw.editions.checked_values import NUMBER_BYTES, ValueCheck
from abaw.editions.lines import BLOCK_BYTES, MAX_LINE_BYTES, between, blocks, is_text
from abaw.editions.registry import Submission, of_header
from abaw.tasks import TASKS

NEWLINE, COMMA = b"\n,"
SHOWN = 10
ENOUGH = 100_000  # a file with so many is not read further
SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Offence:
    """Something that would be refused: ``line`` counted from 1, 0 where it is about the whole ``file``."""

    line: int
    message: str
    file: str = ""


@dataclass
class Findings:
    """Offences, of which the first are kept and all are counted, and what was noticed beside them."""

    rows: int = 0
    count: int = 0
    unended: int = 0  # files without a line feed at the end
    marked: int = 0  # rows of exactly -1,-1
    stopped: bool = False  # before the end, since that was enough
    offences: list[Offence] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, line: int, message: str, file: str = "", *, kept: bool | None = None) -> None:
        """Count an offence; ``kept`` overrides whether it is among those shown."""
        self.count += 1
        if len(self.offences) < SHOWN if kept is None else kept:
            self.offences.append(Offence(line, message, file))

    @property
    def enough(self) -> bool:
        """Whether to read no further."""
        return self.count >= ENOUGH


class Names:
    """The names that begin the rows, as text and as one run of bytes."""

    def __init__(self, images: list[str]) -> None:
        self.images = images
        joined = "".join(images)
        self._bytes = joined.encode()
        self.lengths = np.array([len(name) if joined.isascii() else len(name.encode()) for name in images], np.int64)
        self._stops = np.concatenate([[0], np.cumsum(self.lengths)])
        self._places: dict[str, int] | None = None

    def as_bytes(self, first: int, count: int) -> bytes:
        """``count`` names from index ``first`` on, without anything between them."""
        return self._bytes[self._stops[first] : self._stops[first + count]]

    def place(self, name: str) -> int | None:
        """Index of a name; None where it is not there."""
        if self._places is None:
            self._places = {image: place for place, image in enumerate(self.images)}
        return self._places.get(name)


class FileCheck:
    """One file against its rows: those of ``names`` in their order, or ``count`` rows without a name."""

    def __init__(self, submission: Submission, found: Findings, *, names: Names | None, count: int, file: str) -> None:
        self._submission, self._found, self._file = submission, found, file
        self._names, self._count = names, count
        self._values = ValueCheck(TASKS[submission.task])
        self._line = 1  # number of the next line
        self._next = 0  # index of the row that should come next
        self._line_of = np.zeros(count, np.int64)  # where each row was found; 0: not yet
        self._over = False  # nothing of the file is read any more

    def read(self, file: BinaryIO, block_bytes: int = BLOCK_BYTES) -> None:
        """Read the file to its end, or until it is clear that it is no submission."""
        ended = True
        for block in blocks(file, block_bytes):
            ended = block.endswith(b"\n")
            rows = self._header(block) if self._line == 1 else block
            if rows and not self._over:
                rows = rows if ended else rows + b"\n"
                if not self._add_quickly(rows):
                    self._add_slowly(rows)
            self._found.stopped |= self._found.enough
            if self._over or self._found.enough:
                return
        if self._line == 1:
            self._offend("the file is empty")
            return
        self._found.unended += not ended
        self._find_missing()

    def _offend(self, message: str, line: int | None = None, *, kept: bool | None = None) -> None:
        self._found.add(self._line if line is None else line, message, self._file, kept=kept)

    def _header(self, block: bytes) -> bytes:
        """Check the first line; returns what follows it, or all where it is a row already."""
        line, _, rest = block.partition(b"\n")
        if not is_text(line):
            self._offend("is not UTF-8 text")
            self._over = True
            return b""
        if len(line) > MAX_LINE_BYTES:
            alone = ": its lines end in carriage returns alone" if b"\r" in line else ""
            self._offend(f"has more than {MAX_LINE_BYTES} bytes{alone}")
            self._over = True
            return b""
        if line == self._submission.header.encode():
            self._line = 2
            return rest
        problems = ["begins with a byte order mark"] if line.startswith(codecs.BOM_UTF8) else []
        line = line.removeprefix(codecs.BOM_UTF8)
        problems += ["ends with a carriage return"] if line.endswith(b"\r") else []
        text = line.rstrip(b"\r").decode(errors="replace")
        if text != self._submission.header:
            problems.append(self._foreign(text))
        self._offend("; ".join(problems))
        if self._is_row(text):
            return block.removeprefix(codecs.BOM_UTF8)
        self._line = 2
        return rest

    def _foreign(self, text: str) -> str:
        """What is wrong with a header."""
        if self._is_row(text):
            return f"the header is missing: {self._submission.header}"
        others = of_header(text)
        if any(other.task != self._submission.task or other.header != self._submission.header for other in others):
            editions = ", ".join(other.edition for other in others)
            return f"is the header of task {others[0].task}, edition {editions}, not {self._submission.header}"
        return f"the header is {text[:SHOWN_CHARACTERS]!r}, not {self._submission.header}"

    def _is_row(self, text: str) -> bool:
        """Whether the first line is a row, not a header."""
        if self._names is None:
            return bool(text) and not text.encode().translate(None, NUMBER_BYTES)
        return self._names.place(text.partition(",")[0]) is not None

    # -- whole blocks ----------------------------------------------------------------------------------------------
    def _add_quickly(self, block: bytes) -> bool:
        """Take a block whose rows are the next ones, in order and without a fault; False where it is not one."""
        if self._names is None:
            block = b"," + block[:-1].replace(b"\n", b"\n,") + b"\n"  # as if behind empty names
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(data == NEWLINE)
        starts = np.append(0, ends[:-1] + 1)
        rows = slice(self._next, self._next + len(ends))
        if rows.stop > self._count or self._line_of[rows].any() or (ends - starts).max() > MAX_LINE_BYTES:
            return False
        stops: np.ndarray = starts if self._names is None else starts + self._names.lengths[rows]
        commas = np.flatnonzero(data == COMMA)
        if len(commas) != len(ends) * self._values.columns:
            return False
        places = commas.reshape(len(ends), -1)
        if (places[:, 0] != stops).any() or (places[:, -1] > ends).any():
            return False
        if self._names is not None:
            expected = self._names.as_bytes(rows.start, len(ends))
            if len(expected) > len(block) or between(data, starts, stops) != expected:
                return False
        values = self._values.quick(data, places, ends)
        if values is None:
            return False
        if values.shape[1]:
            self._found.marked += int((values == -1).all(axis=1).sum())
        self._line_of[rows] = np.arange(self._line, self._line + len(ends))
        self._next, self._line = rows.stop, self._line + len(ends)
        self._found.rows += len(ends)
        return True

    # -- line by line ----------------------------------------------------------------------------------------------
    def _add_slowly(self, block: bytes) -> None:
        for line in block[:-1].split(b"\n"):
            if len(line) > MAX_LINE_BYTES:
                self._offend(f"has more than {MAX_LINE_BYTES} bytes; what follows was not read")
                self._over = True
            else:
                problems = self._problems(line)
                if problems:
                    self._offend("; ".join(problems))
            if self._over or self._found.enough:
                return
            self._line += 1

    def _problems(self, line: bytes) -> list[str]:
        """What is wrong with a line, in words. Notes which row it is."""
        try:
            text = line.decode()
        except UnicodeDecodeError:
            return ["is not UTF-8 text"]
        problems = ["ends with a carriage return"] if text.endswith("\r") else []
        text = text.rstrip("\r")
        if not text.strip():
            return [*problems, "is blank"]
        self._found.rows += 1
        fields = text.split(",")
        if self._names is None:
            problems += self._place_of_count()
        else:
            problems += self._place_of_name(self._names, fields.pop(0))
        wrong = self._values.problems(fields)
        if not wrong and (values := self._values.values(fields)):
            self._found.marked += all(value == -1 for value in values)
        return problems + wrong

    def _place_of_count(self) -> list[str]:
        if self._next == self._count:
            self._over = True
            return [f"is past the {self._count} rows of this video; what follows was not read"]
        self._line_of[self._next] = self._line
        self._next += 1
        return []

    def _place_of_name(self, names: Names, name: str) -> list[str]:
        place = names.place(name)
        if place is None:
            stripped = name.strip().strip('"')
            hint = f": the sample's row is {stripped}" if names.place(stripped) is not None else ""
            return [f"names {name[:SHOWN_CHARACTERS]!r}, which the sample does not{hint}"]
        problems = []
        if self._line_of[place]:
            problems.append(f"names {name} again, as line {self._line_of[place]} does")
        else:
            self._line_of[place] = self._line
            if place < self._next:
                before = names.images[self._next - 1]
                problems.append(f"names {name}, which the sample has before {before}, not after it")
        self._next = place + 1
        return problems

    # -- the end ---------------------------------------------------------------------------------------------------
    def _find_missing(self) -> None:
        """One offence for every run of rows that never came, at the line where it should have been."""
        gone = np.flatnonzero(np.diff(np.concatenate([[False], self._line_of == 0, [False]]).astype(np.int8)))
        for shown, (first, stop) in enumerate(gone.reshape(-1, 2).tolist()):
            line = int(self._line_of[stop]) if stop < self._count else self._line
            kept = shown < SHOWN  # besides those of lines: put in order at the end
            if self._names is None:
                self._offend(f"the file ends after {first} of {self._count} rows", line, kept=kept)
            elif stop == first + 1:
                self._offend(f"row {self._names.images[first]} is missing before this line", line, kept=kept)
            else:
                names = f"{self._names.images[first]} to {self._names.images[stop - 1]}"
                self._offend(f"{stop - first} rows are missing before this line: {names}", line, kept=kept)
