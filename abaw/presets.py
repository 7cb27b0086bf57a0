"""Published or tried values by preset name: a preset fills keys its table does not set.

Owns the numbers only; the keys are those of ``config``. Sources: the published code and papers of MAE (He et al.
2022), MAE-Face (Ma et al. 2023) and the Netease system of ABAW5 (Zhang et al. 2023), unless noted as ours.
"""

from __future__ import annotations

from typing import Any

# table -> key that names the preset -> preset -> values
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "pretrain": {
        # ours, for two CPU cores: the published base rate of 1.5e-4 belongs to thousands of times more steps
        "vit_tiny_64": {"steps": 500, "warmup_steps": 30, "base_lr": 4e-3},
        "vit_small_112": {"batch_size": 256, "steps": 40_000, "warmup_steps": 2_000, "checkpoint_every": 1_000},
        # MAE and MAE-Face: AdamW (0.9, 0.95), base rate 1.5e-4, decay 0.05, mask 0.75, crop scale from 0.2
        "vit_base_224": {
            "batch_size": 512,
            "steps": 200_000,
            "warmup_steps": 10_000,
            "min_crop_scale": 0.2,
            "checkpoint_every": 1_000,
        },
        "vit_large_224": {
            "batch_size": 512,
            "steps": 200_000,
            "warmup_steps": 10_000,
            "min_crop_scale": 0.2,
            "checkpoint_every": 1_000,
        },
    },
    "finetune": {
        "vit_tiny_64": {"steps": 300, "layer_decay": 1.0},
        "vit_small_112": {"batch_size": 128, "steps": 10_000, "warmup_steps": 500, "validate_every": 1_000},
        "vit_base_224": {
            "batch_size": 256,
            "lr": 5e-4,
            "layer_decay": 0.65,
            "steps": 20_000,
            "warmup_steps": 1_000,
            "validate_every": 1_000,
        },
        "vit_large_224": {
            "batch_size": 256,
            "lr": 5e-4,
            "layer_decay": 0.75,
            "steps": 20_000,
            "warmup_steps": 1_000,
            "validate_every": 1_000,
        },
    },
    "fuse": {
        "netease": {"window": 100, "batch_size": 32, "dropout": 0.3, "weight_decay": 0.05},
        "static": {},
        "linear": {},
    },
}

PRESET_KEY = {"pretrain": "preset", "finetune": "preset", "fuse": "model"}
