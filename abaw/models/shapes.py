"""The shape of an encoder and its decoder, told from their tensors, and positions for another shape.

What tensors cannot say, the number of attention heads, comes from a configuration beside the file or is the published
number for the width.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abaw.errors import AbawError
from abaw.models.vit import VIT_PRESETS, VitPreset

_MAE_DECODER = (512, 8, 16)  # width, depth, heads of the published decoder
_MAX_DEPTH = 200


def preset_of_tensors(
    path: Path, encoder: dict[str, Tensor], decoder: dict[str, Tensor], beside: dict[str, Any]
) -> tuple[VitPreset, list[str]]:
    """Preset from the tensors' shapes, and sentences on what they cannot say. Raises AbawError."""
    width, channels, *patch = _shape_of(path, encoder, "patch_embed.proj.weight", 4)
    side = _grid(path, encoder, "pos_embed", width)
    if channels != 3 or patch[0] != patch[1]:
        reason = f"its patches are {patch[0]}x{patch[1]} of {channels} channels"
        raise not_ours(path, reason, "give an encoder of square patches of RGB images")
    notes, heads = [], beside.get("heads") or heads_of(width)
    if "heads" not in beside:
        notes.append(f"the number of attention heads is not in {path.name}: taken as {heads}, as published for {width}")
    d_width, d_depth, d_heads = _MAE_DECODER
    if decoder:
        d_width = _shape_of(path, decoder, "mask_token", 3)[-1]
        d_depth = _depth(decoder, "decoder_blocks.")
        d_heads = beside.get("decoder_heads") or max(1, d_width // 32)  # 512 / 16, the published ones
    preset = VitPreset(
        image_size=side * patch[0],
        patch_size=patch[0],
        width=width,
        depth=_depth(encoder, "blocks."),
        heads=heads,
        stem="linear",
        decoder_width=d_width,
        decoder_depth=d_depth,
        decoder_heads=d_heads,
    )
    sensible = 1 <= preset.depth <= _MAX_DEPTH and 1 <= d_depth <= _MAX_DEPTH
    if not sensible or width % 4 or width % heads or d_width % 4 or d_width % d_heads:
        reason = f"width {width}, {preset.depth} blocks, {heads} heads, decoder {d_width} with {d_heads} heads"
        raise not_ours(path, reason, "give the weights of a plain ViT")
    return preset, notes


def heads_of(width: int) -> int:
    """Attention heads of the published encoders: 64 channels a head, but 80 for ViT-H."""
    return 16 if width == 1280 else max(1, width // 64)


def _shape_of(path: Path, weights: dict[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in weights or weights[name].ndim != axes:
        found = f"shape {list(weights[name].shape)}" if name in weights else "missing"
        raise not_ours(path, f"{name}: {found}", "download it again; its shape cannot be told without that tensor")
    return tuple(weights[name].shape)


def _grid(path: Path, weights: dict[str, Tensor], name: str, width: int) -> int:
    """Patches on a side; the first position must be the class token's."""
    _, count, channels = _shape_of(path, weights, name, 3)
    side = int((count - 1) ** 0.5 + 0.5)
    if side < 1 or side * side != count - 1 or channels != width:
        reason = f"{name} has shape {[1, count, channels]}, not one class token and a square of patches"
        raise not_ours(path, reason, "give an encoder with a class token and square images")
    return side


def _depth(weights: Iterable[str], prefix: str) -> int:
    numbers = [name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """Positions [1, 1 + g^2, D] for another grid, [1, 1 + grid^2, D]; the class token's row stays as it is.

    Bicubic, corners not aligned, no anti-aliasing: how MAE's own loader does it.
    """
    side = int((table.shape[1] - 1) ** 0.5 + 0.5)
    patches = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1].float(), resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def preset_name(preset: VitPreset) -> str:
    """Name of the preset with this shape; a description where there is none."""
    for name, one in VIT_PRESETS.items():
        if one == preset:
            return name
    return f"vit_{preset.width}x{preset.depth}_{preset.image_size}"


def not_ours(path: Path, reason: str, fix: str) -> AbawError:
    return AbawError(f"{path.name} cannot become an encoder here ({reason})", where=str(path), fix=fix)
