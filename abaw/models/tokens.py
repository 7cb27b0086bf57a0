"""An encoder's forward pass in parts, for models that see a share of the patches or step in between its blocks.

Shapes: ``B`` images, ``S`` their side in pixels, ``N`` patches, ``n`` visible ones. The class token comes first.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from abaw.models.vit import ConvStem, FaceEncoder


def feature(encoder: FaceEncoder, images: Tensor) -> Tensor:
    """The pooled feature [B, width] of normalised images [B, 3, S, S]."""
    return encoder.forward_head(encoder.forward_features(images), pre_logits=True)


def embed(encoder: FaceEncoder, images: Tensor) -> Tensor:
    """Tokens that enter the first block: normalised images [B, 3, S, S] -> [B, 1 + N, width]."""
    return encoder.norm_pre(encoder.patch_drop(encoder._pos_embed(encoder.patch_embed(images))))


def visible_tokens(encoder: FaceEncoder, images: Tensor, kept: Tensor) -> Tensor:
    """As `embed`, of the patches `kept` [B, n] in that order: [B, 1 + n, width]. The class token is never left out."""
    stem = encoder.patch_embed
    if isinstance(stem, ConvStem):  # patches do not overlap: hidden ones need not be computed
        patches = stem.split(images)
        index = kept[:, :, None, None, None].expand(-1, -1, *patches.shape[2:])
        tokens = stem.embed(torch.gather(patches, 1, index))
    else:
        tokens = take(stem(images), kept)
    tokens = tokens + take(encoder.pos_embed[:, 1:].expand(len(images), -1, -1), kept)
    first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(images), -1, -1)
    return torch.cat([first, tokens], dim=1)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Rows `index` [B, n] of tokens [B, N, width]."""
    return torch.gather(tokens, 1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def through(encoder: FaceEncoder, blocks: Iterable[nn.Module], tokens: Tensor) -> Tensor:
    """Tokens after some of a model's blocks, with gradient checkpointing where it is switched on."""
    for block in blocks:
        if encoder.grad_checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, use_reentrant=False)
        else:
            tokens = block(tokens)
    return tokens


def finish(encoder: FaceEncoder, tokens: Tensor) -> Tensor:
    """The pooled feature [B, width] of the last block's tokens [B, 1 + N, width]."""
    return encoder.forward_head(encoder.norm(tokens), pre_logits=True)
