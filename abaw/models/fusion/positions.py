"""Fixed positions of a window's rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sincos(tokens: Tensor) -> Tensor:
    """Positions [W, width] for tokens [B, W, width] of an even width, in their type and on their device.

    Vaswani et al. 2017: columns 2i and 2i + 1 are sine and cosine of row / 10000^(2i / width). Rows are counted from
    the start of the window.
    """
    rows, width = tokens.shape[1:]
    rate = torch.exp(torch.arange(0, width, 2, device=tokens.device) * (-math.log(10_000.0) / width))
    angle = torch.arange(rows, device=tokens.device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(tokens.dtype)
