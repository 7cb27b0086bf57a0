"""Mixup and cutmix by timm: images, labels of all heads and their masks, as a function of (seed, step, piece).

A piece of a step is mixed by itself: a step that is cut into other pieces has other pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from abaw._compat import prepare_timm
from abaw.tasks import Head, Problem
from abaw.training.global_random import borrowed_generators

STREAM = 0x313
PICTURES = ("images", "views")  # mixed alike, so that a view goes on showing its image


@dataclass(frozen=True)
class Mixing:
    """Every image becomes a mixture of itself and its partner: the batch read backwards.

    ``mixup``, ``cutmix``: parameters of the Beta distribution of the shares, 0 = off; with both on, each batch takes
    one of them, with equal chances. One share for the whole batch, as in the published recipe. A batch is what a single
    forward pass takes: one piece of a step.
    """

    mixup: float
    cutmix: float
    heads: Sequence[Head]

    def __call__(self, batch: Mapping[str, Tensor], *, seed: int, step: int, part: int) -> dict[str, Tensor]:
        """The mixed batch.

        Labels of a multi-class head become probabilities [B, L]; units and values are mixed linearly. A mixture is
        labelled where all that it is made of is. The middle image of an odd batch has no partner and stays.
        """
        names = [name for name in PICTURES if name in batch]
        channels = [batch[name].shape[1] for name in names]
        pictures, shares = self._mixed(torch.cat([batch[name] for name in names], 1), seed, step, part)
        mixed = dict(batch) | dict(zip(names, pictures.split(channels, 1), strict=True))
        for head in self.heads:
            key, mask = f"{head.name}.values", batch[f"{head.name}.mask"]
            values = torch.where(mask, batch[key], 0)
            if head.problem is Problem.MULTICLASS:
                values = torch.nn.functional.one_hot(values[:, 0].long(), head.output_dim).float() * mask
            mixed[key] = shares @ values
            mixed[f"{head.name}.mask"] = (shares @ (~mask).float()) == 0
        return mixed

    def _mixed(self, pictures: Tensor, seed: int, step: int, part: int) -> tuple[Tensor, Tensor]:
        """Mixed pictures [B, C, S, S], and the shares [B, B] of each picture (column) in each mixture (row)."""
        count = len(pictures)
        paired = [place for place in range(count) if 2 * place + 1 != count]
        shares, done = torch.eye(count), pictures.clone()
        if paired:
            prepare_timm()
            from timm.data.mixup import Mixup

            mixup = Mixup(
                mixup_alpha=self.mixup, cutmix_alpha=self.cutmix, label_smoothing=0.0, num_classes=len(paired)
            )
            with borrowed_generators() as seeded:
                seeded(np.random.default_rng([seed, step, part, STREAM]))
                # the index of a picture as its class: the mixed "labels" are the shares themselves
                done[paired], own = mixup(pictures[paired], torch.arange(len(paired)))
            shares[torch.tensor(paired)[:, None], torch.tensor(paired)] = own
        return done, shares
