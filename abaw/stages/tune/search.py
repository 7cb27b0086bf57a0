"""The search: every setting's statistics by recording, the best one, and what choosing it gains on other recordings.

A setting is chosen on all folds but one and measured on that one, for every fold (nested folds), so that the gain is
not that of the choice's own recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

import numpy as np

from abaw.config import TuneConfig
from abaw.console import progress
from abaw.executors import TrackResult, iter_units
from abaw.pooled import (
    BINS,
    MIDDLE,
    Counts,
    Histograms,
    Moments,
    Tables,
    UnitHistogram,
    interval,
    of_decisions,
    resamples,
    usable,
)
from abaw.postprocess import Post, smooth
from abaw.stages.tune.recordings import Recording
from abaw.tasks import Head, Problem

CLIPS = (1.0, 0.9, 0.8, 0.7)  # bounds of values that are tried, on both sides of 0
NO_FILTER = ("box", 0)
WORTH = 50_000_000  # filtered values, about two seconds, from which on processes are worth their start

Statistics = Counts | Moments | Histograms


@dataclass(frozen=True)
class Setting:
    """Post-processing of one head. ``thresholds``: int [L] in units of 1 / BINS, chosen with the setting."""

    filter: str
    half_width: int
    min_run: int = 0
    clip: float = 1.0
    thresholds: tuple[int, ...] = ()

    def post(self, head: str) -> Post:
        """The same as post.json has it."""
        tables = {
            "half_width": {head: self.half_width} if self.half_width else {},
            "filter": {head: self.filter} if self.half_width else {},
            "min_run": {head: self.min_run} if self.min_run else {},
            "thresholds": {head: [k / BINS for k in self.thresholds]} if self.thresholds else {},
        }
        return Post(clip=(-self.clip, self.clip), **tables)  # type: ignore[arg-type]


# Filter and half-width, and the settings that share them.
Plan = Sequence[tuple[tuple[str, int], Sequence[tuple[Setting, Post]]]]


@dataclass(frozen=True)
class Tuned:
    """What was found for a head: the best setting on all recordings, its ``fitted`` score there, and the honest ones.

    ``raw`` and ``tuned`` are scores without post-processing and with that of nested folds; ``gain`` is their
    difference, ``interval`` 95 % of it over resampled recordings. ``folds``: the setting that each fold chose.
    """

    head: str
    setting: Setting
    fitted: float
    raw: float
    tuned: float
    interval: tuple[float, float]
    folds: tuple[Setting, ...]

    @property
    def gain(self) -> float:
        """Of the tuned over the raw score, on recordings that the setting was not chosen on."""
        return self.tuned - self.raw


def settings_of(head: Head, tune: TuneConfig) -> list[Setting]:
    """What is tried, the raw scores first. Those that share a filter stand together."""
    filters = [NO_FILTER, *product(tune.filters, sorted(set(tune.half_widths)))]
    runs = [0, *sorted(set(tune.min_runs))] if head.problem is Problem.MULTICLASS else [0]
    clips = CLIPS if head.problem is Problem.REGRESSION else CLIPS[:1]
    return [Setting(*one, run, clip) for one in filters for run, clip in product(runs, clips)]


def tune_head(
    head: Head,
    recordings: Sequence[Recording],
    tune: TuneConfig,
    fold_of: np.ndarray,
    *,
    seed: int,
    element_mask: bool = False,
    workers: int = 1,
) -> Tuned:
    """Search one head's settings; ``fold_of`` int [R] says which nested fold each recording belongs to."""
    settings = settings_of(head, tune)
    found = statistics(head, recordings, settings, element_mask=element_mask, workers=workers)
    raw = _decided(found[0], (MIDDLE,) * head.output_dim)
    num_folds = int(fold_of.max()) + 1
    by_fold = [one.merge(fold_of, num_folds) for one in found]
    chosen, parts = [], []
    for fold in range(num_folds):
        best, _ = _best(settings, [one.take(np.arange(num_folds) != fold) for one in by_fold])
        chosen.append(best[1])
        parts.append(_decided(found[best[0]].take(fold_of == fold), best[1].thresholds))
    order = np.argsort(fold_of, kind="stable")  # as the parts lie one behind another
    tuned, raw = type(parts[0]).stack(parts), raw.take(order)  # type: ignore[arg-type]
    weights = resamples(len(recordings), tune.resamples, seed=seed)
    gains = (tuned.parts(weights) - raw.parts(weights)).mean(axis=1)
    final, fitted = _best(settings, by_fold)
    scores = float(raw.parts().mean()), float(tuned.parts().mean())
    return Tuned(head.name, final[1], fitted, *scores, interval(gains), tuple(chosen))


def statistics(
    head: Head,
    recordings: Sequence[Recording],
    settings: Sequence[Setting],
    *,
    element_mask: bool = False,
    workers: int = 1,
) -> list[Statistics]:
    """Statistics of each setting by recording; thresholds are left open.

    In several processes, not threads: scipy's filters hold the interpreter's lock.
    """
    shared = groupby(settings, key=lambda setting: (setting.filter, setting.half_width))
    plan = [(one, [(setting, setting.post(head.name)) for setting in own]) for one, own in shared]
    work = _Work(head, plan, element_mask)
    values = sum(block.size for recording in recordings for block in recording.scores[head.name])
    found = iter_units(
        [[one] for one in recordings], work, workers=workers if values * len(plan) > WORTH else 1, strict=True
    )
    shown = progress(found, total=len(recordings), desc=f"tune {head.name}", unit="recording")
    by_name = {result.track_id: result.info["statistics"] for result in shown}
    rows = [by_name[recording.name] for recording in recordings]
    return [type(own[0]).stack(own) for own in zip(*rows, strict=True)]


@dataclass(frozen=True)
class _Work:
    """What a process does with its recordings."""

    head: Head
    plan: Plan
    element_mask: bool

    def __call__(self, unit: Sequence[Recording]) -> Iterator[TrackResult]:
        for recording in unit:
            own = list(_of_recording(self.head, recording, self.plan, element_mask=self.element_mask))
            yield TrackResult(recording.name, "done", info={"statistics": own})


def _of_recording(head: Head, recording: Recording, plan: Plan, *, element_mask: bool) -> Iterator[Statistics]:
    """Statistics of each setting for one recording, R = 1. Filters see one track at a time."""
    scores, labels = recording.scores[head.name], recording.labels[head.name]
    mask = usable(head, labels, element_mask=element_mask)
    histogram = UnitHistogram(labels.values, mask)
    for (kind, half_width), settings in plan:
        smoothed = [smooth(block, half_width, kind) for block in scores]
        if head.problem is Problem.MULTILABEL:
            yield histogram(np.concatenate(smoothed))
            continue
        largest = max((float(np.abs(block).max(initial=0)) for block in smoothed), default=0.0)
        found: Statistics | None = None
        for setting, post in settings:
            clips_nothing = head.problem is Problem.REGRESSION and setting.clip >= largest
            if found is None or not clips_nothing:  # else the same decisions as with the wider bounds before
                decisions = np.concatenate([head.settle(block, post) for block in smoothed])
                one = of_decisions(head, decisions, labels.values, mask)
                found = one.counts() if isinstance(one, Tables) else one
            yield found


def _decided(one: Statistics, thresholds: Sequence[int]) -> Counts | Moments:
    """Statistics of decisions; of scores those at the thresholds."""
    return one.at(np.asarray(thresholds)) if isinstance(one, Histograms) else one


def _best(settings: Sequence[Setting], found: Sequence[Statistics]) -> tuple[tuple[int, Setting], float]:
    """Index and setting, with thresholds, of the largest score, and the score; the first of equals: the rawest."""
    best, top = (0, settings[0]), -np.inf
    for index, (setting, one) in enumerate(zip(settings, found, strict=True)):
        fitted = tuple(one.best_thresholds().tolist()) if isinstance(one, Histograms) else ()
        score = float(_decided(one, fitted).parts().mean())
        if score > top:
            best, top = (index, replace(setting, thresholds=fitted)), score
    return best, top
