"""The picture of an identity that shows given activations: warp, shading and the mouth's inside.

Knows nothing of head motion, videos or labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from abaw.stages.synth.activations import AUS
from abaw.stages.synth.identity import Face
from abaw.stages.synth.plate import LEFT, TOP, UNIT_PX, plate_points, sampled
from abaw.stages.synth.portraits import FIVE, INDEX
from abaw.stages.synth.warp import (
    CHANNELS,
    PITCH,
    X0,
    X1,
    Y0,
    Y1,
    YAW,
    FaceWarp,
    build_warp,
    moved,
    summed_shade,
    summed_shift,
)

_TRACED = [INDEX[n] for n in (*FIVE, "lip_top", "lip_upper_inner", "lip_lower_inner", "lip_bottom")]
_CAVITY = np.array([38, 14, 14], np.float32)
_TEETH = np.array([232, 222, 204], np.float32)


@dataclass(frozen=True)
class Expressive:
    """Draws one identity with any activations; made once per identity by `build_expressive`."""

    face: Face
    warp: FaceWarp
    origin: tuple[int, int]
    size: tuple[int, int]
    lattice: np.ndarray
    points: np.ndarray

    def draw(self, activations: np.ndarray, *, yaw: float = 0.0, pitch: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Plate uint8 [H, W, 4] (premultiplied) showing ``activations`` [12], and its five landmarks [5, 2] (px)."""
        import cv2

        weights = np.zeros(CHANNELS, np.float32)
        weights[: len(AUS)] = activations
        weights[YAW], weights[PITCH] = yaw, pitch
        shift, _ = summed_shift(self.warp, weights)
        places = self.lattice - cv2.resize(shift, self.size, interpolation=cv2.INTER_LINEAR) * np.float32(UNIT_PX)
        region = sampled(self.face.plate, places)
        gain = cv2.resize(summed_shade(self.warp, activations), self.size, interpolation=cv2.INTER_LINEAR)
        colour = cv2.multiply(cv2.cvtColor(region, cv2.COLOR_RGBA2RGB), gain, dtype=cv2.CV_32F)
        points = moved(self.face.rest[_TRACED], shift)
        self._open_mouth(colour, points[3:], activations)
        plate = self.face.plate.copy()
        (x, y), (width, height) = self.origin, self.size
        alpha = cv2.extractChannel(region, 3)
        colour = cv2.min(cv2.convertScaleAbs(colour), cv2.merge([alpha] * 3))
        plate[y : y + height, x : x + width] = cv2.merge([*cv2.split(colour), alpha])
        return plate, plate_points(points[:5])

    def _open_mouth(self, colour: np.ndarray, lips: np.ndarray, activations: np.ndarray) -> None:
        """Paint the gap between the lips into ``colour``: what the warp stretched beyond the lips' own thickness.

        ``lips`` [6, 2]: corners, then top, upper inner, lower inner and bottom of the moved lips on the middle line.
        """
        left, right, top, bottom = lips[0], lips[1], lips[2], lips[5]
        rest = self.face.rest[_TRACED[5:], 1]
        upper_edge = top[1] + (rest[1] - rest[0])
        lower_edge = bottom[1] - (rest[3] - rest[2])
        unit = dict(zip(AUS, activations, strict=True))
        gap = lower_edge - upper_edge - 0.5 * (rest[2] - rest[1]) + 0.03 * unit[10]
        if gap < 0.02 or max(unit[25], unit[26], unit[10]) < 0.1:
            return
        half = max((right[0] - left[0]) / 2 * 0.88, 0.1)
        x0, x1 = int((left[0] - X0) * UNIT_PX), int((right[0] - X0) * UNIT_PX) + 2
        y0 = max(int((min(left[1], right[1], upper_edge) - 0.1 - Y0) * UNIT_PX), 0)
        y1 = int((max(left[1], right[1], lower_edge) + 0.1 - Y0) * UNIT_PX)
        xs, ys = self.points[y0:y1, x0:x1, 0], self.points[y0:y1, x0:x1, 1]
        across = (xs - (left[0] + right[0]) / 2) / half
        bend = np.clip(1 - across**2, 0, 1)
        corner = left[1] + (right[1] - left[1]) * (across + 1) / 2
        upper = corner + (upper_edge - corner) * bend**0.7
        lower = corner + (lower_edge - corner) * bend**0.6
        soft = np.float32(UNIT_PX * 0.9)
        inside = np.clip((ys - upper) * soft + 0.5, 0, 1) * np.clip((lower - ys) * soft + 0.5, 0, 1) * (bend > 0)
        teeth = np.clip((upper + np.minimum(0.1, 0.45 * (lower - upper)) - ys) * soft * 0.6 + 0.5, 0, 1)
        shown = 0.2 + 0.75 * min(1.0, unit[12] + 0.7 * unit[10])
        dim = (0.7 + 0.3 * bend)[..., None] * float(np.clip(self.face.skin.mean() / 170, 0.55, 1.0))
        paint = _CAVITY + (_TEETH * dim - _CAVITY) * (teeth * shown)[..., None]
        area = colour[y0:y1, x0:x1]
        area += (paint - area) * (0.95 * inside)[..., None]


def build_expressive(face: Face) -> Expressive:
    """Kernels and coordinates for drawing ``face``."""
    x0, y0 = int(round((X0 - LEFT) * UNIT_PX)), int(round((Y0 - TOP) * UNIT_PX))
    width, height = int(round((X1 - X0) * UNIT_PX)), int(round((Y1 - Y0) * UNIT_PX))
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    lattice = np.stack([xs + x0, ys + y0], axis=-1)
    points = np.stack([(xs + 0.5) / UNIT_PX + X0, (ys + 0.5) / UNIT_PX + Y0], axis=-1).astype(np.float32)
    return Expressive(face, build_warp(face.rest), (x0, y0), (width, height), lattice, points)
