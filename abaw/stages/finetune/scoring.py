"""Scores of faces by a finetuned model: batches of one fixed shape, shared among all processes where asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from abaw.data.frames import CACHE_BYTES, FrameRef, FrameTable
from abaw.data.views import views_of
from abaw.models.heads import logits_to_scores
from abaw.stages.finetune.model import Built, crop_points
from abaw.training.batches import to_tensor
from abaw.training.device import autocast
from abaw.training.distributed import gather_scores, own_part

# One fixed shape for every inference call. A CPU is as fast with a small one, which wastes less on a short track.
SCORE_BATCH = {"cpu": 64, "cuda": 256}


@dataclass(frozen=True)
class Faces:
    """Faces to score, and their landmarks float32 [N, 5, 2] where the model looks at them."""

    table: FrameTable
    points: np.ndarray | None


@dataclass(frozen=True)
class Scorer:
    """How a model is asked: its system, pixel constants, device and precision."""

    built: Built
    mean: list[float]
    std: list[float]
    device: torch.device
    precision: str

    def faces(self, refs: Sequence[FrameRef], *, cached: bool = True) -> Faces:
        """The frames of some tracks; ``cached``: kept in memory from one pass to the next where they fit."""
        table = FrameTable(refs, self.built.preset.image_size, cache_bytes=CACHE_BYTES if cached else 0)
        return Faces(table, crop_points(refs) if self.built.view else None)

    @torch.inference_mode()
    def scores(self, model: nn.Module, faces: Faces, *, shared: bool = True) -> dict[str, np.ndarray]:
        """Scores by head, float32 [N, L], of all faces in order; ``shared``: every process scores its part of them."""
        model.eval()
        heads, count = self.built.task.heads, len(faces.table)
        found = {head.name: [np.zeros((0, head.output_dim), np.float32)] for head in heads}
        own = own_part(count) if shared else np.arange(count)
        size = SCORE_BATCH[self.device.type]
        for start in range(0, len(own), size):
            batch = self._batch(faces, own[np.minimum(np.arange(start, start + size), len(own) - 1)])
            with autocast(self.device, self.precision):
                logits = model(*(batch[name].to(self.device) for name in self.built.scoring_inputs))
            for name, values in logits_to_scores(heads, logits).items():
                found[name].append(values.cpu().numpy())
        scores = {name: np.concatenate(parts)[: len(own)] for name, parts in found.items()}
        return gather_scores(own, scores, count) if shared else scores

    def _batch(self, faces: Faces, part: np.ndarray) -> dict[str, Tensor]:
        images = faces.table.images(part)
        batch = {"images": to_tensor(images, self.mean, self.std)}
        if self.built.view is not None and faces.points is not None:
            batch["views"] = to_tensor(views_of(self.built.view, images, faces.points[part]), self.mean, self.std)
        return batch
