"""EMAE: the face and a view of its eyes, mouth or nose, fused by attention inside one encoder.

arXiv 2403.13039 (ABAW6, expression) describes: an auxiliary view made without training, its low-level features merged
into the face's by self-attention and local attention with skip connections, operators Mean, Concat and UpDown. No code
is public. Everything below that sentence is our reading: where the views meet, what "local" and the operators mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abaw.models.face_model import FaceModel
from abaw.models.heads import TaskHeads
from abaw.models.tokens import embed, finish, through
from abaw.models.vit import NORM_EPS, POOLS, FaceEncoder, VitPreset
from abaw.tasks import Task

NONE = "none"


class Emae(FaceModel):
    """`encoder` shared by both views up to block `after` (0 = half of the blocks), then `fusion`, then the rest.

    With operator "none" there is neither view nor fusion, and the model is a static one: the baseline.
    """

    def __init__(
        self,
        preset: VitPreset,
        task: Task,
        *,
        operator: str = "concat",
        after: int = 0,
        pooling: str = "mean",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = FaceEncoder(preset, pool=POOLS[pooling], drop_path=drop_path)
        self.heads = TaskHeads(task, preset.width)
        self.after = after or (preset.depth + 1) // 2
        self.fusion = None if operator == NONE else Fusion(preset.width, preset.heads, operator)

    def forward(self, images: Tensor, views: Tensor | None = None) -> dict[str, Tensor]:
        """Normalised faces and their views, each [B, 3, S, S] -> {head: logits [B, L]}."""
        return self.heads(self.pooled(images, views))

    def pooled(self, images: Tensor, views: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The feature under the heads, [B, width]."""
        encoder, blocks = self.encoder, list(self.encoder.blocks)
        if self.fusion is None:
            return finish(encoder, through(encoder, blocks, embed(encoder, images)))
        if views is None:
            message = "this model needs the auxiliary view of every face"
            raise ValueError(message)
        tokens = through(encoder, blocks[: self.after], embed(encoder, torch.cat([images, views])))
        fused = self.fusion(*tokens.chunk(2))
        return finish(encoder, through(encoder, blocks[self.after :], fused))

    def encoders(self) -> list[FaceEncoder]:
        return [self.encoder]


class Fusion(nn.Module):
    """Merges the tokens of the auxiliary view into those of the face, both [B, 1 + N, width].

    Two branches, each with a skip connection: the face's tokens attend to one another (self-attention), and to the
    tokens of the enlarged parts (local attention: local is what the view shows; a crop has no common grid with the
    face, so that a window of neighbours would have no meaning). An operator merges the branches. The attentions' last
    projections start at zero and every operator starts as the mean, so that all variants start as the plain encoder:
    pretrained blocks behind the fusion get the tokens they know, and differences between variants are learned.
    """

    def __init__(self, width: int, heads: int, operator: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.view_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.own = CrossAttention(width, heads)
        self.local = CrossAttention(width, heads)
        self.merge = OPERATORS[operator](width)

    def forward(self, face: Tensor, view: Tensor) -> Tensor:
        queries, parts = self.norm(face), self.view_norm(view)
        return self.merge(face + self.own(queries, queries), face + self.local(queries, parts))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens [B, n, width] to others [B, m, width]; gives zeros until it is trained."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        for layer in (self.query, self.key_value):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        query = self._split(self.query(tokens))
        key, value = (self._split(part) for part in self.key_value(others).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        """[B, n, width] -> [B, heads, n, width / heads]."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Mean(nn.Module):
    """Half of each branch; nothing to train."""

    def __init__(self, _width: int) -> None:
        super().__init__()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first + second) / 2


class Concat(nn.Module):
    """Both branches side by side, and a linear layer back to the token width; starts as the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(width).repeat(1, 2) / 2)
            self.linear.bias.zero_()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.linear(torch.cat([first, second], dim=-1))


class UpDown(nn.Module):
    """The mean, plus what a bottleneck makes of it that halves the token width and restores it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // 2)
        self.up = nn.Linear(width // 2, width)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        mean = (first + second) / 2
        return mean + self.up(F.gelu(self.down(mean)))


OPERATORS: dict[str, Callable[[int], nn.Module]] = {"mean": Mean, "concat": Concat, "updown": UpDown}
