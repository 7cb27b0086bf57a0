"""Sufficient statistics of the official metrics, by recording: pooled, resampled and compared without the scores.

What a metric takes from a recording is a few sums: counts for F1, moments for the CCC, histograms for all thresholds at
once. Whole recordings are left out (folds) or drawn several times (bootstrap) by weights. With weights 1 the metrics
are those of ``metrics`` on the pooled rows. Knows nothing of files.

R recordings, L labels of a head, B sets of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import numpy as np

from abaw import metrics
from abaw.tasks import Head, LabelArrays, Problem

BINS = 128  # of scores 0..1; a power of two, so that score >= k / BINS is exact in float32
MIDDLE = BINS // 2  # the threshold 0.5
VANISHED = 1e-12  # of a variance left by a subtraction: nothing but rounding


class Pooled(Protocol):
    """Statistics of one head's decisions, by recording."""

    def parts(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The official metric of each label, float64 [L]; with weights [B, R] of the recordings [B, L]."""
        ...


@dataclass(frozen=True)
class _ByRecording:
    """Arrays whose first axis is the recording."""

    def take(self, recordings: np.ndarray) -> Self:
        """Some recordings, by index or bool [R], in that order."""
        return type(self)(*(getattr(self, one.name)[recordings] for one in fields(self)))

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Recordings of several statistics, one after another."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))


@dataclass(frozen=True)
class Counts(_ByRecording):
    """Of each class or unit, int64 [R, L]: rows decided and labelled so, rows decided so, rows labelled so."""

    hits: np.ndarray
    decided: np.ndarray
    labelled: np.ndarray

    def parts(self, weights: np.ndarray | None = None) -> np.ndarray:
        """F1 of each label; 0 where it is undefined."""
        hits = 2 * _weighted(self.hits, weights)
        total = _weighted(self.decided + self.labelled, weights)
        return np.divide(hits, total, out=np.zeros(hits.shape), where=total > 0)

    def defined(self) -> np.ndarray:
        """bool [R, L]: labels that are in the truth or the decisions of a recording alone."""
        return np.asarray(self.decided + self.labelled > 0)

    def same_truth(self, other: Counts) -> np.ndarray:
        """bool [R]: recordings with as many labels of each kind as those of ``other``."""
        return np.asarray((self.labelled == other.labelled).all(axis=1))

    def merge(self, group: np.ndarray, num_groups: int) -> Counts:
        """Recordings added up by their ``group`` int [R]."""
        return Counts(*(_added(part, group, num_groups) for part in (self.hits, self.decided, self.labelled)))


@dataclass(frozen=True)
class Tables(_ByRecording):
    """Confusion tables int64 [R, truth, decision] of a head of classes."""

    tables: np.ndarray

    def counts(self) -> Counts:
        """What F1 takes from the tables."""
        return Counts(np.diagonal(self.tables, axis1=1, axis2=2), self.tables.sum(axis=1), self.tables.sum(axis=2))

    def parts(self, weights: np.ndarray | None = None) -> np.ndarray:
        """F1 of each class; 0 where it is undefined."""
        return self.counts().parts(weights)

    def defined(self) -> np.ndarray:
        """bool [R, L]: classes that are in the truth or the decisions of a recording alone."""
        return self.counts().defined()

    def same_truth(self, other: Tables) -> np.ndarray:
        """bool [R]: recordings with as many rows of each true class as those of ``other``."""
        return np.asarray((self.tables.sum(axis=2) == other.tables.sum(axis=2)).all(axis=1))

    def merge(self, group: np.ndarray, num_groups: int) -> Tables:
        """Recordings added up by their ``group`` int [R]."""
        return Tables(_added(self.tables, group, num_groups))


@dataclass(frozen=True)
class Moments(_ByRecording):
    """Of two series, decision x and truth y: ``rows`` int64 [R], ``means`` [R, L, 2] and ``central`` [R, L, 3].

    ``central``: sums over rows of (x - mean x)^2, (y - mean y)^2 and their product. Sums about a recording's own means
    add up without loss (Chan, Golub and LeVeque 1983), which sums of squares do not where a series hardly varies.
    """

    rows: np.ndarray
    means: np.ndarray
    central: np.ndarray

    def parts(self, weights: np.ndarray | None = None) -> np.ndarray:
        """CCC of each label; 0 where a series is constant or without rows."""
        total = max(int(self.rows.sum()), 1)
        centre = (self.rows[:, None, None] * self.means).sum(axis=0) / total
        offsets = self.means - centre
        about = self.central + self.rows[:, None, None] * _squares(offsets)
        rows = np.maximum(_weighted(self.rows[:, None], weights), 1)[..., None]
        shift = _weighted(self.rows[:, None, None] * offsets, weights) / rows
        before = _weighted(about, weights) / rows
        moments = before - _squares(shift)
        variances = np.where(moments[..., :2] > VANISHED * before[..., :2], moments[..., :2], 0.0)
        means = centre + shift
        below = variances.sum(axis=-1) + (means[..., 0] - means[..., 1]) ** 2
        return np.divide(2 * moments[..., 2], below, out=np.zeros(below.shape), where=variances.all(axis=-1))

    def defined(self) -> np.ndarray:
        """bool [R, L]: recordings with a row."""
        return np.broadcast_to(self.rows[:, None] > 0, self.means.shape[:2])

    def same_truth(self, other: Moments) -> np.ndarray:
        """bool [R]: recordings whose truth has the rows, means and variances of ``other``'s, but for rounding."""
        close = np.isclose(self.means[..., 1], other.means[..., 1], rtol=0, atol=1e-9)
        close &= np.isclose(self.central[..., 1], other.central[..., 1], rtol=1e-9, atol=1e-9)
        return np.asarray((self.rows == other.rows) & close.all(axis=1))

    def merge(self, group: np.ndarray, num_groups: int) -> Moments:
        """Recordings pooled by their ``group`` int [R]."""
        rows = _added(self.rows, group, num_groups)
        sums = _added(self.rows[:, None, None] * self.means, group, num_groups)
        means = sums / np.maximum(rows, 1)[:, None, None]
        about = self.central + self.rows[:, None, None] * _squares(self.means - means[group])
        return Moments(rows, means, _added(about, group, num_groups))


@dataclass(frozen=True)
class Histograms(_ByRecording):
    """Scores of units, int32 [R, L, BINS], of rows labelled ``active`` and of those labelled ``idle``.

    Bin k holds the scores from k / BINS on, the first all below and the last all above too: the counts of every
    threshold k / BINS are exact.
    """

    active: np.ndarray
    idle: np.ndarray

    def merge(self, group: np.ndarray, num_groups: int) -> Histograms:
        """Recordings added up by their ``group`` int [R]."""
        return Histograms(_added(self.active, group, num_groups), _added(self.idle, group, num_groups))

    def at(self, thresholds: np.ndarray) -> Counts:
        """Counts of the decisions score >= threshold / BINS, one int [L] for each unit."""
        above = np.arange(BINS) >= np.asarray(thresholds)[:, None]
        hits = (self.active * above).sum(axis=2, dtype=np.int64)
        decided = hits + (self.idle * above).sum(axis=2, dtype=np.int64)
        return Counts(hits, decided, self.active.sum(axis=2, dtype=np.int64))

    def best_thresholds(self) -> np.ndarray:
        """Threshold int [L] of each unit with the largest F1 of all recordings pooled, in units of 1 / BINS.

        From 1 to BINS - 1; of equally good ones the nearest to the middle, so that a unit that is never active keeps
        0.5.
        """
        active, idle = self.active.sum(axis=0, dtype=np.int64), self.idle.sum(axis=0, dtype=np.int64)
        hits = active[:, ::-1].cumsum(axis=1)[:, ::-1]
        decided = hits + idle[:, ::-1].cumsum(axis=1)[:, ::-1]
        total = decided + active.sum(axis=1, keepdims=True)
        f1 = np.divide(2 * hits, total, out=np.zeros(total.shape), where=total > 0)
        nearest = np.argsort(np.abs(np.arange(BINS) - MIDDLE), kind="stable")
        nearest = nearest[nearest > 0]
        return np.asarray(nearest[f1[:, nearest].argmax(axis=1)])


Statistics = Counts | Tables | Moments


def stacked(parts: Sequence[Any]) -> Any:
    """Recordings of several statistics of one kind, one after another."""
    return type(parts[0]).stack(parts)


# -- of one recording ------------------------------------------------------------------------------------------------
def usable(head: Head, labels: LabelArrays, *, element_mask: bool = False) -> np.ndarray:
    """bool [N, target_dim]: labels that count, as in ``Head.measure``: a row with any unlabelled column does not,
    unless ``element_mask`` (multi-label only)."""
    if element_mask and head.problem is Problem.MULTILABEL:
        return labels.mask
    return np.broadcast_to(labels.mask.all(axis=1, keepdims=True), labels.mask.shape)


def of_decisions(head: Head, decisions: np.ndarray, values: np.ndarray, mask: np.ndarray) -> Statistics:
    """Statistics of one recording, R = 1: decisions and labels [N, target_dim] where ``mask``, see ``usable``."""
    if head.problem is Problem.MULTILABEL:
        decided, labelled = decisions.astype(bool) & mask, values.astype(bool) & mask
        return Counts(*(part.sum(axis=0, dtype=np.int64)[None] for part in (decided & labelled, decided, labelled)))
    if not mask[:, 0].all():
        rows = np.flatnonzero(mask[:, 0])
        decisions, values = decisions[rows], values[rows]
    if head.problem is Problem.MULTICLASS:
        return Tables(metrics.confusion(decisions[:, 0], values[:, 0], head.output_dim)[None])
    return moments(decisions, values)


def moments(decisions: np.ndarray, truth: np.ndarray) -> Moments:
    """Moments of one recording's rows, both [N, L]."""
    num_rows, num_labels = decisions.shape
    both = np.stack([decisions.T, truth.T], axis=1).astype(np.float64)  # [L, 2, N]: a series lies in one piece
    if not num_rows:
        return Moments(np.zeros(1, np.int64), np.zeros((1, num_labels, 2)), np.zeros((1, num_labels, 3)))
    means = both.mean(axis=2)
    both -= means[..., None]
    products = both @ both.swapaxes(1, 2)
    central = np.stack([products[:, 0, 0], products[:, 1, 1], products[:, 0, 1]], axis=1)
    return Moments(np.array([num_rows]), means[None], central[None])


class UnitHistogram:
    """Histograms of one recording's scores under the same labels, again and again: what depends on the labels is
    worked out once."""

    def __init__(self, values: np.ndarray, mask: np.ndarray) -> None:
        num_units = values.shape[1]
        place = np.where(values > 0, num_units, 0) + np.arange(num_units)
        self._place = np.where(mask, place, 2 * num_units).astype(np.int32) * BINS  # behind the others: not counted
        self._shape = (2, 1, num_units, BINS)

    def __call__(self, scores: np.ndarray) -> Histograms:
        """Of scores float32 [N, L], R = 1."""
        bins = np.clip((scores * np.float32(BINS)).astype(np.int32), 0, BINS - 1)
        size = int(np.prod(self._shape))
        counts = np.bincount((bins + self._place).ravel(), minlength=size + BINS)[:size]
        idle, active = counts.astype(np.int32).reshape(self._shape)
        return Histograms(active, idle)


# -- resampling ------------------------------------------------------------------------------------------------------
def resamples(num_recordings: int, count: int, *, seed: int) -> np.ndarray:
    """Weights float64 [count, R] of a bootstrap over recordings: how often each is among R drawn with replacement."""
    rng = np.random.default_rng([seed, 0xB007])
    return rng.multinomial(num_recordings, np.full(num_recordings, 1 / num_recordings), size=count).astype(np.float64)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of values [B], one of each resample (Efron 1979)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weighted(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Sum over recordings of values [R, ...]; with weights [B, R] of weight times value [B, ...]."""
    if weights is None:
        return np.asarray(values.sum(axis=0))
    flat = weights @ values.reshape(len(values), -1).astype(np.float64)
    return np.asarray(flat.reshape(len(weights), *values.shape[1:]))


def _added(values: np.ndarray, group: np.ndarray, num_groups: int) -> np.ndarray:
    """Values [R, ...] added up by group [R], in the dtype of the values."""
    sums = np.zeros((num_groups, *values.shape[1:]), values.dtype)
    np.add.at(sums, group, values)
    return sums


def _squares(pairs: np.ndarray) -> np.ndarray:
    """(x, y) on the last axis -> (x^2, y^2, x y)."""
    x, y = pairs[..., 0], pairs[..., 1]
    return np.stack([x * x, y * y, x * y], axis=-1)
