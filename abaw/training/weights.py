"""Class weights of the losses, given or from the training labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from abaw.data.annotations import Labels
from abaw.errors import AbawError, ExitCode
from abaw.tasks import Head, Problem

MAX_POSITIVE_WEIGHT = 50.0  # a unit that hardly occurs must not drown the others


def balanced_weights(
    head: Head, labels: Labels, wanted: str | Sequence[float], kind: str = "pos_weight"
) -> dict[str, list[float]]:
    """Arguments `weight` or `positive_weight` of `LossSettings` for a head; empty for "none" and for values.

    "balanced": classes get the most frequent class's count over their own; units get negatives over positives
    (kind "pos_weight"), or the most frequent unit's positives over their own (kind "weight"). A class or unit that
    never occurs gets weight 1. Raises AbawError when given weights do not fit the head.
    """
    if wanted == "none" or head.problem is Problem.REGRESSION:
        return {}
    key = "positive_weight" if head.problem is Problem.MULTILABEL and kind == "pos_weight" else "weight"
    if not isinstance(wanted, str):
        if len(wanted) != head.output_dim:
            raise AbawError(
                f"{len(wanted)} class weights for the {head.output_dim} outputs of {head.name}",
                where="class_weights",
                fix=f"give one number for each of {', '.join(head.labels)}",
                code=ExitCode.CONFIG,
            )
        return {key: list(wanted)}
    values, mask = labels.values, labels.mask
    if head.problem is Problem.MULTICLASS:
        counts = np.bincount(values[mask[:, 0], 0].astype(np.int64), minlength=head.output_dim).astype(float)
        return {key: _ratio(np.full(len(counts), counts.max()), counts)}
    positives = np.array([(values[mask[:, k], k] > 0.5).sum() for k in range(values.shape[1])], float)
    if key == "positive_weight":
        return {key: _ratio(mask.sum(0) - positives, positives)}
    return {key: _ratio(np.full(len(positives), positives.max()), positives)}


def _ratio(over: np.ndarray, under: np.ndarray) -> list[float]:
    ratio = np.where((over > 0) & (under > 0), over / np.maximum(under, 1), 1.0)
    return [round(float(value), 4) for value in np.minimum(ratio, MAX_POSITIVE_WEIGHT)]
