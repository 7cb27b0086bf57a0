"""The files that are made of one video: the table, and where they are asked for the film and the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from abaw.predicting.people import Person
from abaw.predicting.rows import write_csv
from abaw.predicting.workplace import Video, Workplace


@dataclass(frozen=True)
class Wanted:
    """What is to be made, and where."""

    place: Workplace
    overlay: bool
    timeline: bool
    all_faces: bool
    overwrite: bool


@dataclass
class Made:
    """The files of one video, each with whether it is new; rows of its table, and those with a face."""

    video: str
    people: int
    rows: int = 0
    faces: int = 0
    files: list[tuple[Path, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "video": self.video,
            "people": self.people,
            "rows": self.rows,
            "faces": self.faces,
            "files": [str(path) for path, _ in self.files],
            "notes": self.notes,
        }


def write_results(wanted: Wanted, video: Video, people: Sequence[Person]) -> Made:
    """Write what is not there yet. Raises AbawError where a file cannot be written or the video not be read."""
    made = Made(video.path.name, len(people), faces=sum(int(person.valid.sum()) for person in people))
    made.rows = made.faces if wanted.all_faces else len(people[0].valid)
    table = partial(write_csv, video=video.path.name, people=people, all_faces=wanted.all_faces)
    _make(wanted, video, made, ".csv", table)
    if wanted.overlay:
        from abaw.predicting.overlay import write_overlay

        _make(wanted, video, made, "-overlay.mp4", lambda path: write_overlay(path, video.path, people))
    if wanted.timeline:
        from abaw.predicting.picture import write_timeline

        _make(wanted, video, made, "-timeline.png", lambda path: write_timeline(path, video.path.name, people))
    return made


def _make(wanted: Wanted, video: Video, made: Made, ending: str, write: Callable[[Path], Any]) -> None:
    path = wanted.place.file_for(video, ending)
    is_there = wanted.place.is_made(video, path) and not wanted.overwrite
    if not is_there:
        wanted.place.make(video, path, write, overwrite=wanted.overwrite)
    made.files.append((path, not is_there))
