"""The second stage of the Netease code: windows that are hard for the frozen branch, and the loss of both branches.

Each step pairs a batch of all windows, seen by the frozen branch, with one that is rich in hard windows, seen by its
trained copy. Their logits are mixed with a share that is drawn anew each step. Everything is a function of
(seed, step).

Open in the source: what makes a window hard, the list of shares, and two switches (`output_CLB`, `use_balanced_mse`)
that its configuration files lack, and that are left out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from abaw.models.losses import LossSettings, head_loss, task_loss
from abaw.tasks import Head, Problem, Task
from abaw.training.batches import SampleOrder
from abaw.training.device import autocast
from abaw.training.distributed import gather_rows, gather_scores, own_part
from abaw.training.objective import gathered_labels
from abaw.training.steps import Batch, BatchSource, Loss
from abaw.training.windows import WindowBatches

STREAM = 0xD0A1
INPUTS = ("features", "present", "rows")
HARD = "hard."  # before the names of what the second branch sees


# -- which windows are hard ----------------------------------------------------------------------------------------
def hard_windows(
    model: nn.Module,
    source: WindowBatches,
    task: Task,
    settings: Mapping[str, LossSettings],
    *,
    share: float,
    device: torch.device,
    precision: str = "fp32",
) -> np.ndarray:
    """The share of a source's windows with the largest loss of a model, at least one: their numbers in order, int64.

    This rule is ours. A window's loss is the mean over its
    labelled elements, with the weights of ``settings``: cross-entropy of units and classes, squared error of values (a
    CCC of few rows says more about the spread of their labels than about the model). The losses of each head are
    divided by their mean over all windows, and a window counts with the mean over the heads it has labels of.

    Each process scores its part of the windows, and all get the same answer.
    """
    num, size = len(source.windows), source.order.batch_size
    mine = own_part(num)
    batches = replace(source, order=_InOrder(mine, size))
    found = [np.zeros((0, len(task.heads)), np.float32)]
    model.eval()
    with torch.inference_mode():
        for step in range(-(-len(mine) // size)):
            batch = {name: value.to(device) for name, value in batches.batch(step, 0, 1).items()}
            with autocast(device, precision):
                logits = model(*(batch[name] for name in INPUTS))
            found.append(window_losses(task, settings, logits, batch).cpu().numpy())
    return hardest(gather_scores(mine, {"loss": np.concatenate(found)}, num)["loss"], share)


class _InOrder(SampleOrder):
    """Given samples one after the other; the last step may be short."""

    def __init__(self, samples: np.ndarray, batch_size: int) -> None:
        super().__init__(len(samples), batch_size, seed=0)
        self._samples = samples

    def at(self, step: int) -> np.ndarray:
        return self._samples[step * self.batch_size : (step + 1) * self.batch_size]


def window_losses(
    task: Task, settings: Mapping[str, LossSettings], logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]
) -> Tensor:
    """Mean loss of every window over its labelled elements: float32 [B, heads], NaN for a head without any."""
    columns = []
    for head in task.heads:
        values, mask = batch[f"{head.name}.values"], batch[f"{head.name}.mask"]
        own = replace(settings.get(head.name, LossSettings()), reduce="mean", scale=1.0)
        losses = [_element_loss(head, *parts, own) for parts in zip(logits[head.name], values, mask, strict=True)]
        columns.append(torch.stack(losses).masked_fill(~mask.flatten(1).any(1), torch.nan))
    return torch.stack(columns, 1)


def _element_loss(head: Head, logits: Tensor, values: Tensor, mask: Tensor, settings: LossSettings) -> Tensor:
    if head.problem is not Problem.REGRESSION:
        return head_loss(head, logits, values, mask, settings)
    squares = torch.where(mask, (logits.float().clamp(-1, 1) - values) ** 2, 0)
    return squares.sum() / mask.sum().clamp(min=1)


def hardest(losses: np.ndarray, share: float) -> np.ndarray:
    """Numbers of the windows with the largest losses [N, heads] (NaN = no label), at least one: int64, in order."""
    known = np.isfinite(losses)
    level = np.where(known, losses, 0).sum(0) / np.maximum(known.sum(0), 1)
    relative = np.where(known, losses / np.where(level > 0, level, 1), 0).sum(1) / np.maximum(known.sum(1), 1)
    count = min(len(losses), max(1, round(share * len(losses))))
    return np.sort(np.argsort(-relative, kind="stable")[:count]).astype(np.int64)


def hard_order(num: int, hard: np.ndarray, *, drawn: float, batch_size: int, seed: int) -> SampleOrder:
    """Order of the second branch's windows: each is a hard one with chance ``drawn``, else any of the others.

    Stands for the published set of hard windows that is filled up with random others.
    """
    chances = np.zeros(num)
    chances[hard] = drawn / len(hard)
    others = np.setdiff1d(np.arange(num), hard)
    if len(others):
        chances[others] = (1 - drawn) / len(others)
    return SampleOrder(num, batch_size, seed=seed, weights=chances if chances.any() else None)


# -- batches -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FirstShare:
    """Share of the frozen branch's logits in a step: from Beta(alpha, beta), or one of ``values`` where there are any.

    Published: Beta(5, 2), or a list whose entries are open.
    """

    seed: int
    alpha: float = 5.0
    beta: float = 2.0
    values: Sequence[float] = ()

    def at(self, step: int) -> float:
        """The share, 0..1; the same for all pieces of a step."""
        random = np.random.default_rng([self.seed, step, STREAM])
        return float(random.choice(self.values) if len(self.values) else random.beta(self.alpha, self.beta))


@dataclass(frozen=True)
class DualBatches:
    """Batches of all windows, each with one of ``hard`` under names with "hard." before them, and the step's `mix`."""

    full: BatchSource
    hard: BatchSource
    share: FirstShare

    def batch(self, step: int, part: int, parts: int) -> Batch:
        hard = {f"{HARD}{name}": value for name, value in self.hard.batch(step, part, parts).items()}
        return {**self.full.batch(step, part, parts), **hard, "mix": torch.tensor(self.share.at(step))}

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        """Names of the pairs."""
        pairs = zip(self.full.sample_ids(step, part, parts), self.hard.sample_ids(step, part, parts), strict=True)
        return [f"{one} with {other}" for one, other in pairs]


# -- loss ----------------------------------------------------------------------------------------------------------
def dual_objective(task: Task, settings: Mapping[str, LossSettings], *, au_scale: float = 1.0) -> Loss:
    """Loss of a `DualBranch` on a batch of `DualBatches`.

    With a the share of the frozen branch: logits a x first + (1 - a) x second, of which the loss is a times that to
    the labels of the first one's windows and 1 - a times that to those of the hard windows. Only rows that are real in
    both have mixed logits, and enter. ``au_scale`` multiplies the loss of action units (10 in the published code).
    """
    own = dict(settings)
    for head in task.heads:
        if head.problem is Problem.MULTILABEL:
            given = own.get(head.name, LossSettings())
            own[head.name] = replace(given, scale=given.scale * au_scale)

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        found = model(*(batch[name] for name in INPUTS), *(batch[f"{HARD}{name}"] for name in INPUTS))
        mix = batch["mix"]
        mixed = {h.name: gather_rows(mix * found[h.name] + (1 - mix) * found[f"{h.name}@hard"]) for h in task.heads}
        real = gather_rows(batch["rows"] & batch[f"{HARD}rows"])[..., None]
        total, parts = mixed[task.heads[0].name].new_zeros(()), dict[str, Tensor]()
        for prefix, share in (("", mix), (HARD, 1 - mix)):
            targets, masks = gathered_labels(task, batch, prefix=prefix)
            masks = {name: mask & real for name, mask in masks.items()}
            value, by_head = task_loss(task.heads, mixed, targets, masks, own)
            total = total + share * value
            parts = {name: parts.get(name, 0) + share * part for name, part in by_head.items()}
        return total, parts if len(parts) > 1 else {}

    return loss
