"""The table of a video: one line per frame and face, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from abaw.predicting.people import HeadScores, Person
from abaw.store import Reason
from abaw.tasks import Head, Problem

BLOCK_ROWS = 4096
FIXED = ("video", "person", "frame", "time", "x0", "y0", "x1", "y1", "valid", "reason")
DECIDED = "_present"  # behind a unit's name: 1 where it counts as present


def columns(heads: Sequence[Head]) -> list[str]:
    """Names of all columns. Two heads with the same labels have theirs under the head's name."""
    names = list(FIXED)
    for head in heads:
        names += [name if name not in names else f"{head.name}_{name}" for name in _columns(head)]
    return names


def _columns(head: Head) -> list[str]:
    if head.problem is Problem.MULTILABEL:
        return [*head.labels, *(f"{label}{DECIDED}" for label in head.labels)]
    if head.problem is Problem.MULTICLASS:
        return [*(f"{head.name}_{label}" for label in head.labels), head.name]
    return list(head.labels)


def write_csv(path: Path, video: str, people: Sequence[Person], *, all_faces: bool) -> int:
    """Write the table; the number of its rows, the header apart.

    Of one person every frame has a row; of several (``all_faces``) those that show the face. Frames are counted from
    0 and times are seconds of the container's clock. Cells without a value are empty.
    """
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(",".join(columns([one.head for one in people[0].heads])) + "\n")
        for person in people:
            rows = np.flatnonzero(person.valid) if all_faces else np.arange(len(person.valid))
            first = f"{_quoted(video)},{person.number},"
            for start in range(0, len(rows), BLOCK_ROWS):
                file.writelines(f"{first}{line}\n" for line in _lines(person, rows[start : start + BLOCK_ROWS]))
            count += len(rows)
    return count


def _quoted(text: str) -> str:
    """A cell of text, quoted where it needs to be; a line break in a file's name stays within its quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue()


def _lines(person: Person, rows: np.ndarray) -> Iterator[str]:
    parts = [_where(person, rows), *(_cells(one, rows) for one in person.heads)]
    return (",".join(cells) for cells in zip(*parts, strict=True))


def _where(person: Person, rows: np.ndarray) -> Iterator[str]:
    block = zip(
        rows.tolist(),
        person.time[rows].tolist(),
        person.box[rows].tolist(),
        person.valid[rows].tolist(),
        person.reason[rows].tolist(),
        strict=True,
    )
    for row, time, box, valid, reason in block:
        place = ",".join(f"{value:.1f}" for value in box) if valid else ",,,"
        yield f"{row},{time:.4f},{place},{int(valid)},{Reason(reason).name.lower()}"


def _cells(one: HeadScores, rows: np.ndarray) -> Iterator[str]:
    """The cells of one head; empty where it has no score."""
    head, valid = one.head, one.valid[rows].tolist()
    scores, decided = one.scores[rows].tolist(), one.decisions[rows].tolist()
    empty = "," * (len(_columns(head)) - 1)
    for has_score, row, own in zip(valid, scores, decided, strict=True):
        if not has_score:
            yield empty
        elif head.problem is Problem.REGRESSION:
            yield ",".join(f"{value:.4f}" for value in own)
        else:
            last = [head.labels[own[0]]] if head.problem is Problem.MULTICLASS else map(str, own)
            yield ",".join([*(f"{value:.4f}" for value in row), *last])
