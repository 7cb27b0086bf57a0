"""What `abaw report RUN` is about: the predictions store that RUN names, and the run folders behind it.

RUN is a run, a fold of one, a folder of either, or a predictions store. What is not on this machine is told, never
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.errors import AbawError, closest
from abaw.store import FeatureStore

FOLD = re.compile(r"^(?P<run>.+)-(?P<fold>fold-\d+)$")
JOINED = "-folds"  # how the store of all folds' held-out scores is called
MAX_RUNS = 200  # an ensemble of more models is told of, but not listed


@dataclass(frozen=True)
class Subject:
    """``store``: the predictions, None where there are none; ``runs``: run folders by name; ``missing``: in words."""

    name: str
    store: Path | None
    runs: dict[str, Path]
    missing: list[str] = field(default_factory=list)


def find(cfg: Config, given: str) -> Subject:
    """The subject of a report. Raises AbawError where nothing of that name is there."""
    for path in _places(cfg, given):
        if (path / "store.json").is_file():
            return _of_store(cfg, path)
        if _is_run(path):
            return _of_run(cfg, path)
    folder = cfg.run.output
    known = sorted(path.name for kind in ("runs", "predictions") for path in (folder / kind).glob("*") if path.is_dir())
    match = closest(given, known)
    raise AbawError(
        f"there is no run and no predictions store {given!r}",
        where=str(folder),
        fix=f"abaw report {match}" if match else "name a folder of runs/ or predictions/, or a path to one",
    )


def _places(cfg: Config, given: str) -> list[Path]:
    """Where RUN may lie: as a path, then as a name."""
    stem = given.rstrip("/")
    if not stem:
        return []
    fold = FOLD.match(stem)
    runs = cfg.run.output / "runs"
    places = [Path(given), cfg.run.output / given, cfg.run.output / "predictions" / stem, runs / stem]
    return [*places, runs / fold["run"] / fold["fold"]] if fold else places


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file() or any(path.glob("fold-*/run.json"))


def _of_run(cfg: Config, path: Path) -> Subject:
    path = path.resolve()
    own = cfg.predictions_store(path)
    stores = [own] if (path / "run.json").is_file() else []
    stores.append(own.with_name(own.name + JOINED))
    found = [store for store in stores if (store / "store.json").is_file()]
    missing = [] if found else [f"There is no predictions store {stores[0].name} here: there is nothing to measure."]
    if found and found[0].name.endswith(JOINED):
        return _of_store(cfg, found[0])
    return Subject(own.name, found[0] if found else None, dict(_folders(path, own.name)), missing)


def _of_store(cfg: Config, path: Path) -> Subject:
    path = path.resolve()
    settings = FeatureStore.open(path, kind="predictions").header.settings
    runs: dict[str, Path] = {}
    missing = []
    for name in _names(path.name, settings):
        found = dict(_folders(_run_folder(cfg, name), name))
        runs |= found
        if not found:
            missing.append(
                f"The run folder of {name} is not on this machine: its configuration, versions and training curves "
                "are not shown."
            )
    if len(runs) > MAX_RUNS:
        missing.append(f"Of {len(runs)} run folders the first {MAX_RUNS} are shown.")
        runs = dict(list(runs.items())[:MAX_RUNS])
    return Subject(path.name, path, runs, missing)


def _names(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Names of the predictions stores that models wrote: of an ensemble its members', else its own."""
    members = settings.get("members")
    if not isinstance(members, list):
        return [name]
    named = [one.get("name") for one in members if isinstance(one, Mapping)]
    return list(dict.fromkeys(one for one in named if isinstance(one, str) and Path(one).name == one))


def _run_folder(cfg: Config, store_name: str) -> Path:
    """Folder of the run that wrote a predictions store of that name."""
    runs = cfg.run.output / "runs"
    fold = FOLD.match(store_name)
    if fold and (runs / fold["run"] / fold["fold"]).is_dir():
        return runs / fold["run"] / fold["fold"]
    joined = store_name.removesuffix(JOINED)
    return runs / (joined if (runs / joined).is_dir() else store_name)


def _folders(path: Path, name: str) -> Iterator[tuple[str, Path]]:
    """A run folder by its name, or those of its folds where the scores are theirs."""
    if (path / "run.json").is_file() and not name.endswith(JOINED):
        yield name, path
        return
    folds = [fold for fold in path.glob("fold-*") if (fold / "run.json").is_file()]
    for fold in sorted(folds, key=lambda fold: (len(fold.name), fold.name)):
        yield f"{path.name}/{fold.name}", fold
