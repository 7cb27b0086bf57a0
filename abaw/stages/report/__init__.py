"""`abaw report`: one page with the results of a run and how it was made, complete in one file.

The page loads nothing, runs no script and opens from disk. Memory: one video at a time, and the page itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abaw import __version__, console
from abaw.config import Config
from abaw.console import Summary
from abaw.data.label_folders import folder_labels
from abaw.data.label_sources import LabelSource
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import is_measurable, predictions_labels
from abaw.evaluation import evaluate_tracks
from abaw.publish import publish_text
from abaw.scored import Predictions
from abaw.stages.report import faces, numbers, run_card, training, videos
from abaw.stages.report.page import Html, bullets, code, document, join, paragraph, section, tag
from abaw.stages.report.scores import Measured, at_a_glance, details, metrics_table, official_name, remarks
from abaw.stages.report.subject import Subject, find
from abaw.store import FeatureStore
from abaw.tasks import Task


@dataclass
class _Report:
    """What a page is made of: sections in order as (anchor, title, content), and what is missing, in words."""

    subject: Subject
    predictions: Predictions | None
    measured: Measured | None = None
    missing: list[str] = field(default_factory=list)
    sections: list[tuple[str, str, Html]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the page: that of the scores, with the task where it is another than theirs."""
        if self.predictions is None:
            return self.subject.name
        own, task = Predictions(self.predictions.path, raw=True).task.name, self.predictions.task.name
        return self.subject.name if own == task else f"{self.subject.name}-{task}"


def run(
    cfg: Config,
    run: str,
    *,
    out: Path | None = None,
    with_faces: bool = False,
    task: str | None = None,
    labels: Path | None = None,
    raw: bool = False,
) -> Summary:
    """Write the page of a run, a fold, or a predictions store.

    ``out``: the file, by default reports/<predictions>.html; ``with_faces`` shows face crops; ``task``, ``labels`` and
    ``raw`` as `evaluate` takes them. What is not on this machine is left out of the page, which says so. Raises
    AbawError where nothing of that name is there, and where scores and labels do not belong together.
    """
    subject = find(cfg, run)
    predictions = Predictions(subject.store, raw=raw) if subject.store else None
    if predictions is not None and task:
        predictions = predictions.for_task(task)
    report = _Report(subject, predictions, missing=list(subject.missing))
    if predictions is not None:
        _measure(cfg, report, predictions, labels, with_faces=with_faces)
    if subject.runs:
        report.sections.append(("training", "Training", training.shown(subject.runs)))
    report.sections.append(("card", "Run card", run_card.card(cfg, predictions, subject.runs)))
    page = _page(report, with_faces=with_faces)
    path = out or (cfg.report.output or cfg.run.output / "reports") / f"{report.name}.html"
    publish_text(path, page)
    return _summary(report, path, len(page.encode()))


# -- measuring -------------------------------------------------------------------------------------------------------
def _faces(cfg: Config, task: Task) -> FeatureStore | None:
    path = cfg.finetune_for(task.name).faces or cfg.faces_store
    return FeatureStore.open(path, kind="faces") if (path / "store.json").is_file() else None


def _measure(cfg: Config, report: _Report, scored: Predictions, labels: Path | None, *, with_faces: bool) -> None:
    """Add the sections of numbers where there are labels to hold the scores against; else say what is missing."""
    if not is_measurable(scored):
        words = f"{scored.name} holds no labelled video that the models behind it have not seen: nothing is measured."
        joined = scored.path.with_name(f"{scored.name}-folds")
        if (joined / "store.json").is_file():
            words += f" The scores of its folds are in the report of {joined.name}."
        report.missing.append(words)
        return
    if labels is None and scored.task.name not in cfg.data.annotations:
        report.missing.append(
            f"The configuration names no labels of task {scored.task.name} (data.annotations), and none were given "
            "with --labels: nothing is measured."
        )
        return
    source, store = _labels(cfg, scored, labels), _faces(cfg, scored.task)
    found = evaluate_tracks(cfg, scored, source, faces=store)
    report.measured = Measured.of(found, resamples=cfg.evaluate.resamples, seed=cfg.run.seed)
    report.sections += [
        ("metrics", "Metrics", metrics_table(report.measured)),
        ("labels", "By label", details(report.measured)),
    ]
    crops = cfg.report.face_crops if with_faces else 0
    material = videos.Material(scored, source, found.gap, store, crops)
    report.sections += _videos(report.measured, material, most=cfg.report.videos)


def _labels(cfg: Config, scored: Predictions, path: Path | None) -> LabelSource:
    data = cfg.data
    if path is not None and data.kind != "images":
        return folder_labels(path, scored.task, tolerance=data.max_row_difference)
    if path is not None:  # the rows are found by the keys in the faces store
        annotations = {**data.annotations, scored.task.name: path}
        cfg = cfg.model_copy(update={"data": data.model_copy(update={"annotations": annotations})})
    return predictions_labels(cfg, scored, Manifest.from_config(cfg.data, need_media=False))


# -- the page --------------------------------------------------------------------------------------------------------
def _videos(measured: Measured, material: videos.Material, *, most: int) -> list[tuple[str, str, Html]]:
    """Sections of the videos: all of them in a table, and timelines of the ``most`` worst, 0 = of all."""
    if not material.source.by_track:
        words = "The rows are single images in no order of time, so that there are no timelines."
        return [("videos", "Videos", join([videos.worst_table(measured, []), paragraph(words)]))]
    chosen = measured.tracks[: most or None]
    table = videos.worst_table(measured, [entry["track"] for entry in chosen])
    left = len(measured.tracks) - len(chosen)
    words = f"The {numbers.plural(len(chosen), 'video')} with the lowest score" if left else "All videos"
    more = f"; {left} more are drawn with report.videos = 0" if left else ""
    parts = [paragraph(f"{words}, the worst first{more}.")]
    numbered = list(enumerate(chosen, start=1))
    for place, entry in console.progress(numbered, desc="timelines", unit="video"):
        parts.append(videos.shown(material, entry, place))
    return [("videos", "Worst videos", table), ("timelines", "Timelines", join(parts))]


def _page(report: _Report, *, with_faces: bool) -> Html:
    """The document around the sections."""
    measured, subject = report.measured, report.subject
    task = report.predictions.task.name if report.predictions else None
    lead: list[object] = []
    if with_faces:
        lead.append(_notice([faces.NOTICE]))
    if report.missing:
        lead.append(_notice(report.missing))
    if measured is not None:
        lead.append(at_a_glance(measured))
        noted = remarks(measured)
        lead += [_notice(noted)] if noted else []
    about = f"abaw report, task {task}" if task else "abaw report"
    header = tag("header", paragraph(about, class_="kind"), tag("h1", code(report.name)))
    parts = [section(anchor, title, content) for anchor, title, content in report.sections]
    footer = tag("footer", paragraph(f"Written by abaw {__version__}. This page loads nothing and runs no script."))
    links = [(anchor, title) for anchor, title, _ in report.sections]
    return document(f"{subject.name}: report", header, *lead, *parts, footer, sections=links)


def _notice(texts: list[str]) -> Html:
    content = paragraph(texts[0]) if len(texts) == 1 else bullets(texts)
    return tag("div", content, class_="notice", role="note")


def _summary(report: _Report, path: Path, num_bytes: int) -> Summary:
    lines = [("report", str(path)), ("size", f"{num_bytes / 1e6:.1f} MB")]
    data: dict[str, Any] = {"path": str(path), "bytes": num_bytes, "name": report.name, "missing": report.missing}
    if report.measured is not None:
        score = report.measured.metrics["annotated"]["score"]
        lines.append(("score", f"{official_name(report.measured.task)} {score:.4f}"))
        data |= {"task": report.measured.task.name, "metrics": report.measured.metrics["annotated"]}
    lines += [("missing", words) for words in report.missing]
    return Summary("report", lines, data=data)
