"""Auxiliary views of a face, made from its five landmarks without training: eyes, mouth, nose, or eyes over mouth.

arXiv 2403.13039 (EMAE) has such views; how they are cut is not published. The geometry here is ours: regions in units
of the distance between the eyes of a frontal face, upright with the line through the eyes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from abaw.data.image_threads import in_parts_if_large


class Part(NamedTuple):
    """A region of the face. ``points``: landmarks whose mean it is centred on.

    ``down``: shift of the centre towards the chin; ``width``, ``height``: its size; all in distances between the eyes.
    """

    points: tuple[int, ...]
    down: float
    width: float
    height: float


EYES, NOSE, MOUTH = (0, 1), (2,), (3, 4)
# Eyes with their brows, mouth with the folds beside it. A pair is one above the other, each in half of the square.
VIEWS: dict[str, tuple[Part, ...]] = {
    "eyes": (Part(EYES, -0.15, 1.8, 1.0),),
    "mouth": (Part(MOUTH, 0.10, 1.4, 1.1),),
    "nose": (Part(NOSE, -0.10, 0.85, 0.85),),
    "eyes+mouth": (Part(EYES, -0.10, 2.0, 1.0), Part(MOUTH, 0.10, 1.8, 0.9)),
}
# How a view shows its parts: cut out and enlarged, or in their place with the rest of the face dimmed or blurred.
STYLES: dict[str, float] = {"crop": 0.0, "dim": 0.25, "blur": 0.06}

# Of a frontal face (the arcface template): from the middle of the eyes to that of the mouth, in distances between the
# eyes. Where a turned head brings the eyes together, this length still gives the scale.
EYES_TO_MOUTH = 1.155
# Landmarks in units of the crop's side, where those given are no face: the arcface template (Deng et al. 2019).
USUAL = np.array([(0.342, 0.462), (0.657, 0.460), (0.500, 0.641), (0.371, 0.825), (0.632, 0.823)], np.float64)
SCALE = (0.06, 1.0)  # least and largest distance between the eyes that is believed, in sides of the crop
LARGEST_TURN = 45.0  # degrees; a face that lies more is taken as upright
SOFT_EDGE = 0.15  # width of the transition to the rest of the face, in distances between the eyes


def auxiliary_view(images: np.ndarray, points: np.ndarray, *, view: str, style: str) -> np.ndarray:
    """The view of every face: images uint8 [B, S, S, 3], landmarks [B, 5, 2] in units of the side -> uint8 alike.

    Landmarks may lie outside; those that cannot be a face (all in one place, not finite) are replaced by the places
    where an aligned face has them. What a region shows beyond the picture repeats its border.
    """
    parts, strength = VIEWS[view], STYLES[style]
    made = np.empty_like(images)
    for row, (image, own) in enumerate(zip(images, points, strict=True)):
        face = _Face.of(np.asarray(own, np.float64))
        if style == "crop":
            made[row] = np.concatenate(_strips(image, face, parts))
        else:
            made[row] = _rest_changed(image, face, parts, style, strength)
    return made


def views_of(
    make_view: Callable[[np.ndarray, np.ndarray], np.ndarray], images: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """What `make_view` makes of images uint8 [B, S, S, 3] and their points, uint8 alike; large ones in threads.

    `make_view` must treat every image by itself, as `auxiliary_view` does.
    """
    made = np.empty_like(images)

    def fill(part: slice) -> None:
        made[part] = make_view(images[part], points[part])

    in_parts_if_large(fill, images)
    return made


class _Face(NamedTuple):
    """Landmarks [5, 2], the direction from eye to eye (unit vector), and the distance between the eyes."""

    points: np.ndarray
    along: np.ndarray
    scale: float

    @classmethod
    def of(cls, points: np.ndarray) -> _Face:
        points = points.reshape(5, 2)
        across = points[1] - points[0]
        length = points[list(MOUTH)].mean(0) - points[list(EYES)].mean(0)
        scale = max(float(np.hypot(*across)), float(np.hypot(*length)) / EYES_TO_MOUTH)
        if not (np.isfinite(points).all() and SCALE[0] <= scale <= SCALE[1]):
            return cls.of(USUAL)
        angle = np.arctan2(across[1], across[0])
        if abs(np.degrees(angle)) > LARGEST_TURN:
            angle = 0.0
        return cls(points, np.array([np.cos(angle), np.sin(angle)]), scale)

    def frame(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Centre [2] of a part, inside the picture, and its half axes [2, 2]: to the right and to the chin."""
        down = np.array([-self.along[1], self.along[0]])
        centre = self.points[list(part.points)].mean(0) + part.down * self.scale * down
        half = np.stack([self.along * part.width, down * part.height]) * self.scale / 2
        return np.clip(centre, 0.0, 1.0), half


def _strips(image: np.ndarray, face: _Face, parts: tuple[Part, ...]) -> list[np.ndarray]:
    """The parts, each enlarged to the full width and its share of the height."""
    size = image.shape[0]
    heights = np.diff(np.linspace(0, size, len(parts) + 1).round().astype(int))
    return [_cut(image, face, part, size, int(height)) for part, height in zip(parts, heights, strict=True)]


def _cut(image: np.ndarray, face: _Face, part: Part, width: int, height: int) -> np.ndarray:
    """A part resampled to ``width`` x ``height`` pixels."""
    centre, half = (values * image.shape[0] for values in face.frame(part))
    columns = (half * 2 / np.array([[width], [height]])).T  # one pixel to the right, one down, in source pixels
    # The first pixel's middle lies half a pixel inside the region; cv2 counts from the middle of the source's first.
    corner = centre - half.sum(0) + columns.sum(1) / 2 - 0.5
    return cv2.warpAffine(
        image,
        np.column_stack([columns, corner]),
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _rest_changed(image: np.ndarray, face: _Face, parts: tuple[Part, ...], style: str, strength: float) -> np.ndarray:
    """The face with everything but the parts dimmed to a share of its brightness, or blurred."""
    size = image.shape[0]
    mask: np.ndarray = np.zeros((size, size), np.float32)
    for part in parts:
        centre, half = (values * size for values in face.frame(part))
        corners = [centre + x * half[0] + y * half[1] - 0.5 for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), 1.0)
    edge = max(SOFT_EDGE * face.scale * size / 2, 0.5)
    mask = cv2.GaussianBlur(mask, (0, 0), edge, borderType=cv2.BORDER_REPLICATE)[:, :, None]
    shown = image.astype(np.float32)
    rest = shown * strength if style == "dim" else cv2.GaussianBlur(shown, (0, 0), strength * size)
    return np.clip(np.round(mask * shown + (1 - mask) * rest), 0, 255).astype(np.uint8)
