"""Models small enough to train in a test, and a classifier that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from abaw.models.classifier import FrozenClassifier
from abaw.models.vit import VitPreset

TINY = VitPreset(32, 8, 32, 2, 2, "conv", 16, 1, 2)  # 16 patches
LINEAR = VitPreset(32, 8, 32, 2, 2, "linear", 16, 1, 2)


class Brightness(nn.Module):
    """Mean of each colour and their sum, through a batch normalisation that has seen nothing: four logits."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, eps=0.0, affine=True)

    def forward(self, images: Tensor) -> Tensor:
        colours = images.mean(dim=(2, 3))
        return self.norm(torch.cat([colours, colours.sum(1, keepdim=True)], dim=1))


def tiny_classifier(network: nn.Module | None = None) -> FrozenClassifier:
    """Four classes from 16-pixel images, normalised by mean 0.5 and deviation 0.25."""
    return FrozenClassifier(
        network or Brightness(),
        labels=("Neutral", "Anger", "Fear", "Surprise"),
        image_size=16,
        normalisation={"mean": [0.5] * 3, "std": [0.25] * 3},
        resize="bilinear",
        facts={"kind": "test", "spec": "brightness.pth", "label_space": "", "sha256": "0" * 64},
    )


def encoder_part(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a masked autoencoder's weights that belongs to its encoder."""
    return {name: value for name, value in weights.items() if not name.startswith(("decoder_", "mask_token"))}


def overfit(model: nn.Module, loss: Callable[[], Tensor], *, steps: int, lr: float = 3e-3) -> None:
    """Train a model on one batch, and leave it in eval mode."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    model.eval()
