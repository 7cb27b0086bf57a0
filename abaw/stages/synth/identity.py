"""Identities: a morph of portraits, another face shape, skin tone, hair and clothes, cut out of the background.

Knows nothing of expressions, videos or labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from abaw.stages.synth.colours import coloured, draw_colours
from abaw.stages.synth.cutout import person_mask
from abaw.stages.synth.plate import (
    BOTTOM,
    HEIGHT_PX,
    LEFT,
    RIGHT,
    TOP,
    UNIT_PX,
    WIDTH_PX,
    plate_axes,
    plate_points,
    sampled,
)
from abaw.stages.synth.portraits import INDEX, MOUTH, Portrait, eye_frame, mirrored, to_eye_frame

# Places around the face that no morph moves, so that far from the face the picture stays as it is.
_ANCHORS = np.array(
    [(-3.4, -2.4), (0.0, -2.4), (3.4, -2.4), (-3.4, 1.0), (3.4, 1.0), (-3.4, 4.6), (0.0, 4.6), (3.4, 4.6)]
)


@dataclass(frozen=True)
class Face:
    """An identity at rest: ``plate`` uint8 [H, W, 4] RGBA (colour premultiplied) and ``rest`` [36, 2].

    ``rest`` is in the eye-to-eye frame, ``skin`` the mean colour of the face, ``pitch_hz`` that of the voice at rest.
    """

    plate: np.ndarray
    rest: np.ndarray
    skin: np.ndarray
    pitch_hz: float
    parameters: dict[str, float]


def build_face(rng: np.random.Generator, portraits: list[Portrait], *, lead: int) -> Face:
    """A new identity between portrait ``lead`` and another one, all else drawn from ``rng``."""
    main = portraits[lead % len(portraits)]
    other = portraits[(lead + int(rng.integers(1, max(2, len(portraits))))) % len(portraits)]
    main, other = (mirrored(p) if rng.random() < 0.5 else p for p in (main, other))
    share = float(rng.uniform(0.0, 0.4))
    rest = _reshaped(rng, (1 - share) * main.rest + share * other.rest)
    main_places, other_places = _places(main, rest), _places(other, rest)
    oval = _face_oval(rest)
    picture = carried(main, main_places)
    mixed = _matched(carried(other, other_places), picture, oval)
    picture = picture + (mixed - picture) * (oval * share)[..., None]
    picture = _closed_mouth(picture, rest)
    person = person_mask(main, main_places, picture, rest)
    colours = draw_colours(rng)
    reach = main.hairline, float(rest[INDEX["chin"], 1]), main.skin_tolerance
    picture, skin = coloured(picture, person, oval, reach, colours)
    xs, _ = plate_axes()
    picture = picture * (1 + rng.uniform(-0.12, 0.12) * np.clip(xs, -1.5, 1.5))[..., None]  # light from one side
    plate = np.dstack([np.clip(picture, 0, 255) * person[..., None], person * 255])
    return Face(
        np.clip(plate + 0.5, 0, 255).astype(np.uint8),
        rest,
        skin,
        float(rng.uniform(105, 230)),
        {"share": share, **colours.parameters()},
    )


def _reshaped(rng: np.random.Generator, rest: np.ndarray) -> np.ndarray:
    """Another face of the same kind: wider, longer, other nose, mouth and brows."""
    width, length = rng.uniform(0.92, 1.1), rng.uniform(0.93, 1.08)
    shape = rest.copy()
    below = shape[:, 1] > 0.25
    shape[below, 1] = 0.25 + (shape[below, 1] - 0.25) * length
    outline = [INDEX[n] for n in INDEX if n.startswith(("jaw", "temple"))]
    shape[outline, 0] *= width
    mouth = [INDEX[n] for n in MOUTH]
    middle = shape[mouth].mean(axis=0)
    shape[mouth] = middle + (shape[mouth] - middle) * [rng.uniform(0.88, 1.12), rng.uniform(0.85, 1.2)]
    shape[mouth, 1] += rng.uniform(-0.04, 0.04)
    nose = [INDEX[n] for n in ("nose_tip", "wing_left", "wing_right", "nose_base")]
    shape[nose, 0] *= rng.uniform(0.88, 1.15)
    shape[nose, 1] += rng.uniform(-0.05, 0.04)
    brows = [INDEX[n] for n in INDEX if n.startswith("brow")]
    shape[brows, 1] += rng.uniform(-0.04, 0.03)
    lips = [INDEX["lip_upper_inner"], INDEX["lip_lower_inner"]]
    line = shape[lips, 1].mean()
    shape[lips, 1] = line - 0.01, line + 0.015
    return shape


def _places(portrait: Portrait, rest: np.ndarray) -> np.ndarray:
    """Pixel of the portrait that each plate pixel shows when its landmarks go to ``rest``: float32 [H, W, 2]."""
    from scipy.interpolate import RBFInterpolator

    measured = to_eye_frame(portrait.landmarks)
    ends = np.concatenate([rest, _ANCHORS])
    shift = np.concatenate([measured - rest, np.zeros_like(_ANCHORS)])
    half = 0.5 / UNIT_PX
    xs, ys = np.linspace(LEFT + half, RIGHT - half, 65), np.linspace(TOP + half, BOTTOM - half, 68)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    moved = RBFInterpolator(ends, shift, kernel="thin_plate_spline", smoothing=2e-4)(grid)
    matrix = eye_frame(portrait.landmarks)
    places = (grid + moved) @ matrix[:, :2].T + matrix[:, 2]
    return _enlarged(places.reshape(len(ys), len(xs), 2).astype(np.float32))


def carried(portrait: Portrait, places: np.ndarray) -> np.ndarray:
    """The portrait's picture at ``places``: float32 plate [H, W, 3]."""
    import cv2

    matrix = eye_frame(portrait.landmarks)
    image = portrait.image
    scale = np.hypot(matrix[0, 0], matrix[1, 0]) / UNIT_PX
    if scale > 1.3:  # avoid aliasing where the picture is finer than the plate
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * scale)
    plate = sampled(image, places, cubic=True)
    return plate.astype(np.float32)


def _closed_mouth(picture: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The plate with a dark line where the lips meet, in place of what is left of a smile's teeth."""
    xs, ys = plate_axes()
    left, right = rest[INDEX["mouth_left"]], rest[INDEX["mouth_right"]]
    inner = rest[[INDEX["lip_upper_inner"], INDEX["lip_lower_inner"]], 1].mean()
    across = (xs - (left[0] + right[0]) / 2) / ((right[0] - left[0]) / 2)
    bend = np.clip(1 - across**2, 0, 1)
    line = (left[1] + (right[1] - left[1]) * (across + 1) / 2) * (1 - bend) + inner * bend
    weight = 0.85 * np.exp(-0.5 * ((ys - line) / 0.03) ** 2) * bend**0.25
    column, row = np.round(plate_points(rest[[INDEX["lip_bottom"]]])[0] - [0, 0.07 * UNIT_PX]).astype(int)
    lip = picture[row - 1 : row + 2, column - 6 : column + 7].mean((0, 1))
    return picture + (lip * np.array([0.5, 0.36, 0.36], np.float32) - picture) * weight[..., None]


def _enlarged(grid: np.ndarray) -> np.ndarray:
    """Values on the corners of a regular grid [h, w, 2] -> at every plate pixel, linearly."""

    rows, columns = grid.shape[:2]
    xs = np.linspace(0, columns - 1, WIDTH_PX, dtype=np.float32)
    ys = np.linspace(0, rows - 1, HEIGHT_PX, dtype=np.float32)
    return sampled(grid, np.stack(np.meshgrid(xs, ys), axis=-1))


def _face_oval(rest: np.ndarray) -> np.ndarray:
    """Soft mask [H, W] in [0, 1] of the face inside its outline."""
    import cv2

    names = (
        "temple_left", "jaw_left_up", "jaw_left_mid", "jaw_left_low", "chin", "jaw_right_low", "jaw_right_mid",
        "jaw_right_up", "temple_right", "forehead",
    )  # fmt: skip
    outline = plate_points(rest[[INDEX[n] for n in names]])
    middle = outline.mean(axis=0)
    hull = cv2.convexHull((middle + (outline - middle) * 0.94).astype(np.float32))
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.float32)
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), [1.0])
    return cv2.GaussianBlur(mask, (0, 0), 0.09 * UNIT_PX)


def _matched(picture: np.ndarray, model: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``picture`` with mean and spread of its colours inside the face those of ``model``."""
    total = weight.sum()

    def moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = (image * weight[..., None]).sum((0, 1)) / total
        return mean, np.sqrt(((image - mean) ** 2 * weight[..., None]).sum((0, 1)) / total)

    (mean, spread), (target, target_spread) = moments(picture), moments(model)
    return (picture - mean) * np.clip(target_spread / spread, 0.6, 1.6) + target
