"""Scores of whole tracks by a fusion model, in windows; to choose a checkpoint by, and to write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from abaw.config import FuseConfig
from abaw.data.annotations import concatenate
from abaw.data.windows import FeatureStreams
from abaw.models.heads import logits_to_scores
from abaw.stages.fuse.inputs import LabelsByTrack
from abaw.tasks import Task, score
from abaw.training.device import autocast
from abaw.training.distributed import gather_scores, own_part
from abaw.training.windows import Scores, score_tracks

MODEL_INPUTS = ("features", "present", "rows")


@dataclass(frozen=True)
class Scorer:
    """How tracks are scored; one window shape for all of them."""

    streams: FeatureStreams
    task: Task
    settings: FuseConfig
    device: torch.device
    precision: str

    def scores(self, model: nn.Module, track_ids: Sequence[str]) -> Iterator[tuple[str, Scores]]:
        """Each track in turn with its scores by head, float32 [T, L], as soon as it is whole."""
        model.eval()
        own = self.settings

        @torch.inference_mode()
        def scorer(batch: Mapping[str, Tensor]) -> Scores:
            moved = [batch[name].to(self.device, non_blocking=True) for name in MODEL_INPUTS]
            with autocast(self.device, self.precision):
                logits = model(*moved)
            return {name: value.cpu().numpy() for name, value in logits_to_scores(self.task.heads, logits).items()}

        return score_tracks(
            self.streams,
            track_ids,
            scorer,
            length=own.window,
            stride=own.score_stride or own.stride,
            batch_size=own.batch_size,
            stitch=own.stitch,
            ahead=self.device.type != "cpu",
        )

    def validate(self, model: nn.Module, select: LabelsByTrack) -> dict[str, float]:
        """Metrics of all rows of the labelled tracks, whichever process scores them."""
        track_ids = list(select)
        counts = [self.streams.num_rows(track_id) for track_id in track_ids]
        rows = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
        mine = own_part(len(track_ids))
        scored = [scores for _, scores in self.scores(model, [track_ids[number] for number in mine])]
        own_rows = np.concatenate([np.zeros(0, np.int64), *(rows[number] for number in mine)])
        pooled = {
            head.name: np.concatenate(
                [np.zeros((0, head.output_dim), np.float32), *(scores[head.name] for scores in scored)]
            )
            for head in self.task.heads
        }
        labels = {name: concatenate([own[name] for own in select.values()]) for name in pooled}
        return score(self.task, gather_scores(own_rows, pooled, sum(counts)), labels)
