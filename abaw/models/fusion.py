"""Temporal models on cached features: one body per name, the same standardisation and heads around each.

Tensors only; knows nothing of stores or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from abaw.tasks import Task


class StreamScale(nn.Module):
    """Standardise columns with the training split's statistics; columns of a stream without data become zero."""

    mean: Tensor
    std: Tensor
    stream_of: Tensor

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(sum(dims)))
        self.register_buffer("std", torch.ones(sum(dims)))
        stream_of = [stream for stream, dim in enumerate(dims) for _ in range(dim)]
        self.register_buffer("stream_of", torch.tensor(stream_of), persistent=False)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """features [B, W, D], present bool [B, W, streams] -> [B, W, D]."""
        return (features - self.mean) / self.std * present[..., self.stream_of]


class Body(nn.Module):
    """What stands between features and heads: features [B, W, D], rows bool [B, W] -> tokens [B, W, width]."""

    width: int
    grad_checkpointing = False


class TransformerBody(Body):
    """Netease ABAW5: 1x1 convolutions to 256 and 128, LeakyReLU 0.1, four post-norm layers of four heads, no positions.

    Source: the authors' published model code (feed-forward width 128, dropout 0.3). Padded rows are masked, which the
    original leaves out.
    """

    width = 128

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(dim, 256), nn.LeakyReLU(0.1), nn.Linear(256, self.width))
        layer = nn.TransformerEncoderLayer(self.width, 4, self.width, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        tokens = self.project(features)
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return self.encoder(tokens, src_key_padding_mask=~rows)
        for layer in self.encoder.layers:
            tokens = checkpoint(layer, tokens, None, ~rows, use_reentrant=False)
        return tokens


class StaticBody(Body):
    """A per-frame MLP: the baseline that a temporal model's gain is measured against."""

    width = 128

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, 256), nn.GELU(), nn.Dropout(dropout), nn.Linear(256, self.width), nn.GELU()
        )

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        return self.layers(features)


class LinearBody(Body):
    """Nothing between features and head: the linear probe, the cheapest baseline."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.width = dim
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        return self.dropout(features)


FUSION_BODIES: dict[str, Callable[[int, float], Body]] = {
    "netease": TransformerBody,
    "static": StaticBody,
    "linear": LinearBody,
}


class FrameHead(nn.Module):
    """Linear to 64, batch normalisation over rows, linear to the outputs (Netease ABAW5)."""

    def __init__(self, width: int, output_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 64)
        self.norm = nn.BatchNorm1d(64)
        self.out = nn.Linear(64, output_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, width] -> [N, output_dim]."""
        return self.out(self.norm(self.hidden(tokens)))


class FusionModel(nn.Module):
    """Features of all streams over a window -> logits per row and head."""

    def __init__(self, task: Task, *, body: str, dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.scale = StreamScale(dims)
        self.body = FUSION_BODIES[body](sum(dims), dropout)
        self.heads = nn.ModuleDict({head.name: FrameHead(self.body.width, head.output_dim) for head in task.heads})

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only what enters each layer of the body, and compute the rest again for the gradient."""
        self.body.grad_checkpointing = enable

    def forward(self, features: Tensor, present: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """features [B, W, D], present bool [B, W, streams], rows bool [B, W] (False = padding) -> [B, W, L] by head.

        Only real rows enter the batch normalisation; padding gets zeros.
        """
        tokens = self.body(self.scale(features, present), rows)
        flat = tokens[rows]
        return {name: self._spread(head(flat).float(), rows) for name, head in self.heads.items()}

    @staticmethod
    def _spread(values: Tensor, rows: Tensor) -> Tensor:
        out = values.new_zeros(*rows.shape, values.shape[-1])
        out[rows] = values
        return out
