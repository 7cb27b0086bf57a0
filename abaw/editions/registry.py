"""Which tasks each edition of the challenge has, and what their files look like.

Add an edition by adding an entry of EDITIONS. Source: the challenge's published sample files and the files that teams
handed in. Knows nothing of rows, stores or models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from abaw.tasks import TASKS


@dataclass(frozen=True)
class Submission:
    """How one task of one edition is handed in.

    ``header`` is the first line of the file, ``layout`` "file" for one file with a row per image, "videos" for a file
    per video whose rows are its frames. ``keyed`` rows name an image alone, not a track and a number. ``rule`` names an
    entry of ``abaw.rules.RULES``: what the models may have been trained on.
    """

    task: str
    edition: str
    header: str
    rule: str
    layout: Literal["file", "videos"] = "file"
    keyed: bool = False
    filename: str = "predictions.txt"


@dataclass(frozen=True)
class Edition:
    """One edition of the challenge."""

    name: str
    year: int
    submissions: dict[str, Submission]


def _labels(task: str) -> str:
    return ",".join(TASKS[task].heads[0].labels)


def _videos(edition: str, task: str) -> Submission:
    return Submission(task, edition, _labels(task), "uni-task", layout="videos")


def _images(edition: str, task: str, *, rule: str = "uni-task") -> Submission:
    return Submission(task, edition, f"image_location,{_labels(task)}", rule)


def _compound(edition: str) -> Submission:
    return _images(edition, "ce", rule="open")


def _multi_task(edition: str) -> Submission:
    # Five names for sixteen columns: the twelve units share the last.
    return Submission("mtl", edition, "image,valence,arousal,expression,aus", "static")


def _synthetic(edition: str) -> Submission:
    return Submission("lsd", edition, "image,expression", "synthetic", keyed=True)


def _edition(name: str, year: int, *submissions: Submission) -> Edition:
    return Edition(name, year, {submission.task: submission for submission in submissions})


EDITIONS: dict[str, Edition] = {
    "3": _edition("3", 2022, _videos("3", "va"), _videos("3", "expr"), _videos("3", "au"), _multi_task("3")),
    "4": _edition("4", 2022, _multi_task("4"), _synthetic("4")),
    "5": _edition("5", 2023, _images("5", "va"), _images("5", "expr"), _images("5", "au")),
    "6": _edition("6", 2024, _images("6", "va"), _images("6", "expr"), _images("6", "au"), _compound("6")),
    "7": _edition("7", 2024, _multi_task("7"), _compound("7")),
    "8": _edition("8", 2025, _images("8", "va"), _images("8", "expr"), _images("8", "au"), _compound("8")),
    "9": _edition("9", 2025, _images("9", "va", rule="multi-task"), _compound("9")),
    "10": _edition("10", 2026, _images("10", "va"), _images("10", "expr"), _images("10", "au")),
    "11": _edition("11", 2026, _multi_task("11")),
}


def submissions() -> Iterator[Submission]:
    """Every task of every edition."""
    return (submission for edition in EDITIONS.values() for submission in edition.submissions.values())


def header_fields(line: str) -> list[str]:
    """Fields of a first line as they are compared: without case, spaces, quotes and empty fields at the end."""
    fields = [field.strip().strip('"').strip().lower() for field in line.split(",")]
    while fields and not fields[-1]:
        fields.pop()
    return fields


def of_header(line: str) -> list[Submission]:
    """Every task of an edition whose files begin with that line."""
    fields = header_fields(line)
    return [submission for submission in submissions() if header_fields(submission.header) == fields]
