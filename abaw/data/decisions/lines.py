"""Rows of decisions that are in no usual form, read line by line, and the messages for those that cannot be read.

Owns what a row of a submission file may look like; `row_text` reads the usual form of the same rows faster.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from abaw.data.decisions.headers import Layout
from abaw.data.decisions.rows import column_counts, first_bad, row_rule
from abaw.data.decisions.sources import TextSource
from abaw.data.key_csv import normal_key
from abaw.data.row_text import NUMBER, Rows
from abaw.errors import AbawError

IMAGE = re.compile(r"(?P<folder>.*[^/])/(?P<number>\d{1,9})\.\w+", re.ASCII)
BLANK = " \t"


class _UnreadableRowError(ValueError):
    """What is wrong with a row, in words."""


@dataclass(frozen=True)
class LineReader:
    """Reads the lines of a file of decisions. ``keyed``: its images are of no video, and are known by their paths."""

    source: TextSource
    layout: Layout
    keyed: bool = False

    def rows(self, line: int, block: bytes) -> tuple[Rows, list[str]]:
        """Rows of a block whose first line has that number, and the images' paths where ``keyed``.

        Raises AbawError for the first row that is no decision.
        """
        names, numbers, keys, tables = list[str](), list[int](), list[str](), list[list[float]]()
        lines = self.source.decode(block, line).split("\n")[:-1]
        problem = None
        for text in lines:
            try:
                image, row = self._row(text)
            except _UnreadableRowError as error:
                problem = error
                break
            tables.append(row)
            if self.keyed:
                keys.append(image)
            elif self.layout.image:
                folder, _, name = image.rpartition("/")
                names.append(folder)
                numbers.append(int(name.partition(".")[0]))
        values, width = column_counts(self.layout.task)
        with np.errstate(over="ignore"):  # 1e39 is infinite, and then out of range
            table = np.array(tables).reshape(-1, values + width).astype(np.float32)
        bad = first_bad(self.layout.task, table[:, :values], table[:, values:])
        if bad is not None:
            raise self._error(line + bad, lines[bad], _what_is_wrong(tables[bad]))
        if problem is not None:
            raise self._error(line + len(tables), lines[len(tables)], str(problem))
        starts = np.arange(len(names))
        classes = table[:, values:].astype(np.int8)
        return Rows(names, starts, np.array(numbers, np.int64), table[:, :values], classes), keys

    def _row(self, text: str) -> tuple[str, list[float]]:
        """The image's path, "" where rows have none, and the numbers behind it."""
        fields = text.rstrip(BLANK).removesuffix(",").split(",")
        image = normal_key(fields.pop(0)) if self.layout.image else ""
        if self.keyed:
            if not image or not image.isprintable():
                msg = "has a row that names no image"
                raise _UnreadableRowError(msg)
        elif self.layout.image:
            match = IMAGE.fullmatch(image)
            if match is None or int(match["number"]) < 1:
                msg = "has a row that names no frame"
                raise _UnreadableRowError(msg)
        width = sum(column_counts(self.layout.task))
        if len(fields) != width:
            msg = f"has a row of {len(fields)} values, not {width}"
            raise _UnreadableRowError(msg)
        if not all(NUMBER.fullmatch(field) for field in fields):
            msg = "has a row that is not made of numbers"
            raise _UnreadableRowError(msg)
        return image, [float(field) for field in fields]

    def _error(self, line: int, text: str, what: str) -> AbawError:
        image = "an image's name, then " if self.keyed else "<track>/00001.jpg, then " if self.layout.image else ""
        return AbawError(
            f"{self.source.name} {what}: {text[:80]!r}",
            where=f"{self.source.where}, line {line}",
            fix=f"a row is {image}{row_rule(self.layout.task)}; every row needs a decision",
        )


def _what_is_wrong(row: list[float]) -> str:
    return "marks a row as not annotated" if -5 in row or -1 in row else "has a value that no decision can have"
