"""A tracklet: the detections of one face, without a cut or a long gap, its motion and what it looks like.

Knows nothing of how detections are linked, nor of who is who.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

MOTION_SHARE = 0.2  # of the newest step in the motion; single steps are mostly the jitter of boxes
MAX_CARRY_FRAMES = 12  # a face that is hidden is carried on with its motion for so many frames
MAX_CARRY = 1.0  # ... and so many face sizes: less than the largest step, so that one that stopped is found too
DESCRIBE_EVERY = 25  # rows of a tracklet from one look at its identity to the next
MAX_DESCRIPTORS = 16  # ... and how many are enough

SETTINGS = {
    "motion_share": MOTION_SHARE,
    "max_carry_frames": MAX_CARRY_FRAMES,
    "max_carry": MAX_CARRY,
    "describe_every": DESCRIBE_EVERY,
    "max_descriptors": MAX_DESCRIPTORS,
}


def _integers() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Tracklet:
    """Detections of one face: ``rows`` and ``indices`` run in step; ``last`` is the newest box.

    ``descriptors`` are unit vectors of some of its crops, given by the caller; ``person`` is set by
    `choosing.group_people`, 0 before.
    """

    rows: array[int] = field(default_factory=_integers)
    indices: array[int] = field(default_factory=_integers)
    best_score: float = 0.0
    sum_x: float = 0.0
    sum_side: float = 0.0
    last: np.ndarray = field(default_factory=lambda: np.zeros(4))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))  # mean motion, pixels a row
    descriptors: list[np.ndarray] = field(default_factory=list)
    person: int = 0

    @property
    def wants_descriptor(self) -> bool:
        """Whether its newest row is one to describe: the first and every 25th, at most 16."""
        return (len(self.rows) - 1) % DESCRIBE_EVERY == 0 and len(self.descriptors) < MAX_DESCRIPTORS

    @property
    def weight(self) -> float:
        """Time times size: the sum of the face's side over its rows, pixels."""
        return self.sum_side

    @property
    def mean_x(self) -> float:
        """Mean centre, pixels of the source picture."""
        return self.sum_x / len(self.rows)

    @property
    def mean_side(self) -> float:
        """Mean side of the face, pixels of the source picture."""
        return self.sum_side / len(self.rows)

    def extend(self, row: int, index: int, box: np.ndarray, score: float) -> None:
        """Take one more detection."""
        if self.rows:
            step = (centres(box[None])[0] - centres(self.last[None])[0]) / (row - self.rows[-1])
            self.velocity = self.velocity + (step - self.velocity) * max(MOTION_SHARE, 1 / len(self.rows))
        self.rows.append(row)
        self.indices.append(index)
        self.best_score = max(self.best_score, score)
        self.sum_x += float(box[0] + box[2]) / 2
        self.sum_side += float(sides_of(box[None])[0])
        self.last = np.asarray(box, dtype=np.float64)

    def predicted(self, row: int) -> np.ndarray:
        """The box moved on to a later row with its mean motion, not farther than a hidden face is carried."""
        shift = self.velocity * min(MAX_CARRY_FRAMES, row - self.rows[-1])
        limit = MAX_CARRY * float(sides_of(self.last[None])[0])
        return self.last + np.tile(np.clip(shift, -limit, limit), 2)


def centres(boxes: np.ndarray) -> np.ndarray:
    """Centres of boxes [N, 4] as [N, 2], pixels."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def sides_of(boxes: np.ndarray) -> np.ndarray:
    """Sides of the squares as large as boxes [N, 4], as [N], pixels; 0 for turned-over ones."""
    return np.sqrt(np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1))
