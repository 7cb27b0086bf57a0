"""`abaw fuse --folds`: a run for each fold of a split file, and one predictions store of what each held out."""

from __future__ import annotations

from abaw.config import Config, FuseConfig
from abaw.console import Summary
from abaw.stages.cross_validation import Training, cross_validate
from abaw.stages.fuse.inputs import stores, stores_of_fold
from abaw.stages.fuse.job import FuseJob
from abaw.store import FeatureStore
from abaw.tasks import Task
from abaw.training.run import FOLD_PREFIX


def run_folds(
    cfg: Config, task: Task, *, count: int, only: int | None = None, overwrite: bool = False, dry_run: bool = False
) -> Summary:
    """Train every fold that is not done yet (or one), then join their scores; raises AbawError as `cross_validate`."""
    settings = cfg.fuse_for(task.name)
    training = Training(
        stage="fuse",
        task=task,
        run_dir=cfg.run_dir("fuse", settings.run_name, task.name),
        split=settings.split,
        select=settings.select,
        rows=lambda: _any_store(cfg, settings, task),
        job=lambda fold: FuseJob(cfg, task, fold=fold, overwrite=overwrite),
        check=lambda fold: stores_of_fold(cfg, settings, fold),
    )
    return cross_validate(cfg, training, count=count, only=only, overwrite=overwrite, dry_run=dry_run)


def _any_store(cfg: Config, settings: FuseConfig, task: Task) -> FeatureStore:
    """The faces, whose rows `finetune` deals by too; where they are not, features of any fold: all have those rows.

    Raises AbawError where there are neither.
    """
    visual, audio = stores(cfg, settings)
    wanted = [cfg.finetune_for(task.name).faces or cfg.faces_store]
    for path in (*visual, *audio):
        wanted += [path, *sorted(path.parent.glob(f"{path.name}-{FOLD_PREFIX}*"))]
    there = [path for path in wanted if (path / "store.json").is_file()]
    return FeatureStore.open(there[0] if there else wanted[1])
