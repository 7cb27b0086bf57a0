"""Hugging Face's parameter names of ViT and ViTMAE, translated to the published MAE names.

Files carry the names of transformers 4 (`encoder.layer.N.attention.attention.query`); models in memory since
transformers 5 have shorter ones (`layers.N.attention.q_proj`), and its saved decoders say `decoder_encoder.layer`.
All are known here. Query, key and value are three matrices there and one, stacked in this order, here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MARK = "embeddings.patch_embeddings.projection.weight"

_BLOCK = re.compile(r"^(?:decoder\.)?(decoder_)?(?:encoder\.layer|layers|layer)\.(\d+)\.(.+)\.(weight|bias)$")
_PARTS = {
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_THIRDS = ("query", "key", "value")
_PROJECTION = re.compile(r"^attention\.(?:attention\.(query|key|value)|([qkv])_proj)$")
_OTHERS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
    "decoder.mask_token": "mask_token",
}


def is_huggingface(names: set[str]) -> bool:
    """Whether these are Hugging Face's names, with or without the `vit.` of models with a head."""
    return MARK in names or f"vit.{MARK}" in names


def translate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the published names; a name nobody knows stays as it is."""
    renamed: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, tuple[str, Tensor]]] = {}
    for full, value in weights.items():
        name = full.removeprefix("vit.")
        block = _BLOCK.match(name)
        if block is None:
            renamed[_OTHERS.get(name, name.removeprefix("decoder."))] = value
            continue
        side, number, part, kind = block.groups()
        stem = f"{side or ''}blocks.{number}"
        projection = _PROJECTION.match(part)
        if projection:
            which = projection[1] or {"q": "query", "k": "key", "v": "value"}[projection[2]]
            thirds.setdefault(f"{stem}.attn.qkv.{kind}", {})[which] = (full, value)
        else:
            renamed[f"{stem}.{_PARTS[part]}.{kind}" if part in _PARTS else full] = value
    for name, parts in thirds.items():
        if set(parts) == set(_THIRDS):
            renamed[name] = torch.cat([parts[which][1] for which in _THIRDS])
        else:
            renamed.update(parts.values())
    return renamed


def settings_beside(path: Path) -> dict[str, Any]:
    """What config.json and preprocessor_config.json beside a downloaded file say of it.

    Keys `heads`, `decoder_heads`, `norm_pix_loss`, `norm_eps`, `mean`, `std`, as far as they are there and make sense.
    """
    config, images = _json(path.parent / "config.json"), _json(path.parent / "preprocessor_config.json")
    timm = config.get("pretrained_cfg")
    timm = timm if isinstance(timm, dict) else {}
    found: dict[str, Any] = {}
    for key, value, kind in (
        ("heads", config.get("num_attention_heads"), int),
        ("decoder_heads", config.get("decoder_num_attention_heads"), int),
        ("norm_pix_loss", config.get("norm_pix_loss"), bool),
        ("norm_eps", config.get("layer_norm_eps"), float),
    ):
        if type(value) is kind:
            found[key] = value
    for key, value in (
        ("mean", images.get("image_mean", timm.get("mean"))),
        ("std", images.get("image_std", timm.get("std"))),
    ):
        if isinstance(value, list) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value):
            found[key] = [float(v) for v in value]
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
