"""`abaw finetune --folds`: a run for each fold of a split file, and one predictions store of what each held out."""

from __future__ import annotations

from abaw.config import Config
from abaw.console import Summary
from abaw.errors import AbawError, ExitCode
from abaw.stages.cross_validation import Training, cross_validate
from abaw.stages.finetune.job import FinetuneJob
from abaw.store import FeatureStore
from abaw.tasks import Task


def run_folds(
    cfg: Config, task: Task, *, count: int, only: int | None = None, overwrite: bool = False, dry_run: bool = False
) -> Summary:
    """Train every fold that is not done yet (or one), then join their scores; raises AbawError as `cross_validate`."""
    settings = cfg.finetune_for(task.name)
    faces = settings.faces or cfg.faces_store
    _refuse_images(FeatureStore.open(faces, kind="faces"))
    training = Training(
        stage="finetune",
        task=task,
        run_dir=cfg.run_dir("finetune", settings.run_name, task.name),
        split=settings.split,
        select=settings.select,
        rows=lambda: FeatureStore.open(faces, kind="faces"),
        job=lambda fold: FinetuneJob(cfg, task, fold=fold, overwrite=overwrite),
    )
    return cross_validate(cfg, training, count=count, only=only, overwrite=overwrite, dry_run=dry_run)


def _refuse_images(store: FeatureStore) -> None:
    if "key" in store.header.arrays:
        raise AbawError(
            "an image collection cannot be cut into folds: its rows do not say which recording they are from",
            where=f"--folds and {store.path}",
            fix="use the collection's own training and validation sets: leave out --folds",
            code=ExitCode.CONFIG,
        )
