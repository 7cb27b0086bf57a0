"""`abaw finetune`: a model of one task, on single faces.

Reads a faces store, labels and pretrained weights; writes runs/finetune-<task>-<name> and, at its end, the scores of
validation and test rows (or of the fold that was held out) as a predictions store.
"""

from __future__ import annotations

from abaw.config import Config
from abaw.console import Summary
from abaw.data.labelled import trainable_task
from abaw.errors import AbawError, ExitCode
from abaw.stages.cross_validation import OFFICIAL, number_of_folds
from abaw.stages.finetune.ablation import run_ablation
from abaw.stages.finetune.folds import run_folds
from abaw.stages.finetune.job import FinetuneJob


def run(
    cfg: Config,
    *,
    task: str | None = None,
    folds: str | None = None,
    fold: int | None = None,
    ablate: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Train the model of a task, then score what it was not trained on.

    ``folds``: "official" (the default: the challenge's training and validation sets) or a number of folds, all of
    them unless ``fold`` names one. ``ablate``: every view and operator of EMAE. Raises AbawError before any training
    for missing labels, weights or tracks, and for a run made with other settings.
    """
    chosen = trainable_task(task or cfg.finetune.task, where="finetune.task")
    crossed = folds not in (None, OFFICIAL)
    if (fold is not None and not crossed) or (ablate and crossed):
        raise AbawError(
            "--fold belongs to --folds K" if fold is not None else "--ablate compares models on the official split",
            where="abaw finetune",
            fix="add --folds K" if fold is not None else "leave out --folds",
            code=ExitCode.CONFIG,
        )
    if ablate:
        return run_ablation(cfg, chosen, overwrite=overwrite, dry_run=dry_run)
    if crossed:
        return run_folds(
            cfg, chosen, count=number_of_folds(str(folds)), only=fold, overwrite=overwrite, dry_run=dry_run
        )
    return FinetuneJob(cfg, chosen, overwrite=overwrite).run(overwrite=overwrite, dry_run=dry_run)
