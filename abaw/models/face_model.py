"""What every model of faces offers to training, scoring and feature extraction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from abaw.models.vit import FaceEncoder, VitPreset


class FaceModel(nn.Module, ABC):
    """Faces in, logits of a task's heads out.

    `forward` takes the tensors that `systems` names for the model and gives {head: logits [B, L]}. `pooled` takes the
    tensors of scoring and gives the feature under the heads, [B, width].
    """

    @abstractmethod
    def pooled(self, *inputs: Tensor) -> Tensor:
        """The feature under the heads, [B, width]."""

    @abstractmethod
    def encoders(self) -> list[FaceEncoder]:
        """Every image encoder inside, each to be loaded with the same pretrained weights."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only what enters each block, and compute the rest again for the gradient."""
        for encoder in self.encoders():
            encoder.set_grad_checkpointing(enable)


def preset_of(header: Mapping[str, Any]) -> VitPreset:
    """Shape of the encoder that a checkpoint's header describes."""
    shape = header["architecture"]
    return VitPreset(**{field.name: shape[field.name] for field in fields(VitPreset)})
