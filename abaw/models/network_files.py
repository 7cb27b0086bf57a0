"""Other programs' networks from files: their tensors, timm's models by name, and what to say where they do not fit."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from abaw._compat import prepare_timm
from abaw.errors import AbawError, ExitCode
from abaw.models.layouts import unwrap
from abaw.models.weight_files import read_weight_file

T = TypeVar("T")
NAMES_SHOWN = 5


def named_tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a weights file, whatever they are wrapped in. Raises AbawError."""
    return unwrap(read_weight_file(path).content, path=path).tensors


def built(path: Path, build: Callable[[], T], *, where: str) -> T:
    """What `build` gives; AbawError where the file's tensors do not fit the network."""
    try:
        return build()
    except (RuntimeError, KeyError) as error:
        lines = str(error).splitlines()
        raise AbawError(
            f"the weights of {path.name} do not fit the network ({' '.join(line.strip() for line in lines)[:200]})",
            where=where,
            fix="give the weights of exactly this network",
        ) from error


def timm_library(model: str, *, where: str) -> Any:
    """The package timm, which has that model, named with or without a tag of its weights.

    Raises AbawError that shows the closest names: there are far too many to list.
    """
    prepare_timm()
    import timm

    name, _, tag = model.partition(".")
    if name not in (names := timm.list_models()):
        raise _unknown("timm model", name, names, where)
    if tag and model not in (tagged := timm.list_models(f"{name}.*", pretrained=True)):
        raise _unknown("weights of a timm model", model, tagged, where)
    return timm


def _unknown(what: str, name: str, names: list[str], where: str) -> AbawError:
    close = difflib.get_close_matches(name, names, n=NAMES_SHOWN, cutoff=0.5)
    known = f"the closest names are {', '.join(close)}" if close else "no name is close to it"
    family = name.partition("_")[0].partition(".")[0]
    listing = f"python -c \"import abaw.models.vit, timm; print(timm.list_models('*{family}*'))\" lists names"
    return AbawError(f'unknown {what} "{name}"', where=where, fix=f"{known}; {listing}", code=ExitCode.CONFIG)
