"""Action units as a smooth warp of the face: displacements, shading, and the opening of the mouth.

Everything is in the eye-to-eye frame (unit: distance between the eyes, y down). Displacements are sums of Gaussian
kernels placed at the landmarks of an identity, on a coarse grid over the face region; the warp of a frame is their
sum weighted by the activations. A summed map that came near to folding is scaled back until its Jacobian
determinant is at least `MIN_JACOBIAN`. Knows nothing of pictures, videos or labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from abaw.stages.synth.activations import AUS
from abaw.stages.synth.kernels import MOVES, SHADES
from abaw.stages.synth.portraits import INDEX

# Face region, in the eye-to-eye frame, and the points of its grid.
X0, X1, Y0, Y1 = -1.7, 1.7, -1.3, 2.5
COLUMNS, ROWS = 86, 96
MIN_JACOBIAN = 0.15
YAW, PITCH = len(AUS), len(AUS) + 1  # two more channels: turning the head by small angles
CHANNELS = len(AUS) + 2


@dataclass(frozen=True)
class FaceWarp:
    """Kernels of one identity: ``shift`` float32 [C, ROWS, COLUMNS, 2] (output -> source, eye-to-eye units, to be
    subtracted) and ``shade`` float32 [12, ROWS, COLUMNS, 3] (log gain)."""

    rest: np.ndarray
    shift: np.ndarray
    shade: np.ndarray


def grid() -> np.ndarray:
    """Points [ROWS, COLUMNS, 2] of the grid: centres of cells, so that `cv2.resize` enlarges it without a shift."""
    xs = X0 + (np.arange(COLUMNS) + 0.5) * (X1 - X0) / COLUMNS
    ys = Y0 + (np.arange(ROWS) + 0.5) * (Y1 - Y0) / ROWS
    return np.stack(np.meshgrid(xs, ys), axis=-1)


def build_warp(rest: np.ndarray) -> FaceWarp:
    """Kernels placed at the landmarks ``rest`` [36, 2] of an identity."""
    points = grid()
    shift = np.zeros((CHANNELS, ROWS, COLUMNS, 2))
    shade = np.zeros((len(AUS), ROWS, COLUMNS, 3))
    for channel, unit in enumerate(AUS):
        for name, ox, oy, sx, sy, dx, dy in MOVES.get(unit, ()):
            for side in _sides(name):
                bump = _bump(points, rest, name, (ox, oy), (sx, sy), 0.0, side=side)
                shift[channel] += bump[..., None] * (side * dx, dy)
        for name, ox, oy, sx, sy, tilt, *gain in SHADES.get(unit, ()):
            for side in _sides(name):
                bump = _bump(points, rest, name, (ox, oy), (sx, sy), tilt, side=side)
                shade[channel] += bump[..., None] * gain
    shade[..., 0] = np.where(shade[..., 0] < 0, 0.65 * shade[..., 0], shade[..., 0])  # shadows on skin are red
    depth = np.exp(-((points[..., 0] / 0.95) ** 2) - ((points[..., 1] - 0.45) / 1.1) ** 2)
    shift[YAW, ..., 0] = 0.16 * depth
    shift[PITCH, ..., 1] = 0.14 * depth
    shift *= _taper(points)[..., None]
    return FaceWarp(rest, shift.astype(np.float32), shade.astype(np.float32))


def _sides(name: str) -> tuple[int, ...]:
    return (1, -1) if "right" in name else (1,)


def _bump(
    points: np.ndarray,
    rest: np.ndarray,
    name: str,
    offset: tuple[float, float],
    sigma: tuple[float, float],
    tilt: float,
    *,
    side: int,
) -> np.ndarray:
    """Gaussian [ROWS, COLUMNS] at a landmark of the right half, or (side -1) at its mirror image on the left."""
    wide, high = sigma
    if name.startswith("lip"):  # kernels on the lips are made for a mouth 0.9 wide
        wide *= (rest[INDEX["mouth_right"], 0] - rest[INDEX["mouth_left"], 0]) / 0.9
    centre = rest[INDEX[name.replace("right", "left") if side < 0 else name]]
    x = points[..., 0] - centre[0] - side * offset[0]
    y = points[..., 1] - centre[1] - offset[1]
    angle = np.deg2rad(tilt) * side
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.exp(-0.5 * (along / wide) ** 2 - 0.5 * (across / high) ** 2)


def _taper(points: np.ndarray) -> np.ndarray:
    """1 inside the region, falling smoothly to 0 at its border."""
    x, y = points[..., 0], points[..., 1]
    edge = np.minimum.reduce([x - X0, X1 - x, y - Y0, Y1 - y]) / 0.4
    t = np.clip(edge, 0, 1)
    return t * t * (3 - 2 * t)


def jacobian(shift: np.ndarray) -> np.ndarray:
    """Determinant [ROWS - 1, COLUMNS - 1] of the map p -> p - shift(p) on the grid."""
    dx, dy = (X1 - X0) / COLUMNS, (Y1 - Y0) / ROWS
    by_x = (shift[:-1, 1:] - shift[:-1, :-1]) / np.float32(dx)
    by_y = (shift[1:, :-1] - shift[:-1, :-1]) / np.float32(dy)
    return (1 - by_x[..., 0]) * (1 - by_y[..., 1]) - by_x[..., 1] * by_y[..., 0]


def summed_shift(warp: FaceWarp, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Summed displacement [ROWS, COLUMNS, 2] for ``weights`` [C], and the factor (<= 1) that kept it from folding."""
    # A plain sum, not a matrix product: its bits do not depend on the number of BLAS threads.
    shift = np.zeros(warp.shift.shape[1:], np.float32)
    for channel, weight in enumerate(weights):
        if abs(weight) > 1e-4:
            shift += np.float32(weight) * warp.shift[channel]
    factor = 1.0
    while jacobian(shift * np.float32(factor)).min() < MIN_JACOBIAN:
        factor *= 0.96
    return shift * np.float32(factor), factor


def summed_shade(warp: FaceWarp, activations: np.ndarray) -> np.ndarray:
    """Multiplicative gain [ROWS, COLUMNS, 3] of the shading for ``activations`` [12]."""
    shade = np.zeros(warp.shade.shape[1:], np.float32)
    for channel, weight in enumerate(activations):
        if weight > 1e-3:
            shade += np.float32(weight) * warp.shade[channel]
    return np.exp(shade)


def moved(points: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Where landmarks ``points`` [P, 2] go under the map output -> source p - shift(p) (fixed point)."""
    places = points.astype(np.float64)
    for _ in range(5):
        places = points + _sampled(shift, places)
    return places


def _sampled(shift: np.ndarray, points: np.ndarray) -> np.ndarray:
    x = np.clip((points[:, 0] - X0) / (X1 - X0) * COLUMNS - 0.5, 0, COLUMNS - 1.001)
    y = np.clip((points[:, 1] - Y0) / (Y1 - Y0) * ROWS - 0.5, 0, ROWS - 1.001)
    column, row = x.astype(int), y.astype(int)
    u, v = (x - column)[:, None], (y - row)[:, None]
    top = shift[row, column] * (1 - u) + shift[row, column + 1] * u
    bottom = shift[row + 1, column] * (1 - u) + shift[row + 1, column + 1] * u
    return top * (1 - v) + bottom * v
