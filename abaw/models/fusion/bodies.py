"""The bodies of the temporal models by name: joined features of a window -> one token a row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from abaw.models.fusion.options import FusionOptions
from abaw.models.fusion.positions import sincos


class Body(nn.Module):
    """What stands between features and heads: features [B, W, D], rows bool [B, W] -> tokens [B, W, width].

    Real rows come first in a window; padding holds zeros. `hidden`: width of the hidden layer of the heads behind it.
    """

    width: int
    hidden = 64
    grad_checkpointing = False

    def _again(self, layer: nn.Module, *inputs: Tensor | None) -> Tensor:
        """The layer's output; with checkpointing its inside is computed again for the gradient, not kept."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


class AttentionBody(Body):
    """A transformer encoder at the end of a body, with positions and padding mask as the options say."""

    encoder: nn.TransformerEncoder

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        self.positions, self.padding_mask = options.positions, options.padding_mask

    def _encode(self, tokens: Tensor, rows: Tensor) -> Tensor:
        if self.positions == "sincos":
            tokens = tokens + sincos(tokens)
        hidden = ~rows if self.padding_mask else None
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return self.encoder(tokens, src_key_padding_mask=hidden)
        for layer in self.encoder.layers:
            tokens = self._again(layer, tokens, None, hidden)
        return tokens


def _encoder(width: int, *, heads: int, feedforward: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class TransformerBody(AttentionBody):
    """Netease ABAW5: 1x1 convolutions to 256 and 128, LeakyReLU 0.1, four post-norm layers of four heads.

    Source: the authors' published model code (feed-forward width 128, dropout 0.3; neither positions nor a padding
    mask, which are options here). There valence and arousal have a head each, with a hidden layer of its own; here
    they share it, as the outputs of every other task do.
    """

    width = 128

    def __init__(self, dim: int, options: FusionOptions) -> None:
        super().__init__(options)
        self.project = nn.Sequential(nn.Linear(dim, 256), nn.LeakyReLU(0.1), nn.Linear(256, self.width))
        self.encoder = _encoder(self.width, heads=4, feedforward=128, layers=4, dropout=options.dropout)

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        return self._encode(self.project(features), rows)


class TcnBlock(nn.Module):
    """Two dilated convolutions of five rows around each row, and a skip connection.

    The block of Bai et al. 2018, centred instead of causal and without weight normalisation. Rows outside the window
    and padding count as zeros.
    """

    def __init__(self, dim: int, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(dim, width, 5, padding=2 * dilation, dilation=dilation)
        self.second = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.skip = nn.Conv1d(dim, width, 1) if dim != width else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor, real: Tensor) -> Tensor:
        """values [B, dim, W], real 1 or 0 [B, 1, W] -> [B, width, W]."""
        found = self.dropout(self.first(values * real).relu())
        found = self.dropout(self.second(found * real).relu())
        return (found + self.skip(values)).relu()


class TcnTransformerBody(AttentionBody):
    """CtyunAI ABAW6: a TCN of 768, 256 and 128 channels, a 1x1 convolution to 512, eight layers of four heads.

    Source: their paper (kernel 5, dilated); the heads behind it have 256 hidden columns. Open there, and ours: two
    convolutions a block, dilations 1, 2 and 4, the feed-forward width (PyTorch's default), dropout, positions.
    """

    width, hidden = 512, 256
    CHANNELS, FEEDFORWARD = (768, 256, 128), 2048

    def __init__(self, dim: int, options: FusionOptions) -> None:
        super().__init__(options)
        inputs = (dim, *self.CHANNELS[:-1])
        self.blocks = nn.ModuleList(
            TcnBlock(before, after, 2**number, options.dropout)
            for number, (before, after) in enumerate(zip(inputs, self.CHANNELS, strict=True))
        )
        self.project = nn.Linear(self.CHANNELS[-1], self.width)
        self.encoder = _encoder(self.width, heads=4, feedforward=self.FEEDFORWARD, layers=8, dropout=options.dropout)

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        values, real = features.transpose(1, 2), rows[:, None].to(features.dtype)
        for block in self.blocks:
            values = self._again(block, values, real)
        return self._encode(self.project(values.transpose(1, 2)), rows)


class GruBody(Body):
    """Two bidirectional GRU layers of 128 units each way over the real rows, behind a projection to 256; ours."""

    width = 256

    def __init__(self, dim: int, options: FusionOptions) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(dim, self.width), nn.LeakyReLU(0.1), nn.Dropout(options.dropout))
        # Dropout between the layers is not theirs: cuDNN's would keep a state of its own, which no resume point holds.
        self.dropout = nn.Dropout(options.dropout)
        self.layers = nn.ModuleList(
            nn.GRU(self.width, self.width // 2, batch_first=True, bidirectional=True) for _ in range(2)
        )

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        tokens, lengths = self.project(features).float(), rows.sum(1).cpu()
        with torch.autocast(tokens.device.type, enabled=False):  # on the CPU it would mix types inside the layers
            for layer in self.layers:
                packed = pack_padded_sequence(self.dropout(tokens), lengths, batch_first=True, enforce_sorted=False)
                tokens, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=rows.shape[1])
        return tokens


class StaticBody(Body):
    """A per-frame MLP: the baseline that a temporal model's gain is measured against."""

    width = 128

    def __init__(self, dim: int, options: FusionOptions) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, 256), nn.GELU(), nn.Dropout(options.dropout), nn.Linear(256, self.width), nn.GELU()
        )

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        return self.layers(features)


class LinearBody(Body):
    """Nothing between features and head: the linear probe, the cheapest baseline."""

    def __init__(self, dim: int, options: FusionOptions) -> None:
        super().__init__()
        self.width = dim
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        return self.dropout(features)


FUSION_BODIES: dict[str, Callable[[int, FusionOptions], Body]] = {
    "netease": TransformerBody,
    "tcn_transformer": TcnTransformerBody,
    "gru": GruBody,
    "static": StaticBody,
    "linear": LinearBody,
}
