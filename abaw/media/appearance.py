"""How a face looks, without weights: good enough to tell two people at a cut apart, not to recognise anybody.

Local binary patterns of the inner face in a grid of cells (Ahonen, Hadid, Pietikainen 2006), beside the coarse
distribution of its tint. Both keep their value when the light gets stronger; neither knows poses or age. Knows
nothing of videos, detectors or tracks.
"""

from __future__ import annotations

import cv2
import numpy as np

INNER = (16, 16, 96, 112)  # x0, y0, x1, y1 of the face in the arcface crop of 112 pixels: no background, little hair
RADIUS_PX = 3  # from a pixel to its four neighbours
CELLS = 5  # histograms along each side
TINTS = 4  # mean tints along each side
TINT_SHARE = 0.5  # length of the tint's part where that of the patterns is 1
BLUR_PX = 1.0  # against the noise of coding
DARK = 16.0  # added to colours, so that the tint of shadows is no noise
SKIN = (0.24, 0.02, -0.26)  # log of red, green, blue about their mean: the mean of the faces in the test recordings
# Measured on the twelve people of the test recordings (other moments of a clip, brightness +-20 %, JPEG): of pairs of
# single pictures 4 % of one person's stay below, all of heads that turn, and 0.6 % of two people's reach it; of the
# means of two pictures, a second apart, 0.02 % and 0.4 %.
SAME = 0.69

SETTINGS = {
    "inner": list(INNER),
    "radius_px": RADIUS_PX,
    "cells": CELLS,
    "tints": TINTS,
    "tint_share": TINT_SHARE,
    "blur_px": BLUR_PX,
    "dark": DARK,
    "skin": list(SKIN),
    "same": SAME,
}

SIZE_PX = 112
NUM_PATTERNS = 16


class AppearanceEmbedder:
    """Describes faces by pattern and tint; ``same`` is the cosine from which two faces count as one person.

    Not sure enough to decide what a track shows (``decides``).
    """

    name = "appearance"
    same = SAME
    decides = False

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Unit vectors float32 [N, 448] of RGB crops uint8 [N, 112, 112, 3] on the arcface template, no margin."""
        if crops.ndim != 4 or crops.shape[1:] != (SIZE_PX, SIZE_PX, 3) or crops.dtype != np.uint8:
            message = f"crops are uint8 [N, {SIZE_PX}, {SIZE_PX}, 3], not {crops.dtype} {list(crops.shape)}"
            raise ValueError(message)
        described = [np.concatenate([_patterns(crop), TINT_SHARE * _tints(crop)]) for crop in crops]
        width = NUM_PATTERNS * CELLS**2 + 3 * TINTS**2
        return np.array([_unit(vector) for vector in described], dtype=np.float32).reshape(-1, width)


def _patterns(crop: np.ndarray) -> np.ndarray:
    """Square roots of the cells' histograms of patterns, without what all cells share; unit vector [400].

    What is shared is texture at large (blur, noise, skin); what stays is where in the face it differs.
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (0, 0), BLUR_PX)
    x0, y0, x1, y1 = INNER[0], INNER[1], INNER[2], min(INNER[3], SIZE_PX - RADIUS_PX)
    centre = grey[y0:y1, x0:x1]
    code = np.zeros(centre.shape, dtype=np.int64)
    for bit, (dx, dy) in enumerate(((RADIUS_PX, 0), (0, RADIUS_PX), (-RADIUS_PX, 0), (0, -RADIUS_PX))):
        code |= (grey[y0 + dy : y1 + dy, x0 + dx : x1 + dx] >= centre).astype(np.int64) << bit
    row, column = (np.arange(length) * CELLS // length for length in centre.shape)
    cell = row[:, None] * CELLS + column[None]
    counts = np.bincount((cell * NUM_PATTERNS + code).ravel(), minlength=CELLS**2 * NUM_PATTERNS)
    shares = counts.reshape(CELLS**2, NUM_PATTERNS) / np.bincount(cell.ravel())[:, None]
    roots = np.sqrt(shares)
    return _unit((roots - roots.mean(axis=0)).ravel())


def _tints(crop: np.ndarray) -> np.ndarray:
    """Mean tints over a grid, as distance from a usual face's; unit vector [48]."""
    x0, y0, x1, y1 = INNER
    coarse = cv2.resize(crop[y0:y1, x0:x1].astype(np.float32), (TINTS, TINTS), interpolation=cv2.INTER_AREA)
    logs = np.log(coarse + DARK)
    return _unit((logs - logs.mean(axis=2, keepdims=True) - np.array(SKIN)).ravel())


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
