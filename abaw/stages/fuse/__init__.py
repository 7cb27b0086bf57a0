"""`abaw fuse`: a temporal model of one task on cached visual and audio features.

Reads feature stores and labels; writes runs/fuse-<task>-<name> and, at its end, the scores of validation and test
tracks (or of the fold that was held out) as a predictions store. Also joins predictions stores to an ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence

from abaw.config import Config
from abaw.console import Summary
from abaw.data.labelled import trainable_task
from abaw.errors import AbawError, ExitCode
from abaw.stages.cross_validation import OFFICIAL, number_of_folds
from abaw.stages.fuse.ablation import run_ablation
from abaw.stages.fuse.ensemble import run_ensemble
from abaw.stages.fuse.folds import run_folds
from abaw.stages.fuse.job import FuseJob
from abaw.tasks import Task
from abaw.training.device import launched

CONFIGURED = "config"


def run(
    cfg: Config,
    *,
    task: str | None = None,
    folds: str | None = None,
    fold: int | None = None,
    ablate_streams: bool = False,
    ensemble: Sequence[str] = (),
    acknowledge: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Train the fusion of a task, then score what it was not trained on.

    ``folds``: "official" (the default: the challenge's training and validation sets) or a number of folds, all of
    them unless ``fold`` names one. ``ablate_streams``: a table of which stores help. ``ensemble``: join these
    predictions stores ("config": those of [fuse.ensemble]) instead of training; ``acknowledge`` lets its weights be
    fitted on scores that are not out-of-fold. Raises AbawError before any training for missing stores, tracks or
    labels, for streams whose rows or recipes differ, and for a run made with other settings.
    """
    chosen = trainable_task(task or cfg.fuse.task, where="fuse.task")
    crossed = folds not in (None, OFFICIAL)
    _check_flags(crossed=crossed, fold=fold, ablate=ablate_streams, ensemble=bool(ensemble), acknowledge=acknowledge)
    if ensemble:
        ensemble = _members(cfg, chosen, ensemble)
        return run_ensemble(cfg, chosen, ensemble, acknowledge=acknowledge, overwrite=overwrite, dry_run=dry_run)
    if ablate_streams:
        return run_ablation(cfg, chosen, overwrite=overwrite, dry_run=dry_run)
    if crossed:
        count = number_of_folds(str(folds))
        return run_folds(cfg, chosen, count=count, only=fold, overwrite=overwrite, dry_run=dry_run)
    return FuseJob(cfg, chosen, overwrite=overwrite).run(overwrite=overwrite, dry_run=dry_run)


def _members(cfg: Config, task: Task, given: Sequence[str]) -> list[str]:
    """The stores named on the command line, or those of the configuration."""
    if list(given) != [CONFIGURED]:
        return list(given)
    members = cfg.fuse_for(task.name).ensemble.members
    if not members:
        raise AbawError(
            "the configuration names no members of an ensemble",
            where=f"fuse.ensemble.members, [fuse.{task.name}.ensemble] members",
            fix='name them there, e.g. members = ["fuse-va-netease", "fuse-va-gru"], or give each with --ensemble',
            code=ExitCode.CONFIG,
        )
    return list(members)


def _check_flags(*, crossed: bool, fold: int | None, ablate: bool, ensemble: bool, acknowledge: bool) -> None:
    """Raise AbawError for flags that do not go together."""
    problem, fix = "", ""
    if fold is not None and not crossed:
        problem, fix = "--fold belongs to --folds K", "add --folds K"
    elif crossed and (ablate or ensemble):
        name = "--ablate-streams" if ablate else "--ensemble"
        problem, fix = f"{name} and --folds are two things to do", "give one of them, then the other"
    elif ablate and ensemble:
        problem, fix = "--ablate-streams and --ensemble are two things to do", "give one of them, then the other"
    elif ensemble and launched()[1] > 1:
        problem, fix = "an ensemble is made by one process", "run the command without torchrun"
    elif acknowledge and not ensemble:
        problem, fix = "--acknowledge is about the weights of an ensemble", "leave it out, or add --ensemble"
    if problem:
        raise AbawError(problem, where="abaw fuse", fix=fix, code=ExitCode.CONFIG)
