"""Problem -> masked loss. An unlabelled element never enters a loss, whatever its target holds.

Shapes: logits [..., L], targets [..., target_dim], mask like targets; leading axes are flattened. Targets of classes
may also be probabilities [..., L] (mixed images), their mask [..., 1] or like them. A batch without a single label
gives a zero that is connected to the logits, so that `backward` runs and gradients are zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from abaw.tasks import Head, Problem


@dataclass(frozen=True)
class LossSettings:
    """How a head's loss is weighted; every field has a meaning for one problem only.

    `weight`: per unit or class; `positive_weight`: multiplies the positive term of a unit (multi-label); `reduce`:
    "sum" or "mean" of 1 - CCC over dimensions, or of a row's units; `clamp`: values are taken into -1..1 before their
    CCC; `mse`: share of a squared error added to 1 - CCC; `per_window`: a CCC for each window of [B, W, L], averaged
    over those with a label, instead of one over all rows; `smoothing`: label smoothing (classes); `scale` multiplies
    the head's loss.
    """

    weight: Sequence[float] | None = None
    positive_weight: Sequence[float] | None = None
    reduce: str = "mean"
    clamp: bool = True
    mse: float = 0.0
    per_window: bool = False
    smoothing: float = 0.0
    scale: float = 1.0


def task_loss(
    heads: Sequence[Head],
    logits: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    settings: Mapping[str, LossSettings] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum over heads, and the detached part of each."""
    parts: dict[str, Tensor] = {}
    total: Tensor | None = None
    for head in heads:
        own = (settings or {}).get(head.name, LossSettings())
        part = head_loss(head, logits[head.name], targets[head.name], masks[head.name], own)
        parts[head.name] = part.detach()
        total = part if total is None else total + part
    if total is None:
        message = "a task needs at least one head"
        raise ValueError(message)
    return total, parts


def head_loss(head: Head, logits: Tensor, targets: Tensor, mask: Tensor, settings: LossSettings) -> Tensor:
    """Masked loss of one head; computed in float32 whatever the autocast type."""
    windows = len(logits) if settings.per_window and logits.ndim > 2 else 1
    logits = logits.reshape(-1, logits.shape[-1]).float()
    mask = mask.reshape(len(logits), -1).bool()
    targets = torch.where(mask, targets.reshape(len(logits), -1).float(), torch.zeros((), device=mask.device))
    if head.problem is Problem.MULTICLASS and targets.shape[1] > 1:
        loss = _shares(logits, targets, mask.all(1), settings)
    elif head.problem is Problem.MULTILABEL:
        loss = _binary(logits, targets, mask, settings)
    elif head.problem is Problem.MULTICLASS:
        loss = _classes(logits, targets[:, 0].long(), mask[:, 0], settings)
    else:
        loss = _concordance(logits, targets, mask, settings, windows)
    return loss if settings.scale == 1 else settings.scale * loss


def _binary(logits: Tensor, targets: Tensor, mask: Tensor, settings: LossSettings) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(
        logits,
        targets,
        weight=_vector(settings.weight, logits),
        pos_weight=_vector(settings.positive_weight, logits),
        reduction="none",
    )
    if settings.reduce == "sum":
        # Over the rows with a label: a row without any says nothing. EMMA divides by all rows of the batch instead.
        return (loss * mask).sum() / mask.any(1).sum().clamp(min=1)
    return _mean(loss, mask)


def _classes(logits: Tensor, targets: Tensor, mask: Tensor, settings: LossSettings) -> Tensor:
    """Cross-entropy; with class weights the mean is weighted, as `torch.nn.CrossEntropyLoss` defines it."""
    weight = _vector(settings.weight, logits)
    loss = F.cross_entropy(logits, targets, weight=weight, reduction="none", label_smoothing=settings.smoothing)
    shares = mask.float() if weight is None else mask * weight[targets]
    return (loss * mask).sum() / shares.sum().clamp(min=1e-8)


def _shares(logits: Tensor, targets: Tensor, mask: Tensor, settings: LossSettings) -> Tensor:
    """Cross-entropy to probabilities [N, L]; of one class alone it is what `_classes` gives."""
    weight = _vector(settings.weight, logits)
    loss = F.cross_entropy(logits, targets, weight=weight, reduction="none", label_smoothing=settings.smoothing)
    shares = mask.float() if weight is None else mask * (targets @ weight)
    return (loss * mask).sum() / shares.sum().clamp(min=1e-8)


def _concordance(logits: Tensor, targets: Tensor, mask: Tensor, settings: LossSettings, windows: int) -> Tensor:
    values = logits.clamp(-1, 1) if settings.clamp else logits
    columns = [_discordance(values[:, k], targets[:, k], mask[:, k], windows) for k in range(values.shape[1])]
    labelled = mask.any(0)
    loss = torch.where(labelled, torch.stack(columns), torch.zeros_like(columns[0]))
    total = loss.sum() if settings.reduce == "sum" else loss.sum() / labelled.sum().clamp(min=1)
    if settings.mse:
        # On the raw outputs: a clamped value has no gradient, and this term brings it back into range.
        total = total + settings.mse * _mean((logits - targets) ** 2, mask)
    return total + (logits * 0).sum()


def _discordance(values: Tensor, targets: Tensor, mask: Tensor, windows: int) -> Tensor:
    """1 - CCC of vectors [N]; of as many windows, its mean over those with a label.

    A window whose labels are all equal has CCC 0 and no gradient, whatever the outputs: short windows teach little.
    """
    if windows == 1:
        return 1 - ccc(values, targets, mask)
    values, targets, mask = (part.reshape(windows, -1) for part in (values, targets, mask))
    return _mean(1 - ccc(values, targets, mask), mask.any(1))


def ccc(values: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Concordance correlation of the masked elements of vectors [..., N] -> [...]; population moments.

    Lin 1989: 2 cov / (var + var + (difference of means)^2). A small constant keeps the gradient finite where both
    are constant: 1e-8, which cannot be seen in a value; EMMA's published code adds 1e-4, which lowers the CCC of
    labels with little spread.
    """
    share = mask.float() / mask.sum(-1, keepdim=True).clamp(min=1)
    mean_v, mean_t = (values * share).sum(-1, keepdim=True), (targets * share).sum(-1, keepdim=True)
    dev_v, dev_t = values - mean_v, targets - mean_t
    covariance = (dev_v * dev_t * share).sum(-1)
    spread = (dev_v**2 * share).sum(-1) + (dev_t**2 * share).sum(-1) + (mean_v - mean_t).squeeze(-1) ** 2
    return 2 * covariance / (spread + 1e-8)


def divergence(logits: Tensor, *, floor: float = 1e-4) -> Tensor:
    """Generalised Jensen-Shannon divergence of the views' class distributions; logits [V, ..., L].

    The mean over views of KL(p || M) with M their mean, at least `floor`; averaged over rows and classes alike, as
    Masked CoTEX does, so that its weight in a loss is large. Zero for views that agree.
    """
    logs = logits.float().log_softmax(-1)
    shares = logs.exp()
    mixture = shares.mean(0).clamp(min=floor).log()
    return (shares * (logs - mixture)).mean()


def _mean(loss: Tensor, mask: Tensor) -> Tensor:
    return (loss * mask).sum() / mask.sum().clamp(min=1)


def _vector(weights: Sequence[float] | None, like: Tensor) -> Tensor | None:
    return None if weights is None else torch.as_tensor(list(weights), dtype=like.dtype, device=like.device)
