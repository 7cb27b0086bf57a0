"""Face boxes over time: detections become tracklets, tracklets become the one person a track is about.

A tracklet is a run of detections of one face without a cut or a long gap. Knows nothing of detectors, crops or
stores.

Which person (``side`` of a track):
- ``left`` / ``right``: the side in the picture as seen (left = smaller x), decided over the whole video from the
  mean x of the tracklets, not frame by frame, so that a turn of the head or a lost face never swaps people;
- none: the dominant face, by time times size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from abaw.media.boxes import iou
from abaw.media.faces import Detections

MAX_GAP_S = 1.0  # a face unseen for longer starts a new tracklet
MAX_SHIFT = 0.6  # largest step from the predicted place, in face sizes and per frame; grows with the gap
MAX_SHIFT_FRAMES = 3  # ... up to that of so many frames
MAX_RESIZE = 2.0  # largest change of a face's side within one tracklet's step
SHARED_TIME = 0.2  # tracklets that share more of the shorter one's rows are two people
APART = 0.5  # people are side by side when their mean x differ by this share of a face's side

SETTINGS = {
    "max_gap_s": MAX_GAP_S,
    "max_shift": MAX_SHIFT,
    "max_shift_frames": MAX_SHIFT_FRAMES,
    "max_resize": MAX_RESIZE,
    "shared_time": SHARED_TIME,
    "apart": APART,
}


class Chosen(NamedTuple):
    """Per row of a video: ``picked`` int64 [T] is the chosen detection or -1; ``other`` and ``weak`` bool [T] tell
    where only another person's face, or only a face below the score, was seen."""

    picked: np.ndarray
    other: np.ndarray
    weak: np.ndarray


@dataclass(slots=True)
class Tracklet:
    """Detections of one face: ``rows`` and ``indices`` run in step; ``last`` is the newest box."""

    rows: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    best_score: float = 0.0
    sum_x: float = 0.0
    sum_side: float = 0.0
    last: np.ndarray = field(default_factory=lambda: np.zeros(4))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))

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
            self.velocity = (_centres(box[None])[0] - _centres(self.last[None])[0]) / (row - self.rows[-1])
        self.rows.append(row)
        self.indices.append(index)
        self.best_score = max(self.best_score, score)
        self.sum_x += float(box[0] + box[2]) / 2
        self.sum_side += float(_sides(box[None])[0])
        self.last = np.asarray(box, dtype=np.float64)

    def predicted(self, row: int) -> np.ndarray:
        """The box moved on to a later row; the motion is trusted for one frame only."""
        return self.last + np.tile(self.velocity, 2) * min(1, row - self.rows[-1])


class Linker:
    """Links detections frame by frame; memory grows with the number of detections only."""

    def __init__(self, *, fps: float) -> None:
        self.tracklets: list[Tracklet] = []
        self._open: list[Tracklet] = []
        self._max_gap = max(1, round(MAX_GAP_S * fps))

    def add(self, row: int, faces: Detections, indices: list[int], *, cut: bool = False) -> None:
        """Detections of a row, numbered ``indices`` by the caller; a ``cut`` ends all tracklets first."""
        self._open = [] if cut else [t for t in self._open if row - t.rows[-1] <= self._max_gap]
        taken = self._matches(row, faces)
        for face, index in enumerate(indices):
            tracklet = taken.get(face)
            if tracklet is None:
                tracklet = Tracklet()
                self.tracklets.append(tracklet)
                self._open.append(tracklet)
            tracklet.extend(row, index, faces.boxes[face], float(faces.scores[face]))

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


def choose_person(
    tracklets: list[Tracklet], *, num_rows: int, width: int, side: str | None, min_score: float
) -> Chosen:
    """The detections of one person over a whole video; see the module for the rule.

    Tracklets whose best score stays below ``min_score`` are no faces. ``width`` of the picture decides the side
    where only one person is ever seen.
    """
    faces = [tracklet for tracklet in tracklets if tracklet.best_score >= min_score]
    mine = faces if side is None else _of_side(faces, side=side, width=width)
    index = np.full(num_rows, -1, dtype=np.int64)
    for tracklet in _one_person(mine, num_rows=num_rows):
        rows = np.asarray(tracklet.rows)
        free = index[rows] < 0
        index[rows[free]] = np.asarray(tracklet.indices)[free]
    seen, weak = np.zeros(num_rows, dtype=bool), np.zeros(num_rows, dtype=bool)
    for tracklet in tracklets:
        (seen if tracklet.best_score >= min_score else weak)[tracklet.rows] = True
    return Chosen(index, seen & (index < 0), weak & ~seen & (index < 0))


def _one_person(tracklets: list[Tracklet], *, num_rows: int) -> list[Tracklet]:
    """From the dominant tracklet on, all that are never there at the same time as a stronger one."""
    taken = np.zeros(num_rows, dtype=bool)
    chosen = []
    for tracklet in sorted(tracklets, key=lambda t: (-t.weight, t.rows[0], t.mean_x)):
        if taken[tracklet.rows].mean() <= SHARED_TIME:
            taken[tracklet.rows] = True
            chosen.append(tracklet)
    return chosen


def _of_side(tracklets: list[Tracklet], *, side: str, width: int) -> list[Tracklet]:
    border = _border(tracklets, width=width)
    return [tracklet for tracklet in tracklets if (tracklet.mean_x < border) == (side == "left")]


def _border(tracklets: list[Tracklet], *, width: int) -> float:
    """The x between the two people: the split of the tracklets' mean x with the least weighted spread within.

    Where the two sides would be less than half a face apart there is one person, and the middle of the picture
    says on which side.
    """
    middle = width / 2
    if len(tracklets) < 2:
        return middle
    ordered = sorted(tracklets, key=lambda tracklet: tracklet.mean_x)
    x = np.array([tracklet.mean_x for tracklet in ordered])
    weight = np.array([tracklet.weight for tracklet in ordered])
    total, moment = np.cumsum(weight), np.cumsum(weight * x)
    low = moment[:-1] / total[:-1]
    high = (moment[-1] - moment[:-1]) / np.maximum(total[-1] - total[:-1], 1e-9)
    between = total[:-1] * (total[-1] - total[:-1]) * (high - low) ** 2
    best = int(between.argmax())
    side = float(np.average([tracklet.mean_side for tracklet in ordered], weights=weight))
    return float(x[best] + x[best + 1]) / 2 if high[best] - low[best] >= APART * side else middle


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _sides(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1))
