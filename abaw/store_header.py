"""What a store's ``store.json`` says: kind, arrays, settings, recipe and provenance of all its track files.

Owns the header's types and their JSON form (docs/formats.md). Knows nothing of HDF5 or of what the arrays mean.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from abaw.errors import AbawError
from abaw.provenance import fingerprint, unknown_recipe

FORMAT_VERSION = 1
KINDS = ("faces", "visual", "audio", "predictions")
AXES = ("T", "T+1", "ragged")
TEXT = "str"  # dtype of UTF-8 strings


class Reason(IntEnum):
    """Why a row is invalid; 0 is a valid row. The numbers are part of the format."""

    VALID = 0
    NO_FACE = 1
    LOW_SCORE = 2
    DECODE_ERROR = 3
    MISSING_CROP = 4
    OTHER_PERSON = 5
    NO_SOUND = 6
    SILENT = 7
    BEYOND_SOUND = 8
    NO_VALUE = 9


@dataclass(frozen=True)
class ArraySpec:
    """One array of every track file: dtype ("str" = UTF-8 text), trailing shape, and what its first axis counts.

    ``axis``: "T" = rows of the track, "T+1" = offsets into a ragged array, "ragged" = any length.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    axis: str = "T"


VALID_SPEC = ArraySpec("bool")


@dataclass(frozen=True)
class StoreHeader:
    """What all track files of a store share.

    ``settings`` holds all that affects the arrays' values and nothing else. ``recipe`` is the alignment recipe and
    ``trained_on`` the labels behind the encoder (see ``provenance``); ``label_order`` names score columns by head.
    """

    kind: str
    name: str
    arrays: dict[str, ArraySpec]
    settings: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=unknown_recipe)
    trained_on: list[dict[str, Any]] = field(default_factory=list)
    label_order: dict[str, list[str]] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def fingerprint(self) -> str:
        """Hash of kind, arrays, settings, recipe and label order: equal for stores whose rows mean the same."""
        return fingerprint(self.identity())

    def identity(self) -> dict[str, Any]:
        """The part of the header that must be equal for two runs to write into one store."""
        arrays = {name: [spec.dtype, list(spec.shape), spec.axis] for name, spec in self.arrays.items()}
        return {
            "kind": self.kind,
            "arrays": arrays,
            "settings": self.settings,
            "recipe": self.recipe.get("fingerprint"),
            "label_order": self.label_order,
        }


def check_track_id(track_id: str, *, where: str) -> None:
    """Refuse ids that are no safe file name: AbawError."""
    bad = (
        not track_id
        or track_id.startswith(".")
        or any(c in "/\\" or ord(c) < 32 or ord(c) == 127 for c in track_id)
        or len(track_id.encode("utf-8", "surrogateescape")) > 200
        or any(0xD800 <= ord(c) <= 0xDFFF for c in track_id)
    )
    if bad:
        raise AbawError(
            f"{track_id!r} cannot be a track name",
            where=where,
            fix="rename it: no '/', no '\\', no leading dot, no control characters, at most 200 bytes of UTF-8",
        )


_TYPES: dict[str, type] = {
    "kind": str,
    "name": str,
    "arrays": dict,
    "settings": dict,
    "recipe": dict,
    "trained_on": list,
    "label_order": dict,
    "notes": dict,
    "fingerprint": str,
}


def read_header_json(path: Path, kind: str | None) -> dict[str, Any]:
    """Content of store.json. Raises AbawError when there is none, or no JSON object in it."""
    try:
        content = json.loads((path / "store.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AbawError(
            f"there is no {kind + ' ' if kind else ''}store at {path}",
            where=str(path),
            fix="run the stage that writes it first, or correct the path in the config",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _garbled(path, f"cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise _garbled(path, "holds no JSON object")
    return content


def header_from_json(content: dict[str, Any], path: Path) -> StoreHeader:
    """The header in store.json. Raises AbawError for a newer format, a missing or garbled entry, or an edited one."""
    version = content.get("format_version")
    if type(version) is not int or version < 1:
        raise _garbled(path, f"has no format version ({version!r})")
    if version > FORMAT_VERSION:
        raise AbawError(
            f"store {path} has format version {version}; this program reads up to {FORMAT_VERSION}",
            where=str(path / "store.json"),
            fix="update abaw: pip install --upgrade abaw",
        )
    wrong = [name for name, wanted in _TYPES.items() if not isinstance(content.get(name), wanted)]
    if wrong:
        raise _garbled(path, f"lacks or garbles {', '.join(wrong)}")
    try:
        header = StoreHeader(
            kind=content["kind"],
            name=content["name"],
            arrays={name: _array_spec(entry) for name, entry in content["arrays"].items()},
            settings=content["settings"],
            recipe=content["recipe"],
            trained_on=[dict(record) for record in content["trained_on"]],
            label_order={head: [str(name) for name in names] for head, names in content["label_order"].items()},
            format_version=version,
        )
        if header.fingerprint != content["fingerprint"]:
            raise _garbled(path, "was changed by hand: its fingerprint is not that of its settings")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _garbled(path, f"lacks or garbles {error}") from error
    return header


def _array_spec(entry: dict[str, Any]) -> ArraySpec:
    if entry["dtype"] != TEXT:
        np.dtype(entry["dtype"])
    if entry["axis"] not in AXES:
        raise ValueError(entry["axis"])
    return ArraySpec(str(entry["dtype"]), tuple(int(number) for number in entry["shape"]), entry["axis"])


def _garbled(path: Path, what: str) -> AbawError:
    return AbawError(
        f"store.json of {path} {what}",
        where=str(path / "store.json"),
        fix="restore it from a copy, or delete the store and run the stage again",
    )
