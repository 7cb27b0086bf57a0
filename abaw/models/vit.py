"""The image encoder: timm's VisionTransformer under its own parameter names, which are the published MAE names.

The module owns the import of timm. Two patch embeddings: the linear one of the published models, and a
convolutional stem for small images, which learns fine detail in far fewer steps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from abaw._compat import prepare_timm

prepare_timm()
from timm.models.vision_transformer import Attention, Block, VisionTransformer  # noqa: E402

__all__ = ["POOLS", "VIT_PRESETS", "Block", "ConvStem", "FaceEncoder", "VitPreset", "build_vit", "sincos_positions"]

POOLS: dict[str, Literal["token", "avg"]] = {"mean": "avg", "cls": "token"}
FEW_TOKENS = 64
NORM_EPS = 1e-6  # of every norm over tokens in the published MAE models


@dataclass(frozen=True)
class VitPreset:
    """Shape of an encoder and of the decoder that pretrains it. Sizes in pixels, widths in channels."""

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    stem: str  # "linear" | "conv"
    decoder_width: int
    decoder_depth: int
    decoder_heads: int

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# base, large: He et al. 2022, "Masked autoencoders are scalable vision learners", table 1 and appendix A.
VIT_PRESETS: dict[str, VitPreset] = {
    "vit_tiny_64": VitPreset(64, 16, 192, 4, 3, "conv", 128, 2, 4),
    "vit_small_112": VitPreset(112, 16, 384, 12, 6, "linear", 256, 4, 8),
    "vit_base_224": VitPreset(224, 16, 768, 12, 12, "linear", 512, 8, 16),
    "vit_large_224": VitPreset(224, 16, 1024, 24, 16, "linear", 512, 8, 16),
}


class ConvStem(nn.Module):
    """Patch embedding of stride-2 convolutions with 2x2 kernels: they never look across the border of a patch.

    A token depends on the pixels of its own patch alone, since kernels do not overlap and normalisation is over the
    channels of one place. A masked autoencoder therefore cannot see masked pixels through it, and only visible
    patches need to be computed. Each convolution is a matrix product over 2x2 blocks of channels-last pixels.
    """

    def __init__(
        self,
        img_size: int = 64,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 192,
        bias: bool = True,
        dynamic_img_pad: bool = False,
        **factory: Any,
    ) -> None:
        super().__init__()
        stages = patch_size.bit_length() - 1
        if 2**stages != patch_size or dynamic_img_pad:
            message = f"a convolutional stem needs a power of two as patch size, not {patch_size}"
            raise ValueError(message)
        self.patch_size = (patch_size, patch_size)
        self.img_size = (img_size, img_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        widths = [max(embed_dim >> (stages - 1 - stage), 16) for stage in range(stages)]
        inputs = [in_chans, *widths[:-1]]
        self.convs = nn.ModuleList(
            nn.Linear(4 * c, w, bias=bias, **factory) for c, w in zip(inputs, widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(w, **factory) for w in widths[:-1])

    def feat_ratio(self) -> int:
        return self.patch_size[0]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, N, D]."""
        return self.embed(self.split(images))

    def split(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, N, p, p, 3], patches in row order."""
        batch, channels, height, width = images.shape
        if (height, width) != self.img_size:
            message = f"expected {self.img_size[0]}-pixel images, got {height}x{width}"
            raise ValueError(message)
        p, (rows, columns) = self.patch_size[0], self.grid_size
        grid = images.reshape(batch, channels, rows, p, columns, p).permute(0, 2, 4, 3, 5, 1)
        return grid.reshape(batch, rows * columns, p, p, channels)

    def embed(self, patches: Tensor) -> Tensor:
        """[B, n, p, p, 3] -> [B, n, D], each patch on its own."""
        batch, count, side, _, channels = patches.shape
        values = patches.flatten(0, 1)
        for stage, conv in enumerate(self.convs):
            side //= 2
            blocks = values.reshape(batch * count, side, 2, side, 2, channels).permute(0, 1, 3, 2, 4, 5)
            values = conv(blocks.reshape(batch * count, side, side, 4 * channels))
            channels = values.shape[-1]
            if stage < len(self.norms):
                values = nn.functional.gelu(self.norms[stage](values))
        return values.reshape(batch, count, channels)


def _arguments(preset: VitPreset) -> dict[str, Any]:
    """Constructor arguments of timm's VisionTransformer, without head, for a preset."""
    arguments: dict[str, Any] = {
        "img_size": preset.image_size,
        "patch_size": preset.patch_size,
        "embed_dim": preset.width,
        "depth": preset.depth,
        "num_heads": preset.heads,
        "num_classes": 0,
        "norm_layer": _layer_norm,
    }
    if preset.stem == "conv":
        arguments["embed_layer"] = ConvStem
    return arguments


def _layer_norm(width: int, **factory: Any) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=NORM_EPS, **factory)


class FaceEncoder(VisionTransformer):
    """timm's encoder in the shape of a preset, without head; positions start as the sine-cosine table.

    `pool`: "token" or "avg" (timm's words); `fc_norm`: whether the pooled feature has a norm of its own instead of
    the tokens' `norm` (None = timm's rule: where tokens are averaged).
    """

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def __init__(
        self,
        preset: VitPreset,
        *,
        pool: Literal["token", "avg"] = "token",
        fc_norm: bool | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(**_arguments(preset), global_pool=pool, fc_norm=fc_norm, drop_path_rate=drop_path)
        self.preset = preset
        with torch.no_grad():
            self.pos_embed.copy_(sincos_positions(preset.width, preset.image_size // preset.patch_size))
        prefer_plain_attention(self, preset)


def prefer_plain_attention(model: nn.Module, preset: VitPreset) -> None:
    """For few tokens use plain matrix products: torch's fused attention is slower there on CPUs, most of all backward.

    Measured at 17 tokens, batch 64, 2 threads: the fused backward alone took 30 % of a training step.
    """
    for module in model.modules():
        if isinstance(module, Attention) and preset.num_patches <= FEW_TOKENS:
            setattr(module, "fused_attn", False)  # noqa: B010 - timm declares it final for TorchScript alone


def build_vit(preset: VitPreset, *, pooling: str = "cls") -> FaceEncoder:
    """Encoder of frozen features: one vector [B, width] per image, normalised by the `norm` it was pretrained with.

    "cls" takes the class token, "mean" the mean of the normalised patch tokens.
    """
    return FaceEncoder(preset, pool=POOLS[pooling], fc_norm=False)


def sincos_positions(width: int, grid: int) -> Tensor:
    """Two-dimensional sine-cosine table [1, 1 + grid^2, width]; the first row, the class token's, is zero.

    The first half of the channels encodes the column, the second the row; frequencies 1 / 10000^(2i / (width/2)),
    sines before cosines (the layout of the published MAE tables).
    """
    frequencies = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(*(torch.arange(grid, dtype=torch.float64),) * 2, indexing="ij")
    halves = []
    for places in (columns, rows):
        angles = places.reshape(-1, 1) * frequencies
        halves += [angles.sin(), angles.cos()]
    table = torch.cat(halves, dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table]).float().unsqueeze(0)
