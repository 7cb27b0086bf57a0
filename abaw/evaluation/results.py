"""What an evaluation found: sums of each recording, and the metrics, intervals and tables that follow from them.

Two countings: all annotated rows, which is the official one, and those of them that show a face. A piece is the part
of a track that lies in one recording: of a video the whole track, of an image collection the images of one folder.
P pieces, R recordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from abaw import pooled
from abaw.pooled import Statistics, Tables
from abaw.tasks import Problem, Task

COUNTINGS = ("annotated", "with_face")
OFFICIAL = COUNTINGS[0]


def named_scores(task: Task, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics under the names that `tasks.measure` gives them, each [...], from the parts [..., L] of each head."""
    total: Any = 0.0
    named: dict[str, np.ndarray] = {}
    for head in task.heads:
        own, key = parts[head.name], f"{head.name}.{head.metric}"
        named[key] = own.mean(axis=-1)
        total = total + named[key]
        named |= {f"{key}.{label}": own[..., place] for place, label in enumerate(head.labels)}
    return {"score": total} | named


@dataclass(frozen=True)
class RowCounts:
    """Rows of each piece, int64 [P]: with a label that counts; of those, with a face, and without a score of their
    own, which were filled."""

    labelled: np.ndarray
    with_face: np.ndarray
    filled: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one set of decisions against labels.

    ``tracks``: those measured, and ``about``: which they are, in words; ``statistics``: by counting and head, one
    entry for each piece; ``piece_tracks`` int [P]: index of its track; ``recordings`` int [P]: which raw recording it
    is of, numbered across tracks, people and parts of one recording alike. ``gap``: how rows without a score were
    filled; ``post``: where the post-processing was chosen, None where there is none, and ``treatment``: what it does,
    by head, in words; ``faces_from``: what told rows with a face; ``hollow``: tracks without any score.
    """

    name: str
    task: Task
    tracks: list[str]
    about: str
    statistics: dict[str, dict[str, Statistics]]
    piece_tracks: np.ndarray
    recordings: np.ndarray
    rows: RowCounts
    gap: str
    faces_from: str
    post: str | None = None
    treatment: dict[str, str] = field(default_factory=dict)
    hollow: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    # -- numbers of rows -------------------------------------------------------------------------------------------
    @property
    def num_rows(self) -> int:
        """Rows with a label that counts."""
        return int(self.rows.labelled.sum())

    @property
    def num_filled(self) -> int:
        """Of those, rows without a score of their own."""
        return int(self.rows.filled.sum())

    @property
    def coverage(self) -> float:
        """Share of labelled rows with a score of their own."""
        return 1 - self.num_filled / self.num_rows

    @property
    def num_recordings(self) -> int:
        """Recordings with a labelled row: what is drawn by the bootstrap."""
        return len(np.unique(self.recordings[self.rows.labelled > 0]))

    # -- metrics ---------------------------------------------------------------------------------------------------
    def metrics(self, counting: str = OFFICIAL) -> dict[str, float]:
        """Metrics by name over all rows of a counting pooled, as `tasks.measure` gives them."""
        parts = {name: own.parts() for name, own in self.statistics[counting].items()}
        return {key: float(value) for key, value in named_scores(self.task, parts).items()}

    def by_recording(self, counting: str = OFFICIAL) -> dict[str, Statistics]:
        """Statistics by head of the R recordings with a labelled row."""
        used = self.rows.labelled > 0
        numbers, group = np.unique(self.recordings[used], return_inverse=True)
        return {name: own.take(used).merge(group, len(numbers)) for name, own in self.statistics[counting].items()}

    def intervals(self, resamples: int, seed: int, counting: str = OFFICIAL) -> dict[str, tuple[float, float]]:
        """95 % interval of each metric, by ``resamples`` bootstrap draws of whole recordings; empty where that is 0.

        Of fewer than two recordings there is none either: nothing varies between draws of the same one.
        """
        if not resamples or self.num_recordings < 2:
            return {}
        weights = pooled.resamples(self.num_recordings, resamples, seed=seed)
        parts = {name: own.parts(weights) for name, own in self.by_recording(counting).items()}
        return {key: pooled.interval(values) for key, values in named_scores(self.task, parts).items()}

    def confusion(self, head: str) -> np.ndarray:
        """Rows int64 [truth, decision] of a head of classes. Raises ValueError for another head."""
        own = self.statistics[OFFICIAL][head]
        if not isinstance(own, Tables):
            msg = f"{head} has no classes"
            raise ValueError(msg)
        return np.asarray(own.tables.sum(axis=0))

    def by_track(self) -> list[dict[str, Any]]:
        """Of each track: ``track``, its rows ``labelled``, ``with_face`` and ``filled``, and each metric by name.

        A metric is None where it is undefined: of a head without labels there, of a class or unit that is in neither
        labels nor decisions. A head's mean is over its defined parts; "score" is None where a head has none.
        """
        merged = {
            name: own.merge(self.piece_tracks, len(self.tracks)) for name, own in self.statistics[OFFICIAL].items()
        }
        rows = [self._of_tracks(one) for one in (self.rows.labelled, self.rows.with_face, self.rows.filled)]
        return [
            {
                "track": track_id,
                "labelled": int(rows[0][place]),
                "with_face": int(rows[1][place]),
                "filled": int(rows[2][place]),
                **_of_one(self.task, {name: own.take(np.array([place])) for name, own in merged.items()}),
            }
            for place, track_id in enumerate(self.tracks)
        ]

    def _of_tracks(self, counts: np.ndarray) -> np.ndarray:
        """Counts [P] added up by track."""
        return np.bincount(self.piece_tracks, counts, len(self.tracks)).astype(np.int64)

    def filled_by_track(self) -> dict[str, int]:
        """Labelled rows without a score of their own, of the tracks that have any."""
        counts = self._of_tracks(self.rows.filled).tolist()
        return {name: count for name, count in zip(self.tracks, counts, strict=True) if count}

    # -- for a machine ---------------------------------------------------------------------------------------------
    def to_dict(self, *, resamples: int = 0, seed: int = 0) -> dict[str, Any]:
        """All of it as plain JSON values, with intervals of ``resamples`` draws."""
        countings = {
            counting: {
                "num_rows": int(rows.sum()),
                "metrics": self.metrics(counting),
                "intervals": {key: list(own) for key, own in self.intervals(resamples, seed, counting).items()},
            }
            for counting, rows in zip(COUNTINGS, (self.rows.labelled, self.rows.with_face), strict=True)
        }
        return {
            "name": self.name,
            "task": self.task.name,
            "metrics": countings[OFFICIAL]["metrics"],
            "intervals": countings[OFFICIAL]["intervals"],
            "num_tracks": len(self.tracks),
            "num_recordings": self.num_recordings,
            "num_rows": self.num_rows,
            "coverage": self.coverage,
            "tracks": self.about,
            "post": self.post,
            "treatment": self.treatment,
            "countings": countings,
            "faces_from": self.faces_from,
            "gaps": {
                "policy": self.gap,
                "num_rows": self.num_filled,
                "tracks": self.filled_by_track(),
                "without_scores": self.hollow,
            },
            "resamples": resamples,
            "seed": seed,
            "confusion": self._confusions(),
            "by_track": self.by_track(),
            "notes": self.notes,
        }

    def _confusions(self) -> dict[str, Any]:
        heads = [head for head in self.task.heads if head.problem is Problem.MULTICLASS]
        return {h.name: {"labels": list(h.labels), "table": self.confusion(h.name).tolist()} for h in heads}


def _of_one(task: Task, statistics: Mapping[str, Statistics]) -> dict[str, float | None]:
    """Metrics of one track, None where undefined."""
    named: dict[str, float | None] = {}
    means: list[float | None] = []
    for head in task.heads:
        own = statistics[head.name]
        defined, parts = own.defined()[0], own.parts()
        mean = float(parts[defined].mean()) if defined.any() else None
        key = f"{head.name}.{head.metric}"
        named[key] = mean
        named |= {f"{key}.{label}": float(parts[k]) if defined[k] else None for k, label in enumerate(head.labels)}
        means.append(mean)
    found = [mean for mean in means if mean is not None]
    return {"score": sum(found) if len(found) == len(means) else None} | named
