"""The loss of a task on a batch, as the training loop wants it: forward pass, labels, masked loss of each head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from abaw.models.losses import LossSettings, task_loss
from abaw.tasks import Task
from abaw.training.loop import Loss


def task_objective(task: Task, settings: Mapping[str, LossSettings], *, inputs: Sequence[str]) -> Loss:
    """Loss of a batch with labels `<head>.values` and `<head>.mask`; its tensors ``inputs`` go into the model."""

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = model(*(batch[name] for name in inputs))
        targets = {head.name: batch[f"{head.name}.values"] for head in task.heads}
        masks = {head.name: batch[f"{head.name}.mask"] for head in task.heads}
        total, parts = task_loss(task.heads, logits, targets, masks, settings)
        return total, parts if len(parts) > 1 else {}

    return loss
