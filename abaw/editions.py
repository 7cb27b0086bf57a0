"""The challenge's editions: which tasks each has and how its files are written.

Add an edition by adding an entry of EDITIONS. Owns headers, row formats and the 1-based image names of the
submission files. Source: the challenge's published sample files. Knows nothing of stores or models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.errors import AbawError
from abaw.tasks import TASKS, Problem, Task

IMAGE = re.compile(r"^(?P<track>.+)/(?P<number>\d+)\.jpg$")


@dataclass(frozen=True)
class Submission:
    """How one task is handed in: one text file, a header, a row per image."""

    task: str
    header: str
    filename: str = "predictions.txt"


@dataclass(frozen=True)
class Edition:
    """One edition of the challenge."""

    name: str
    year: int
    submissions: dict[str, Submission]


def _single(*tasks: str) -> dict[str, Submission]:
    return {task: Submission(task, _header(TASKS[task])) for task in tasks}


def _header(task: Task) -> str:
    if len(task.heads) > 1:  # the multi-task file names five fields for sixteen columns
        return "image,valence,arousal,expression,aus"
    return ",".join(["image_location", *task.heads[0].labels])


EDITIONS: dict[str, Edition] = {
    "4": Edition("4", 2022, _single("mtl")),
    "5": Edition("5", 2023, _single("va", "expr", "au")),
    "6": Edition("6", 2024, _single("va", "expr", "au", "ce")),
    "7": Edition("7", 2024, _single("mtl", "ce")),
    "8": Edition("8", 2025, _single("va", "expr", "au", "ce")),
    "9": Edition("9", 2025, _single("va", "ce")),
    "10": Edition("10", 2026, _single("va", "expr", "au")),
    "11": Edition("11", 2026, _single("mtl")),
}


@dataclass(frozen=True)
class SampleRows:
    """Rows of an organisers' sample file, in their order.

    ``images`` as written, ``tracks`` the distinct track names, ``track_index`` int64 [N] into them and ``rows`` int64
    [N], 0-based.
    """

    images: list[str]
    tracks: list[str]
    track_index: np.ndarray
    rows: np.ndarray


def read_sample(path: Path, submission: Submission) -> SampleRows:
    """Read a sample file leniently: CRLF, byte order mark, blank lines at the end, any values behind the image.

    Raises AbawError for another task's header, a row that names no image, a repeated image, or an empty file.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AbawError(
            f"the sample file cannot be read ({error})",
            where=str(path),
            fix="give the organisers' sample file of this task: submit.sample in the config, or --sample FILE",
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    header = [part.strip().lower() for part in lines[0].split(",")] if lines else []
    if header != submission.header.lower().split(","):
        raise AbawError(
            f"the sample file does not belong to task {submission.task}: its header is {','.join(header)[:100]!r}",
            where=f"{path}, line 1",
            fix=f"give the file whose header is {submission.header}",
        )
    return _parse_rows(lines[1:], path)


def _parse_rows(lines: list[str], path: Path) -> SampleRows:
    images = [line.partition(",")[0].strip() for line in lines]
    order: dict[str, int] = {}
    index, rows = np.empty(len(images), np.int64), np.empty(len(images), np.int64)
    for number, image in enumerate(images):
        match = IMAGE.match(image)
        if match is None or int(match["number"]) < 1:
            raise AbawError(
                f"the sample file has a row that names no image: {lines[number][:80]!r}",
                where=f"{path}, line {number + 2}",
                fix="rows begin with <track>/00001.jpg, counted from 1",
            )
        index[number] = order.setdefault(match["track"], len(order))
        rows[number] = int(match["number"]) - 1
    if not images:
        raise AbawError("the sample file has no rows", where=str(path), fix="give the organisers' complete file")
    if len(set(images)) < len(images):
        seen: set[str] = set()
        twice = next(n for n, image in enumerate(images) if image in seen or seen.add(image))  # type: ignore[func-returns-value]
        raise AbawError(
            f"the sample file names {images[twice]} twice",
            where=f"{path}, line {twice + 2}",
            fix="give the organisers' file unchanged",
        )
    return SampleRows(images, list(order), index, rows)


def format_rows(task: Task, decisions: Mapping[str, np.ndarray]) -> list[str]:
    """Text after the image's name, one per row, from decisions by head: values with six decimals, classes, bits."""
    columns = []
    for head in task.heads:
        block = decisions[head.name]
        if head.problem is Problem.REGRESSION:
            columns.append([",".join(f"{value:.6f}" for value in row) for row in block.tolist()])
        else:
            columns.append([",".join(map(str, row)) for row in block.tolist()])
    return [",".join(parts) for parts in zip(*columns, strict=True)]
