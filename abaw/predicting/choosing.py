"""Which trained runs score a video: those that were named, or the best that the configuration's project has."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from abaw.config import Config
from abaw.errors import AbawError, ExitCode
from abaw.predicting.trained import Choice, is_finished, of_run, resolve
from abaw.tasks import TASKS, Task

logger = logging.getLogger(__name__)

SINGLE = ("va", "expr", "au")  # of all else, what is there is taken where none of these is


def find_choices(cfg: Config, named: Sequence[str], *, raw: bool = False) -> list[Choice]:
    """One choice for each task.

    Raises AbawError where nothing is trained yet, for a name that is not there, and for two runs that give the same.
    """
    if named:
        found = [resolve(cfg, name, raw=raw) for name in dict.fromkeys(named)]
        _require_apart(found)
        return found
    found = list(_defaults(cfg, raw=raw))
    if not found:
        _refuse_untrained(cfg)
    for one in found:
        logger.info("task %s: %s (name another with --run)", one.task.name, one.in_words())
    return found


def _defaults(cfg: Config, *, raw: bool) -> Iterator[Choice]:
    """The fusion of each task, else its model of single faces; of several tasks in one, what no other gives."""
    heads: set[str] = set()
    recipe = None
    for task in (*(TASKS[name] for name in SINGLE), *_others()):
        own = {head.name for head in task.heads}
        if own <= heads or (heads and task.name not in (*SINGLE, "mtl")):
            continue
        folder = _best(cfg, task)
        if folder is None:
            continue
        choice = of_run(folder, raw=raw)
        theirs = choice.parts[0][1].header["recipe"].get("fingerprint")
        if recipe not in (None, theirs):
            logger.warning("%s was trained on faces aligned another way and is left out", choice.name)
            continue
        heads, recipe = heads | own, theirs
        yield choice


def _others() -> list[Task]:
    return [task for name, task in TASKS.items() if name not in SINGLE and task.train_on is None]


def _best(cfg: Config, task: Task) -> Path | None:
    """Folder of the configured run that reads most, where it is finished."""
    places = (
        cfg.run_dir("fuse", cfg.fuse_for(task.name).run_name, task.name),
        cfg.run_dir("finetune", cfg.finetune_for(task.name).run_name, task.name),
    )
    return next((folder for folder in places if is_finished(folder)), None)


def _require_apart(found: Sequence[Choice]) -> None:
    given: dict[str, str] = {}
    for choice in found:
        for head in choice.task.heads:
            other = given.setdefault(head.name, choice.name)
            if other != choice.name:
                raise AbawError(
                    f"{other} and {choice.name} both score {head.name}",
                    where="--run",
                    fix=f"name one of them, or their ensemble: abaw fuse --task {choice.task.name} "
                    f"--ensemble {other} --ensemble {choice.name}",
                    code=ExitCode.CONFIG,
                )


def _refuse_untrained(cfg: Config) -> None:
    runs = cfg.run.output / "runs"
    there = sorted(path.name for path in runs.glob("*") if is_finished(path) and not path.name.startswith("pretrain-"))
    raise AbawError(
        "none of the configured runs is trained yet",
        where=str(runs),
        fix=f"name one that is there: --run {there[0]}" if there else "train one first: `make demo` shows the way",
        code=ExitCode.MISSING,
    )
