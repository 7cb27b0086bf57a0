"""Temporal models on cached features: streams are standardised and joined, go through a body, and get heads.

Tensors only; knows nothing of stores or labels. A new model is an entry of FUSION_BODIES.
"""

from __future__ import annotations

from abaw.models.fusion.bodies import FUSION_BODIES
from abaw.models.fusion.model import DUAL_BRANCH, DualBranch, FusionModel, fusion_from_header
from abaw.models.fusion.options import FusionOptions
from abaw.models.fusion.streams import StreamScale

__all__ = [
    "DUAL_BRANCH",
    "FUSION_BODIES",
    "DualBranch",
    "FusionModel",
    "FusionOptions",
    "StreamScale",
    "fusion_from_header",
]
