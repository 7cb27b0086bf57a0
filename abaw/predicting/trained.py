"""Trained runs that videos can be scored with: one run, the folds of one, or an ensemble; found by name or folder.

Knows how runs and predictions stores lie on disk (docs/formats.md). Builds no model.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from abaw.checkpoint import read_header
from abaw.config import Config
from abaw.errors import AbawError, ExitCode, choose
from abaw.postprocess import Post, load_post
from abaw.provenance import file_sha256
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Task
from abaw.training.run import FOLD_PREFIX

logger = logging.getLogger(__name__)

BEST = "best.safetensors"
FOLD = re.compile(r"(?P<run>.+)-fold-(?P<fold>\d+)")
MAX_NAMED = 12  # runs of one message


@dataclass(frozen=True)
class Trained:
    """One finished training. ``name`` tells folds apart; ``output`` is the folder that its ``runs`` folder is in."""

    folder: Path
    name: str
    output: Path

    @cached_property
    def header(self) -> dict[str, Any]:
        """Header of its weights."""
        return read_header(self.weights)

    @property
    def weights(self) -> Path:
        """File of its best weights."""
        return self.folder / BEST

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return hash_of(self.weights)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """config.json."""
        return _json(self.folder / "config.json")

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What run.json says went in."""
        return dict(_json(self.folder / "run.json").get("inputs", {}))

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return choose(TASKS, str(self.header.get("task")), what="task", where=str(self.weights))

    @property
    def is_fusion(self) -> bool:
        """Whether it reads features; else it looks at faces."""
        return bool(self.header.get("kind") == "fusion")


@dataclass(frozen=True)
class Choice:
    """What scores one task: trainings with their weights, which sum to 1, and how their scores are joined."""

    name: str
    task: Task
    parts: tuple[tuple[float, Trained], ...]
    combine: str = "scores"
    post: Post = Post()

    def in_words(self) -> str:
        """For a person: "fuse-va-netease", "fuse-va-netease (mean of 3 folds)"."""
        if len(self.parts) == 1:
            return self.name
        weights = {round(weight, 6) for weight, _ in self.parts}
        return f"{self.name} ({'mean' if len(weights) == 1 else 'weighted mean'} of {len(self.parts)} models)"

    def describe(self) -> dict[str, Any]:
        """What its scores follow from, in plain JSON values."""
        parts = {one.name: {"weights": one.sha256[:16], "share": round(weight, 6)} for weight, one in self.parts}
        return {"run": self.name, "models": parts, "combine": self.combine}


@lru_cache(maxsize=256)
def hash_of(path: Path) -> str:
    """SHA-256 of a file of weights, taken once."""
    return file_sha256(path)


def resolve(cfg: Config, named: str, *, raw: bool = False) -> Choice:
    """The run, its folds, or the ensemble of that name or folder.

    Raises AbawError for one that is not there or not finished, and for scores whose runs were trained again since.
    """
    for path in (Path(named).expanduser(), *(cfg.run.output / place / named for place in ("runs", "predictions"))):
        path = path.parent if path.name == BEST else path
        if (path / "store.json").is_file():
            return _of_store(path.resolve(), raw=raw)
        if (path / "run.json").is_file() or any(path.glob(f"{FOLD_PREFIX}*/run.json")):
            return of_run(path.resolve(), raw=raw)
    known = sorted(path.name for place in ("runs", "predictions") for path in (cfg.run.output / place).glob("*"))
    shown = ", ".join(dict.fromkeys(name for name in known if not name.startswith((".", "pretrain-"))))
    raise AbawError(
        f'there is no run or ensemble "{named}"',
        where=f"--run, {cfg.run.output / 'runs'}",
        fix=f"name one of: {shown}" if shown else "train one first: abaw finetune, then abaw fuse",
        code=ExitCode.MISSING,
    )


def of_run(folder: Path, *, raw: bool = False) -> Choice:
    """A run folder: its own weights, else the mean of its folds. Raises AbawError as `resolve`."""
    if (folder / "run.json").is_file():
        found = [_finished(folder)]
        store = predictions_of(found[0])
    else:
        places = sorted(folder.glob(f"{FOLD_PREFIX}*/run.json"), key=lambda path: _number(path.parent.name))
        found = [_finished(path.parent) for path in places]
        store = found[0].output / "predictions" / f"{folder.name}-folds"
    post = Post() if raw else _post(store, [one.sha256 for one in found])
    return Choice(folder.name, _one_task(found, folder), _shared(found), post=post)


def is_finished(folder: Path) -> bool:
    """Whether a run, or every fold that it has, is trained to its end."""
    if (folder / "run.json").is_file():
        return (folder / "done").is_file() and (folder / BEST).is_file()
    folds = [path.parent for path in folder.glob(f"{FOLD_PREFIX}*/run.json")]
    return bool(folds) and all(is_finished(fold) for fold in folds)


def predictions_of(one: Trained) -> Path:
    """The predictions store that a training wrote, whether it is there or not."""
    return one.output / "predictions" / one.name


# -- one run -----------------------------------------------------------------------------------------------------------
def _finished(folder: Path) -> Trained:
    is_fold = folder.name.startswith(FOLD_PREFIX)
    run = folder.parent if is_fold else folder
    name = f"{run.name}-{folder.name}" if is_fold else run.name
    if not is_finished(folder):
        stage = run.name.partition("-")[0]
        raise AbawError(
            f"run {name} is not finished",
            where=str(folder),
            fix=f"run `abaw {stage}` again, which goes on where it stopped, or name another run",
            code=ExitCode.MISSING,
        )
    found = Trained(folder, name, run.parent.parent)
    if "task" not in found.header:
        raise AbawError(
            f"run {name} gives no scores: it has not seen labels",
            where=str(folder),
            fix="name a run of `abaw finetune` or `abaw fuse`",
            code=ExitCode.CONFIG,
        )
    return found


def _one_task(found: list[Trained], folder: Path) -> Task:
    tasks = {one.task.name: one.task for one in found}
    if len(tasks) > 1:
        raise AbawError(
            f"{folder.name} joins models of different tasks: {', '.join(sorted(tasks))}",
            where=str(folder),
            fix="name a run of one task, and the other with a second --run",
            code=ExitCode.CONFIG,
        )
    return next(iter(tasks.values()))


def _shared(found: list[Trained]) -> tuple[tuple[float, Trained], ...]:
    return tuple((1 / len(found), one) for one in found)


def _number(name: str) -> int:
    text = name.removeprefix(FOLD_PREFIX)
    return int(text) if text.isdigit() else 0


def _post(store: Path, weights: list[str]) -> Post:
    """The post-processing that was chosen for the scores of these weights."""
    if not (store / "store.json").is_file():
        return Post()
    recorded = FeatureStore.open(store, kind="predictions").header.settings.get("weights")
    if recorded not in (weights, weights[0]):
        logger.warning("%s is of other weights: its post.json is left aside", store.name)
        return Post()
    return load_post(store)


# -- predictions stores ------------------------------------------------------------------------------------------------
def _of_store(path: Path, *, raw: bool) -> Choice:
    """The runs behind a predictions store."""
    settings = FeatureStore.open(path, kind="predictions").header.settings
    parts = _behind(path, 1.0, ())
    post = Post() if raw else load_post(path)
    combine = str(settings.get("combine", "scores"))
    return Choice(path.name, _one_task([one for _, one in parts], path), tuple(parts), combine, post)


def _behind(path: Path, weight: float, above: tuple[Path, ...]) -> list[tuple[float, Trained]]:
    """Trainings and their shares of ``weight``; of an ensemble those of its members, none of them without weight."""
    if path in above or not (path / "store.json").is_file():
        raise AbawError(
            f"the scores {path.name} are not here, and an ensemble is made of them",
            where=str(path),
            fix="bring the folder back, or name a run: --run NAME",
            code=ExitCode.MISSING,
        )
    settings = FeatureStore.open(path, kind="predictions").header.settings
    if "members" in settings:
        members = [member for member in settings["members"] if member["weight"] > 0]
        return [
            part
            for member in members
            for name in member["stores"]
            for part in _behind(path.with_name(name), weight * member["weight"] / len(member["stores"]), (*above, path))
        ]
    found = _runs_of(path, settings)
    return [(weight / len(found), one) for one in found]


def _runs_of(path: Path, settings: Mapping[str, Any]) -> list[Trained]:
    """The training of a store of scores, or those of all folds that it joins."""
    runs, name, weights = path.parent.parent / "runs", str(settings.get("run")), settings.get("weights")
    if isinstance(weights, list):
        run = runs / name.removesuffix("-folds")
        folders = [run / f"{FOLD_PREFIX}{number}" for number in range(len(weights))]
    else:
        match = FOLD.fullmatch(name)
        folders = [runs / match["run"] / f"{FOLD_PREFIX}{match['fold']}" if match else runs / name]
        weights = [weights]
    found = []
    for folder, recorded in zip(folders, weights, strict=True):
        if not (folder / "run.json").is_file():
            raise AbawError(
                f"run {folder.name} behind the scores {path.name} is not here",
                where=str(folder),
                fix="bring the folder back, or name another run",
                code=ExitCode.MISSING,
            )
        one = _finished(folder)
        if one.sha256 != recorded:
            raise AbawError(
                f"run {one.name} was trained again since the scores {path.name} were made",
                where=str(folder),
                fix=f"name the run itself, or make {path.name} anew (--overwrite)",
            )
        found.append(one)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AbawError(
            f"{path.name} of run {path.parent.name} cannot be read ({error})",
            where=str(path),
            fix="restore the file from a copy, or train the run again",
        ) from error
    return content if isinstance(content, dict) else {}
