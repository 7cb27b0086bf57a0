"""Whether the text behind an image's name is what a task asks for: numbers in range, classes, units.

Written from the challenge's description, not from the code that writes rows. Knows nothing of files and names.
"""

from __future__ import annotations

import re

import numpy as np

from abaw.editions.lines import between
from abaw.tasks import Problem, Task

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WORD = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
NUMBER_BYTES = b"0123456789.+-eE,"
ZERO = ord("0")
SHOWN_CHARACTERS = 40


class ValueCheck:
    """The columns of a task's rows: values in [-1, 1] first, then whole numbers from 0 of one digit.

    ``columns`` how many there are.
    """

    def __init__(self, task: Task) -> None:
        self._names: list[str] = []
        self._limits: list[int | None] = []  # how many whole numbers a column may hold; None for a value
        for head in task.heads:
            if head.problem is Problem.MULTICLASS:
                self._names.append(head.name)
                self._limits.append(head.output_dim)
            else:
                self._names += head.labels
                self._limits += [None if head.problem is Problem.REGRESSION else 2] * head.output_dim
        self.columns = len(self._names)
        self._values = self._limits.count(None)
        if self._limits[: self._values] != [None] * self._values or any(limit and limit > 10 for limit in self._limits):
            msg = f"{task.name} has columns that are in another order, or of more than one digit"
            raise ValueError(msg)

    def quick(self, data: np.ndarray, commas: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
        """Values float64 [N, values] of rows in uint8 ``data``, or None where any row may be wrong.

        ``commas`` [N, columns] are the places before each column, ``ends`` [N] those behind the last.
        """
        after = np.concatenate([commas[:, 1:], ends[:, None]], axis=1)
        for column in range(self._values, self.columns):
            place = commas[:, column] + 1
            if (after[:, column] != place + 1).any() or (
                data[place] - ZERO >= np.uint8(self._limits[column] or 0)
            ).any():
                return None
        if not self._values:
            return np.empty((len(ends), 0))
        text = between(data, commas[:, 0], after[:, self._values - 1])
        if text.translate(None, NUMBER_BYTES):
            return None
        try:
            values = np.array(list(map(float, text[1:].split(b","))))
        except ValueError:
            return None
        return values.reshape(-1, self._values) if (np.abs(values) <= 1).all() else None

    def problems(self, fields: list[str]) -> list[str]:
        """What is wrong with the texts of one row, in words."""
        if len(fields) != self.columns:
            expected = f"{self.columns} value{'' if self.columns == 1 else 's'}"
            return [f"has {len(fields)} instead of {expected}"]
        found = map(_problem, self._names, self._limits, fields)
        return [text for text in found if text]

    def values(self, fields: list[str]) -> list[float]:
        """The values in [-1, 1] of a row without problems."""
        return [float(field) for field in fields[: self._values]]


def _problem(name: str, limit: int | None, text: str) -> str:
    """What is wrong with one field; empty where it is as it should be."""
    shown = repr(text[:SHOWN_CHARACTERS])
    if limit is not None:
        allowed = f"one of 0 to {limit - 1}" if limit > 2 else "0 or 1"
        if text.isascii() and text.isdigit() and len(text) == 1 and int(text) < limit:
            return ""
        if text == "-1":
            return f"{name} is -1, which labels use for unknown; every row needs {allowed}"
        return f"{name} is {shown}, not {allowed}"
    if NUMBER.fullmatch(text):
        return "" if abs(float(text)) <= 1 else f"{name} is {shown}, outside [-1, 1]"
    return f"{name} is {shown}, {'not a finite number' if WORD.fullmatch(text.strip()) else 'not a number'}"
