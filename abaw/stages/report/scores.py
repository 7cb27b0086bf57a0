"""The sections of numbers: the official score, all metrics in both countings, bars, confusion tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from abaw.evaluation import COUNTINGS, Evaluation
from abaw.stages.report import numbers, plots
from abaw.stages.report.page import Html, bullets, figure, folded, join, table, tag
from abaw.tasks import Head, Problem, Task

OFFICIAL, WITH_FACE = COUNTINGS
MAX_NAMED = 8
GAPS = {
    "hold": "with the last score before them",
    "nearest": "with the nearest score",
    "linear": "between the scores around them",
}
NOUNS = {Problem.MULTILABEL: "unit", Problem.MULTICLASS: "class", Problem.REGRESSION: "dimension"}
Intervals = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Measured:
    """An evaluation with its metrics and intervals by counting, each worked out once."""

    evaluation: Evaluation
    metrics: dict[str, dict[str, float]]
    intervals: dict[str, Intervals]
    tracks: list[dict]
    resamples: int

    @classmethod
    def of(cls, evaluation: Evaluation, *, resamples: int, seed: int) -> Measured:
        """Metrics, intervals of so many resamples, and the tracks, the worst first."""
        return cls(
            evaluation,
            {counting: evaluation.metrics(counting) for counting in COUNTINGS},
            {counting: evaluation.intervals(resamples, seed, counting) for counting in COUNTINGS},
            sorted(evaluation.by_track(), key=_badness),
            resamples,
        )

    @property
    def task(self) -> Task:
        return self.evaluation.task


def _badness(entry: Mapping) -> tuple[bool, float, str]:
    """Sorts the worst track first, those without a score last."""
    return entry["score"] is None, entry["score"] or 0.0, entry["track"]


def official_name(task: Task) -> str:
    """What the official score is, in words."""
    if len(task.heads) > 1:
        return "sum of the heads' scores"
    return _head_name(task.heads[0])


def _head_name(head: Head) -> str:
    if head.problem is Problem.REGRESSION:
        return "mean CCC"
    return f"mean F1 over {head.output_dim} {'units' if head.problem is Problem.MULTILABEL else 'classes'}"


# -- at the top ------------------------------------------------------------------------------------------------------
def at_a_glance(measured: Measured) -> Html:
    """The official score, the other counting, and what they rest on."""
    found = measured.evaluation
    tiles = []
    for counting, words in ((OFFICIAL, "all annotated rows (official)"), (WITH_FACE, "rows with a face")):
        bounds = measured.intervals[counting].get("score")
        about = f"95 % interval {numbers.interval(bounds)}" if bounds else "no interval"
        value = numbers.score(measured.metrics[counting]["score"])
        name = f"{official_name(measured.task)}, {words}"
        tiles.append(tag("li", tag("span", name), tag("b", value), tag("span", about)))
    rows = f"{numbers.count(found.num_rows)} labelled rows, {found.about}"
    tiles.append(tag("li", tag("span", "videos"), tag("b", numbers.count(len(found.tracks))), tag("span", rows)))
    own = f"of the labelled rows; {numbers.count(found.num_filled)} are filled ({found.gap})"
    covered = numbers.share(found.num_rows - found.num_filled, found.num_rows)
    tiles.append(tag("li", tag("span", "rows with a score of their own"), tag("b", covered), tag("span", own)))
    return tag("ul", *tiles, class_="score")


def remarks(measured: Measured) -> list[str]:
    """What a reader must know of these numbers."""
    found = measured.evaluation
    notes = []
    if "not out-of-fold" in found.about:
        notes.append("These scores are not out-of-fold: a model behind them may have seen the labels of these videos.")
    if found.post:
        treated = "; ".join(f"{name}: {words}" for name, words in found.treatment.items())
        notes.append(f"Decisions are post-processed ({treated}), as chosen on {found.post}.")
    if found.hollow:
        named = ", ".join(found.hollow[:MAX_NAMED]) + (" and others" if len(found.hollow) > MAX_NAMED else "")
        count = numbers.plural(len(found.hollow), "video")
        notes.append(f"{count} without any score, taken as value 0, the first class and no unit: {named}.")
    return notes + found.notes


# -- sections --------------------------------------------------------------------------------------------------------
def metrics_table(measured: Measured) -> Html:
    """Every metric with its interval, in both countings."""
    task = measured.task
    single = f"{task.heads[0].name}.{task.heads[0].metric}" if len(task.heads) == 1 else ""  # it is the score
    rows = []
    for name in measured.metrics[OFFICIAL]:
        if name == single:
            continue
        cells: list[object] = [_words(name, task)]
        for counting in COUNTINGS:
            bounds = measured.intervals[counting].get(name)
            within = tag("span", f" {numbers.interval(bounds)}", class_="within") if bounds else ""
            cells.append(join([numbers.score(measured.metrics[counting][name]), within]))
        rows.append(cells)
    caption = "Metrics in both countings" + (", with 95 % intervals" if measured.intervals[OFFICIAL] else "")
    return join([table(caption, ["Metric", "All annotated rows", "Rows with a face"], rows), _explained(measured)])


def _words(key: str, task: Task) -> Html:
    if key == "score":
        return tag("strong", f"Official: {official_name(task)}")
    head, _, rest = key.partition(".")
    metric, _, label = rest.partition(".")
    if label:
        return tag("span", f"{metric.upper()} {label.replace('_', ' ')}")
    return tag("strong", _head_name(task.head(head)))


def _explained(measured: Measured) -> Html:
    found = measured.evaluation
    faces = f"Rows with a face are told by {found.faces_from}; {numbers.count(int(found.rows.with_face.sum()))} of "
    faces += f"{numbers.count(found.num_rows)} labelled rows have one."
    if measured.intervals[OFFICIAL]:
        drawn = (
            f"Intervals come from {numbers.count(measured.resamples)} bootstrap draws of whole recordings "
            f"({found.num_recordings}), since neighbouring frames are near-duplicates. They tell what other videos of "
            "this kind would change, not what another training would."
        )
    elif found.num_recordings < 2:
        drawn = "There is no interval: all rows are of one recording."
    else:
        drawn = "Intervals were not asked for (evaluate.resamples = 0)."
    how = GAPS.get(found.gap, found.gap)
    command = tag("code", "abaw submit")
    gap = join(["Rows without a score of their own are filled as ", command, f" would write them: {how}."])
    return bullets([faces, drawn, gap])


def label_bars(measured: Measured, head: Head) -> Html:
    """The metric of each class or unit with its interval."""
    metric, noun = head.metric.upper(), NOUNS[head.problem]
    keys = [f"{head.name}.{head.metric}.{label}" for label in head.labels]
    values = [measured.metrics[OFFICIAL][key] for key in keys]
    intervals = measured.intervals[OFFICIAL]
    bounds = [intervals[key] for key in keys] if intervals else None
    wide, narrow = plots.bars(head.labels, values, bounds, metric=metric)
    rows = [
        [label.replace("_", " "), numbers.score(value), numbers.interval(intervals.get(key))]
        for label, value, key in zip(head.labels, values, keys, strict=True)
    ]
    data = table(f"{metric} of each {noun}", [noun.capitalize(), metric, "95 % interval"], rows)
    caption = f"{metric} of each {noun}, all annotated rows" + (", with 95 % intervals." if bounds else ".")
    alt = f"Bars: {metric} of each {noun}; the same numbers are in the table below."
    return figure(wide, narrow, alt=alt, caption=caption, data=folded("Numbers of this figure", data))


def confusion(measured: Measured, head: Head) -> Html:
    """How often each class was decided as which."""
    counts = measured.evaluation.confusion(head.name)
    wide, narrow = plots.confusion(head.labels, counts)
    names = [label.replace("_", " ") for label in head.labels]
    rows = [[name, *(numbers.count(int(n)) for n in row)] for name, row in zip(names, counts, strict=True)]
    data = table("Rows by truth (down) and decision (across)", ["Truth", *names], rows)
    empty = [name for name, total in zip(names, np.asarray(counts).sum(axis=1), strict=True) if not total]
    caption = "Percent of the rows of each true class (line) that were decided as which class (column)."
    if empty:
        caption += f" Not in the labels: {', '.join(empty)}."
    alt = f"Confusion matrix of {len(names)} classes; the counts are in the table below."
    return figure(wide, narrow, alt=alt, caption=caption, data=folded("Numbers of this figure", data))


def details(measured: Measured) -> Html:
    """Bars of each head, and the confusion table of heads of classes."""
    parts: list[object] = []
    for head in measured.task.heads:
        if len(measured.task.heads) > 1:
            parts.append(tag("h3", f"Head {head.name}"))
        tables = [confusion(measured, head)] if head.problem is Problem.MULTICLASS else []
        parts.append(tag("div", label_bars(measured, head), *tables, class_="pair"))
    return join(parts)
