"""Batches of faces for the training loop: which samples a step holds, how they are augmented, which patches hide.

Everything is a function of (seed, step, sample), never of worker state or of how a step is cut into pieces. Mixing is
the exception: an image's partner and share are drawn within its piece, so that they change with `accumulate` and with
the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from abaw.data.frames import FrameTable
from abaw.data.image_threads import in_parts_if_large
from abaw.training.augment import Augmentation, sample_rng
from abaw.training.mixing import Mixing

AUGMENT_STREAM, MASK_STREAM = 0, 1


class SampleOrder:
    """Sample indices of every step.

    Without weights: a new permutation of all samples each epoch, as one endless stream cut into steps. With weights
    (per sample): independent draws with these probabilities.

    ``stride``: each epoch holds one sample of every stretch of at most that many neighbours, another one each time
    until all have been used. ``lengths``: samples of each recording in turn, since a stretch never reaches into the
    next one; default, all are of one.
    """

    def __init__(
        self,
        num: int,
        batch_size: int,
        *,
        seed: int,
        weights: np.ndarray | None = None,
        stride: int = 1,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.num, self.batch_size, self.seed = num, batch_size, seed
        self._weights = weights
        self._starts, self._sizes = _stretches([num] if lengths is None else lengths, stride)
        if self._sizes.sum() != num:
            msg = f"recordings of {self._sizes.sum()} samples in all, not {num}"
            raise ValueError(msg)
        self._orders: dict[int, np.ndarray] = {}
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def epoch_size(self) -> int:
        """Samples of an epoch: the number of stretches."""
        return len(self._starts)

    def at(self, step: int) -> np.ndarray:
        """int64 [batch_size] of one step."""
        size = self.epoch_size
        if self._weights is not None:
            picks, sums = self._weighted(step * self.batch_size // size)
            draws = np.random.default_rng([self.seed, step, 0xD1CE]).random(self.batch_size)
            return picks[np.minimum(np.searchsorted(sums, draws, side="right"), size - 1)]
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = range(int(places[0]) // size, int(places[-1]) // size + 1)
        return np.concatenate([self._order(epoch)[places[places // size == epoch] % size] for epoch in epochs])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            kept = {number: order for number, order in self._orders.items() if number == epoch - 1}
            order = np.random.default_rng([self.seed, epoch, 0x0DE]).permutation(self.epoch_size)
            self._orders = kept | {epoch: self._picks(epoch)[order]}
        return self._orders[epoch]

    def _weighted(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples of an epoch, and the sums of their weights up to each of them, 1 in the end."""
        epoch = epoch if self.epoch_size < self.num else 0  # without a stride, every epoch has all samples
        if epoch not in self._drawn:
            assert self._weights is not None
            picks = self._picks(epoch)
            weights = self._weights[picks]
            self._drawn = {epoch: (picks, np.cumsum(weights) / np.sum(weights))}
        return self._drawn[epoch]

    def _picks(self, epoch: int) -> np.ndarray:
        """One sample of each stretch, in order; a stretch of n samples has shown all of them after n epochs."""
        picks = self._starts.copy()
        for size in np.unique(self._sizes[self._sizes > 1]).tolist():
            own = np.flatnonzero(self._sizes == size)
            rng = np.random.default_rng([self.seed, epoch // size, size, 0x57D])
            turns = np.tile(np.arange(size, dtype=np.int32), (len(own), 1))
            picks[own] += rng.permuted(turns, axis=1)[:, epoch % size]
        return picks


def _stretches(lengths: Sequence[int], stride: int) -> tuple[np.ndarray, np.ndarray]:
    """First sample and size of every stretch, int64.

    A recording has as few as `stride` allows. Their sizes differ by one at most: a short rest at its end would be drawn
    as often as a whole stretch.
    """
    counts = np.asarray(lengths, np.int64)
    parts = -(-counts // stride)
    begins = np.repeat(np.cumsum(counts) - counts, parts)
    numbers = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    least, longer = (np.repeat(values, parts) for values in np.divmod(counts, np.maximum(parts, 1)))
    return begins + numbers * least + np.minimum(numbers, longer), least + (numbers < longer)


def to_tensor(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, S, S, 3] -> normalised float32 [B, 3, S, S]."""
    values = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
    _normalise(images, mean, std, values)
    return torch.from_numpy(values)


def _normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float], values: np.ndarray) -> None:
    """Fill `values` float32 [B, 3, S, S]; plane by plane, which is five times faster than all channels at once."""
    scale = 1 / (255 * np.asarray(std, np.float32))
    shift = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    for image, planes in zip(images, values, strict=True):
        for channel, plane in enumerate(cv2.split(np.ascontiguousarray(image))):
            np.multiply(plane, scale[channel], out=planes[channel], dtype=np.float32)
            np.subtract(planes[channel], shift[channel], out=planes[channel])


@dataclass
class FaceBatches:
    """Source of `fit` for faces: `images`, plus labels per frame, mask noise or auxiliary views.

    `arrays`: label arrays aligned with the table's frames, each [N, ...]. `mask_patches`: patches per image that get
    a noise value `noise` [B, patches] (for a masked autoencoder); with `mask_views`, [B, views, patches]. `make_view`
    makes `views` from the images and their `points` [N, 5, 2] (in units of the crop's side); a view is augmented with
    the draws of its image. `mixing` comes last.
    """

    table: FrameTable
    order: SampleOrder
    mean: Sequence[float]
    std: Sequence[float]
    augment: Augmentation
    arrays: Mapping[str, np.ndarray]
    mask_patches: int = 0
    mask_views: int = 0
    points: np.ndarray | None = None
    make_view: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    mixing: Mixing | None = None

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        indices = self._indices(step, part, parts)
        batch = self._pictures(step, indices)
        batch |= {name: torch.from_numpy(values[indices]) for name, values in self.arrays.items()}
        if self.mask_patches:
            shape = (self.mask_views, self.mask_patches) if self.mask_views else (self.mask_patches,)
            noise = [rng.random(shape) for rng in self._rngs(step, indices, MASK_STREAM)]
            batch["noise"] = torch.from_numpy(np.stack(noise))
        return batch if self.mixing is None else self.mixing(batch, seed=self.order.seed, step=step, part=part)

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        return [self.table.name(int(index)) for index in self._indices(step, part, parts)]

    def _pictures(self, step: int, indices: np.ndarray) -> dict[str, Tensor]:
        """Images, and views where there are any, augmented and normalised: float32 [B, 3, S, S]."""
        images = self.table.images(indices)
        names = ["images"] if self.make_view is None else ["images", "views"]
        values = {name: np.empty((len(images), 3, *images.shape[1:3]), np.float32) for name in names}

        def fill(part: slice) -> None:
            pictures = {"images": images[part]}
            if self.make_view is not None:
                assert self.points is not None
                pictures["views"] = self.make_view(images[part], self.points[indices[part]])
            for name, own in pictures.items():
                changed = self.augment(own, self._rngs(step, indices[part], AUGMENT_STREAM))
                _normalise(changed, self.mean, self.std, values[name][part])

        in_parts_if_large(fill, images)
        return {name: torch.from_numpy(own) for name, own in values.items()}

    def _rngs(self, step: int, indices: np.ndarray, stream: int) -> list[np.random.Generator]:
        return [sample_rng(self.order.seed, step, index, stream) for index in indices.tolist()]

    def _indices(self, step: int, part: int, parts: int) -> np.ndarray:
        return np.array_split(self.order.at(step), parts)[part]
