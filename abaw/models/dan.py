"""DAN, the expression classifier of "Distract Your Attention" (arXiv 2109.07270), under its published parameter names.

A ResNet-18 trunk, four heads of spatial and channel attention, and the sum of the heads' log shares. The authors'
checkpoints for AffectNet and RAF-DB load by name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from abaw._compat import prepare_timm

prepare_timm()
from torchvision.models import resnet18  # noqa: E402

IMAGE_SIZE = 224
WIDTH = 512
NUM_HEADS = 4
MARKER = "cat_head0.sa.conv1x1.0.weight"


class Dan(nn.Module):
    """Images [B, 3, 224, 224], normalised by ImageNet's constants as in the authors' scripts -> logits [B, classes]."""

    def __init__(self, num_classes: int, *, num_heads: int = NUM_HEADS) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.features = nn.Sequential(*list(resnet18(weights=None).children())[:-2])
        for number in range(num_heads):
            self.add_module(f"cat_head{number}", AttentionHead())
        self.fc = nn.Linear(WIDTH, num_classes)
        self.bn = nn.BatchNorm1d(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.pooled(images))

    def pooled(self, images: Tensor) -> Tensor:
        """The fused heads, [B, 512]: what enters the last layer."""
        maps = self.features(images)
        return fuse_heads(torch.stack([self.get_submodule(f"cat_head{n}")(maps) for n in range(self.num_heads)], dim=1))

    def logits(self, pooled: Tensor) -> Tensor:
        """Logits [B, classes] of `pooled`'s features."""
        return self.bn(self.fc(pooled))


class AttentionHead(nn.Module):
    """Spatial, then channel attention: maps [B, 512, h, w] -> [B, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.sa = SpatialAttention()
        self.ca = ChannelAttention()

    def forward(self, maps: Tensor) -> Tensor:
        return self.ca(self.sa(maps))


class SpatialAttention(nn.Module):
    """Weighs every place of the maps by one number, from kernels of three shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1x1 = _convolution(WIDTH, 256, (1, 1))
        self.conv_3x3 = _convolution(256, WIDTH, (3, 3))
        self.conv_1x3 = _convolution(256, WIDTH, (1, 3))
        self.conv_3x1 = _convolution(256, WIDTH, (3, 1))

    def forward(self, maps: Tensor) -> Tensor:
        reduced = self.conv1x1(maps)
        weights = torch.relu(self.conv_3x3(reduced) + self.conv_1x3(reduced) + self.conv_3x1(reduced))
        return maps * weights.sum(dim=1, keepdim=True)


class ChannelAttention(nn.Module):
    """Averages the maps over places and weighs every channel by a number in (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(WIDTH, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, WIDTH), nn.Sigmoid()
        )

    def forward(self, maps: Tensor) -> Tensor:
        pooled = maps.mean(dim=(2, 3))
        return pooled * self.attention(pooled)


def fuse_heads(heads: Tensor) -> Tensor:
    """[B, heads, 512] -> [B, 512]: the sum over heads of the log of each head's share in a channel.

    A single head is taken as it is.
    """
    return (heads.log_softmax(dim=1) if heads.shape[1] > 1 else heads).sum(dim=1)


def dan_from_weights(weights: Mapping[str, Tensor]) -> Dan:
    """A network of the shape the weights have, with them loaded. Raises KeyError or RuntimeError where they lack."""
    num_heads = len({name.partition(".")[0] for name in weights if name.startswith("cat_head")})
    model = Dan(len(weights["fc.bias"]), num_heads=num_heads)
    model.load_state_dict(weights)
    return model


def _convolution(inputs: int, outputs: int, kernel: tuple[int, int]) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs))
