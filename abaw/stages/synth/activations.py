"""Truth of a track: twelve AU activations over time, and the rules that turn them into labels.

Knows nothing of pictures or sound; everything here is fast enough to be drawn without rendering.

**Activations.** A track is a sequence of segments of 0.7 to 1.3 s; segment classes go through all eight
expressions in a random order before any comes again. A segment drives the AUs of its prototype (`PROTOTYPES`)
with a random intensity; "Other" drives three random AUs that resemble no prototype. Steps between segments are
smoothed (Gaussian, 0.12 s) and every AU carries its own band-limited modulation and background process (below
1.5 Hz), so no AU is a function of the class or of the frame number.

**AU label**: activation > 0.4.

**EXPR label** (`expression`): Neutral where the norm of the activations is below 0.55; else the prototype with
the largest cosine to the activations; Other where that cosine is below 0.75.

**Valence** (`valence`): linear in the activations, `VALENCE`, clipped to [-1, 1].

**Arousal**: `AROUSAL_MEAN` + a visible part, linear in the activations (`AROUSAL`), + a hidden process (band-limited,
about half of the variance) that moves nothing in the face and is heard in the voice only.

Means of valence and arousal are about the same in every track: positive and negative segments are balanced by a
gain, and the hidden process is shifted. So neither a constant nor the mean of a track predicts anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
PROTOTYPES: dict[str, dict[int, float]] = {
    "Anger": {4: 0.9, 7: 0.85, 23: 0.8, 24: 0.8},
    "Disgust": {4: 0.5, 7: 0.45, 10: 1.0},
    "Fear": {1: 0.85, 2: 0.5, 4: 0.8, 7: 0.5, 25: 0.85},
    "Happiness": {6: 0.85, 12: 0.95, 25: 0.7},
    "Sadness": {1: 0.8, 4: 0.6, 15: 0.95},
    "Surprise": {1: 0.8, 2: 0.9, 25: 0.8, 26: 0.95},
}
VALENCE = {2: 0.1, 4: -0.3, 6: 0.35, 7: -0.1, 10: -0.35, 12: 0.55, 15: -0.4, 23: -0.15, 24: -0.15}
AROUSAL = {1: 0.08, 2: 0.12, 4: 0.06, 6: 0.1, 7: 0.1, 12: 0.1, 15: -0.15, 23: 0.08, 24: 0.08, 25: 0.16, 26: 0.3}
AU_THRESHOLD = 0.4
AROUSAL_MEAN = 0.1
VALENCE_MEAN = -0.05
HIDDEN_SD = 0.24
_NEUTRAL_BELOW = 0.55
_OTHER_BELOW = 0.75
_RARE = (6, 10, 12, 15, 23, 24, 2, 26)  # "Other" prefers the units that few prototypes use


@dataclass(frozen=True)
class Truth:
    """What happens in a track of T frames.

    ``activations`` float32 [T, 12] in [0, 1]; ``au`` int [T, 12]; ``expr`` int [T]; ``va`` float32 [T, 2] in
    [-1, 1]; ``hidden`` float32 [T], the part of arousal that is only heard.
    """

    activations: np.ndarray
    au: np.ndarray
    expr: np.ndarray
    va: np.ndarray
    hidden: np.ndarray


def _vector(weights: dict[int, float]) -> np.ndarray:
    return np.array([weights.get(unit, 0.0) for unit in AUS])


_MATRIX = np.stack([_vector(PROTOTYPES[name]) for name in EXPRESSIONS[1:-1]])
_UNIT = _MATRIX / np.linalg.norm(_MATRIX, axis=1, keepdims=True)


def expression(activations: np.ndarray) -> np.ndarray:
    """EXPR class index [T] of activations [T, 12], by the rule at the top of this module."""
    norm = np.linalg.norm(activations, axis=1)
    cosine = activations @ _UNIT.T / np.maximum(norm, 1e-9)[:, None]
    best = np.where(cosine.max(axis=1) < _OTHER_BELOW, len(EXPRESSIONS) - 1, cosine.argmax(axis=1) + 1)
    return np.where(norm < _NEUTRAL_BELOW, 0, best)


def valence(activations: np.ndarray) -> np.ndarray:
    """Valence [T] of activations [T, 12]."""
    return np.clip(activations @ _vector(VALENCE), -1, 1)


def band_limited(
    rng: np.random.Generator, num_frames: int, fps: float, *, cutoff_hz: float, channels: int
) -> np.ndarray:
    """Gaussian noise [T, channels] of unit variance without energy above ``cutoff_hz``."""
    pad = int(2 * fps / cutoff_hz) + 8
    length = num_frames + 2 * pad
    spectrum = np.fft.rfft(rng.standard_normal((length, channels)), axis=0)
    frequency = np.fft.rfftfreq(length, 1 / fps)
    spectrum *= np.exp(-0.5 * (frequency / (cutoff_hz / 2)) ** 2)[:, None]
    noise = np.fft.irfft(spectrum, length, axis=0)
    return noise[pad : pad + num_frames] / noise.std(axis=0)


def _smoothed(steps: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(steps, sigma, axis=0, mode="nearest")


def _other(rng: np.random.Generator) -> np.ndarray:
    """Three units that together resemble no prototype."""
    for _ in range(200):
        target = np.zeros(len(AUS))
        chosen = rng.choice(len(AUS), size=3, replace=False, p=_other_weights())
        target[chosen] = rng.uniform(0.65, 1.0, 3)
        if (_UNIT @ target / np.linalg.norm(target)).max() < _OTHER_BELOW - 0.13:
            return target
    return target


def _other_weights() -> np.ndarray:
    weights = np.array([3.0 if unit in _RARE else 1.0 for unit in AUS])
    return weights / weights.sum()


def segments(rng: np.random.Generator, num_frames: int, fps: float) -> list[tuple[int, int, str]]:
    """Start, stop and class of every segment: rounds through all classes, each in a random order."""
    found: list[tuple[int, int, str]] = []
    start = 0
    queue: list[str] = []
    # A random phase keeps the segment borders, too, independent of the frame number.
    stop = int(round(rng.uniform(0.4, 1.2) * fps))
    while start < num_frames:
        queue = queue or [EXPRESSIONS[k] for k in rng.permutation(len(EXPRESSIONS))]
        found.append((start, min(stop, num_frames), queue.pop()))
        start, stop = stop, stop + int(round(rng.uniform(0.7, 1.3) * fps))
    return found


def _targets(rng: np.random.Generator, num_frames: int, fps: float) -> np.ndarray:
    """Unsmoothed activations [T, 12] that the segments ask for."""
    steps = np.zeros((num_frames, len(AUS)))
    for start, stop, name in segments(rng, num_frames, fps):
        if name == "Neutral":
            continue
        target = _other(rng) if name == "Other" else _vector(PROTOTYPES[name])
        jitter = rng.uniform(0.8, 1.2, len(AUS)) * rng.uniform(0.75, 1.1)
        steps[start:stop] = target * jitter
    return steps


def _activated(steps: np.ndarray, gain: float, texture: np.ndarray, floor: np.ndarray, fps: float) -> np.ndarray:
    sign = np.sign(steps @ _vector(VALENCE))[:, None]
    balanced = steps * np.where(sign > 0, gain, np.where(sign < 0, 1 / gain, 1.0))
    moving = _smoothed(np.minimum(balanced, 1.1), 0.12 * fps)
    return np.clip(moving * (1 + 0.12 * texture) + floor, 0, 1)


def draw_truth(rng: np.random.Generator, num_frames: int, fps: float) -> Truth:
    """Activations of a track and the labels that follow from them."""
    steps = _targets(rng, num_frames, fps)
    texture = band_limited(rng, num_frames, fps, cutoff_hz=1.5, channels=len(AUS))
    wander = band_limited(rng, num_frames, fps, cutoff_hz=1.0, channels=len(AUS))
    floor = 0.45 * np.maximum(wander - 1.3, 0) + 0.05 * np.maximum(texture, 0)
    low, high = 0.55, 1.8
    for _ in range(18):  # bisection: mean valence grows with the gain of positive segments
        gain = (low * high) ** 0.5
        if valence(_activated(steps, gain, texture, floor, fps)).mean() < VALENCE_MEAN:
            low = gain
        else:
            high = gain
    activations = _activated(steps, gain, texture, floor, fps)
    visible = activations @ _vector(AROUSAL) * 1.25
    hidden = HIDDEN_SD * band_limited(rng, num_frames, fps, cutoff_hz=0.7, channels=1)[:, 0]
    hidden -= (visible + hidden).mean()
    arousal = np.clip(AROUSAL_MEAN + visible + hidden, -1, 1)
    values = np.stack([valence(activations), arousal], axis=1)
    return Truth(
        activations.astype(np.float32),
        (activations > AU_THRESHOLD).astype(np.int64),
        expression(activations),
        values.astype(np.float32),
        hidden.astype(np.float32),
    )
