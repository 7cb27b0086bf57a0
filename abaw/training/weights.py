"""Class weights of the losses, given or from the training labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from abaw.data.annotations import Labels
from abaw.errors import AbawError, ExitCode, choose
from abaw.tasks import TASKS, Head, Problem

MAX_POSITIVE_WEIGHT = 50.0  # a unit that hardly occurs must not drown the others


HEADS = {head.name: head for task in TASKS.values() for head in task.heads}

Wanted = str | Sequence[float]


def class_weights(
    head: Head,
    labels: Labels,
    wanted: Wanted | Mapping[str, Wanted],
    kind: str = "pos_weight",
    drawn: np.ndarray | None = None,
) -> dict[str, Any]:
    """`balanced_weights` of a head, where ``wanted`` may be a table by head; heads it does not name are balanced.

    ``drawn``: how often each row is drawn, in any unit [N]; default, all equally often.
    Raises AbawError for a head that does not exist, and for weights that do not fit.
    """
    if isinstance(wanted, Mapping):
        for name in wanted:
            choose(HEADS, name, what="head", where="[finetune] or [fuse] class_weights")
        wanted = wanted.get(head.name, "balanced")
    return balanced_weights(head, labels, wanted, kind, drawn)


def balanced_weights(
    head: Head,
    labels: Labels,
    wanted: str | Sequence[float],
    kind: str = "pos_weight",
    drawn: np.ndarray | None = None,
) -> dict[str, list[float]]:
    """Arguments `weight` or `positive_weight` of `LossSettings` for a head; empty for "none" and for values.

    "balanced": classes get the most frequent class's count over their own; units get negatives over positives
    (kind "pos_weight"), or the most frequent unit's positives over their own (kind "weight"). A class or unit that
    never occurs gets weight 1. With ``drawn``, the sampling weight of each row [N], a row counts that much, so that an
    imbalance which sampling has evened out already is not corrected again: classes drawn equally often get 1. Raises
    AbawError when given weights do not fit the head.
    """
    if wanted == "none" or head.problem is Problem.REGRESSION:
        return {}
    key = "positive_weight" if head.problem is Problem.MULTILABEL and kind == "pos_weight" else "weight"
    if not isinstance(wanted, str):
        _check_given(head, wanted)
        return {key: list(wanted)}
    values, mask = labels.values, labels.mask
    share = np.ones(len(values)) if drawn is None else np.asarray(drawn, np.float64)
    if head.problem is Problem.MULTICLASS:
        classes, known = values[mask[:, 0], 0].astype(np.int64), share[mask[:, 0]]
        counts = np.bincount(classes, weights=known, minlength=head.output_dim)
        return {key: _ratio(np.full(len(counts), counts.max()), counts)}
    active = mask & (values > 0.5)
    positives = _sums(share, active)
    if key == "positive_weight":
        return {key: _ratio(_sums(share, mask & ~active), positives)}
    return {key: _ratio(np.full(len(positives), positives.max()), positives)}


def _sums(share: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Sum of the rows' shares [N] over those chosen in each column of [N, L]."""
    return np.array([share[column].sum() for column in chosen.T])


def _check_given(head: Head, weights: Sequence[float]) -> None:
    what = ""
    if len(weights) != head.output_dim:
        what = f"{len(weights)} class weights for the {head.output_dim} outputs of {head.name}"
    elif not np.isfinite(weights).all() or min(weights) < 0 or max(weights) == 0:
        what = f"the class weights of {head.name} are negative, not finite, or all 0"
    if what:
        raise AbawError(
            what,
            where="[finetune] or [fuse] class_weights",
            fix=f"give one number for each of {', '.join(head.labels)}, as a table by head where a task has several: "
            f"class_weights = {{ {head.name} = [...] }}",
            code=ExitCode.CONFIG,
        )


def _ratio(over: np.ndarray, under: np.ndarray) -> list[float]:
    ratio = np.where((over > 0) & (under > 0), over / np.where(under > 0, under, 1), 1.0)
    return [round(float(value), 4) for value in np.minimum(ratio, MAX_POSITIVE_WEIGHT)]
