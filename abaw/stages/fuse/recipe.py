"""How a fusion is trained: the loss of each head, and the curve of the learning rate."""

from __future__ import annotations

from abaw.config import FuseConfig
from abaw.data.annotations import concatenate
from abaw.models.losses import LossSettings
from abaw.stages.fuse.inputs import LabelsByTrack
from abaw.tasks import Problem, Task
from abaw.training.optim import Schedule, half_cosine, swinging
from abaw.training.weights import class_weights


def loss_settings(task: Task, settings: FuseConfig, train: LabelsByTrack) -> dict[str, LossSettings]:
    """Loss of each head, with class weights given or from the training labels."""
    found = {}
    for head in task.heads:
        labels = concatenate([heads[head.name] for heads in train.values()])
        weights = class_weights(head, labels, settings.class_weights, settings.weight_kind)
        found[head.name] = LossSettings(
            **weights,
            reduce=settings.au_reduce if head.problem is Problem.MULTILABEL else settings.ccc_reduce,
            clamp=settings.ccc_clamp,
            mse=settings.mse_weight,
            smoothing=settings.label_smoothing,
            per_window=settings.ccc_over == "window",
        )
    return found


def schedule(settings: FuseConfig) -> Schedule:
    """Factor of the learning rate by step: swinging where the table says so, else falling once."""
    floor = settings.min_lr / settings.lr
    if settings.cycle_steps:
        return swinging(settings.steps, half_period=settings.cycle_steps, warmup=settings.warmup_steps, floor=floor)
    return half_cosine(settings.steps, warmup=settings.warmup_steps, floor=floor)
