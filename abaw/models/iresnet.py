"""IResNet, the face recognition networks of arcface_torch, under their published parameter names.

Blocks of norm, convolution, norm, PReLU, convolution, norm beside a shortcut (ArcFace, arXiv 1801.07698, section 3.1,
"improved residual unit"); names, depths and input are those of the published backbones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

IMAGE_SIZE = 112
WIDTH = 512
MARKS = ("conv1.weight", "prelu.weight", "layer1.0.prelu.weight", "fc.weight", "features.weight")

# Blocks of the four stages.
DEPTHS: dict[str, tuple[int, int, int, int]] = {
    "r18": (2, 2, 2, 2),
    "r34": (3, 4, 6, 3),
    "r50": (3, 4, 14, 3),
    "r100": (3, 13, 30, 3),
    "r200": (6, 26, 60, 6),
}
_STAGES = (64, 128, 256, 512)
_BLOCK = re.compile(r"^layer([1-4])\.(\d+)\.")


class IResNet(nn.Module):
    """RGB images [B, 3, 112, 112] in [-1, 1] -> embeddings [B, 512], not of unit length."""

    def __init__(self, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STAGES[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STAGES[0])
        self.prelu = nn.PReLU(_STAGES[0])
        inputs = (_STAGES[0], *_STAGES[:-1])
        for number, (before, width, depth) in enumerate(zip(inputs, _STAGES, depths, strict=True), start=1):
            blocks = [Block(before if place == 0 else width, width, halve=place == 0) for place in range(depth)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.bn2 = nn.BatchNorm2d(_STAGES[-1])
        self.fc = nn.Linear(_STAGES[-1] * (IMAGE_SIZE // 16) ** 2, WIDTH)
        self.features = nn.BatchNorm1d(WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.prelu(self.bn1(self.conv1(images)))
        for number in range(1, 5):
            maps = self.get_submodule(f"layer{number}")(maps)
        return self.features(self.fc(self.bn2(maps).flatten(1)))


class Block(nn.Module):
    """A residual unit; the first of a stage halves the side and has a shortcut of its own."""

    def __init__(self, inputs: int, width: int, *, halve: bool) -> None:
        super().__init__()
        stride = 2 if halve else 1
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
            if halve
            else None
        )

    def forward(self, maps: Tensor) -> Tensor:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        maps = self.prelu(self.bn2(self.conv1(self.bn1(maps))))
        return self.bn3(self.conv2(maps)) + shortcut


def depths_of(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of the four stages that the names tell of."""
    places = [match.groups() for name in weights if (match := _BLOCK.match(name))]
    return tuple(len({place for stage, place in places if stage == str(number)}) for number in range(1, 5))


def iresnet_from_weights(weights: Mapping[str, Tensor]) -> IResNet:
    """A network of the depth the names tell of, with the weights loaded. Raises RuntimeError where they do not fit."""
    depths = depths_of(weights)
    if depths not in DEPTHS.values():
        known = ", ".join(f"{name} {one}" for name, one in DEPTHS.items())
        message = f"stages of {depths} blocks are of no published depth: {known}"
        raise RuntimeError(message)
    with torch.device("meta"):  # no time for random numbers that are replaced at once
        model = IResNet(depths)
    model.to_empty(device="cpu").load_state_dict(weights)
    return model
