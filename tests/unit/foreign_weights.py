"""Small encoders with random weights, in the layouts of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import FaceEncoder, VitPreset

# As a file without settings is read: 64 channels a head, 32 in the decoder.
TINY = VitPreset(32, 8, 64, 2, 1, "linear", 32, 1, 1)


def random_weights(model: torch.nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Weights of which no value is at its usual start, norms included."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.3 * torch.randn(value.shape, generator=generator) + ("norm" in name and name.endswith("weight"))
        for name, value in model.state_dict().items()
    }


def encoder_only(preset: VitPreset = TINY, seed: int = 0) -> dict[str, Tensor]:
    return random_weights(FaceEncoder(preset), seed)


def with_decoder(preset: VitPreset = TINY) -> dict[str, Tensor]:
    return random_weights(MaskedAutoencoder(preset))


def finetuned(classes: int = 5) -> dict[str, Tensor]:
    """As MAE's finetuning leaves it: `fc_norm` in place of `norm`, and a head."""
    weights = random_weights(FaceEncoder(TINY, pool="avg", fc_norm=True))
    return {**weights, "head.weight": torch.randn(classes, 64), "head.bias": torch.zeros(classes)}


def training_save(weights: dict[str, Tensor], **args: Any) -> dict[str, Any]:
    """What MAE's training code writes after an epoch."""
    return {
        "model": weights,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "epoch": 3,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="mae_vit_base_patch16", lr=None, **args),
    }


def save(path: Path, content: Any, *, is_zip: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    return path
