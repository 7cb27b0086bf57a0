"""The sections of single videos: the worst ones in a table, and timelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from abaw.data.label_sources import LabelSource
from abaw.data.scored_labels import SPLIT
from abaw.errors import AbawError
from abaw.scored import Predictions
from abaw.stages.report import faces, numbers, timelines
from abaw.stages.report.page import Html, code, folded, join, paragraph, table, tag
from abaw.stages.report.scores import Measured
from abaw.store import FeatureStore
from abaw.tasks import Problem, Task

WORST = 10
NAMED_STRETCHES = 5
SCORELESS, FACELESS = "Without a score of its own", "Without a face"


_KEY = paragraph(
    "Rows: annotated frames; Face: those with a face; Filled: those without a score of their own. A dash: undefined, "
    "since neither labels nor decisions have such a class or unit.",
    class_="dim",
)


@dataclass(frozen=True)
class Material:
    """Where the rows of a video come from; ``crops`` shown of each from ``faces``, 0 = none."""

    predictions: Predictions
    source: LabelSource
    gap: str
    faces: FeatureStore | None = None
    crops: int = 0


def worst_table(measured: Measured, drawn: Sequence[str]) -> Html:
    """The worst videos, leading to their timelines where they are drawn, and all of them folded."""
    task, entries = measured.task, measured.tracks
    anchors = {track_id: f"video-{place}" for place, track_id in enumerate(drawn, start=1)}
    columns = _columns(task)
    head = ["Video", *(title for title, _ in columns), "Rows", "Face", "Filled"]

    def rows(chosen: Sequence[Mapping]) -> list[list[object]]:
        return [
            [
                _linked(entry["track"], anchors),
                *(numbers.score(entry[key]) for _, key in columns),
                *(numbers.count(entry[key]) for key in ("labelled", "with_face", "filled")),
            ]
            for entry in chosen
        ]

    if len(entries) <= WORST:
        return join([table("All videos, the worst first", head, rows(entries)), _KEY])
    worst = table(f"The {WORST} worst videos by the official score", head, rows(entries[:WORST]))
    every = table("All videos, the worst first", head, rows(entries))
    return join([worst, _KEY, folded(f"All {len(entries)} videos", every)])


def _columns(task: Task) -> list[tuple[str, str]]:
    """Title and metric of the columns: the score, of several heads each, of values each of them."""
    found = [("Score", "score")]
    for head in task.heads:
        if len(task.heads) > 1:
            found.append((f"{head.name} {head.metric.upper()}", f"{head.name}.{head.metric}"))
        elif head.problem is Problem.REGRESSION:
            found += [(f"CCC {label}", f"{head.name}.{head.metric}.{label}") for label in head.labels]
    return found


def _linked(track_id: str, anchors: Mapping[str, str]) -> Html:
    name = code(track_id)
    return tag("a", name, href=f"#{anchors[track_id]}") if track_id in anchors else name


def shown(material: Material, entry: Mapping, place: int) -> Html:
    """One video: its numbers, its faces where they are asked for, and a timeline for each head with labels."""
    track_id = entry["track"]
    num_rows = _num_rows(material, track_id)
    parts: list[object] = [tag("h3", code(track_id), id=f"video-{place}")]
    if not num_rows:
        return tag("article", *parts, paragraph("This video has no rows."), class_="video")
    view = _view(material, track_id, num_rows)
    parts.append(_summary(entry, view))
    if material.crops:
        parts.append(faces.crops(material.faces, track_id, material.crops, view.fps))
    for part in view.views:
        if part.unlabelled.all():
            parts.append(paragraph(f"No row of this video is annotated for {part.head.name}.", class_="dim"))
        else:
            parts.append(timelines.drawn(view, part, entry, name=track_id))
    return tag("article", *parts, class_="video", aria_labelledby=f"video-{place}")


def _num_rows(material: Material, track_id: str) -> int:
    """Rows that a video is measured on: all with scores or labels."""
    own = material.predictions.num_rows(track_id)
    return max(own, material.source.count(track_id)) if own else 0


def _view(material: Material, track_id: str, num_rows: int) -> timelines.TrackView:
    predictions = material.predictions
    decided = predictions.decide(track_id, gap=material.gap, num_rows=num_rows)
    labels = material.source.labels(track_id, num_rows, SPLIT)
    views = [
        timelines.head_view(head, decided.decisions[head.name], labels[head.name].values, labels[head.name].mask)
        for head in predictions.task.heads
    ]
    faceless = _faceless(material.faces, track_id, num_rows)
    return timelines.TrackView(views, ~decided.valid, faceless, _fps(predictions, track_id))


def _faceless(store: FeatureStore | None, track_id: str, num_rows: int) -> np.ndarray:
    """bool [num_rows]: rows that have no face, as far as the faces store knows the track."""
    found = np.zeros(num_rows, bool)
    if store is not None and track_id in store:
        valid = store.valid(track_id)[:num_rows]
        found[: len(valid)] = ~valid
    return found


def _fps(predictions: Predictions, track_id: str) -> float:
    """Nominal frames per second; 1 where none is recorded, so that seconds are frames."""
    try:
        fps = predictions.store.fps(track_id)
    except AbawError:
        return 1.0
    return fps if np.isfinite(fps) and fps > 0 else 1.0


def _summary(entry: Mapping, view: timelines.TrackView) -> Html:
    """Score, rows and the longest stretches without a score of their own."""
    total = len(view.missing)
    words = f"Score {numbers.score(entry['score'])}. {numbers.plural(total, 'frame')} "
    words += f"({numbers.clock(total / view.fps)} at {view.fps:g} frames per second), "
    words += f"{numbers.count(entry['labelled'])} of them annotated, {numbers.count(entry['filled'])} of those filled."
    lacking = ((view.missing, SCORELESS), (view.faceless & ~view.missing, FACELESS))
    return paragraph(words, *(_stretches(flags, what, view.fps) for flags, what in lacking))


def _stretches(flags: np.ndarray, what: str, fps: float) -> str:
    """Where rows bool [T] are, the longest stretches by name; nothing where there are none."""
    found = timelines.stretches(flags)
    if not len(found):
        return ""
    longest = found[np.argsort(found[:, 0] - found[:, 1], kind="stable")[:NAMED_STRETCHES]]
    spans = ((begin / fps, end / fps, end - begin) for begin, end in longest.tolist())
    told = "; ".join(f"{numbers.clock(a)} to {numbers.clock(b)} ({numbers.plural(n, 'frame')})" for a, b, n in spans)
    of_all = f" ({len(found)} stretches, the longest named)" if len(found) > NAMED_STRETCHES else ""
    return f" {what}{of_all}: {told}."
