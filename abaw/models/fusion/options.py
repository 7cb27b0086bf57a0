"""What shapes a temporal model, as a checkpoint records it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

POSITIONS = ("none", "sincos")
ATTENTION = ("none", "cross")
VALUE_HEADS = ("joint", "separate")


@dataclass(frozen=True)
class FusionOptions:
    """What models can be told; each part reads its own fields.

    `model`: a name of FUSION_BODIES; `dims`: columns of each stream; `positions`: "sincos" tells attention the order
    of a window's rows; `padding_mask`: attention leaves out padding (False: it sees zeros there, as published code
    does); `attention`: "cross" lets every stream attend to the others before they are joined; `modality_dropout`:
    chance that a window lacks one of its streams in training; `value_heads`: "separate" gives valence and arousal a
    head each, "joint" one with two outputs. Bodies without attention have no use for positions and mask.
    """

    model: str
    dims: tuple[int, ...]
    dropout: float
    positions: str = "none"
    padding_mask: bool = True
    attention: str = "none"
    modality_dropout: float = 0.0
    value_heads: str = "joint"

    def describe(self) -> dict[str, Any]:
        """The fields as a checkpoint's header holds them."""
        return {**asdict(self), "dims": list(self.dims)}
