"""Published or tried values by preset name: a preset fills keys its table does not set.

Owns the numbers only; the keys are those of ``config``. Sources: the published code and papers of MAE (He et al.
2022), MAE-Face (Ma et al. 2023), the Netease system of ABAW5 (Zhang et al. 2023) and EMMA / Masked CoTEX of ABAW4,
unless noted as ours. What a source leaves open keeps the table's default, and a comment says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Values = dict[str, Any]

# table -> the keys that name its presets; values of a later key stand above those of an earlier one
PRESET_KEYS: dict[str, tuple[str, ...]] = {"pretrain": ("preset",), "finetune": ("preset", "model"), "fuse": ("model",)}

# EMMA's positive weights of the twelve units: negatives over positives of s-Aff-Wild2's training set
EMMA_POSITIVE_WEIGHTS = [7.10, 15.64, 5.47, 2.80, 1.52, 1.89, 3.05, 34.05, 32.48, 36.77, 0.58, 11.16]

# Netease ABAW5: `weight` not `pos_weight`, 1 - CCC summed and alone. Their weights of units and classes are what
# "balanced" computes from the labels. Open: which of MAE's finetuning recipe (mixup 0.8, cutmix 1.0, 100 epochs) was
# kept; its RandAugment and label smoothing stand here.
NETEASE_STATIC: Values = {
    "weight_kind": "weight",
    "ccc_reduce": "sum",
    "mse_weight": 0.0,
    "augment": "randaugment",
    "label_smoothing": 0.1,
}

PRESETS: dict[str, dict[str, Values]] = {
    "pretrain.preset": {
        # ours, for two CPU cores: the published base rate of 1.5e-4 belongs to thousands of times more steps
        "vit_tiny_64": {"steps": 500, "warmup_steps": 30, "base_lr": 4e-3},
        "vit_small_112": {"batch_size": 256, "steps": 40_000, "warmup_steps": 2_000, "checkpoint_every": 1_000},
        # MAE and MAE-Face: AdamW (0.9, 0.95), base rate 1.5e-4, decay 0.05, mask 0.75, crop scale from 0.2. Ours: the
        # number of steps, between FMAE's (50 epochs of 9 million faces at batch 512) and what one machine can do.
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
    "finetune.preset": {
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
    "finetune.model": {
        "static": {},
        # plain cross-entropy, units summed over a row, both dimensions summed, nothing beside 1 - CCC of raw outputs
        "emma": {
            "pooling": "cls",
            "weight_kind": "pos_weight",
            "class_weights": {"au": EMMA_POSITIVE_WEIGHTS, "expr": "none"},
            "au_reduce": "sum",
            "ccc_reduce": "sum",
            "ccc_clamp": False,
            "mse_weight": 0.0,
        },
        # open in the source: the final mask rate (0.75 here, as in MAE)
        "cotex": {"pooling": "cls", "class_weights": "none"},
        # open in the source: every number; what stands here is the table's default
        "emae": {"pooling": "mean"},
    },
    # What was published for a model at one size. Epochs are counted in steps of the set they were published for.
    "finetune.preset+model": {
        "vit_base_224+static": NETEASE_STATIC,
        "vit_large_224+static": NETEASE_STATIC,
        # batch 100 x 4, base rate 5e-4 x 400 / 256, 30 and 5 epochs of 142,333 rows
        "vit_base_224+emma": {
            "augment": "emma",
            "batch_size": 400,
            "accumulate": 4,
            "lr": 7.8125e-4,
            "min_lr": 1e-6,
            "layer_decay": 0.65,
            "clip_norm": 0.05,
            "steps": 10_675,
            "warmup_steps": 1_779,
            "validate_every": 356,
        },
        # batch 64 / (1 - 0.75) x 4, rate not scaled, 6 and 5 epochs of 277,251 images
        "vit_base_224+cotex": {
            "augment": "cotex",
            "batch_size": 1024,
            "accumulate": 4,
            "lr": 5e-4,
            "min_lr": 1e-6,
            "layer_decay": 0.65,
            "clip_norm": 0.05,
            "steps": 1_625,
            "warmup_steps": 1_354,
            "validate_every": 271,
        },
    },
    # Epochs are counted in steps of Aff-Wild2's valence-arousal set: about 1.6 million training rows.
    "fuse.model": {
        # ABAW5, the published training code: windows of 100 side by side, AdamW at 5e-5 whose rate swings to 1e-5 and
        # back over two epochs each way, 50 epochs of about 500 steps, `weight` not `pos_weight`, both CCC summed.
        "netease": {
            "window": 100,
            "stride": 100,
            "batch_size": 32,
            "steps": 25_000,
            "warmup_steps": 0,
            "cycle_steps": 1_000,
            "lr": 5e-5,
            "min_lr": 1e-5,
            "weight_decay": 0.05,
            "dropout": 0.3,
            "value_heads": "separate",
            "weight_kind": "weight",
            "ccc_reduce": "sum",
            "mse_weight": 0.0,
            "validate_every": 500,
        },
        # CtyunAI ABAW6: windows of 300 every 200 and side by side in scoring, AdamW at 3e-5, decay 1e-5, two epochs of
        # warm-up, 40 epochs of about 250 steps (theirs for valence-arousal; 10 for expressions, 30 for units).
        "tcn_transformer": {
            "window": 300,
            "stride": 200,
            "score_stride": 300,
            "batch_size": 32,
            "steps": 10_000,
            "warmup_steps": 500,
            "lr": 3e-5,
            "weight_decay": 1e-5,
            "mse_weight": 0.0,
            "validate_every": 250,
        },
        # the second stage of the Netease code: their decay (in AdamW, not Adam), the same swing, the mean of both CCC
        "dual_branch": {
            "window": 100,
            "stride": 100,
            "batch_size": 32,
            "steps": 10_000,
            "warmup_steps": 0,
            "cycle_steps": 1_000,
            "lr": 5e-5,
            "min_lr": 1e-5,
            "weight_decay": 0.05,
            "weight_kind": "weight",
            "mse_weight": 0.0,
            "validate_every": 500,
        },
        "gru": {},
        "static": {},
        "linear": {},
    },
}


def choices(table: str, key: str) -> list[str]:
    """Names of the presets that a key of a table may take."""
    return list(PRESETS[f"{table}.{key}"])


def preset_values(table: str, names: Sequence[str]) -> Values:
    """What presets give a table; ``names`` in the order of its keys. Unknown names give nothing."""
    values: Values = {}
    for key, name in zip(PRESET_KEYS[table], names, strict=True):
        values |= PRESETS[f"{table}.{key}"].get(name, {})
    together = PRESETS.get(f"{table}.{'+'.join(PRESET_KEYS[table])}", {})
    return values | together.get("+".join(names), {}) if len(names) > 1 else values
