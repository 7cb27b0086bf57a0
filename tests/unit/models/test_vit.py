"""The image encoder and its patch embedding."""

import math

import numpy as np
import pytest
import torch

from abaw.models.vit import VIT_PRESETS, ConvStem, VitPreset, build_vit, sincos_positions

TINY = VitPreset(32, 8, 32, 2, 2, "conv", 16, 1, 2)


def test_the_base_preset_has_the_published_names_and_shapes() -> None:
    weights = build_vit(VIT_PRESETS["vit_base_224"]).state_dict()
    assert weights["pos_embed"].shape == (1, 197, 768)
    assert weights["patch_embed.proj.weight"].shape == (768, 3, 16, 16)
    assert weights["blocks.11.attn.qkv.weight"].shape == (2304, 768)
    assert {"cls_token", "norm.weight", "blocks.0.mlp.fc1.bias"} <= set(weights)


@pytest.mark.parametrize("name", ["vit_tiny_64", "vit_small_112"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_image_gives_one_vector(name: str, pooling: str) -> None:
    preset = VIT_PRESETS[name]
    model = build_vit(preset, pooling=pooling).eval()
    images = torch.zeros(2, 3, preset.image_size, preset.image_size)
    assert model(images).shape == (2, preset.width)


def test_frozen_features_pass_through_the_pretrained_norm_only() -> None:
    assert not isinstance(build_vit(TINY, pooling="mean").norm, torch.nn.Identity)
    assert isinstance(build_vit(TINY, pooling="mean").fc_norm, torch.nn.Identity)


def test_a_token_of_the_stem_depends_on_its_own_patch_alone() -> None:
    torch.manual_seed(0)
    stem = ConvStem(32, 8, 3, 32)
    image = torch.randn(1, 3, 32, 32)
    other = image.clone()
    other[:, :, 8:16, 24:32] += torch.randn(1, 3, 8, 8)  # row 1, column 3: patch 7
    changed = (stem(image) - stem(other)).abs().amax(-1)[0] > 0
    assert changed.nonzero().flatten().tolist() == [7]


def test_the_stem_refuses_images_of_another_size() -> None:
    with pytest.raises(ValueError, match="expected 32-pixel images, got 64x64"):
        ConvStem(32, 8, 3, 32)(torch.zeros(1, 3, 64, 64))


def test_positions_encode_the_column_then_the_row() -> None:
    table = sincos_positions(8, 3)[0]
    assert table.shape == (10, 8)
    assert torch.equal(table[0], torch.zeros(8))
    row, column = 1, 2  # token 1 + 1 * 3 + 2; frequencies 1 and 1 / 10000^(1/2)
    expected = [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
    expected += [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
    assert torch.allclose(table[6], torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize(("width", "grid"), [(192, 4), (384, 7), (768, 14), (1024, 14), (512, 14)])
def test_every_place_of_the_table_follows_the_formula(width: int, grid: int) -> None:
    table = sincos_positions(width, grid)[0].numpy()
    quarter = width // 4
    for row, column in ((0, 0), (0, grid - 1), (grid - 1, 0), (grid // 2, 1)):
        for channel in (0, 1, quarter - 1, quarter, 2 * quarter - 1, 2 * quarter, 3 * quarter, width - 1):
            place = column if channel < 2 * quarter else row
            angle = place / 10000 ** ((channel % quarter) / quarter)
            wave = np.cos(angle) if (channel // quarter) % 2 else np.sin(angle)
            assert table[1 + row * grid + column, channel] == pytest.approx(wave, abs=1e-6)
