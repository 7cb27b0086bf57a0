"""The loss of a task on a batch, as the training loop wants it: forward pass, labels, masked loss of each head.

Logits and labels of all processes are gathered first: a CCC or a weighted mean of parts is not that of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from abaw.models.losses import LossSettings, divergence, task_loss
from abaw.tasks import Task
from abaw.training.distributed import gather_rows
from abaw.training.loop import Loss

Labels = tuple[dict[str, Tensor], dict[str, Tensor]]


def task_objective(task: Task, settings: Mapping[str, LossSettings], *, inputs: Sequence[str]) -> Loss:
    """Loss of a batch with labels `<head>.values` and `<head>.mask`; its tensors ``inputs`` go into the model."""

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = {name: gather_rows(values) for name, values in model(*(batch[name] for name in inputs)).items()}
        targets, masks = gathered_labels(task, batch)
        total, parts = task_loss(task.heads, logits, targets, masks, settings)
        return total, parts if len(parts) > 1 else {}

    return loss


def consistency_objective(
    task: Task, settings: Mapping[str, LossSettings], *, inputs: Sequence[str], weight: float
) -> Loss:
    """Loss of a model that gives one row of logits [V, B, L] per view: its mean over views, and their disagreement.

    ``weight`` multiplies the Jensen-Shannon divergence, which is taken over all rows: it needs no labels. The parts
    are named after the heads and "consistency".
    """

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        found = model(*(batch[name] for name in inputs))
        by_view = {name: gather_rows(values.transpose(0, 1)).transpose(0, 1) for name, values in found.items()}
        targets, masks = gathered_labels(task, batch)
        num_views = len(next(iter(by_view.values())))
        views = [{name: values[view] for name, values in by_view.items()} for view in range(num_views)]
        losses = [task_loss(task.heads, logits, targets, masks, settings) for logits in views]
        labelled = torch.stack([total for total, _ in losses]).mean()
        apart = torch.stack([divergence(values) for values in by_view.values()]).sum()
        parts = {name: torch.stack([own[name] for _, own in losses]).mean() for name in losses[0][1]}
        return labelled + weight * apart, {**parts, "consistency": apart.detach()}

    return loss


def gathered_labels(task: Task, batch: Mapping[str, Tensor], *, prefix: str = "") -> Labels:
    """Targets and masks by head, of all processes; ``prefix`` stands before the names of the batch."""
    targets = {head.name: gather_rows(batch[f"{prefix}{head.name}.values"]) for head in task.heads}
    masks = {head.name: gather_rows(batch[f"{prefix}{head.name}.mask"]) for head in task.heads}
    return targets, masks
