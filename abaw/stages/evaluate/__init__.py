"""`abaw evaluate`: official metrics of predictions against the labels, whoever made them, and comparisons of two."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.console import Failure, Summary
from abaw.data.decisions import FileDecisions, read_csv_decisions, read_decisions
from abaw.data.label_folders import folder_labels
from abaw.data.label_sources import LabelSource
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import is_measurable, predictions_labels
from abaw.errors import AbawError, choose
from abaw.evaluation import Comparison, Evaluation, compare, evaluate_tracks
from abaw.scored import Predictions, Scored
from abaw.stages.evaluate.table import comparison_table, table
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Task

logger = logging.getLogger(__name__)


def run(
    cfg: Config,
    *,
    predictions: Sequence[Path] = (),
    from_csv: Sequence[Path] = (),
    against: Path | None = None,
    task: str | None = None,
    labels: Path | None = None,
    raw: bool = False,
) -> Summary:
    """Evaluate predictions stores and files: those given, else those of the config, else all under predictions/.

    ``predictions``: a folder with store.json is a store, anything else a submission file; ``from_csv``: csv files or
    folders of them. Of all stores, those without any labelled track are left out with a warning, and one that cannot
    be measured or compared does not keep the others from it. ``against``: compare each with these. ``task``: measure
    the scores as those of this task; ``labels`` in place of those of the configuration; ``raw`` leaves post.json aside.
    Raises AbawError when a labelled track has no predictions.
    """
    asked = None if task is None else choose(TASKS, task, what="task", where="--task")
    measuring = _Measuring(cfg, asked, labels, raw)
    named = list(predictions) or ([] if from_csv else list(cfg.evaluate.predictions))
    scored: list[Scored] = [measuring.open(path) for path in named]
    scored += [read_csv_decisions(path, task=asked) for path in from_csv]
    other = None if against is None else measuring.evaluate(measuring.open(against))
    failed: list[Failure] = []
    if scored:
        results = [measuring.evaluate(one) for one in scored]
    else:
        results, failed = _all_predictions(cfg, measuring, against, other)
    compared = [] if other is None else _compared(cfg, results, other, all_stores=not scored)
    return _summary(cfg, results, compared, failed)


def _compared(cfg: Config, results: Sequence[Evaluation], other: Evaluation, *, all_stores: bool) -> list[Comparison]:
    """Each result against ``other``. Of all stores, those of other tracks are left out, unless all are: AbawError."""
    found: list[Comparison] = []
    errors: list[AbawError] = []
    for one in results:
        try:
            found.append(compare(one, other, resamples=cfg.evaluate.resamples, seed=cfg.run.seed))
        except AbawError as error:
            if not all_stores:
                raise
            errors.append(error)
    if errors and not found:
        raise errors[0]
    for left_out in errors:
        logger.warning(f"not compared: {left_out.what}")
    return found


def _summary(
    cfg: Config, results: Sequence[Evaluation], compared: Sequence[Comparison], failed: Sequence[Failure]
) -> Summary:
    """Tables of all results, then of all comparisons."""
    draws = {"resamples": cfg.evaluate.resamples, "seed": cfg.run.seed}
    found = [one.to_dict(**draws) for one in results]
    texts = [table(one, own) for one, own in zip(results, found, strict=True)]
    data: dict[str, Any] = {"results": found}
    if compared:
        data["comparisons"] = [one.to_dict() for one in compared]
        texts += [comparison_table(one) for one in compared]
    return Summary("evaluate", [], failed=list(failed), data=data, text="\n\n".join(texts))


@dataclass
class _Measuring:
    """What all predictions of one command are measured with; label files are listed once."""

    cfg: Config
    task: Task | None
    labels: Path | None
    raw: bool
    _manifest: Manifest | None = field(default=None, init=False)
    _said: set[str] = field(default_factory=set, init=False)

    def open(self, path: Path) -> Scored:
        """A predictions store, or a submission file where there is no store.json."""
        if path.exists() and not (path / "store.json").exists():
            return read_decisions(path, task=self.task)
        scored = Predictions(path, raw=self.raw)
        return scored if self.task is None else scored.for_task(self.task.name)

    def evaluate(self, scored: Scored) -> Evaluation:
        """Hold a set of decisions against its labels, and warn of what did not fit."""
        path = self.cfg.finetune_for(scored.task.name).faces or self.cfg.faces_store
        faces = FeatureStore.open(path, kind="faces") if (path / "store.json").exists() else None
        found = evaluate_tracks(self.cfg, scored, self._source(scored), faces=faces)
        for text in found.notes:
            if text not in self._said:  # of all stores the same
                logger.warning(text)
        self._said.update(found.notes)
        return found

    def _source(self, scored: Scored) -> LabelSource:
        task, data = scored.task.name, self.cfg.data
        path = self.labels or data.annotations.get(task)
        if path is not None and (isinstance(scored, FileDecisions) or (self.labels and data.kind != "images")):
            keys = scored.keys if isinstance(scored, FileDecisions) else None
            return folder_labels(path, scored.task, tolerance=data.max_row_difference, keys=keys)
        cfg = self.cfg
        if self.labels is not None:
            annotations = {**data.annotations, task: self.labels}
            cfg = cfg.model_copy(update={"data": data.model_copy(update={"annotations": annotations})})
        if self._manifest is None:
            self._manifest = Manifest.from_config(cfg.data, need_media=False)
        return predictions_labels(cfg, scored, self._manifest)


def _all_predictions(
    cfg: Config, measuring: _Measuring, against: Path | None, other: Evaluation | None
) -> tuple[list[Evaluation], list[Failure]]:
    """Evaluations of all stores under predictions/, and those that could not be measured.

    With ``against`` the stores of its task, itself left out. Raises AbawError where none is left, the first one's own
    where all failed.
    """
    folder = cfg.run.output / "predictions"
    found: list[Evaluation] = []
    errors: dict[str, AbawError] = {}
    for path in sorted(one.parent for one in folder.glob("*/store.json")):
        if against is not None and path.resolve() == against.resolve():
            continue
        try:
            scored = measuring.open(path)
            if not is_measurable(scored):
                logger.warning(f"{path.name} is left out: it holds no labelled track that its folds have not seen")
            elif other is None or scored.task == other.task:
                found.append(measuring.evaluate(scored))
        except AbawError as error:
            errors[path.name] = error
    if errors and not found:
        raise next(iter(errors.values()))
    if not found:
        raise AbawError(
            "there are no predictions to evaluate",
            where=str(folder),
            fix="run `abaw finetune` or `abaw fuse` first, or name a predictions store",
        )
    return found, [Failure(name, error.what) for name, error in errors.items()]
