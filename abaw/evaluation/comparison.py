"""Which of two sets of decisions is better, on the same rows, and whether other recordings would say so too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from abaw import pooled
from abaw.errors import AbawError
from abaw.evaluation.results import Evaluation, named_scores
from abaw.pooled import Statistics

ROUNDING = 1e-12  # of sums in another order: differences this close are equal
MAX_NAMED = 5


@dataclass(frozen=True)
class Difference:
    """A metric of both, a - b with its 95 % interval, and p; the last two None without resamples."""

    a: float
    b: float
    difference: float
    interval: tuple[float, float] | None
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """Evaluation ``a`` against ``b``, by metric."""

    a: str
    b: str
    task: str
    num_tracks: int
    num_recordings: int
    num_rows: int
    resamples: int
    seed: int
    differences: dict[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)


def compare(a: Evaluation, b: Evaluation, *, resamples: int, seed: int) -> Comparison:
    """Differences a - b of every metric over all annotated rows.

    Intervals are of a paired bootstrap: each draw of recordings is the same for both. p is of a two-sided
    randomisation test that exchanges a and b in each recording or not, at random: (1 + count) / (1 + resamples), with
    the count of exchanges whose difference is at least as large (Noreen 1989). Raises AbawError where tracks or labels
    differ.
    """
    _require_same(a, b)
    mine, others = a.by_recording(), b.by_recording()
    both = {name: pooled.stacked([own, others[name]]) for name, own in mine.items()}
    num = a.num_recordings
    first, second = a.metrics(), b.metrics()
    drawn = pooled.resamples(num, resamples, seed=seed)
    nothing = np.zeros_like(drawn)
    moved = _differences(a, both, np.hstack([drawn, nothing]), np.hstack([nothing, drawn]))
    swaps = np.random.default_rng([seed, 0x5A9]).integers(0, 2, (resamples, num)).astype(np.float64)
    chance = _differences(a, both, np.hstack([1 - swaps, swaps]), np.hstack([swaps, 1 - swaps]))
    found = {}
    for key, value in first.items():
        observed = value - second[key]
        large = int((np.abs(chance[key]) >= abs(observed) - ROUNDING).sum())
        found[key] = Difference(
            value,
            second[key],
            observed,
            pooled.interval(moved[key]) if resamples else None,
            (1 + large) / (1 + resamples) if resamples else None,
        )
    return Comparison(a.name, b.name, a.task.name, len(a.tracks), num, a.num_rows, resamples, seed, found)


def _differences(
    evaluation: Evaluation, both: dict[str, Statistics], first: np.ndarray, second: np.ndarray
) -> dict[str, np.ndarray]:
    """Difference [B] of each metric between two sets of weights [B, 2R] of the recordings of both."""
    task = evaluation.task
    a = named_scores(task, {name: own.parts(first) for name, own in both.items()})
    b = named_scores(task, {name: own.parts(second) for name, own in both.items()})
    return {key: values - b[key] for key, values in a.items()}


def _require_same(a: Evaluation, b: Evaluation) -> None:
    if a.task != b.task:
        raise AbawError(
            f"{a.name} is of task {a.task.name}, {b.name} of task {b.task.name}",
            where="--against",
            fix="compare predictions of one task; --task measures those of several tasks as one of theirs",
        )
    for own, other in ((a, b), (b, a)):
        lacking = sorted(set(own.tracks) - set(other.tracks))
        if lacking:
            raise AbawError(
                f"{own.name} and {other.name} are not measured on the same tracks: {other.name} lacks {_few(lacking)}",
                where="--against",
                fix="compare predictions of the same tracks: two of the validation split, or out-of-fold scores of two "
                "runs with the same split file",
            )
    unlike = [name for name, same in zip(a.tracks, _same_labels(a, b), strict=True) if not same]
    if unlike:
        raise AbawError(
            f"{a.name} and {b.name} are not measured on the same labels: they differ in {_few(unlike)}",
            where="--against",
            fix="make both from the same recordings: their tracks have other numbers of rows, or images of other paths",
        )


def _same_labels(a: Evaluation, b: Evaluation) -> np.ndarray:
    """bool [tracks]: whether a track's rows and sums of labels agree, of every piece."""
    same = np.zeros(len(a.tracks), bool)
    if np.array_equal(a.piece_tracks, b.piece_tracks) and np.array_equal(a.recordings, b.recordings):
        agree = a.rows.labelled == b.rows.labelled
        for name, own in a.statistics["annotated"].items():
            agree &= own.same_truth(b.statistics["annotated"][name])  # type: ignore[arg-type]
        same = np.bincount(a.piece_tracks, ~agree, len(a.tracks)) == 0
    return same


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
