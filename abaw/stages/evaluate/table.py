"""Evaluations and comparisons as text, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from abaw.data.scored_labels import SPLIT
from abaw.evaluation import Comparison, Difference, Evaluation
from abaw.postprocess import FILE_NAME
from abaw.tasks import TASKS, Head, Problem, Task

WIDTH = 100
PARTS_PER_LINE = 6
WORST = 5
SHOWN = 2  # videos named in a line
NAME_WIDTH = 40  # of a video; longer ones are cut in the middle
FEW_RECORDINGS = 30  # below, percentile intervals are clearly too narrow (docs/evaluation.md)
POLICIES = {
    "hold": "repeat the last score before them",
    "nearest": "repeat the nearest score",
    "linear": "lie between the scores on both sides",
}


def table(result: Evaluation, data: Mapping[str, Any]) -> str:
    """The official score, what it rests on, its parts, confusions, and the worst videos; ``data`` is its `to_dict`."""
    kind = "tracks" if result.about == f"{SPLIT} tracks" else result.about
    lines = [
        f"{result.name}: {describe(result.task)} {_score(data, 'score', digits=4)}",
        f"  {len(result.tracks)} {kind}, {result.num_rows} labelled rows, {result.coverage:.1%} with data of their own",
    ]
    if result.post is not None:
        lines.append(f"  after {FILE_NAME}, fitted on {result.post}; --raw leaves it aside")
    lines += [*_face_lines(result, data), *_gap_lines(result), *_interval_lines(result, data)]
    for head in result.task.heads:
        lines += _part_lines(result.task, head, data)
    for head in result.task.heads:
        if head.problem is Problem.MULTICLASS:
            lines += _confusion_lines(head, result.confusion(head.name).tolist())
    return "\n".join([*lines, *_worst_lines(result.task, data["by_track"])])


def describe(task: Task) -> str:
    """Name of the official score, e.g. "mean F1 of 12 units"."""
    return "sum of the heads' scores" if len(task.heads) > 1 else _describe_head(task.heads[0])


def _describe_head(head: Head) -> str:
    if head.problem is Problem.REGRESSION:
        return "mean CCC"
    return f"mean F1 over {head.output_dim} {'units' if head.problem is Problem.MULTILABEL else 'classes'}"


def _score(data: Mapping[str, Any], key: str, *, digits: int) -> str:
    """A metric, with its interval where there is one."""
    value = f"{data['metrics'][key]:.{digits}f}"
    return f"{value} {_interval(data['intervals'][key])}" if key in data["intervals"] else value


def _interval(bounds: Sequence[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _face_lines(result: Evaluation, data: Mapping[str, Any]) -> list[str]:
    own = data["countings"]["with_face"]
    if own["num_rows"] == result.num_rows:
        return [f"  all of them with a face, by {result.faces_from}"]
    if not own["num_rows"]:
        return [f"  none of them with a face, by {result.faces_from}"]
    return [
        f"  only rows with a face: {_score(own, 'score', digits=4)} of {own['num_rows']} rows, by {result.faces_from}"
    ]


def _gap_lines(result: Evaluation) -> list[str]:
    filled = sorted(result.filled_by_track().items(), key=lambda item: -item[1])
    if not filled:
        return []
    shown = ", ".join(f"{_cut(name)} {count}" for name, count in filled[:SHOWN])
    how = POLICIES.get(result.gap, result.gap)
    lines = [
        f"  {result.num_filled} rows without a score {how} ({result.gap}), in {len(filled)} tracks",
        f"    {'most: ' if len(filled) > SHOWN else ''}{shown}",
    ]
    if result.hollow:
        named = ", ".join(_cut(name) for name in result.hollow[:SHOWN])
        lines += [
            f"  {len(result.hollow)} tracks without any score got value 0, the first class, no unit",
            f"    {named}{', ...' if len(result.hollow) > SHOWN else ''}",
        ]
    return lines


def _interval_lines(result: Evaluation, data: Mapping[str, Any]) -> list[str]:
    if not data["resamples"]:
        return []
    count = result.num_recordings
    if count < 2:
        return ["  no intervals: all rows are of one recording"]
    few = ", which are few: take them as rough" if count < FEW_RECORDINGS else ""
    return [f"  95 % intervals by {data['resamples']} draws of {count} recordings{few}"]


def _part_lines(task: Task, head: Head, data: Mapping[str, Any]) -> list[str]:
    """Each label's metric, a few to a line; of several heads each under its own score."""
    key = f"{head.name}.{head.metric}"
    shown = [f"{label} {_score(data, f'{key}.{label}', digits=3)}" for label in head.labels]
    width = max(map(len, shown))
    per_line = max(1, min(PARTS_PER_LINE, WIDTH // (width + 2)))
    lines = [
        "  " + "  ".join(f"{text:<{width}}" for text in shown[start : start + per_line]).rstrip()
        for start in range(0, len(shown), per_line)
    ]
    if len(task.heads) > 1:
        lines.insert(0, f"  {head.name}: {_describe_head(head)} {_score(data, key, digits=4)}")
    return lines


def _confusion_lines(head: Head, counts: Sequence[Sequence[int]]) -> list[str]:
    """Rows by true class and by decision."""
    longest = max(len(str(count)) for row in counts for count in row)
    width = max(9, longest) if head.output_dim < 8 else max(8, longest)
    first = max(len(label) for label in head.labels)
    cells = [[label[:width] for label in head.labels], *[[str(count) for count in row] for row in counts]]
    names = ["", *head.labels]
    lines = [
        f"    {name:<{first}} " + " ".join(f"{cell:>{width}}" for cell in row)
        for name, row in zip(names, cells, strict=True)
    ]
    return [f"  {head.name}: rows by true class (down) and decision (across)", *lines]


def _worst_lines(task: Task, tracks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The videos with the smallest score."""
    scored = sorted((one for one in tracks if one["score"] is not None), key=lambda one: one["score"])
    if len(scored) < 2:
        return []
    shown = scored[:WORST]
    keys = _columns(task)
    titles = ["score", *(key.rpartition(".")[2] if key.count(".") > 1 else key for key in keys), "rows", "filled"]
    cells = [
        [*(_number(one[key]) for key in ("score", *keys)), str(one["labelled"]), str(one["filled"])] for one in shown
    ]
    width = max(len(cell) for row in [titles, *cells] for cell in row)
    first = max(len(_cut(one["track"])) for one in shown)
    names = ["", *(_cut(one["track"]) for one in shown)]
    lines = [
        f"    {name:<{first}} " + " ".join(f"{cell:>{width}}" for cell in row)
        for name, row in zip(names, [titles, *cells], strict=True)
    ]
    return [f"  worst of {len(scored)} tracks", *(line.rstrip() for line in lines)]


def _columns(task: Task) -> list[str]:
    """Metrics worth a column beside a video's score: heads of several, or both values of one."""
    if len(task.heads) > 1:
        return [f"{head.name}.{head.metric}" for head in task.heads]
    head = task.heads[0]
    return [f"{head.name}.ccc.{label}" for label in head.labels] if head.problem is Problem.REGRESSION else []


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cut(name: str) -> str:
    half = NAME_WIDTH // 2
    return name if len(name) <= NAME_WIDTH else f"{name[: half - 2]}...{name[1 - half :]}"


# -- comparisons -----------------------------------------------------------------------------------------------------
def comparison_table(result: Comparison) -> str:
    """Difference of the official score, then of every metric."""
    task, total = TASKS[result.task], result.differences["score"]
    lines = [
        f"A = {result.a}",
        f"B = {result.b}",
        f"  {describe(task)} A - B: {_difference(total)}",
        f"  the same {result.num_rows} rows of {result.num_tracks} tracks",
    ]
    if result.resamples:
        lines.append(
            f"  95 % intervals by {result.resamples} draws of {result.num_recordings} recordings, the same for both; p "
            "by exchanging both\n  recording by recording"
        )
    keys = [key for key in result.differences if key != "score" and (len(task.heads) > 1 or key.count(".") > 1)]
    names = [key if key.count(".") < 2 else key.rpartition(".")[2] for key in keys]
    width = max(map(len, names))
    titles = f"    {'':<{width}} {'A':>8} {'B':>8} {'A - B':>8}"
    lines.append(titles if total.interval is None else f"{titles}  {'95 %':<17} {'p':>6}")
    for name, key in zip(names, keys, strict=True):
        one = result.differences[key]
        row = f"    {name:<{width}} {one.a:8.3f} {one.b:8.3f} {one.difference:+8.3f}"
        if one.interval is not None:
            row += f"  {_signed(one.interval):<17} {one.p:6.3f}"
        lines.append(row)
    return "\n".join(lines)


def _difference(one: Difference) -> str:
    text = f"{one.difference:+.4f}"
    return text if one.interval is None else f"{text} {_signed(one.interval)}, p = {one.p:.3f}"


def _signed(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
