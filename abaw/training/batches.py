"""Batches of faces for the training loop: which samples a step holds, how they are augmented, which patches hide.

Everything is a function of (seed, step, sample), never of worker state or of how a step is cut into pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from abaw.data.frames import FrameTable
from abaw.training.augment import Augment, sample_rng

AUGMENT_STREAM, MASK_STREAM = 0, 1


class SampleOrder:
    """Sample indices of every step.

    Without weights: a new permutation of all samples each epoch, as one endless stream cut into steps. With weights
    (per sample): independent draws with these probabilities.
    """

    def __init__(self, num: int, batch_size: int, *, seed: int, weights: np.ndarray | None = None) -> None:
        self.num, self.batch_size, self.seed = num, batch_size, seed
        self._sums = None if weights is None else np.cumsum(weights) / np.sum(weights)
        self._orders: dict[int, np.ndarray] = {}

    def at(self, step: int) -> np.ndarray:
        """int64 [batch_size] of one step."""
        if self._sums is not None:
            draws = np.random.default_rng([self.seed, step, 0xD1CE]).random(self.batch_size)
            return np.minimum(np.searchsorted(self._sums, draws, side="right"), self.num - 1)
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        return np.array([self._order(place // self.num)[place % self.num] for place in places.tolist()])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            kept = {number: order for number, order in self._orders.items() if number == epoch - 1}
            self._orders = kept | {epoch: np.random.default_rng([self.seed, epoch, 0x0DE]).permutation(self.num)}
        return self._orders[epoch]


def to_tensor(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, S, S, 3] -> normalised float32 [B, 3, S, S]."""
    scale = 1 / (255 * np.asarray(std, np.float32))
    shift = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    values = images.astype(np.float32) * scale - shift
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


@dataclass
class FaceBatches:
    """Source of `fit` for faces: `images`, plus labels per frame or mask noise.

    `arrays`: label arrays aligned with the table's frames, each [N, ...]. `mask_patches`: patches per image that get
    a noise value `noise` (for a masked autoencoder).
    """

    table: FrameTable
    order: SampleOrder
    mean: Sequence[float]
    std: Sequence[float]
    augment: Augment
    arrays: Mapping[str, np.ndarray]
    mask_patches: int = 0

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        indices = self._indices(step, part, parts)
        seed = self.order.seed
        rngs = [sample_rng(seed, step, int(index), AUGMENT_STREAM) for index in indices]
        images = self.augment(self.table.images(indices), rngs)
        batch = {"images": to_tensor(images, self.mean, self.std)}
        batch |= {name: torch.from_numpy(values[indices]) for name, values in self.arrays.items()}
        if self.mask_patches:
            noise = [sample_rng(seed, step, int(i), MASK_STREAM).random(self.mask_patches) for i in indices]
            batch["noise"] = torch.from_numpy(np.stack(noise))
        return batch

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        return [self.table.name(int(index)) for index in self._indices(step, part, parts)]

    def _indices(self, step: int, part: int, parts: int) -> np.ndarray:
        return np.array_split(self.order.at(step), parts)[part]
