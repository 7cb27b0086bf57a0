"""RandAugment and random erasing by timm, as a function of the sample's generator alone.

The recipe of the masked autoencoder's published finetuning: `rand-m9-mstd0.5-inc1`, then with probability 0.25 a
rectangle of noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from abaw._compat import prepare_timm
from abaw.training.global_random import borrowed_generators

POLICY = "rand-m9-mstd0.5-inc1"
GREY, NOISE = 128.0, 57.0  # noise of unit deviation in normalised pixels, by ImageNet's constants
STRONGEST = 9.99  # at 10 an image would keep 0 bits per colour, which Pillow refuses from version 13 on
TRANSLATION = 0.45  # largest shift as a share of the side, as timm's own pipeline sets it

Images = Callable[[np.ndarray, Sequence[np.random.Generator]], np.ndarray]


@dataclass(frozen=True)
class RandAugment:
    """Two random operations of timm's policy, after crop and flip by ``first``; then, with ``erase``, erasing."""

    first: Images
    erase: float = 0.25

    def __call__(self, images: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """uint8 [B, S, S, 3] -> the same shape; image i uses generator i alone."""
        from PIL import Image

        size = images.shape[1]
        policy, erasing = _policy(size), _erasing(self.erase)
        done = np.empty_like(images)
        with borrowed_generators() as seed:
            for number, (image, rng) in enumerate(zip(self.first(images, rngs), rngs, strict=True)):
                seed(rng)
                done[number] = np.asarray(policy(Image.fromarray(np.ascontiguousarray(image))))
                kept = _kept(erasing, size)
                noise = np.clip(rng.normal(GREY, NOISE, (size, size, 3)), 0, 255) if not kept.all() else None
                if noise is not None:
                    done[number][~kept] = noise.astype(np.uint8)[~kept]
        return done


@lru_cache(maxsize=8)
def _policy(size: int) -> Any:
    """timm's transform of PIL images of one size."""
    prepare_timm()
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform

    settings = {
        "translate_const": int(size * TRANSLATION),
        "img_mean": (int(GREY),) * 3,
        "interpolation": Image.Resampling.BICUBIC,
        "magnitude_max": STRONGEST,
    }
    return rand_augment_transform(POLICY, settings)


@lru_cache(maxsize=8)
def _erasing(probability: float) -> Any:
    prepare_timm()
    from timm.data.random_erasing import RandomErasing

    return RandomErasing(probability, mode="const", device="cpu")


def _kept(erasing: Any, size: int) -> np.ndarray:
    """bool [S, S]: False in the rectangle that timm erases, if any. It fills with nothing drawn by torch."""
    import torch

    return erasing(torch.ones(1, size, size)).numpy()[0] > 0
