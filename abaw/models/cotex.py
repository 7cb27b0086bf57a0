"""Masked CoTEX: several encoders that see independent random patches of the same images and have to agree.

arXiv 2207.11679 (ABAW4, learning from synthetic data). The loss is `training.objective.consistency_objective`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from abaw.models.face_model import FaceModel
from abaw.models.heads import TaskHeads
from abaw.models.mae import MaskedAutoencoder
from abaw.models.tokens import feature, finish, through, visible_tokens
from abaw.models.vit import FaceEncoder, VitPreset
from abaw.tasks import Task


class Cotex(FaceModel):
    """`views` encoders `vits.<view>` on the class token, each with heads of its own.

    A scored image is seen whole by all of them, and their logits are summed.
    """

    def __init__(
        self, preset: VitPreset, task: Task, *, views: int = 2, mask_ratio: float = 0.75, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.mask_ratio = mask_ratio
        self.vits = nn.ModuleList(FaceEncoder(preset, pool="token", drop_path=drop_path) for _ in range(views))
        self.heads = nn.ModuleList(TaskHeads(task, preset.width) for _ in range(views))

    def forward(self, images: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Normalised images [B, 3, S, S] -> {head: summed logits [B, L]}.

        With noise [B, views, patches] -> {head: logits [views, B, L]}, where a view sees the `1 - mask_ratio` of the
        patches with the least noise.
        """
        features = self._features(images, noise)
        by_view = [heads(own) for heads, own in zip(self.heads, features, strict=True)]
        stacked = {name: torch.stack([logits[name] for logits in by_view]) for name in by_view[0]}
        return stacked if noise is not None else {name: logits.sum(0) for name, logits in stacked.items()}

    def _features(self, images: Tensor, noise: Tensor | None) -> list[Tensor]:
        encoders = self.encoders()
        if noise is None:
            return [feature(encoder, images) for encoder in encoders]
        by_view = zip(encoders, noise.unbind(1), strict=True)
        return [masked_feature(encoder, images, own, self.mask_ratio) for encoder, own in by_view]

    def pooled(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Mean of the views' class tokens, [B, width]."""
        return torch.stack(self._features(images, None)).mean(0)

    def encoders(self) -> list[FaceEncoder]:
        return [vit for vit in self.vits if isinstance(vit, FaceEncoder)]


def masked_feature(encoder: FaceEncoder, images: Tensor, noise: Tensor, mask_ratio: float) -> Tensor:
    """Pooled feature [B, width] of the patches with the least noise [B, patches]; the class token is never masked."""
    kept, _, _ = MaskedAutoencoder.random_masking(noise, mask_ratio)
    return finish(encoder, through(encoder, encoder.blocks, visible_tokens(encoder, images, kept)))
