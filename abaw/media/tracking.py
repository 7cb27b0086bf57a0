"""Face boxes over time: detections become tracklets.

A tracklet is a run of detections of one face without a cut or a long gap. Which tracklets are one person, and which
person a track is about, is told by `choosing`, whose functions stand here too. Knows nothing of detectors, crops or
stores.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from abaw.media import choosing
from abaw.media.boxes import iou
from abaw.media.choosing import Chosen, choose_people, choose_person, group_people
from abaw.media.faces import Detections

__all__ = ["SETTINGS", "Chosen", "Linker", "Tracklet", "choose_people", "choose_person", "group_people"]

MAX_GAP_S = 1.0  # a face unseen for longer starts a new tracklet
MAX_SHIFT = 0.6  # largest step from the predicted place, in face sizes and per frame; grows with the gap
MAX_SHIFT_FRAMES = 3  # ... up to that of so many frames
MOTION_SHARE = 0.2  # of the newest step in the motion; single steps are mostly the jitter of boxes
MAX_CARRY_FRAMES = 12  # a face that is hidden is carried on with its motion for so many frames
MAX_CARRY = 1.0  # ... and so many face sizes: less than the largest step, so that one that stopped is found too
MAX_RESIZE = 2.0  # largest change of a face's side within one tracklet's step
DESCRIBE_EVERY = 25  # rows of a tracklet from one look at its identity to the next
MAX_DESCRIPTORS = 16  # ... and how many are enough

SETTINGS = {
    "max_gap_s": MAX_GAP_S,
    "max_shift": MAX_SHIFT,
    "max_shift_frames": MAX_SHIFT_FRAMES,
    "motion_share": MOTION_SHARE,
    "max_carry_frames": MAX_CARRY_FRAMES,
    "max_carry": MAX_CARRY,
    "max_resize": MAX_RESIZE,
    "describe_every": DESCRIBE_EVERY,
    "max_descriptors": MAX_DESCRIPTORS,
    **choosing.SETTINGS,
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
            step = (_centres(box[None])[0] - _centres(self.last[None])[0]) / (row - self.rows[-1])
            self.velocity = self.velocity + (step - self.velocity) * max(MOTION_SHARE, 1 / len(self.rows))
        self.rows.append(row)
        self.indices.append(index)
        self.best_score = max(self.best_score, score)
        self.sum_x += float(box[0] + box[2]) / 2
        self.sum_side += float(_sides(box[None])[0])
        self.last = np.asarray(box, dtype=np.float64)

    def predicted(self, row: int) -> np.ndarray:
        """The box moved on to a later row with its mean motion, not farther than a hidden face is carried."""
        shift = self.velocity * min(MAX_CARRY_FRAMES, row - self.rows[-1])
        limit = MAX_CARRY * float(_sides(self.last[None])[0])
        return self.last + np.tile(np.clip(shift, -limit, limit), 2)


class Linker:
    """Links detections frame by frame; memory grows with the number of detections only."""

    def __init__(self, *, fps: float) -> None:
        self.tracklets: list[Tracklet] = []
        self._open: list[Tracklet] = []
        self._max_gap = max(1, round(MAX_GAP_S * fps))

    def add(self, row: int, faces: Detections, indices: list[int], *, cut: bool = False) -> list[Tracklet]:
        """Tracklet of each detection of a row, in order; ``indices`` are the caller's numbers of the detections.

        A ``cut`` ends all tracklets first.
        """
        self._open = [] if cut else [t for t in self._open if row - t.rows[-1] <= self._max_gap]
        taken = self._matches(row, faces)
        found = []
        for face, index in enumerate(indices):
            tracklet = taken.get(face)
            if tracklet is None:
                tracklet = Tracklet()
                self.tracklets.append(tracklet)
                self._open.append(tracklet)
            tracklet.extend(row, index, faces.boxes[face], float(faces.scores[face]))
            found.append(tracklet)
        return found

    def _matches(self, row: int, faces: Detections) -> dict[int, Tracklet]:
        if not self._open or len(faces) == 0:
            return {}
        predicted = np.stack([tracklet.predicted(row) for tracklet in self._open])  # [N, 4]
        gaps = np.array([row - tracklet.rows[-1] for tracklet in self._open], dtype=np.float64)[:, None]
        boxes = faces.boxes.astype(np.float64)
        sides = np.maximum(_sides(predicted)[:, None], 1e-3)
        shift = np.linalg.norm(_centres(predicted)[:, None] - _centres(boxes)[None], axis=2) / sides
        resize = np.maximum(_sides(boxes)[None], 1e-3) / sides
        allowed = (
            (shift <= MAX_SHIFT * np.minimum(gaps, MAX_SHIFT_FRAMES))
            & (resize <= MAX_RESIZE)
            & (resize >= 1 / MAX_RESIZE)
        )
        cost = np.where(allowed, 1 - iou(predicted, boxes) + shift, 1e3)
        pairs = zip(*linear_sum_assignment(cost), strict=True)
        return {int(face): self._open[int(place)] for place, face in pairs if allowed[place, face]}


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _sides(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1))
