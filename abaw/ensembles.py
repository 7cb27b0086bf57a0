"""Scores of several models made one: weighted means of scores, logits or votes, and weights fitted on labels.

Owns the arithmetic on arrays. Knows nothing of stores, files or which scores are out-of-fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from abaw.errors import AbawError, ExitCode
from abaw.pooled import Counts, Moments, Pooled, Tables
from abaw.postprocess import Post
from abaw.tasks import Head, LabelArrays, Problem, Task

CLIP = 1e-6  # probabilities are kept so far from 0 and 1, where the logarithm has no bound
TIE = 1e-3  # weight of the mean score among votes: it decides where they are even, up to this much of their weights
ROUNDS = 30  # members drawn by the greedy selection, with replacement: weights are multiples of about 1 / 30

TRUTH = {Problem.MULTILABEL: np.bool_, Problem.MULTICLASS: np.int64, Problem.REGRESSION: np.float64}

Mixture = tuple[int, ...]  # how often each member was drawn


def check_combine(task: Task, how: str, *, where: str) -> None:
    """Raise AbawError where a task has nothing but values, of which there are no logits and no votes.

    Beside other heads, as in a multi-task set, values are averaged as they are.
    """
    if how != "scores" and all(head.problem is Problem.REGRESSION for head in task.heads):
        raise AbawError(
            f"the {how} of task {task.name} cannot be averaged: it has values, neither probabilities nor classes",
            where=where,
            fix='set combine = "scores" in [fuse.ensemble]: the mean of the values',
            code=ExitCode.CONFIG,
        )


def normalised(weights: Sequence[float], members: Sequence[str], *, where: str) -> tuple[float, ...]:
    """Weights that sum to 1. Raises AbawError unless there is one for each member and any above zero."""
    if len(weights) != len(members) or not sum(weights) > 0:
        fault = f"{len(weights)} weights for {len(members)} members" if sum(weights) > 0 else "all weights are 0"
        raise AbawError(
            f"{fault}: {', '.join(members)}",
            where=where,
            fix=f'give {len(members)} numbers from 0 on in [fuse.ensemble] weights, or "equal"',
            code=ExitCode.CONFIG,
        )
    total = float(sum(weights))
    return tuple(float(weight) / total for weight in weights)


# -- combining ---------------------------------------------------------------------------------------------------------
def to_terms(head: Head, scores: np.ndarray, how: str) -> np.ndarray:
    """What is averaged of one member's scores [T, L], float [T, L].

    "logits": log-odds of units, log-probabilities of classes. "votes": the decisions at 0.5 and of the highest score,
    as 0 and 1, with a trace of the score that decides even votes. Values are themselves.
    """
    if how == "scores" or head.problem is Problem.REGRESSION:
        return scores
    if how == "votes":
        decided = head.decide(scores, Post())
        votes = decided if head.problem is Problem.MULTILABEL else decided == np.arange(head.output_dim)
        return np.asarray((1 - TIE) * votes + TIE * scores)
    likely = np.clip(scores.astype(np.float64), CLIP, 1 - CLIP)
    return np.log(likely) - (np.log1p(-likely) if head.problem is Problem.MULTILABEL else 0.0)


def from_terms(head: Head, terms: np.ndarray, how: str) -> np.ndarray:
    """Scores [T, L] of averaged terms: of logits, the probabilities they stand for."""
    if how != "logits" or head.problem is Problem.REGRESSION:
        return terms
    if head.problem is Problem.MULTILABEL:
        return np.asarray(1 / (1 + np.exp(-terms)))
    powers = np.exp(terms - terms.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def combine(
    head: Head, scores: Sequence[np.ndarray], valid: Sequence[np.ndarray], weights: Sequence[float], how: str
) -> np.ndarray:
    """One head's scores float32 [T, L] of members' scores [T, L], each with its valid rows bool [T].

    A row is the weighted mean over the members that have it; zeros where none of weight above zero has.
    """
    total = np.zeros((*scores[0].shape[:1], 1))
    terms = np.zeros(scores[0].shape)
    for own, rows, weight in zip(scores, valid, weights, strict=True):
        share = (weight * rows)[:, None]
        total += share
        terms += share * to_terms(head, own, how)
    known = total[:, 0] > 0
    found = np.zeros(terms.shape, np.float32)
    found[known] = from_terms(head, terms[known] / total[known], how)
    return found


# -- fitting -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fitted:
    """Weights that sum to 1: ``weights`` of all parts, ``by_part`` without a part each.

    ``score``: the official one of ``by_part``, each on its own part, which is what to expect elsewhere; ``equal`` and
    ``alone``: of equal weights and of each member by itself.
    """

    weights: tuple[float, ...]
    by_part: tuple[tuple[float, ...], ...]
    score: float
    equal: float
    alone: tuple[float, ...]


@dataclass(frozen=True)
class _Rows:
    """Labelled rows of one head in one track: terms float32 [members, L, N].

    ``truth`` [target_dim, N]: bool of units, int64 of classes, float64 of values.
    """

    head: int
    part: int
    terms: np.ndarray
    truth: np.ndarray


class WeightFit:
    """Greedy selection of members with replacement on the official metric (Caruana et al. 2004).

    Tracks are added in parts (recordings that belong together); the same selection without each part shows what the
    fitted weights are worth on recordings they have not seen. Every mixture is measured once, on sums per part.
    """

    def __init__(self, task: Task, how: str, *, members: int, parts: int) -> None:
        self.task, self.how = task, how
        self.members, self.parts = members, parts
        self.num_rows = {head.name: 0 for head in task.heads}
        self._rows: list[_Rows] = []
        self._known: dict[Mixture, list[Counts | Tables | Moments]] = {}

    def add(
        self, part: int, name: str, scores: Sequence[np.ndarray], valid: Sequence[np.ndarray], labels: LabelArrays
    ) -> None:
        """One track's scores [T, L] of a head by every member: its labelled rows that all members have."""
        head = self.task.head(name)
        rows = np.flatnonzero(labels.mask.all(axis=1) & np.all(valid, axis=0))
        if len(rows) == 0:
            return
        if self._known:
            msg = "tracks are added before anything is measured"
            raise ValueError(msg)
        terms = np.stack([to_terms(head, own[rows], self.how).T for own in scores])
        truth: np.ndarray = np.ascontiguousarray(labels.values[rows].T).astype(TRUTH[head.problem])
        self._rows.append(_Rows(self.task.heads.index(head), part, np.ascontiguousarray(terms, np.float32), truth))
        self.num_rows[name] += len(rows)

    def fit(self, rounds: int = ROUNDS) -> Fitted:
        """Select on all parts, and without each part in turn. Every head must have a row.

        Of the mixtures on the way the best is taken, or equal weights where none is better than those.
        """
        everywhere = np.ones(self.parts, bool)
        keeps = [everywhere] + [everywhere & (np.arange(self.parts) != part) for part in range(self.parts)]
        nothing: Mixture = (0,) * self.members
        paths: list[list[Mixture]] = [[] for _ in keeps]
        for _ in range(rounds):
            tried = [[_drawn(path[-1] if path else nothing, m) for m in range(self.members)] for path in paths]
            self._measure({mixture for options in tried for mixture in options})
            for path, options, keep in zip(paths, tried, keeps, strict=True):
                path.append(max(options, key=lambda mixture: self._score(mixture, keep)))
        single = [_drawn(nothing, m) for m in range(self.members)]
        even: Mixture = (1,) * self.members
        self._measure({even})
        best = [
            max([even, *path], key=lambda mixture: self._score(mixture, keep))
            for path, keep in zip(paths, keeps, strict=True)
        ]
        return Fitted(
            weights=_shares(best[0]),
            by_part=tuple(_shares(mixture) for mixture in best[1:]),
            score=self._score_of_parts(best[1:]),
            equal=self._score(even, everywhere),
            alone=tuple(self._score(mixture, everywhere) for mixture in single),
        )

    def _measure(self, wanted: set[Mixture]) -> None:
        """Statistics by head and part of mixtures that are not known yet, all in one pass over the rows."""
        new = sorted(wanted - self._known.keys())
        if not new:
            return
        shares = np.array([_shares(mixture) for mixture in new], np.float32)
        found: dict[Mixture, list[Counts | Tables | Moments]] = {mixture: [] for mixture in new}
        for number, head in enumerate(self.task.heads):
            rows = [one for one in self._rows if one.head == number]
            part = np.array([one.part for one in rows])
            tracks = [_statistics(head, _mixed(shares, one.terms), one.truth, self.how) for one in rows]
            kind = type(tracks[0])
            blocks = [np.stack([getattr(one, each.name) for one in tracks]) for each in fields(kind)]
            for place, mixture in enumerate(new):
                found[mixture].append(kind(*(block[:, place] for block in blocks)).merge(part, self.parts))
        self._known |= found

    def _score(self, mixture: Mixture, keep: np.ndarray) -> float:
        return sum(_official(known.take(keep)) for known in self._known[mixture])

    def _score_of_parts(self, chosen: Sequence[Mixture]) -> float:
        """Every part measured with its own mixture, pooled."""
        total = 0.0
        for number in range(len(self.task.heads)):
            own = [self._known[mixture][number].take(np.array([part])) for part, mixture in enumerate(chosen)]
            total += _official(type(own[0]).stack(own))  # type: ignore[arg-type]
        return total


def _official(known: Pooled) -> float:
    return float(known.parts().mean())


def _drawn(mixture: Mixture, member: int) -> Mixture:
    return tuple(count + (number == member) for number, count in enumerate(mixture))


def _shares(mixture: Mixture) -> tuple[float, ...]:
    return tuple(count / sum(mixture) for count in mixture)


def _mixed(shares: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Terms [K, L, N] of K mixtures, shares [K, members]."""
    return np.asarray((shares @ terms.reshape(len(terms), -1)).reshape(len(shares), *terms.shape[1:]))


def _statistics(head: Head, mixed: np.ndarray, truth: np.ndarray, how: str) -> Counts | Tables | Moments:
    """Statistics of K mixtures' terms [K, L, N], one "recording" each; decided as `Head.decide` does, untuned."""
    if head.problem is Problem.MULTILABEL:
        decided = mixed >= (0.0 if how == "logits" else 0.5)
        labelled = np.broadcast_to(truth.sum(axis=1), decided.shape[:2])
        return Counts((decided & truth).sum(axis=2), decided.sum(axis=2), labelled)
    if head.problem is Problem.MULTICLASS:
        size = head.output_dim
        places = mixed.argmax(axis=1) + truth[0] * size
        return Tables(np.stack([np.bincount(own, minlength=size * size).reshape(size, size) for own in places]))
    x = np.clip(mixed, *Post().clip).astype(np.float64)
    y = np.broadcast_to(truth, x.shape)
    means = np.stack([x.mean(axis=2), y.mean(axis=2)], axis=2)
    x, y = x - means[..., :1], y - means[..., 1:]
    central = np.stack([np.einsum("kln,kln->kl", *pair) for pair in ((x, x), (y, y), (x, y))], axis=2)
    return Moments(np.full(len(x), x.shape[2]), means, central)
