"""One person of one video with everything that is known of every frame: where the face is, and what the models say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from abaw.scored import Predictions
from abaw.store import FeatureStore
from abaw.tasks import Head

GAP = "hold"  # what smoothing sees in rows without a score; the rows themselves stay empty


@dataclass(frozen=True)
class HeadScores:
    """One head over a track: undecided scores float32 [T, L], decisions [T, target_dim], rows bool [T] that have some.

    Scores are as the models gave them; decisions are smoothed and settled as post.json says.
    """

    head: Head
    scores: np.ndarray
    decisions: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class Person:
    """A track of a video. ``number`` is 1 for the one that is followed, and counts them with all faces."""

    track: str
    number: int
    faces: FeatureStore
    stores: tuple[tuple[Predictions, tuple[str, ...]], ...]

    @cached_property
    def time(self) -> np.ndarray:
        """float64 [T], seconds on the container's clock."""
        return self.faces.read(self.track, "time")

    @cached_property
    def valid(self) -> np.ndarray:
        """bool [T]: rows that show the face."""
        return self.faces.valid(self.track)

    @cached_property
    def reason(self) -> np.ndarray:
        """uint8 [T]: why a row shows none (`store.Reason`)."""
        return self.faces.read(self.track, "reason")

    @cached_property
    def box(self) -> np.ndarray:
        """float32 [T, 4], pixels of the picture."""
        return self.faces.read(self.track, "box")

    @cached_property
    def heads(self) -> list[HeadScores]:
        """What the models say, head by head."""
        found = []
        for predictions, wanted in self.stores:
            valid = predictions.store.valid(self.track)
            heads = [head for head in predictions.task.heads if head.name in wanted]
            if not valid.any():
                found += [_nothing(head, valid) for head in heads]
                continue
            scores, _ = predictions.filled(self.track, gap=GAP)
            decided = predictions.decide(self.track, gap=GAP).decisions
            found += [HeadScores(head, scores[head.name], decided[head.name], valid) for head in heads]
            predictions.store.close()
        return found

    def head(self, name: str) -> HeadScores | None:
        """What is said of one head; None where no run gives it."""
        return next((one for one in self.heads if one.head.name == name), None)


def _nothing(head: Head, valid: np.ndarray) -> HeadScores:
    """A head of a track that no model had anything to look at."""
    scores = np.zeros((len(valid), head.output_dim), np.float32)
    return HeadScores(head, scores, np.zeros((len(valid), head.target_dim), np.int8), valid)


def people_of(
    tracks: Sequence[tuple[str, int]], faces: FeatureStore, stores: Mapping[str, Predictions]
) -> list[Person]:
    """The people of a video. ``tracks``: name and number of each; ``stores``: predictions by task.

    Where two tasks have a head in common, the first of them gives it.
    """
    given: set[str] = set()
    wanted = []
    for predictions in stores.values():
        names = tuple(head.name for head in predictions.task.heads if head.name not in given)
        given |= set(names)
        wanted.append((predictions, names))
    return [Person(track, number, faces, tuple(wanted)) for track, number in tracks]
