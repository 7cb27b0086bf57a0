"""Cross-validation: a run for each fold of a split file, and one predictions store of what each fold held out."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.console import Summary
from abaw.data.manifest import Manifest
from abaw.data.splits import Split, group_of, make_split, read_split, write_split
from abaw.errors import AbawError, ExitCode
from abaw.provenance import differences
from abaw.stages.finetune.inputs import Fold
from abaw.stages.finetune.job import FinetuneJob
from abaw.store import FeatureStore
from abaw.tasks import Task
from abaw.training.device import resolve_device
from abaw.training.distributed import join, main_first
from abaw.training.predictions import join_folds
from abaw.training.run import FOLD_PREFIX, RunFolder

logger = logging.getLogger(__name__)

OF_THE_FOLD = {"train", "val", "split"}  # inputs of a run that differ from fold to fold


def run_folds(
    cfg: Config, task: Task, *, count: int, only: int | None = None, overwrite: bool = False, dry_run: bool = False
) -> Summary:
    """Train every fold that is not done yet (or one), then join their scores.

    Raises AbawError for a split file of another number of folds, and for fewer than three folds where the checkpoint
    is chosen on the next one.
    """
    join(resolve_device(cfg.run.device))
    settings = cfg.finetune_for(task.name)
    _check(count, only, settings.select)
    path = cfg.splits_file(settings.split or f"folds{count}")
    store = FeatureStore.open(settings.faces or cfg.faces_store, kind="faces")
    _refuse_images(store)
    with main_first():
        split = _split(cfg, store, path, count, dry_run=dry_run)
    lines, data = [("split", f"{path}: {count} folds of {len(split.folds)} videos")], []
    for number in range(count) if only is None else [only]:
        job = FinetuneJob(cfg, task, fold=Fold(split, number), overwrite=overwrite)
        done = job.run(overwrite=overwrite, dry_run=dry_run)
        lines.append((f"fold {number}", _one_line(done)))
        data.append(done.data)
    joined = None if dry_run else _join(cfg, task, count)
    if isinstance(joined, str):
        logger.warning(joined)
        joined = None
    elif joined is not None:
        is_clean = FeatureStore.open(joined).header.settings["out_of_fold"]
        lines.append(("scores", f"{joined}: {'out-of-fold' if is_clean else 'not out-of-fold, see the warnings'}"))
    return Summary("finetune", lines, data={"split": str(path), "folds": data, "joined": str(joined or "")})


def _check(count: int, only: int | None, select: str) -> None:
    if only is not None and only >= count:
        raise AbawError(
            f"there is no fold {only} of {count}",
            where="--fold",
            fix=f"give a number from 0 to {count - 1}",
            code=ExitCode.CONFIG,
        )
    if count < 3 and select == "best":
        raise AbawError(
            "with two folds none is left to choose the checkpoint on: one is held out, one is trained on",
            where="--folds and finetune.select",
            fix='use --folds 3 or more, or keep the last weights: finetune.select = "last"',
            code=ExitCode.CONFIG,
        )


def _refuse_images(store: FeatureStore) -> None:
    if "key" in store.header.arrays:
        raise AbawError(
            "an image collection cannot be cut into folds: its rows do not say which recording they are from",
            where=f"--folds and {store.path}",
            fix="use the collection's own training and validation sets: leave out --folds",
            code=ExitCode.CONFIG,
        )


def _split(cfg: Config, store: FeatureStore, path: Path, count: int, *, dry_run: bool) -> Split:
    """The split file, made where there is none: of every labelled video of any task, so that tasks share it.

    Folds get about the same number of frames.
    """
    if path.is_file():
        split = read_split(path)
        if split.num_folds != count:
            raise AbawError(
                f"split {path.name} has {split.num_folds} folds, not {count}",
                where=str(path),
                fix=f"use --folds {split.num_folds}, or name another split: finetune.split",
                code=ExitCode.CONFIG,
            )
        return split
    rows: Counter[str] = Counter()
    for track in Manifest.from_config(cfg.data, need_media=False):
        if {"train", "val"} & set(track.splits.values()):
            rows[group_of(track.track_id)] += store.num_rows(track.track_id) if track.track_id in store else 0
    split = make_split(rows, folds=count, seed=cfg.run.seed, name=path.stem)
    if not dry_run:
        write_split(path, split)
        logger.info("wrote %s", path)
    return split


def _one_line(done: Summary) -> str:
    found = dict(done.lines)
    return "  ".join(found[key] for key in ("best", "run") if key in found)


def _join(cfg: Config, task: Task, count: int) -> Path | str | None:
    """Path of one store of all held-out tracks, once every fold is done; None before, or why it cannot be, in words."""
    run_dir = cfg.run_dir("finetune", cfg.finetune_for(task.name).run_name, task.name)
    folds = [run_dir / f"{FOLD_PREFIX}{number}" for number in range(count)]
    if not all((fold / "done").is_file() for fold in folds):
        return None
    changed = [differences(_settings(folds[0]), _settings(fold)) for fold in folds]
    for number, found in enumerate(changed):
        if found:
            return f"the folds are not joined: fold {number} differs from fold 0 in {'; '.join(found)}"
    stores = [cfg.predictions_store(fold) for fold in folds]
    with main_first():
        return join_folds(cfg.predictions_store(run_dir / "folds"), [FeatureStore.open(p) for p in stores]).path


def _settings(run: Path) -> dict[str, Any]:
    """What the folds of one cross-validation have in common: their settings, and the inputs that are not the fold's."""
    settings: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
    inputs = RunFolder(run).record().get("inputs", {})
    return {**settings, "inputs": {name: value for name, value in inputs.items() if name not in OF_THE_FOLD}}
