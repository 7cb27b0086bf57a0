"""What trained runs read: the faces and the features that they were trained on, by the headers of those stores.

A header is enough: the tracks of the training need not be here. Builds no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.errors import AbawError, ExitCode
from abaw.predicting.trained import Choice, Trained
from abaw.provenance import UNKNOWN, Recipe, check_recipe
from abaw.store_header import StoreHeader, header_from_json, read_header_json

FOLD_END = re.compile(r"-fold-\d+$")


@dataclass(frozen=True)
class Features:
    """A features store that a run was trained on. ``key``: name of the encoder's table; of a fold with its number."""

    name: str
    kind: str
    header: StoreHeader
    output: Path

    @property
    def key(self) -> str:
        """What the same features of a new video are called."""
        return self.name.removeprefix(f"{self.kind}-")

    @property
    def table(self) -> str:
        """Name that [encoders] has for it."""
        return FOLD_END.sub("", self.key)


@dataclass(frozen=True)
class Behind:
    """Everything that has to be made of a new video: aligned faces, and features.

    ``faces``: header of the faces store of the training, where it is here.
    """

    recipe: Recipe
    faces: StoreHeader | None
    features: dict[str, Features]

    def of_kind(self, kind: str) -> list[Features]:
        """The visual or the audio ones."""
        return [one for one in self.features.values() if one.kind == kind]


def look_behind(cfg: Config, choices: Sequence[Choice]) -> Behind:
    """What the chosen runs read.

    Raises AbawError for features whose header is not here, or that no encoder makes, and for runs that were trained on
    faces aligned in different ways.
    """
    models = [one for choice in choices for _, one in choice.parts]
    features: dict[str, Features] = {}
    for model in models:
        for stream in model.header.get("streams", []) if model.is_fusion else []:
            found = _features(cfg, model, stream)
            other = features.setdefault(found.name, found)
            if other.header.fingerprint != found.header.fingerprint:
                raise AbawError(
                    f"two of the runs read different features that are both called {found.name}",
                    where=f"{other.output}\n{found.output}",
                    fix="score with each of them in turn: --run NAME --out FOLDER",
                    code=ExitCode.CONFIG,
                )
    recipe = _one_recipe(cfg, models)
    faces = next((found for model in models for found in _faces(cfg, model, features)), None)
    return Behind(recipe, faces, features)


# -- features ----------------------------------------------------------------------------------------------------------
def _features(cfg: Config, model: Trained, stream: dict[str, str]) -> Features:
    name, kind, wanted = (str(stream[key]) for key in ("name", "kind", "fingerprint"))
    tables = [cfg.fuse, *cfg.fuse_tasks.values()]
    named = [path for table in tables for path in (*(table.visual or ()), *(table.audio or ()))]
    places = [model.output / "features" / name, cfg.run.output / "features" / name]
    places += [path for path in named if path.name == FOLD_END.sub("", name)]
    found = _first(places, kind, wanted)
    if found is None:
        raise AbawError(
            f"how the features {name} of run {model.name} are made is not known: their store is not here, or was made "
            "anew since",
            where=str(places[0] / "store.json"),
            fix=f"bring {name}/store.json back (without its tracks will do), or train the run on features that are "
            "here",
            code=ExitCode.MISSING,
        )
    if found.settings.get("encoder") == "imported":
        raise AbawError(
            f"run {model.name} reads {name}, which another program made: it cannot be made of a new video here",
            where=str(places[0]),
            fix="name a run that was trained on features of `abaw extract-visual` and `abaw extract-audio`",
            code=ExitCode.CONFIG,
        )
    return Features(name, kind, found, model.output)


def _first(places: Sequence[Path], kind: str, fingerprint: str) -> StoreHeader | None:
    """The header with this fingerprint, from the first of the places that has it."""
    for path in dict.fromkeys(places):
        if (path / "store.json").is_file():
            header = header_from_json(read_header_json(path, kind), path)
            if header.fingerprint == fingerprint:
                return header
    return None


# -- faces -------------------------------------------------------------------------------------------------------------
def _one_recipe(cfg: Config, models: Sequence[Trained]) -> Recipe:
    """The alignment that all runs were trained with. Raises AbawError unless it is known and the same."""
    accept = cfg.run.accept_recipe_mismatch
    first = next((one for one in models if _recipe(one) != UNKNOWN), models[0])
    recipe: Recipe = first.header["recipe"]
    for other in models:
        if _recipe(other) != _recipe(first):
            what = f"run {other.name} (beside {first.name})"
            check_recipe(other.header["recipe"], recipe, what=what, where="--run", accept=accept)
    if recipe.get("fingerprint", UNKNOWN) == UNKNOWN and not accept:
        raise AbawError(
            f"how the faces that run {first.name} was trained on were aligned is not known (ready-made crops, or "
            "features of another program)",
            where=str(first.weights),
            fix="train on faces of `abaw align`, or take those that [align] describes all the same: "
            "--set run.accept_recipe_mismatch=true",
        )
    return recipe


def _recipe(model: Trained) -> str:
    return str(model.header["recipe"].get("fingerprint", UNKNOWN))


def _faces(cfg: Config, model: Trained, features: dict[str, Features]) -> Iterator[StoreHeader]:
    """Headers of the faces behind a run, where they are here."""
    given = model.inputs.get("faces")
    wanted = [(str(given["store"]), str(given["fingerprint"]))] if isinstance(given, dict) else []
    names = [stream["name"] for stream in model.header.get("streams", [])] if model.is_fusion else []
    for name in names:
        fingerprint: Any = features[name].header.settings.get("faces")
        if isinstance(fingerprint, str):
            wanted.append(("faces", fingerprint))
    for name, fingerprint in wanted:
        places = [model.output / "features" / name, cfg.faces_store, model.output / "features" / "faces"]
        found = _first(places, "faces", fingerprint)
        if found is not None:
            yield found
