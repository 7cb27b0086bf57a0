"""Other colours of skin, hair and clothes for an identity.

Knows nothing of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from abaw.stages.synth.plate import plate_axes

# Mean colours of lit skin from light to dark, and of hair, RGB; chosen by eye.
_SKINS = np.array([(208, 166, 144), (192, 148, 122), (168, 122, 96), (134, 93, 70), (106, 73, 56)], np.float64)
_HAIRS = np.array(
    [(38, 32, 30), (74, 54, 40), (112, 82, 56), (176, 142, 96), (132, 74, 46), (170, 168, 166)], np.float64
)
_KNEE = 190


@dataclass(frozen=True)
class Colours:
    """Mean colours (RGB) that skin, hair and clothes of an identity take."""

    skin: np.ndarray
    hair: np.ndarray
    clothes: np.ndarray

    def parameters(self) -> dict[str, float]:
        """The colours as plain numbers."""
        parts = {"skin": self.skin, "hair": self.hair, "clothes": self.clothes}
        return {f"{part}_{c}": float(v) for part, rgb in parts.items() for c, v in zip("rgb", rgb, strict=True)}


def draw_colours(rng: np.random.Generator) -> Colours:
    """Random natural colours; dark skin comes with dark or grey hair."""
    place = rng.uniform(0, len(_SKINS) - 1.001)
    low = int(place)
    skin = _SKINS[low] * (low + 1 - place) + _SKINS[low + 1] * (place - low)
    hair = _HAIRS[int(rng.choice([0, 0, 1, 5] if place > 2.2 else len(_HAIRS)))]
    clothes = rng.uniform(35, 180) + rng.uniform(-38, 38, 3)
    return Colours(skin * rng.uniform(0.97, 1.03, 3), hair * rng.uniform(0.8, 1.2), np.clip(clothes, 15, 235))


def coloured(
    picture: np.ndarray, person: np.ndarray, oval: np.ndarray, reach: tuple[float, float, float], colours: Colours
) -> tuple[np.ndarray, np.ndarray]:
    """The plate [H, W, 3] recoloured, and the mean colour of its skin.

    Skin is the face inside ``oval`` [H, W] and what looks like it from the hairline to the neck; the rest of the
    ``person`` is hair above the chin and clothes below. ``reach``: hairline and chin (y in the eye-to-eye frame) and
    how far skin outside the oval may be in colour (CIELAB a, b).
    """
    import cv2

    picture = np.clip(picture, 0, 255).astype(np.float32)
    lab = cv2.cvtColor(picture / 255, cv2.COLOR_RGB2LAB)
    mean = (lab * oval[..., None]).sum((0, 1)) / oval.sum()
    distance = np.hypot(lab[..., 1] - mean[1], lab[..., 2] - mean[2])
    _, ys = plate_axes()
    hairline, chin, tolerance = reach
    near = np.clip((ys - hairline + 0.15) / 0.3, 0, 1) * np.clip((chin + 1.1 - ys) / 0.3, 0, 1)
    lit = np.clip((lab[..., 0] - 0.35 * mean[0]) / (0.15 * mean[0]), 0, 1)
    alike = np.exp(-0.5 * (distance / tolerance) ** 2) * near * lit
    skin = np.maximum(oval, cv2.GaussianBlur(alike.astype(np.float32), (0, 0), 2.0))
    below = np.clip((ys - chin + 0.25) / 0.3, 0, 1) * np.ones_like(skin)
    light = lab[..., 0]
    as_hair = _painted(light, person * (1 - skin) * (1 - below), colours.hair)
    as_clothes = _painted(light, person * (1 - skin) * below, colours.clothes)
    # Skin keeps its own hues: every channel is scaled.
    own = (picture * oval[..., None]).sum((0, 1)) / oval.sum()
    as_skin = picture * (colours.skin / own).astype(np.float32)
    as_skin = np.where(as_skin > _KNEE, _KNEE + 0.5 * (as_skin - _KNEE), as_skin)  # keeps highlights from clipping
    below, skin = below[..., None], skin[..., None]
    rest = as_hair * (1 - below) + as_clothes * below
    result = as_skin * skin + (0.15 * picture + 0.85 * rest) * (1 - skin)
    return np.clip(result, 0, 255), colours.skin


def _painted(light: np.ndarray, weight: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """A picture in shades of ``colour`` that keeps the pattern of ``light`` [H, W]."""
    mean = float((light * weight).sum() / max(weight.sum(), 1e-6))
    shade = (np.clip((light + 4) / (mean + 4), 0.15, 4) ** 0.85)[..., None]
    white = np.clip((shade - 1.5) / 1.5, 0, 0.8)  # what is much lighter than the rest stays nearly white
    return shade * colour.astype(np.float32) * (1 - white) + 80 * shade * white
