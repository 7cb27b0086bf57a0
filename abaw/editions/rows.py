"""Decisions -> the text of a submission's rows, strictly: values with six decimals, classes, bits.

Knows nothing of images, files or stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import product

import numpy as np

from abaw.errors import AbawError
from abaw.tasks import Head, Problem, Task

DECIMALS = 6
UNIT = 10**DECIMALS
MINUS, POINT, COMMA, NEWLINE, BLANK, ZERO = b"-.,\n 0"


def format_rows(task: Task, decisions: Mapping[str, np.ndarray]) -> list[str]:
    """Text after the image's name, one per row, from decisions [T, target_dim] by head.

    Values have six decimals and no minus before zero, classes are their index, units 0 or 1. Raises AbawError for
    decisions that no file may hold: NaN, values outside [-1, 1], classes and units that there are not.
    """
    columns = [_FORMATS[head.problem](head, decisions[head.name]) for head in task.heads]
    if len(columns) == 1:
        return columns[0]
    return [",".join(parts) for parts in zip(*columns, strict=True)]


def _values(head: Head, block: np.ndarray) -> list[str]:
    _require(head, ((block >= -1) & (block <= 1)).all(), "values outside [-1, 1], or NaN")
    if not len(block):
        return []
    # A float32 times a million is exact in float64, so this rounds as "%.6f" does.
    millionths = np.rint(block.astype(np.float32).astype(np.float64) * UNIT).astype(np.int32)
    text = np.empty((*block.shape, DECIMALS + 4), np.uint8)  # sign, digit, point, decimals, comma
    text[..., 0] = np.where(millionths < 0, MINUS, BLANK)
    text[..., 2], text[..., -1] = POINT, COMMA
    rest = np.abs(millionths)
    for place in [*range(DECIMALS + 2, 2, -1), 1]:
        rest, text[..., place] = rest // 10, rest % 10 + ZERO
    text[:, -1, -1] = NEWLINE
    return text.tobytes().translate(None, b" ").decode().split("\n")[:-1]


def _classes(head: Head, block: np.ndarray) -> list[str]:
    _require(head, ((block >= 0) & (block < head.output_dim)).all(), f"classes outside 0..{head.output_dim - 1}")
    texts = [str(index) for index in range(head.output_dim)]
    return [texts[index] for index in block[:, 0].tolist()]


def _units(head: Head, block: np.ndarray) -> list[str]:
    _require(head, ((block == 0) | (block == 1)).all(), "units other than 0 and 1")
    texts = _bit_rows(head.output_dim)
    return [texts[number] for number in (block.astype(np.int64) @ (1 << np.arange(head.output_dim)[::-1])).tolist()]


@lru_cache
def _bit_rows(columns: int) -> list[str]:
    """The text of every row of bits, by the number that they are."""
    return [",".join(bits) for bits in product("01", repeat=columns)]


def _require(head: Head, fine: bool | np.bool_, what: str) -> None:
    if not fine:
        raise AbawError(
            f"the decisions of {head.name} hold {what}",
            where=f"rows of {head.name}",
            fix="look at the scores with `abaw inspect`, and make the predictions again",
        )


_FORMATS = {Problem.REGRESSION: _values, Problem.MULTICLASS: _classes, Problem.MULTILABEL: _units}
