"""What bf16 is worth in training on this CPU: steps of a finetuned ViT-B/16 in bf16 and in fp32, turn by turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from abaw.models.vit import VIT_PRESETS
from abaw.training.device import keep_freed_memory, use_threads
from abaw.training.optim import adamw, parameter_groups
from bench.record import make_record
from bench.training_arms import LR, label_batches, label_loss, timed_bare, unit_classifier

BATCH, STEPS, WARM, TURNS = 8, 4, 1, 3
LIMIT = 2.5


def run(_: Path | None) -> list[dict[str, Any]]:
    """One record: images/s in bf16 over images/s in fp32; the limit holds where the CPU has AMX."""
    keep_freed_memory()  # as `finetune` does, for both
    threads = use_threads(0)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    torch.manual_seed(0)
    model = unit_classifier(VIT_PRESETS["vit_base_224"])
    optimizer = adamw(parameter_groups(model, lr=LR, weight_decay=0.05))
    batches = label_batches(BATCH, torch.device("cpu"), count=2)
    rates: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _turn in range(TURNS):
        for precision, found in rates.items():
            settings = {"steps": STEPS, "warm": WARM, "precision": precision}
            found.append(BATCH / timed_bare(model, batches, label_loss, optimizer, **settings))
    note = f"images/s of bf16 autocast over those of fp32; vit_base_224 with a head of action units, batch {BATCH}, "
    note += f"forward, backward, clipping and update from memory, {threads} threads"
    note += "" if has_amx else "; this CPU has no AMX: no limit"
    return [
        make_record(
            "bf16.vit-base-224",
            [fast / slow for fast, slow in zip(rates["bf16"], rates["fp32"], strict=True)],
            "ratio",
            limit=LIMIT if has_amx else None,
            higher_is_better=True,
            note=note,
            bf16_images_per_s=rates["bf16"],
            fp32_images_per_s=rates["fp32"],
        )
    ]
