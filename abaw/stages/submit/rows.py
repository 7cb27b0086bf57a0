"""The prediction files of a submission, row for row, and which of their rows had to be filled.

One track's scores are in memory at a time; of the file, the text of its rows. Knows nothing of folders and archives.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from abaw.editions import SampleRows, Submission, format_rows
from abaw.scored import Predictions
from abaw.stages.submit.places import Places

BLOCK = 1 << 16  # rows of text joined at once
FOLDER = "predictions"  # of a submission with a file for each video
MAX_NAMED = 5


@dataclass
class Filled:
    """Rows without a score of their own: how many by track, tracks without any, and the longest gap [track, rows]."""

    policy: str
    by_track: dict[str, int] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    longest: tuple[str, int] = ("", 0)

    @property
    def total(self) -> int:
        """All rows filled."""
        return sum(self.by_track.values())

    def count(self, track_id: str, rows: np.ndarray, has_score: np.ndarray, *, any_score: bool) -> None:
        """Take account of the rows int64 [n] that were asked of a track, and which bool [n] had a score."""
        missing = ~has_score[np.argsort(rows, kind="stable")]
        if not missing.any():
            return
        self.by_track[track_id] = int(missing.sum())
        steps = np.diff(np.concatenate([[0], missing.astype(np.int8), [0]]))
        longest = int((np.flatnonzero(steps < 0) - np.flatnonzero(steps > 0)).max())
        if longest > self.longest[1]:
            self.longest = track_id, longest
        if not any_score:
            self.silent.append(track_id)

    def to_dict(self) -> dict[str, Any]:
        """For the manifest and for machines."""
        track_id, rows = self.longest
        return {
            "policy": self.policy,
            "rows": self.total,
            "by_track": self.by_track,
            "longest": {"track": track_id, "rows": rows} if rows else None,
            "tracks_without_a_score": self.silent,
        }

    def in_words(self) -> str:
        """How many rows were filled, where, and the longest stretch."""
        text = f"{self.total} rows without a prediction of their own, policy {self.policy}"
        if not self.total:
            return text
        most = sorted(self.by_track.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{track_id} {count}" for track_id, count in most[:MAX_NAMED])
        more = f" and {len(most) - MAX_NAMED} tracks more" if len(most) > MAX_NAMED else ""
        text += f": {listed}{more}; longest gap {self.longest[1]} rows in {self.longest[0]}"
        if self.silent:
            named = ", ".join(self.silent[:MAX_NAMED]) + (", ..." if len(self.silent) > MAX_NAMED else "")
            text += f"; {len(self.silent)} tracks have no score at all and get neutral answers: {named}"
        return text


def write_predictions(
    folder: Path, scored: Predictions, sample: SampleRows, places: Places, submission: Submission, *, gap: str
) -> tuple[Path, Filled]:
    """Write the file, or the folder of a file for each video, into ``folder``; what lies there, and the gaps filled.

    Raises OSError for a full disk, AbawError for a track's file that cannot be read.
    """
    filled = Filled(gap)
    if submission.layout == "videos":
        path = folder / FOLDER
        path.mkdir()
        for track_id, _, rows in places.by_track():
            lines = _rows_of(scored, track_id, rows, filled)
            _write(path / f"{track_id}.txt", [submission.header, *lines])
        return path, filled
    texts = np.empty(len(sample.images), object)
    for track_id, where, rows in places.by_track():
        texts[where] = _rows_of(scored, track_id, rows, filled)
    path = folder / submission.filename
    _write_images(path, submission.header, sample.images, texts)
    return path, filled


def _rows_of(scored: Predictions, track_id: str, rows: np.ndarray, filled: Filled) -> list[str]:
    """Text of the rows int64 [n] of one track."""
    decided = scored.decide(track_id, gap=filled.policy, num_rows=int(rows.max()) + 1)
    filled.count(track_id, rows, decided.valid[rows], any_score=bool(decided.valid.any()))
    lines = format_rows(scored.task, {name: block[rows] for name, block in decided.decisions.items()})
    scored.store.close()  # each track is read once
    return lines


def _write(path: Path, lines: list[str]) -> None:
    path.write_bytes(("\n".join(lines) + "\n").encode())


def _write_images(path: Path, header: str, images: list[str], texts: np.ndarray) -> None:
    with path.open("wb") as file:
        file.write(f"{header}\n".encode())
        for start in range(0, len(images), BLOCK):
            part = map(",".join, zip(images[start : start + BLOCK], texts[start : start + BLOCK].tolist(), strict=True))
            file.write(("\n".join(itertools.chain(part, [""]))).encode())
