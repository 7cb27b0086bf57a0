"""Cutting a person out of the background of a portrait.

Knows nothing of morphs and colours.
"""

from __future__ import annotations

import numpy as np

from abaw.stages.synth.plate import HEIGHT_PX, LEFT, TOP, UNIT_PX, WIDTH_PX, plate_axes, sampled
from abaw.stages.synth.portraits import INDEX, Portrait


def person_mask(portrait: Portrait, places: np.ndarray, picture: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Soft mask float32 [H, W] in [0, 1] of the person on a plate, hair and shoulders included.

    From the portrait's measured outline at ``places`` [H, W, 2]; without one, guessed from ``picture``.
    """
    import cv2

    if portrait.outline is None:
        return _guessed(picture, rest)
    # Double size, so that the outline is smooth.
    drawn = np.zeros((2 * portrait.image.shape[0] + 80, 2 * portrait.image.shape[1]), np.uint8)
    cv2.fillPoly(drawn, [np.round(2 * portrait.outline).astype(np.int32)], 255)
    mask = sampled(drawn, 2 * places)
    return _softened(mask.astype(np.float32) / 255)


def _softened(mask: np.ndarray) -> np.ndarray:
    """The mask a little smaller, so that nothing of the old background shows, with a soft edge."""
    import cv2

    return np.clip((cv2.GaussianBlur(mask, (0, 0), 2.2) - 0.4) / 0.5, 0, 1)


def _guessed(picture: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """GrabCut from ellipses for head and shoulders."""
    import cv2

    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    half = np.clip(half, 0, 255).astype(np.uint8)
    xs, ys = plate_axes(scale=0.5)
    xs, ys = xs[:, : half.shape[1]], ys[: half.shape[0]]
    chin = rest[INDEX["chin"], 1]
    guess = np.full(half.shape[:2], cv2.GC_PR_BGD, np.uint8)
    guess[(xs / 1.7) ** 2 + ((ys - 0.3) / 2.2) ** 2 < 1] = cv2.GC_PR_FGD
    guess[(ys > chin) & (np.abs(xs) < 0.9 + 1.1 * (ys - chin))] = cv2.GC_PR_FGD
    guess[(xs / 1.0) ** 2 + ((ys - 0.45) / 1.35) ** 2 < 1] = cv2.GC_FGD
    guess[(ys > chin - 0.2) & (np.abs(xs) < 0.6 + 0.75 * (ys - chin))] = cv2.GC_FGD
    guess[(ys < chin) & (np.abs(xs) > 2.1)] = cv2.GC_BGD
    guess[(ys < -0.2) & ((xs / 1.9) ** 2 + ((ys + 0.2) / 2.0) ** 2 > 1)] = cv2.GC_BGD
    guess[np.broadcast_to(np.abs(xs) > 3.0, guess.shape)] = cv2.GC_BGD
    cv2.setRNGSeed(1)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(half, guess, (0, 0, 1, 1), *models, 4, cv2.GC_INIT_WITH_MASK)
    mask = ((guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    _, parts = cv2.connectedComponents(mask)
    centre = parts[int((0.5 - TOP) * UNIT_PX / 2), int(-LEFT * UNIT_PX / 2)]
    mask = (parts == centre).astype(np.float32)
    return _softened(cv2.resize(mask, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_LINEAR))
