"""`extract-visual --folds K`: a store for each fold, by the encoder that was trained without that fold's labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.encoders.visual import RANDOM, entry_of
from abaw.errors import AbawError, ExitCode
from abaw.stages.cross_validation import check_fold
from abaw.stages.extract_visual.setup import Target, finetuning, run_of, table_of
from abaw.training.run import FOLD_PREFIX, RunFolder


def targets(cfg: Config, names: Sequence[str], *, folds: int | None, fold: int | None) -> list[Target]:
    """The stores to make: one for each encoder, or for each of its folds.

    Raises AbawError for encoders without weights by fold, and for folds that are not trained yet.
    """
    if folds is None and fold is None:
        return [Target(name, name) for name in names]
    if folds is None:
        raise AbawError(
            "--fold belongs to --folds K", where="abaw extract-visual", fix="add --folds K", code=ExitCode.CONFIG
        )
    check_fold(folds, fold)
    numbers = list(range(folds)) if fold is None else [fold]
    return [target for name in names for target in _of_folds(cfg, name, folds, numbers)]


def _of_folds(cfg: Config, name: str, count: int, numbers: Sequence[int]) -> list[Target]:
    run = _run(cfg, name)
    there = sorted(entry.name for entry in run.glob(f"{FOLD_PREFIX}*"))
    beyond = sorted(set(there) - {f"{FOLD_PREFIX}{number}" for number in range(count)})
    if beyond:
        raise AbawError(
            f"run {run.name} has folds that are none of {count}: {', '.join(beyond)}",
            where=f"{run} and --folds",
            fix=f"use --folds {len(there)}, or train the run anew with --folds {count}",
            code=ExitCode.CONFIG,
        )
    paths = {number: run / f"{FOLD_PREFIX}{number}" for number in numbers}
    _require_done(cfg, name, run, paths, count)
    _require_one_split(run, paths)
    return [
        Target(name, f"{name}-{FOLD_PREFIX}{number}", str(RunFolder(path).best_path)) for number, path in paths.items()
    ]


def _run(cfg: Config, name: str) -> Path:
    """Folder of the cross-validated run that an encoder's weights are of."""
    table = table_of(cfg, name)
    entry = entry_of(table.encoder)
    if entry.stage != "finetune" or table.weights == RANDOM:
        raise AbawError(
            f'encoder "{name}" ({table.encoder}) has no weights by fold: they are not of a finetuning run',
            where="--folds and extract_visual.encoders",
            fix=f"run `abaw extract-visual --encoder {name}` without --folds: all folds then read that store; for the "
            "others, pass --encoder NAME with --folds",
            code=ExitCode.CONFIG,
        )
    if not table.weights:
        return run_of(cfg, entry)
    named = cfg.root / Path(table.weights).expanduser()
    folder = named.parent if named.suffix == ".safetensors" else named
    return folder.parent if folder.name.startswith(FOLD_PREFIX) else folder


def _require_done(cfg: Config, name: str, run: Path, paths: dict[int, Path], count: int) -> None:
    lacking = [number for number, path in paths.items() if not RunFolder(path).is_done]
    if not lacking:
        return
    which = f"fold {lacking[0]} is" if len(lacking) == 1 else f"folds {', '.join(map(str, lacking))} are"
    raise AbawError(
        f'{which} not trained yet in run {run.name}, whose weights encoder "{name}" takes',
        where=f"{run} and encoders.{name}.weights",
        fix=f"abaw finetune --task {_task(cfg, name, run)} --folds {count}"
        + (f" --fold {lacking[0]}" if len(paths) == 1 else ""),
        code=ExitCode.MISSING,
    )


def _task(cfg: Config, name: str, run: Path) -> str:
    """Task that a run or one of its folds recorded; else that of the run which the encoder takes by default."""
    for path in (run, *sorted(run.glob(f"{FOLD_PREFIX}*"))):
        if (path / "config.json").is_file():
            recorded: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
            return str(recorded.get("task", cfg.finetune.task))
    return finetuning(cfg, entry_of(table_of(cfg, name).encoder).model)[0]


def _require_one_split(run: Path, paths: dict[int, Path]) -> None:
    splits = {number: RunFolder(path).record()["inputs"]["split"]["sha256"] for number, path in paths.items()}
    if len(set(splits.values())) > 1:
        raise AbawError(
            f"the folds of run {run.name} are of different split files",
            where=str(run),
            fix="train all folds again on one split: abaw finetune --folds K --overwrite",
        )
