"""The small folder set of the learning-from-synthetic-data challenge: single faces of six expressions.

Knows nothing of videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.stages.synth.activations import AUS, PROTOTYPES
from abaw.stages.synth.crops import SIZE_PX, crop, write_jpeg
from abaw.stages.synth.expressive import Expressive
from abaw.stages.synth.plate import plate_points
from abaw.stages.synth.portraits import Portrait
from abaw.stages.synth.render import background

CLASSES = ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")
HEADER = "image,expression"
_STREAM = 20


@dataclass(frozen=True)
class LsdJob:
    """Images of one split: ``identities`` to draw, ``per_class`` images of each class."""

    out: Path
    seed: int
    split: str
    identities: tuple[int, ...]
    per_class: int
    portraits: tuple[Portrait, ...] | None = None


def make_lsd(job: LsdJob) -> None:
    """Write ``lsd/<split>/<Class>/<n>.jpg``, or ``lsd/test/<n>.jpg`` in mixed order without any label."""
    import cv2
    from threadpoolctl import threadpool_limits

    from abaw.stages.synth.track import identity

    cv2.setNumThreads(1)
    with threadpool_limits(1):
        cast = [identity(job.seed, number, job.portraits) for number in job.identities]
        rng = np.random.default_rng([job.seed, _STREAM, *job.split.encode()])
        classes = np.repeat(np.arange(len(CLASSES)), job.per_class)
        if job.split == "test":
            classes = rng.permutation(classes)
        for number, label in enumerate(classes):
            folder = job.out / "lsd" / job.split
            name = number if job.split == "test" else number % job.per_class
            folder = folder if job.split == "test" else folder / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            write_jpeg(folder / f"{name}.jpg", _face(rng, cast[number % len(cast)], CLASSES[label]))
        if job.split == "test":
            _write_truth(job.out, classes)


def _face(rng: np.random.Generator, expressive: Expressive, name: str) -> np.ndarray:
    """A face with a random intensity of an expression, loosely aligned: uint8 [112, 112, 3]."""
    target = np.array([PROTOTYPES[name].get(unit, 0.0) for unit in AUS])
    activations = np.clip(target * rng.uniform(0.7, 1.1) * rng.uniform(0.85, 1.15, len(AUS)), 0, 1)
    plate, five = expressive.draw(activations.astype(np.float32), yaw=rng.normal(0, 0.5), pitch=rng.normal(0, 0.4))
    centre = plate_points(np.array([0.0, 0.5]))
    loose = (five - centre) * rng.uniform(0.96, 1.04) + centre + rng.normal(0, 1.0, 2)
    face = crop(plate, loose)
    wall = background(rng, SIZE_PX, SIZE_PX)
    picture = face[..., :3] + wall * (1 - face[..., 3:] / 255)
    picture = picture * rng.uniform(0.85, 1.15) + rng.normal(0, 3, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _write_truth(out: Path, classes: np.ndarray) -> None:
    rows = [HEADER, *(f"{number}.jpg,{label}" for number, label in enumerate(classes))]
    path = out / "truth" / "lsd_test.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    sample = out / "lsd" / "LSD_test_set_example.txt"
    sample.write_text("\n".join([HEADER, *(f"{n}.jpg,0" for n in range(len(classes)))]) + "\n", encoding="utf-8")
