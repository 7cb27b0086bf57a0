"""The static model: one face in, the task's logits out."""

from __future__ import annotations

from torch import Tensor

from abaw.models.face_model import FaceModel
from abaw.models.heads import TaskHeads
from abaw.models.tokens import feature
from abaw.models.vit import POOLS, FaceEncoder, VitPreset
from abaw.tasks import Task


class StaticModel(FaceEncoder, FaceModel):
    """Encoder under the published names, with `heads.<head>` on its pooled feature.

    "mean" pools the patch tokens and normalises by `fc_norm`; "cls" normalises by `norm` and takes the class token.
    """

    heads: TaskHeads

    def __init__(self, preset: VitPreset, task: Task, *, pooling: str = "mean", drop_path: float = 0.0) -> None:
        super().__init__(preset, pool=POOLS[pooling], drop_path=drop_path)
        self.heads = TaskHeads(task, preset.width)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Normalised images [B, 3, S, S] -> {head: logits [B, L]}."""
        return self.heads(self.pooled(images))

    def pooled(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """The feature under the heads, [B, width]."""
        return feature(self, images)

    def encoders(self) -> list[FaceEncoder]:
        """The model itself, which is an encoder with heads."""
        return [self]
