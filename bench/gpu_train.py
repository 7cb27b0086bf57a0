"""Training on a GPU: images a second of pretraining and finetuning ViT-B/16 in bf16, and how much of the GPU that is.

What the GPU gives is measured in the same run, as the rate of an 8192-cubed bf16 matrix product. The work of a model
is counted by torch itself (matrix products, attention and convolutions, forward and backward). Needs no media
packages: batches lie ready on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import VIT_PRESETS
from abaw.training.device import autocast
from abaw.training.optim import adamw, parameter_groups
from bench.record import make_record
from bench.training_arms import (
    LR,
    Clock,
    FromMemory,
    label_batches,
    label_loss,
    mask_batches,
    reconstruction_loss,
    timed_fit,
    unit_classifier,
)

Loss = Callable[[nn.Module, Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
SIDE = 8192
TURNS, STEPS, WARM = 3, 25, 5
PRETRAIN_BATCH, FINETUNE_BATCH = 512, 256
GOAL = 0.45


def run(work: Path | None) -> list[dict[str, Any]]:
    """Records of the matrix product and of both trainings; a line and no record without a GPU."""
    if not torch.cuda.is_available():
        print("no GPU at hand")
        return []
    device = torch.device("cuda", 0)
    torch.set_float32_matmul_precision("high")
    peak = [product_rate(device) for _ in range(TURNS)]
    found = [_product_record(peak, device)]
    preset = VIT_PRESETS["vit_base_224"]
    torch.manual_seed(0)
    mae = MaskedAutoencoder(preset).to(device)
    found += _records("pretrain", mae, reconstruction_loss, mask_batches(PRETRAIN_BATCH, device, count=2), peak, work)
    del mae
    static = unit_classifier(preset).to(device)
    found += _records("finetune", static, label_loss, label_batches(FINETUNE_BATCH, device, count=2), peak, work)
    return found


def product_rate(device: torch.device, *, side: int = SIDE, products: int = 30, warm: int = 10) -> float:
    """Floating-point operations a second of bf16 products of two square matrices."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    clock = Clock(device, warm=1)
    for number in clock(range(3)):
        for _ in range(warm if number == 0 else products):
            left @ right
    return products * 2 * side**3 / clock.step_s


def flops_of(model: nn.Module, loss: Loss, batch: Mapping[str, Tensor]) -> float:
    """Operations of a forward and backward pass for one image."""
    few = {name: value[:4] for name, value in batch.items()}
    with FlopCounterMode(display=False) as counter:
        _pass(model, loss, few)
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops() / 4


def passes_s(model: nn.Module, loss: Loss, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """Seconds of a forward and backward pass over a batch, without an update."""
    clock = Clock(next(model.parameters()).device, warm=WARM)
    model.train()
    for step in clock(range(STEPS)):
        _pass(model, loss, batches[step % len(batches)])
        model.zero_grad(set_to_none=True)
    return clock.step_s


def _pass(model: nn.Module, loss: Loss, batch: Mapping[str, Tensor]) -> None:
    with autocast(next(model.parameters()).device, "bf16"):
        value, _ = loss(model, batch)
    value.backward()


def _records(
    name: str,
    model: nn.Module,
    loss: Loss,
    batches: Sequence[Mapping[str, Tensor]],
    peak: list[float],
    work: Path | None,
) -> list[dict[str, Any]]:
    """Images/s of `fit`, and the shares of the matrix product's rate that forward and backward passes reach."""
    flops, size = flops_of(model, loss, batches[0]), len(batches[0]["images"])
    optimizer = adamw(parameter_groups(model, lr=LR, weight_decay=0.05))
    compiled = torch.compile(model)
    images, plain, fused = [], [], []
    for _ in range(TURNS):
        source = FromMemory(batches)
        step_s, _save = timed_fit(model, source, loss, optimizer, steps=STEPS, warm=WARM, precision="bf16", work=work)
        images.append(size / step_s)
        plain.append(size / passes_s(model, loss, batches))
        fused.append(size / passes_s(compiled, loss, batches))
    what = f"vit_base_224, batch {size}, bf16 autocast, {flops / 1e9:.1f} GFLOP an image by torch's count"
    shares = {
        kind: [flops * r / p for r, p in zip(rates, peak, strict=True)]
        for kind, rates in (("plain", plain), ("compiled", fused))
    }
    best = max(shares, key=lambda kind: sum(shares[kind]))
    note = (
        f"forward and backward over the rate of the matrix product, {best} (the better of plain and compiled); {what}"
    )
    return [
        make_record(
            f"gpu-train.{name}",
            images,
            "images/s",
            higher_is_better=True,
            note=f"steps of `fit` from batches on the GPU, with clipping, update and logging; {what}",
            forward_backward_images_per_s=plain,
            compiled_forward_backward_images_per_s=fused,
        ),
        make_record(
            f"gpu-train.{name}-share",
            shares[best],
            "ratio",
            limit=GOAL if name == "finetune" else None,
            higher_is_better=True,
            note=note,
            shares=shares,
        ),
    ]


def _product_record(peak: list[float], device: torch.device) -> dict[str, Any]:
    return make_record(
        "gpu-train.matrix-product",
        [rate / 1e12 for rate in peak],
        "TFLOP/s",
        higher_is_better=True,
        note=f"bf16 product of two {SIDE}-square matrices on {torch.cuda.get_device_name(device)}",
    )
