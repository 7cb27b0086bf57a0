"""Face boxes over time: detections become tracklets.

Which tracklets are one person, and which person a track is about, is told by `choosing`. Knows nothing of detectors,
crops or stores.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from abaw.media import choosing
from abaw.media.boxes import iou
from abaw.media.faces import Detections
from abaw.media.tracklet import SETTINGS as TRACKLET_SETTINGS
from abaw.media.tracklet import Tracklet, centres, sides_of

MAX_GAP_S = 1.0  # a face unseen for longer starts a new tracklet
MAX_SHIFT = 0.6  # largest step from the predicted place, in face sizes and per frame; grows with the gap
MAX_SHIFT_FRAMES = 3  # ... up to that of so many frames
MAX_RESIZE = 2.0  # largest change of a face's side within one tracklet's step

SETTINGS = {
    "max_gap_s": MAX_GAP_S,
    "max_shift": MAX_SHIFT,
    "max_shift_frames": MAX_SHIFT_FRAMES,
    "max_resize": MAX_RESIZE,
    **TRACKLET_SETTINGS,
    **choosing.SETTINGS,
}


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
        sides = np.maximum(sides_of(predicted)[:, None], 1e-3)
        shift = np.linalg.norm(centres(predicted)[:, None] - centres(boxes)[None], axis=2) / sides
        resize = np.maximum(sides_of(boxes)[None], 1e-3) / sides
        allowed = (
            (shift <= MAX_SHIFT * np.minimum(gaps, MAX_SHIFT_FRAMES))
            & (resize <= MAX_RESIZE)
            & (resize >= 1 / MAX_RESIZE)
        )
        cost = np.where(allowed, 1 - iou(predicted, boxes) + shift, 1e3)
        pairs = zip(*linear_sum_assignment(cost), strict=True)
        return {int(face): self._open[int(place)] for place, face in pairs if allowed[place, face]}
