"""Cross-validation, the same for `finetune` and `fuse`: the split file, a run for each fold, and their scores joined.

Folds may be run one by one or by several commands at once, each with its own fold: the split file is made by the
first, and the scores are joined by whoever finds all folds done. On a Ray cluster the folds are tasks.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from abaw import console
from abaw.config import Config
from abaw.console import Summary
from abaw.data.annotations import LabelReader
from abaw.data.dealing import make_split, strata_by_class
from abaw.data.manifest import Manifest, Track
from abaw.data.splits import Fold, Split, group_of, read_split, write_split
from abaw.errors import AbawError, ExitCode
from abaw.executors import RAY, Resources, TrackResult, iter_units
from abaw.provenance import differences
from abaw.publish import locked
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Task
from abaw.training.device import launched, resolve_device
from abaw.training.distributed import join, main_first
from abaw.training.predictions import join_folds, joined_store
from abaw.training.run import FOLD_PREFIX, RunFolder

logger = logging.getLogger(__name__)

OFFICIAL = "official"
OF_THE_FOLD = {"train", "val", "split"}  # inputs of a run that differ from fold to fold


class Job(Protocol):
    """The run of one fold."""

    predictions: Path

    def run(self, *, overwrite: bool = False, dry_run: bool = False) -> Summary:
        """Train and score, or what is left of it."""
        ...


@dataclass(frozen=True)
class Training:
    """What is cross-validated. ``run_dir``: folder of the run that the folds' folders are in.

    ``split``: name of the split file ("" = folds<K>); ``select`` as in the stage's table; ``job`` makes the run of a
    fold; ``rows``: a store of all labelled tracks, whose numbers of rows balance the folds of a new split file;
    ``check`` raises AbawError where a fold lacks something, before any of them is trained.
    """

    stage: str
    task: Task
    run_dir: Path
    split: str
    select: str
    rows: Callable[[], FeatureStore]
    job: Callable[[Fold], Job]
    check: Callable[[Fold], object] = lambda fold: None


def number_of_folds(text: str) -> int:
    """K of `--folds K`. Raises AbawError for what is no number from 2."""
    if not text.isdecimal() or int(text) < 2:
        raise AbawError(
            f'"{text}" is no number of folds',
            where="--folds",
            fix=f"give a number from 2, e.g. --folds 5, or {OFFICIAL}",
            code=ExitCode.CONFIG,
        )
    return int(text)


def cross_validate(
    cfg: Config, training: Training, *, count: int, only: int | None, overwrite: bool, dry_run: bool
) -> Summary:
    """Train every fold that is not done yet (or one), then join their scores.

    Raises AbawError for a split file of another number of folds or another hold-out than asked for, and for fewer than
    three folds where the checkpoint is chosen on the next one.
    """
    join(resolve_device(cfg.run.device))
    check_fold(count, only)
    _check_select(training, count)
    path = cfg.splits_file(training.split or f"folds{count}")
    with main_first():
        split = _split(cfg, training, path, count, dry_run=dry_run)
    lines, data = [("split", f"{path}: {_describe(split)}")], []
    numbers = list(range(count)) if only is None else [only]
    folds = [Fold(split, number, is_first=number == numbers[0]) for number in numbers]
    for fold in folds:
        training.check(fold)
    for fold, done in zip(folds, _trained(cfg, training, folds, overwrite=overwrite, dry_run=dry_run), strict=True):
        lines.append((f"fold {fold.number}", _one_line(done)))
        data.append(done.data)
    joined = None if dry_run else _join(training, count, cfg.predictions_store(_of_fold(training, 0)))
    if joined is not None:
        is_clean = FeatureStore.open(joined).header.settings["out_of_fold"]
        lines.append(("scores", f"{joined}: {'out-of-fold' if is_clean else 'not out-of-fold, see the warnings'}"))
    elif not dry_run and (left := _undone(training, count)):
        lines.append(("scores", f"joined once {_named(left)} done too"))
    elif not dry_run:
        lines.append(("scores", "not joined: the folds differ, see the warning; run the odd ones again (--overwrite)"))
    return Summary(training.stage, lines, data={"split": str(path), "folds": data, "joined": str(joined or "")})


def _trained(
    cfg: Config, training: Training, folds: Sequence[Fold], *, overwrite: bool, dry_run: bool
) -> list[Summary]:
    """Summaries of the folds' runs, one after the other here, or as tasks of a cluster.

    Raises the first failure: here at once, of tasks when the others have ended.
    """
    if dry_run or cfg.run.executor != RAY:
        return [training.job(fold).run(overwrite=overwrite, dry_run=dry_run) for fold in folds]
    _refuse_torchrun()
    device, cpus = str(resolve_device(cfg.run.device)), max(1, cfg.run.threads)
    reads = (training.rows().path, cfg.run.weights_dir)
    resources = Resources.of(cfg.run, writes=training.run_dir.parent, reads=reads, device=device, cpus=cpus, live=True)
    quiet = logger.getEffectiveLevel() > logging.INFO
    work = partial(_train_fold, make=training.job, overwrite=overwrite, quiet=quiet)
    found: dict[str, Summary] = {}
    failed: list[TrackResult] = []
    for result in iter_units([[_FoldTask(fold)] for fold in folds], work, resources=resources):
        if result.status == "done":
            found[result.track_id] = result.info["summary"]
            logger.info("%s: %s", result.track_id, _one_line(found[result.track_id]))
        else:
            failed.append(result)
    if failed:
        raise failed[0].error or RuntimeError(f"{failed[0].track_id}: {failed[0].message}\n{failed[0].traceback}")
    return [found[_FoldTask(fold).track_id] for fold in folds]


@dataclass(frozen=True)
class _FoldTask:
    """A fold as the executors know it."""

    fold: Fold

    @property
    def track_id(self) -> str:
        return f"fold {self.fold.number}"


def _train_fold(
    unit: Sequence[_FoldTask], *, make: Callable[[Fold], Job], overwrite: bool, quiet: bool
) -> Iterator[TrackResult]:
    """On a node: train and score a fold; what it logs goes to the command's screen."""
    console.setup(quiet=quiet)
    for task in unit:
        done = make(task.fold).run(overwrite=overwrite)
        yield TrackResult(task.track_id, info={"summary": done})


def _refuse_torchrun() -> None:
    if launched()[1] > 1:
        raise AbawError(
            "torchrun started several processes, and Ray is to spread the folds",
            where='run.executor = "ray" and environment variable WORLD_SIZE',
            fix='start the command without torchrun, or set run.executor = "local": a fold is then trained by all '
            "processes",
            code=ExitCode.CONFIG,
        )


def check_fold(count: int, only: int | None) -> None:
    """Raise AbawError for a fold that is not one of ``count``."""
    if only is not None and not 0 <= only < count:
        raise AbawError(
            f"there is no fold {only} of {count}",
            where="--fold",
            fix=f"give a number from 0 to {count - 1}",
            code=ExitCode.CONFIG,
        )


def _check_select(training: Training, count: int) -> None:
    if count < 3 and training.select == "best":
        raise AbawError(
            "with two folds none is left to choose the checkpoint on: one is held out, one is trained on",
            where=f"--folds and {training.stage}.select",
            fix=f'use --folds 3 or more, or keep the last weights: {training.stage}.select = "last"',
            code=ExitCode.CONFIG,
        )


def _describe(split: Split) -> str:
    spared = f", {len(split.holdout)} more held out of all" if split.holdout else ""
    return f"{split.num_folds} folds of {len(split.folds)} videos{spared}"


def _one_line(done: Summary) -> str:
    found = dict(done.lines)
    return "  ".join(found[key] for key in ("best", "run") if key in found)


def _named(folds: list[int]) -> str:
    return f"fold {folds[0]} is" if len(folds) == 1 else f"folds {', '.join(map(str, folds))} are"


# -- the split file ----------------------------------------------------------------------------------------------------
def _split(cfg: Config, training: Training, path: Path, count: int, *, dry_run: bool) -> Split:
    """The split file, made where there is none; of several commands by the first, while the others wait."""
    if dry_run and not path.is_file():
        return _deal(cfg, training, path.stem, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        if not path.is_file():
            write_split(path, _deal(cfg, training, path.stem, count))
            logger.info("wrote %s", path)
    split = read_split(path)
    _check_split(cfg, training, split, path, count)
    return split


def _check_split(cfg: Config, training: Training, split: Split, path: Path, count: int) -> None:
    """Raise AbawError where a split file is not what is asked for."""
    if split.num_folds != count:
        raise AbawError(
            f"split {path.name} has {split.num_folds} folds, not {count}",
            where=str(path),
            fix=f"use --folds {split.num_folds}, or name another split: {training.stage}.split",
            code=ExitCode.CONFIG,
        )
    known, asked = len(split.folds) + len(split.holdout), cfg.folds.holdout
    if asked and abs(len(split.holdout) - asked * known) > 1:  # a track or two may have come since
        raise AbawError(
            f"split {path.name} holds {len(split.holdout)} of {known} recordings out of all folds, "
            f"and folds.holdout = {asked:g} asks for {asked * known:.1f}",
            where=f"{path} and folds.holdout",
            fix=f"leave out folds.holdout to take the split as it is, or name another split: {training.stage}.split",
            code=ExitCode.CONFIG,
        )


def _deal(cfg: Config, training: Training, name: str, count: int) -> Split:
    """A new split of every labelled video of any task, so that tasks share it; folds get about equally many frames."""
    store, rows = training.rows(), Counter[str]()
    tracks = [
        track
        for track in Manifest.from_config(cfg.data, need_media=False)
        if {"train", "val"} & set(track.splits.values())
    ]
    for track in tracks:
        rows[group_of(track.track_id)] += store.num_rows(track.track_id) if track.track_id in store else 0
    strata = _strata(cfg, tracks, store) if cfg.folds.stratify else None
    return make_split(rows, folds=count, seed=cfg.run.seed, name=name, holdout=cfg.folds.holdout, strata=strata)


def _strata(cfg: Config, tracks: list[Track], store: FeatureStore) -> dict[str, str]:
    """Recording -> its main expression, by the labels of task expr; recordings without such labels are not in it."""
    task = TASKS["expr"]
    if task.name not in cfg.data.annotations:
        raise AbawError(
            "folds.stratify spreads expressions over the folds, and there are no labels of task expr",
            where="folds.stratify and data.annotations",
            fix='add expr = "FOLDER" to annotations under [data], or set folds.stratify = false',
            code=ExitCode.CONFIG,
        )
    head, reader = task.heads[0], LabelReader(cfg.data, task)
    counts: dict[str, np.ndarray] = {}
    for track in tracks:
        if track.splits.get(task.name) in ("train", "val") and track.track_id in store:
            labels = reader.labels(track, store.num_rows(track.track_id))[head.name]
            shown = labels.values[labels.mask[:, 0], 0].astype(np.int64)
            group = group_of(track.track_id)
            counts[group] = counts.get(group, 0) + np.bincount(shown, minlength=head.output_dim)
    return strata_by_class(counts, head.labels)


# -- joining -----------------------------------------------------------------------------------------------------------
def _undone(training: Training, count: int) -> list[int]:
    return [number for number in range(count) if not RunFolder(_of_fold(training, number)).is_done]


def _of_fold(training: Training, number: int) -> Path:
    return training.run_dir / f"{FOLD_PREFIX}{number}"


def _join(training: Training, count: int, predictions: Path) -> Path | None:
    """Path of one store of all held-out tracks, once every fold is done; None before, and where folds differ."""
    with main_first():
        if _undone(training, count):
            return None
        told = [_common(_of_fold(training, number), number) for number in range(count)]
        for number in range(1, count):
            found = differences(told[0], told[number], said=("in fold 0", f"in fold {number}"))
            if found:
                logger.warning("the folds are not joined: fold %d differs from fold 0 in %s", number, "; ".join(found))
                return None
        path = joined_store(predictions)
        with locked(training.run_dir):  # the last two folds may end at the same moment
            return join_folds(path, _stores(path, count), stage=training.stage).path


def _stores(joined: Path, count: int) -> list[FeatureStore]:
    run = joined.name.removesuffix("-folds")
    return [FeatureStore.open(joined.with_name(f"{run}-{FOLD_PREFIX}{number}")) for number in range(count)]


def _common(run: Path, number: int) -> dict[str, Any]:
    """What the folds of one cross-validation have in common: their settings, and the inputs that are not the fold's."""
    settings: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
    inputs = {name: value for name, value in RunFolder(run).record().get("inputs", {}).items()}
    own = {name: _without_fold(value, number) for name, value in inputs.items() if name not in OF_THE_FOLD}
    return {**settings, "inputs": own}


def _without_fold(value: Any, number: int) -> Any:
    """Inputs as they are of any fold: what was made by folds (features, a first stage) counts by its name alone."""
    if isinstance(value, list):
        return [_without_fold(part, number) for part in value]
    if not isinstance(value, dict):
        return value
    name = str(value.get("name", ""))
    if name.endswith(f"-{FOLD_PREFIX}{number}"):
        shared = {key: part for key, part in value.items() if key != "fingerprint"}
        return {**shared, "name": name.removesuffix(f"-{FOLD_PREFIX}{number}")}
    return {key: _without_fold(part, number) for key, part in value.items()}
