"""EMMA: valence and arousal from expression and action-unit logits, beside a frozen expression classifier.

arXiv 2207.11679 (ABAW4, multi-task). An encoder gives 8 expression and 12 unit logits through one hidden layer; the
head of valence and arousal reads them together with the logits of a classifier trained on other faces, whose weights
never change. The layer widths are those of the authors' published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from abaw.errors import AbawError
from abaw.models.classifier import FrozenClassifier
from abaw.models.face_model import FaceModel
from abaw.models.tokens import feature
from abaw.models.vit import FaceEncoder, VitPreset
from abaw.tasks import Problem, Task


class Emma(FaceModel):
    """`vit` with `head` for classes and units; `va_head` on [classifier logits, head logits].

    `mean`, `std`: how the images given to `forward` were normalised, so that the classifier can have its own. Gradients
    of every loss reach `vit`. Values are not squashed. Without a classifier (`num_scores` logits expected) the feature
    can be computed, the logits cannot.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        preset: VitPreset,
        task: Task,
        *,
        classifier: FrozenClassifier | None,
        num_scores: int,
        mean: Sequence[float],
        std: Sequence[float],
        hidden: int = 512,
        va_hidden: int = 256,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.order = [head.name for head in task.heads]
        self.values = next(head for head in task.heads if head.problem is Problem.REGRESSION)
        # Classes before units, as published, whatever the task's order.
        others = [head for head in task.heads if head is not self.values]
        self.others = sorted(others, key=lambda head: head.problem is Problem.MULTILABEL)
        num_logits = sum(head.output_dim for head in self.others)
        self.vit = FaceEncoder(preset, pool="token", drop_path=drop_path)
        self.head = nn.Sequential(nn.Linear(preset.width, hidden), nn.ReLU(), nn.Linear(hidden, num_logits))
        self.va_head = nn.Sequential(
            nn.Linear(num_scores + num_logits, va_hidden), nn.ReLU(), nn.Linear(va_hidden, self.values.output_dim)
        )
        self.cnn = classifier
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images [B, 3, S, S] -> {head: logits [B, L]}."""
        if self.cnn is None:
            raise AbawError(
                "this model scores faces together with a frozen classifier, which was not given",
                where="finetune.emma.classifier",
                fix="name the classifier it was trained with; `abaw inspect` on the checkpoint shows it",
            )
        scores = self.cnn((images.float() * self.std + self.mean).clamp(0, 1))
        logits = self.head(self.pooled(images))
        values = self.va_head(torch.cat([scores.to(logits.dtype), logits], dim=1))
        parts = logits.split([head.output_dim for head in self.others], dim=1)
        found = {head.name: part for head, part in zip(self.others, parts, strict=True)} | {self.values.name: values}
        return {name: found[name] for name in self.order}

    def pooled(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Class token under the head, [B, width]."""
        return feature(self.vit, images)

    def encoders(self) -> list[FaceEncoder]:
        return [self.vit]
