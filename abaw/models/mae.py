"""Masked autoencoder: an encoder that sees a quarter of the patches and a small decoder that fills in the rest.

He et al. 2022, "Masked autoencoders are scalable vision learners". The five steps are methods of their own. The mask
comes from a `noise` argument, never from a generator inside, so that it is a function of what the caller chooses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from abaw.models.tokens import take, through, visible_tokens
from abaw.models.vit import (
    NORM_EPS,
    Block,
    ConvStem,
    FaceEncoder,
    VitPreset,
    prefer_plain_attention,
    sincos_positions,
)

DECODER_PREFIXES = ("decoder_", "mask_token")


class MaskedAutoencoder(FaceEncoder):
    """Encoder under the published names, plus `mask_token` and `decoder_*`.

    Positions of encoder and decoder are the fixed sine-cosine table, stored but not trained.
    """

    def __init__(self, preset: VitPreset, *, mask_ratio: float = 0.75, norm_pix_loss: bool = True) -> None:
        super().__init__(preset)
        self.mask_ratio = mask_ratio
        self.norm_pix_loss = norm_pix_loss
        grid, width = preset.image_size // preset.patch_size, preset.decoder_width
        self.decoder_embed = nn.Linear(preset.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(sincos_positions(width, grid), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(width, preset.decoder_heads, mlp_ratio=4.0, qkv_bias=True) for _ in range(preset.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(width, preset.patch_size**2 * 3)
        self.pos_embed.requires_grad_(False)
        self._initialise()
        prefer_plain_attention(self, preset)

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if not isinstance(self.patch_embed, ConvStem):
            nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Loss, reconstruction [B, N, p*p*3] and mask [B, N] (1 = hidden) of normalised images [B, 3, H, W]."""
        latent, mask, restore = self.forward_encoder(images, noise, self.mask_ratio)
        patches = self.forward_decoder(latent, restore)
        return self.forward_loss(images, patches, mask), patches, mask

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only what enters each block of encoder and decoder, and compute the rest again for the gradient."""
        self.grad_checkpointing = enable

    def patchify(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, N, p*p*3]: patches in row order, pixels in row order, channels last."""
        batch, p, side = images.shape[0], self.preset.patch_size, self.preset.image_size // self.preset.patch_size
        grid = images.reshape(batch, 3, side, p, side, p).permute(0, 2, 4, 3, 5, 1)
        return grid.reshape(batch, side * side, p * p * 3)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Inverse of `patchify`."""
        batch, p, side = patches.shape[0], self.preset.patch_size, self.preset.image_size // self.preset.patch_size
        grid = patches.reshape(batch, side, side, p, p, 3).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(batch, 3, side * p, side * p)

    @staticmethod
    def random_masking(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        """Keep the patches with the least noise.

        noise [B, N] -> kept indices [B, n] in order of noise, mask [B, N] (1 = hidden), and the permutation [B, N]
        that puts "kept, then hidden" back into patch order.
        """
        batch, length = noise.shape
        kept = int(length * (1 - mask_ratio))
        shuffle = torch.argsort(noise, dim=1, stable=True)
        restore = torch.argsort(shuffle, dim=1)
        mask = torch.ones(batch, length, device=noise.device)
        mask[:, :kept] = 0
        return shuffle[:, :kept], torch.gather(mask, 1, restore), restore

    def forward_encoder(self, images: Tensor, noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        """Latent [B, 1 + n, width] of the visible tokens (class token first), mask and restoring permutation."""
        kept, mask, restore = self.random_masking(noise, mask_ratio)
        return self.norm(through(self, self.blocks, visible_tokens(self, images, kept))), mask, restore

    def forward_decoder(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Reconstructed patches [B, N, p*p*3] from the visible latent."""
        tokens = self.decoder_embed(latent)
        hidden = restore.shape[1] + 1 - tokens.shape[1]
        mask_tokens = self.mask_token.to(tokens.dtype).expand(len(tokens), hidden, -1)
        patches = take(torch.cat([tokens[:, 1:], mask_tokens], dim=1), restore)
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + self.decoder_pos_embed
        return self.decoder_pred(self.decoder_norm(through(self, self.decoder_blocks, tokens)))[:, 1:]

    def forward_loss(self, images: Tensor, patches: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over hidden patches, against pixels normalised per patch when `norm_pix_loss`."""
        target = self.patchify(images)
        if self.norm_pix_loss:
            mean, deviation = _patch_scale(target)
            target = (target - mean) / deviation
        error = ((patches.to(target.dtype) - target) ** 2).mean(-1)
        return (error * mask).sum() / mask.sum().clamp(min=1)

    def to_pixels(self, images: Tensor, patches: Tensor) -> Tensor:
        """Predicted patches as a picture [B, 3, H, W] in the units of `images`.

        With `norm_pix_loss` a prediction says nothing of a patch's brightness and contrast: mean and deviation of the
        patch in `images` are put back.
        """
        patches = patches.to(images.dtype)
        if self.norm_pix_loss:
            mean, deviation = _patch_scale(self.patchify(images))
            patches = patches * deviation + mean
        return self.unpatchify(patches)


def _patch_scale(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B, N, 1] of each patch, as the published loss takes them (n - 1; 1e-6 added)."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()
