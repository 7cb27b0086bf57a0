"""Values of the published recipes, against numbers worked out without our code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw.config import FuseConfig
from abaw.config_file import load_config
from abaw.models.vit import VIT_PRESETS, FaceEncoder
from abaw.training.optim import half_cosine, parameter_groups, scaled_lr


@pytest.fixture(scope="module")
def base() -> FaceEncoder:
    with torch.device("meta"):
        return FaceEncoder(VIT_PRESETS["vit_base_224"], pool="avg")


def test_the_14_scales_of_a_base_encoder_are_powers_of_the_decay(base: FaceEncoder) -> None:
    groups = parameter_groups(base, lr=1.0, weight_decay=0.05, layer_decay=0.65, depth=12)
    assert sorted({group["lr"] for group in groups}) == pytest.approx(np.sort(0.65 ** np.arange(14)))
    found = {id(parameter): group for group in groups for parameter in group["params"]}
    names = dict(base.named_parameters())
    expected = {"cls_token": 13, "pos_embed": 13, "patch_embed.proj.weight": 13, "fc_norm.weight": 0}
    expected |= {f"blocks.{block}.mlp.fc2.weight": 12 - block for block in range(12)}
    for name, power in expected.items():
        assert found[id(names[name])]["lr"] == pytest.approx(0.65**power), name


def test_matrices_are_decayed_and_vectors_tokens_and_positions_are_not(base: FaceEncoder) -> None:
    groups = parameter_groups(base, lr=1.0, weight_decay=0.05)
    decayed = {id(parameter) for group in groups if group["weight_decay"] == 0.05 for parameter in group["params"]}
    for name, parameter in base.named_parameters():
        is_matrix = name.endswith("weight") and "norm" not in name
        assert (id(parameter) in decayed) == is_matrix, name


def test_a_batch_of_4096_takes_the_published_rate() -> None:
    assert scaled_lr(1.5e-4, 4096) == pytest.approx(2.4e-3)


def test_the_curve_of_800_epochs_falls_from_the_peak_to_the_least_rate() -> None:
    epochs, warm, per_epoch, peak, least = 800, 40, 10, 2.4e-3, 1e-6
    factor = half_cosine(epochs * per_epoch, warmup=warm * per_epoch, floor=least / peak)
    rates = np.array([peak * factor(step) for step in range(epochs * per_epoch)])
    epoch = np.arange(epochs * per_epoch) / per_epoch
    cosine = least + (peak - least) * 0.5 * (1 + np.cos(np.pi * (epoch - warm) / (epochs - warm)))
    falling = epoch >= warm
    assert np.abs(rates[falling] - cosine[falling]).max() < 1e-9
    rising = peak * epoch / warm  # the published warm-up starts at 0; ours one step further on
    assert np.abs(rates[~falling] - rising[~falling]).max() <= peak / (warm * per_epoch)
    assert rates.argmax() == warm * per_epoch
    assert (np.diff(rates[falling]) < 0).all()


@pytest.fixture
def fuse(tmp_path: Path) -> Callable[[str], FuseConfig]:
    """[fuse] of a configuration that names nothing but the model."""

    def load(model: str) -> FuseConfig:
        (tmp_path / "data.toml").write_text(f'[fuse]\nmodel = "{model}"\n')
        return load_config(tmp_path / "data.toml").fuse

    return load


def test_the_netease_fusion_has_its_published_windows_rate_and_losses(fuse: Callable[[str], FuseConfig]) -> None:
    own = fuse("netease")
    assert (own.window, own.stride, own.batch_size, own.dropout) == (100, 100, 32, 0.3)
    assert (own.lr, own.min_lr, own.weight_decay, own.warmup_steps) == (5e-5, 1e-5, 0.05, 0)
    assert (own.weight_kind, own.class_weights) == ("weight", "balanced")
    assert (own.ccc_reduce, own.ccc_clamp, own.mse_weight, own.value_heads) == ("sum", True, 0, "separate")
    assert (own.positions, own.attention, own.label_smoothing) == ("none", "none", 0)


def test_the_second_stage_of_netease_mixes_as_published(fuse: Callable[[str], FuseConfig]) -> None:
    own = fuse("dual_branch")
    assert (own.dual.first, own.dual.alpha, own.dual.beta, own.dual.test_mix) == ("netease", 5, 2, 0.8)
    assert (own.dual.au_scale, own.ccc_reduce, own.weight_decay) == (10, "mean", 0.05)


def test_the_windows_of_ctyunai_overlap_in_training_alone(fuse: Callable[[str], FuseConfig]) -> None:
    own = fuse("tcn_transformer")
    assert (own.window, own.stride, own.score_stride, own.batch_size) == (300, 200, 300, 32)
    assert (own.lr, own.weight_decay) == (3e-5, 1e-5)
