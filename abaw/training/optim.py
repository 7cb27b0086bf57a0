"""Optimizer, parameter groups with layer-wise decay, and the learning-rate curve."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable

import torch
from torch import nn

logger = logging.getLogger(__name__)

Schedule = Callable[[int], float]
_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_STEM = re.compile(r"(?:^|\.)(cls_token|pos_embed|patch_embed)(?:\.|$)")


def scaled_lr(base: float, batch_size: int) -> float:
    """Linear scaling rule: base learning rates are stated for 256 samples a step."""
    return base * batch_size / 256


def half_cosine(steps: int, *, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Factor of the learning rate at a step: linear warm-up from 0, then half a cosine down to `floor`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        place = (step - warmup) / max(1, steps - warmup)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, place)))

    return factor


def swinging(steps: int, *, half_period: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Factor of the learning rate at a step: linear warm-up from 0, then cosine waves between 1 and `floor`.

    From 1 to `floor` takes ``half_period`` steps, and so does the way back. This is `CosineAnnealingLR` of PyTorch with
    T_max below the length of the training, which the Netease code steps once an epoch; here it moves at every step.
    After ``steps`` the factor stays.
    """
    if half_period < 1:
        message = f"half a period takes at least one step, not {half_period}"
        raise ValueError(message)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        place = (min(step, steps) - warmup) / half_period
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * place))

    return factor


def check_warmup(steps: int, warmup: int, *, lr: float, where: str) -> list[str]:
    """Warnings to record, also logged: a warm-up that no step follows. ``where`` is the table of the stage."""
    if warmup < steps:
        return []
    message = (
        f"the warm-up ({where}.warmup_steps = {warmup}) is as long as the training of {steps} steps: the learning rate "
        f"ends at {lr * steps / (warmup + 1):.1e} and never reaches {lr:.1e}; set warmup_steps to a tenth of the steps"
    )
    logger.warning(message)
    return [message]


def layer_of(name: str, depth: int) -> int:
    """Layer of a parameter: 0 for what comes before the blocks, 1..depth for blocks, depth + 1 for what follows."""
    block = _BLOCK.search(name)
    if block:
        return int(block.group(1)) + 1
    return 0 if _STEM.search(name) else depth + 1


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float, layer_decay: float = 1.0, depth: int = 0
) -> list[dict[str, object]]:
    """Trainable parameters by learning rate and decay, in a fixed order.

    A layer's learning rate is lr x layer_decay^(depth + 1 - layer). Vectors (biases, norms), the class token and
    positions get no weight decay.
    """
    groups: dict[tuple[int, bool], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layer_of(name, depth) if layer_decay != 1.0 else depth + 1
        decays = parameter.ndim > 1 and not name.endswith(("cls_token", "pos_embed", "mask_token"))
        scale = layer_decay ** (depth + 1 - layer)
        entry = groups.setdefault(
            (layer, decays), {"params": [], "lr": lr * scale, "weight_decay": weight_decay * decays, "names": []}
        )
        entry["params"].append(parameter)  # type: ignore[attr-defined]
        entry["names"].append(name)  # type: ignore[attr-defined]
    return [{k: v for k, v in groups[key].items() if k != "names"} for key in sorted(groups)]


def adamw(groups: list[dict[str, object]], *, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.AdamW:
    """AdamW over groups that bring their own learning rate and decay."""
    return torch.optim.AdamW(groups, betas=betas, fused=True)
