"""IResNet under its published names, against its forward pass written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from abaw.models.iresnet import DEPTHS, MARKS, IResNet, depths_of, iresnet_from_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def published_names(depths: tuple[int, ...]) -> set[str]:
    """Keys of arcface_torch's backbones: what torch gives for the modules of the published network."""
    names = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    names |= {f"{norm}.{n}" for norm in ("bn1", "bn2", "features") for n in NORM}
    for stage, depth in enumerate(depths, start=1):
        names |= {f"layer{stage}.0.downsample.0.weight"} | {f"layer{stage}.0.downsample.1.{n}" for n in NORM}
        for block in range(depth):
            own = f"layer{stage}.{block}"
            names |= {f"{own}.conv1.weight", f"{own}.conv2.weight", f"{own}.prelu.weight"}
            names |= {f"{own}.{norm}.{n}" for norm in ("bn1", "bn2", "bn3") for n in NORM}
    return names


def shape_only(depth: str) -> IResNet:
    with torch.device("meta"):
        return IResNet(DEPTHS[depth])


@pytest.mark.parametrize("depth", DEPTHS)
def test_names_are_the_published_ones(depth: str) -> None:
    weights = shape_only(depth).state_dict()
    assert set(weights) == published_names(DEPTHS[depth])
    assert set(MARKS) <= set(weights)
    assert depths_of(weights) == DEPTHS[depth]


def test_shapes_are_the_published_ones() -> None:
    shapes = {name: list(value.shape) for name, value in shape_only("r50").state_dict().items()}
    assert shapes["conv1.weight"] == [64, 3, 3, 3]
    assert shapes["prelu.weight"] == [64]
    assert shapes["layer1.0.downsample.0.weight"] == [64, 64, 1, 1]
    assert shapes["layer2.0.bn1.running_mean"] == [64]
    assert shapes["layer2.0.conv1.weight"] == [128, 64, 3, 3]
    assert shapes["layer3.13.conv2.weight"] == [256, 256, 3, 3]
    assert shapes["layer4.2.prelu.weight"] == [512]
    assert shapes["bn2.weight"] == [512]
    assert shapes["fc.weight"] == [512, 25088]
    assert shapes["features.running_var"] == [512]


def test_r50_has_the_published_number_of_parameters() -> None:
    # 43.59 million, as arcface_torch's own table says of r50.
    assert round(sum(value.numel() for value in shape_only("r50").parameters()) / 1e6, 2) == 43.59


def by_hand(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """The published forward pass in plain functions: no strided convolution but the second of a stage's first block."""

    def norm(name: str, values: Tensor) -> Tensor:
        mean, variance, scale, shift = (
            weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        shape = (1, -1, 1, 1)[: values.ndim]
        return (values - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt() * scale.view(shape) + shift.view(
            shape
        )

    def prelu(name: str, values: Tensor) -> Tensor:
        return torch.where(values > 0, values, values * weights[f"{name}.weight"].view(1, -1, 1, 1))

    maps = prelu("prelu", norm("bn1", F.conv2d(images, weights["conv1.weight"], padding=1)))
    for stage, depth in enumerate(depths_of(weights), start=1):
        for block in range(depth):
            own, stride = f"layer{stage}.{block}", 2 if block == 0 else 1
            inner = F.conv2d(norm(f"{own}.bn1", maps), weights[f"{own}.conv1.weight"], padding=1)
            inner = prelu(f"{own}.prelu", norm(f"{own}.bn2", inner))
            inner = norm(f"{own}.bn3", F.conv2d(inner, weights[f"{own}.conv2.weight"], padding=1, stride=stride))
            if block == 0:
                shortcut = F.conv2d(maps, weights[f"{own}.downsample.0.weight"], stride=2)
                maps = norm(f"{own}.downsample.1", shortcut)
            maps = maps + inner
    flat = norm("bn2", maps).reshape(len(images), 512 * 7 * 7)
    return norm("features", flat @ weights["fc.weight"].T + weights["fc.bias"])


def test_embeddings_equal_the_forward_pass_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, value in shape_only("r18").state_dict().items():
        weights[name] = 0.05 * torch.randn(value.shape, generator=generator)
        if name.endswith("running_var") or name.endswith(".weight") and value.ndim == 1:
            weights[name] = 0.5 + torch.rand(value.shape, generator=generator)
    weights = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    images = torch.randn(2, 3, 112, 112, generator=generator)
    with torch.no_grad():
        found = iresnet_from_weights(weights).eval()(images)
        assert torch.allclose(found, by_hand(weights, images), rtol=1e-3, atol=1e-3)
    assert found.shape == (2, 512)


def test_a_depth_that_nobody_published_is_refused() -> None:
    weights = {f"layer{stage}.{block}.bn1.weight": torch.ones(1) for stage in range(1, 5) for block in range(3)}
    with pytest.raises(RuntimeError, match=r"stages of \(3, 3, 3, 3\) blocks are of no published depth"):
        iresnet_from_weights(weights)
