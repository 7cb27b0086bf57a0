"""From stored columns to the joined tokens that a body takes: standardising, dropping and relating streams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from abaw.models.fusion.options import FusionOptions
from abaw.models.fusion.positions import sincos


class StreamScale(nn.Module):
    """Standardise columns with the training split's statistics; columns of a stream without data become zero."""

    mean: Tensor
    std: Tensor

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.dims = list(dims)
        self.register_buffer("mean", torch.zeros(sum(dims)))
        self.register_buffer("std", torch.ones(sum(dims)))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """features float16 or float32 [B, W, D], present bool [B, W, streams] -> float32 [B, W, D]."""
        values = (features - self.mean).div_(self.std)
        if present.device.type == "cpu" and present.all():
            return values  # a pass over all columns saved, a tenth of a model's time; a GPU would wait for the answer
        for stream, columns in enumerate(values.split(self.dims, dim=-1)):
            columns.mul_(present[..., stream, None])
        return values


def drop_streams(present: Tensor, chance: float) -> Tensor:
    """Take one stream out of each window with this chance; present bool [B, W, streams] -> the same shape.

    The stream is drawn evenly from those that have data in the window. A window's only stream is never taken, so that
    no window loses all. Drawn from torch's generator, as dropout is.
    """
    has_data = present.any(1)
    draws = torch.rand(has_data.shape, device=present.device).masked_fill(~has_data, -1.0)
    chosen = nn.functional.one_hot(draws.argmax(1), present.shape[2]).bool()
    lossy = (torch.rand(len(present), device=present.device) < chance) & (has_data.sum(1) > 1)
    return present & ~(chosen & lossy[:, None])[:, None]


class CrossAttention(nn.Module):
    """Every stream, projected to one width, attends to the rows of all other streams; the results stand side by side.

    One layer a stream: attention, skip connection, layer normalisation (post-norm, as in the bodies). Ours: width and
    heads, those of the Netease transformer.
    """

    WIDTH, HEADS = 128, 4

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        self.dims, self.positions, self.padding_mask = options.dims, options.positions, options.padding_mask
        self.width = self.WIDTH * len(self.dims)
        self.project = nn.ModuleList(nn.Linear(dim, self.WIDTH) for dim in self.dims)
        # The added row of zeros is what a stream attends to where no other one has data.
        self.attend = nn.ModuleList(
            nn.MultiheadAttention(self.WIDTH, self.HEADS, options.dropout, add_zero_attn=True, batch_first=True)
            for _ in self.dims
        )
        self.dropout = nn.Dropout(options.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(self.WIDTH) for _ in self.dims)

    def forward(self, features: Tensor, present: Tensor, rows: Tensor) -> Tensor:
        """Scaled features [B, W, D], present bool [B, W, streams], rows bool [B, W] -> [B, W, streams x 128].

        A row is attended to where its stream has data, and where it is padding if padding is not masked.
        """
        own = [layer(part) for layer, part in zip(self.project, features.split(self.dims, -1), strict=True)]
        places = sincos(own[0]) if self.positions == "sincos" else torch.zeros_like(own[0][0])
        hidden = ~present if self.padding_mask else ~present & rows[..., None]
        found = []
        for number, (tokens, attend, norm) in enumerate(zip(own, self.attend, self.norms, strict=True)):
            others = [other for other in range(len(own)) if other != number]
            values = torch.cat([own[other] for other in others], 1)
            mask = torch.cat([hidden[..., other] for other in others], 1)
            keys = values + places.repeat(len(others), 1)
            heard, _ = attend(tokens + places, keys, values, key_padding_mask=mask, need_weights=False)
            found.append(norm(tokens + self.dropout(heard)))
        return torch.cat(found, -1)
