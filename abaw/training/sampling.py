"""How often each frame is drawn, so that rare classes are not drowned by frequent ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from abaw.data.annotations import Labels
from abaw.errors import AbawError, ExitCode
from abaw.tasks import Head, Problem


def balanced_sampling(heads: Sequence[Head], labels: Mapping[str, Labels]) -> np.ndarray:
    """Weight of each row for drawing, float64 [N], mean 1; rows without a label count 1.

    By the first multi-class head: all of its classes that occur are equally likely. Without one, by the first head of
    units: a row counts the mean of 1 / rows of the unit over its active units; rows without any are one more kind.
    Raises AbawError for values alone, which have no classes.
    """
    for problem, weigh in ((Problem.MULTICLASS, _by_class), (Problem.MULTILABEL, _by_units)):
        head = next((head for head in heads if head.problem is problem), None)
        if head is not None:
            return weigh(labels[head.name])
    raise AbawError(
        f"{' and '.join(head.name for head in heads)} has no classes to draw equally often",
        where="finetune.sampling",
        fix='set sampling = "uniform" for this task; stride and frames_per_track also act against near-duplicates',
        code=ExitCode.CONFIG,
    )


def _by_class(labels: Labels) -> np.ndarray:
    known = labels.mask[:, 0]
    weights = np.ones(len(known))
    if known.any():
        classes = labels.values[known, 0].astype(np.int64)
        counts = np.bincount(classes)
        weights[known] = known.sum() / ((counts > 0).sum() * counts[classes])
    return weights


def _by_units(labels: Labels) -> np.ndarray:
    known = np.asarray(labels.mask.any(axis=1))
    active = labels.mask & (labels.values > 0.5)
    kinds = np.column_stack([active, known & ~active.any(axis=1)]).astype(float)  # the last: labelled, nothing active
    rarity = 1 / np.maximum(kinds.sum(axis=0), 1)
    weights = np.ones(len(known))
    if known.any():
        own = kinds[known] @ rarity / kinds[known].sum(axis=1)
        weights[known] = own / own.mean()
    return weights
