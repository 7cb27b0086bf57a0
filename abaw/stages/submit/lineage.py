"""What is behind a predictions store: ensembles, runs, features, faces, as far as they are on this machine.

Follows headers and records from store to run and on. What is not here, or is another one by its fingerprint, is named
in ``missing``; nothing is guessed. Knows nothing of rules or of how it is told.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from abaw.checkpoint import read_header, read_layout
from abaw.config import Config
from abaw.errors import AbawError
from abaw.provenance import file_sha256
from abaw.store_header import StoreHeader, header_from_json, read_header_json

FOLD = re.compile(r"(?P<run>.+)-fold-(?P<fold>\d+)")
NONE = "none"
STAGES = ("fuse", "finetune", "pretrain")
HASHED_BYTES = 1 << 28  # larger weights are known by the headers of their predictions; hashing them takes seconds


@dataclass(frozen=True)
class Features:
    """A store of features, or of faces, as its header says; ``notes`` as in store.json."""

    name: str
    header: StoreHeader
    notes: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A training: of a fold, ``fold`` says which. ``checkpoint`` is the header of its weights, ``done`` its result.

    ``num_weights``: numbers in its tensors.
    """

    name: str
    fold: int | None
    weights: str
    record: dict[str, Any]
    checkpoint: dict[str, Any]
    done: dict[str, Any]
    settings: dict[str, Any]
    num_weights: int = 0

    @property
    def stage(self) -> str:
        """The command that trained it."""
        return str(self.record.get("stage", ""))


@dataclass
class Lineage:
    """Everything found behind a predictions store, each thing once, in the order in which it was met.

    ``members``: name and weight of what an ensemble combines; ``splits``: names of split files by their hash.
    """

    members: list[tuple[str, float]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    features: dict[str, Features] = field(default_factory=dict)
    faces: dict[str, Features] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def lacks(self, what: str) -> None:
        """Note something that is not here, once."""
        if what not in self.missing:
            self.missing.append(what)


def follow(cfg: Config, store: Path, header: StoreHeader) -> Lineage:
    """What is behind a predictions store."""
    walk = _Walk(cfg, store.parent)
    walk.predictions(store.name, header)
    return walk.found


class _Walk:
    """Goes from store to run and on; each is visited once."""

    def __init__(self, cfg: Config, predictions: Path) -> None:
        self._cfg, self._predictions = cfg, predictions
        self._runs = cfg.run.output / "runs"
        self.found = Lineage()

    # -- predictions -------------------------------------------------------------------------------------------------
    def predictions(self, name: str, header: StoreHeader) -> None:
        """An ensemble's members, or the runs of a store."""
        settings = header.settings
        for member in settings.get("members", []):
            self.found.members.append((str(member.get("name")), float(member.get("weight", 0))))
            for other, fingerprint in dict(member.get("stores", {})).items():
                self._member(other, str(fingerprint))
        if "members" in settings or not isinstance(settings.get("run"), str):
            return
        weights, run = settings.get("weights"), settings["run"]
        if isinstance(weights, list):  # of all folds, joined
            for fold, sha256 in enumerate(weights):
                self.run(f"{run.removesuffix('-folds')}-fold-{fold}", str(sha256))
        else:
            self.run(run, str(weights or ""))

    def _member(self, name: str, fingerprint: str) -> None:
        found = _open(self._predictions / name)
        if found is None or found.header.fingerprint != fingerprint:
            self.found.lacks(f"predictions {name}: {_why(found)}")
            return
        self.predictions(name, found.header)

    # -- runs --------------------------------------------------------------------------------------------------------
    def run(self, name: str, weights: str) -> None:
        """A run by the name of its predictions, of a fold `<run>-fold-<k>`."""
        if name in self.found.runs:
            return
        match = FOLD.fullmatch(name)
        folder = self._runs / match["run"] / f"fold-{match['fold']}" if match else self._runs / name
        if not (folder / "run.json").is_file() and (self._runs / name / "run.json").is_file():
            match, folder = None, self._runs / name
        record = _read_json(folder / "run.json")
        if not record:
            known = f" (weights sha256 {weights[:16]})" if weights else ""
            self.found.lacks(f"run {name}: not on this machine{known}")
            return
        checkpoint, count = self._checkpoint(name, folder / "best.safetensors", weights)
        fold = int(match["fold"]) if match else None
        done, settings = _read_json(folder / "done"), _read_json(folder / "config.json")
        plain = match["run"] if match else name
        self.found.runs[name] = Run(plain, fold, weights, record, checkpoint, done, settings, count)
        self._inputs(record.get("inputs", {}))

    def _checkpoint(self, name: str, path: Path, weights: str) -> tuple[dict[str, Any], int]:
        """Header of a run's weights, and how many numbers they are; compared with the hash of what was used."""
        try:
            checkpoint, (tensors, _) = read_header(path), read_layout(path)
        except AbawError as error:
            self.found.lacks(f"weights of run {name}: {error.what}")
            return {}, 0
        if weights and path.stat().st_size <= HASHED_BYTES and _sha256(path) != weights:
            self.found.lacks(f"run {name}: trained again since; what is said of it is not what the scores are of")
        return checkpoint, sum(math.prod(shape) for _, shape in tensors.values())

    def _inputs(self, inputs: Mapping[str, Any]) -> None:
        split = inputs.get("split")
        if isinstance(split, Mapping):
            self.found.splits[str(split.get("sha256"))] = str(split.get("name"))
        for stream in inputs.get("streams", []):
            self._features(str(stream.get("name")), str(stream.get("fingerprint")))
        for key, value in inputs.items():
            if isinstance(value, Mapping) and "store" in value:  # faces, source_0, ...
                self._faces(str(value["store"]), str(value.get("fingerprint")), what=key)
        started = str(inputs.get("init_from", NONE))
        if started != NONE:
            self._weights(started, "weights that training started from")
        classifier = inputs.get("classifier")
        if isinstance(classifier, Mapping):
            self.found.foreign[str(classifier.get("sha256", ""))] = "frozen classifier beside the encoder"

    # -- features ----------------------------------------------------------------------------------------------------
    def _features(self, name: str, fingerprint: str) -> None:
        if name in self.found.features:
            return
        found = next(
            (one for one in map(_open, self._places(name)) if one and one.header.fingerprint == fingerprint), None
        )
        if found is None:
            self.found.lacks(f"features {name}: {_why(_open(self._places(name)[0]))}")
            return
        self.found.features[name] = found
        settings = found.header.settings
        if isinstance(settings.get("faces"), str):
            self._faces("", settings["faces"], what=f"faces of {name}")
        if isinstance(settings.get("weights"), str) and settings["weights"] not in ("", "random"):
            self._weights(settings["weights"], f"encoder of {name}")

    def _places(self, name: str) -> list[Path]:
        """Where a features store of that name may be: the usual folder, or as the configuration names it."""
        tables = [self._cfg.fuse, *self._cfg.fuse_tasks.values()]
        named = [
            path for table in tables for path in (*(table.visual or ()), *(table.audio or ())) if path.name == name
        ]
        return [self._cfg.run.output / "features" / name, *named]

    def _faces(self, name: str, fingerprint: str, *, what: str) -> None:
        if fingerprint in self.found.faces:
            return
        usual = [self._cfg.faces_store, self._cfg.run.output / "features" / name if name else self._cfg.faces_store]
        found = next((one for one in map(_open, usual) if one and one.header.fingerprint == fingerprint), None)
        if found is None:
            self.found.lacks(f"faces store {name or ''} ({what}): {_why(_open(usual[0]))}".replace("  ", " "))
            return
        self.found.faces[fingerprint] = found

    def _weights(self, sha256: str, what: str) -> None:
        """Weights by their hash: those of a run on this machine, or of another program."""
        run = self._by_weights.get(sha256) or self._pretrained.get(sha256)
        if run is None:
            self.found.foreign.setdefault(sha256, what)
        else:
            self.run(run, sha256)

    @cached_property
    def _by_weights(self) -> dict[str, str]:
        """Runs by the hash of their weights, as the headers of their predictions say it."""
        found = {}
        for path in sorted(self._predictions.glob("*/store.json")):
            store = _open(path.parent)
            if store and isinstance(store.header.settings.get("weights"), str):
                found[store.header.settings["weights"]] = str(store.header.settings.get("run"))
        return found

    @cached_property
    def _pretrained(self) -> dict[str, str]:
        """Pretraining runs by the hash of their weights; they have no predictions that would say it."""
        files = sorted(self._runs.glob("pretrain-*/best.safetensors"))
        return {_sha256(path): path.parent.name for path in files}


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ""


def _why(found: Features | None) -> str:
    return "not on this machine" if found is None else "another one lies here now (made with other settings)"


def _open(path: Path) -> Features | None:
    """A store's header and notes; None where there is no readable one."""
    try:
        content = read_header_json(path, None)
        return Features(path.name, header_from_json(content, path), dict(content["notes"]))
    except AbawError:
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def by_name(runs: Mapping[str, Run]) -> Iterator[tuple[str, list[Run]]]:
    """Runs with all their folds together, the last stage first, else in the order in which they were met."""
    ordered = sorted(runs.values(), key=lambda run: STAGES.index(run.stage) if run.stage in STAGES else len(STAGES))
    for name in dict.fromkeys(run.name for run in ordered):
        yield name, sorted((run for run in runs.values() if run.name == name), key=lambda run: run.fold or 0)
