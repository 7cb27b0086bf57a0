"""Weights on disk: safetensors with a JSON header that says what they are and what they may be used for.

Reading a header needs neither torch nor safetensors. The layout is described in docs/formats.md.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abaw.errors import AbawError, ExitCode
from abaw.provenance import unknown_recipe
from abaw.publish import publish

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT_VERSION = 1
HEADER_KEY = "abaw"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Publish weights and header at once. Raises AbawError when the file cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    content = {name: value.detach().to("cpu").contiguous() for name, value in weights.items()}
    text = json.dumps({"format_version": FORMAT_VERSION, **header}, sort_keys=True, default=str)
    publish(
        path,
        lambda temporary: save_file(content, temporary, metadata={HEADER_KEY: text}),
        failures=(OSError, SafetensorError),
    )


def read_header(path: Path) -> dict[str, Any]:
    """Header of one of our checkpoints. Raises AbawError for a missing, truncated or foreign file."""
    _, metadata = read_layout(path)
    try:
        header = json.loads(metadata[HEADER_KEY])
    except (KeyError, ValueError) as error:
        raise AbawError(
            f"{path.name} holds weights without the header this program writes",
            where=str(path),
            fix="give a best.safetensors written by `abaw pretrain`, `finetune` or `fuse`",
        ) from error
    version = header.get("format_version") if isinstance(header, dict) else None
    if type(version) is not int:
        raise _unreadable(path, "its header has no format version")
    header = {"recipe": unknown_recipe(), "trained_on": [], **header}
    if not isinstance(header["recipe"], dict) or not isinstance(header["trained_on"], list):
        raise _unreadable(path, "its header garbles recipe or provenance")
    if version > FORMAT_VERSION:
        raise AbawError(
            f"{path.name} has a header of another format version; this program reads up to {FORMAT_VERSION}",
            where=str(path),
            fix="update abaw: pip install --upgrade abaw",
        )
    return header


def read_layout(path: Path) -> tuple[dict[str, tuple[str, list[int]]], dict[str, str]]:
    """Dtype and shape of every tensor of a safetensors file, and its metadata. Raises AbawError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > min(_MAX_HEADER, size):
                raise _unreadable(path, "its header is cut off or it is no safetensors file")
            content = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise AbawError(
            f"there is no weights file {path}",
            where=str(path),
            fix="run the stage that writes it first, or correct the path",
            code=ExitCode.MISSING,
        ) from error
    except (OSError, struct.error, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        metadata = dict(content.pop("__metadata__", {}))
        end = max((int(entry["data_offsets"][1]) for entry in content.values()), default=0)
        layout = {name: (str(entry["dtype"]), list(entry["shape"])) for name, entry in content.items()}
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _unreadable(path, f"its header lacks or garbles {error}") from error
    if 8 + length + end != size:
        raise _unreadable(path, f"{size} bytes where its header promises {8 + length + end}")
    return layout, metadata


def _unreadable(path: Path, reason: str) -> AbawError:
    return AbawError(
        f"{path.name} is not a readable weights file ({reason})",
        where=str(path),
        fix="make it again, or restore it from a copy",
    )


def load_checkpoint(path: Path, *, kind: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (on the CPU) and header. Raises AbawError, also when the header names another `kind`."""
    from safetensors.torch import load_file

    header = read_header(path)
    if kind is not None:
        check_kind(header, kind, path)
    return load_file(path), header


def check_kind(header: Mapping[str, Any], kind: str, path: Path) -> None:
    """Raise AbawError when a header names another kind of model."""
    if header.get("kind") != kind:
        raise AbawError(
            f'{path.name} holds a model of kind "{header.get("kind")}", not "{kind}"',
            where=str(path),
            fix=f'give weights of kind "{kind}"; `abaw inspect {path}` shows what a file holds',
        )


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], *, where: str, fresh: tuple[str, ...] = ()
) -> list[str]:
    """Put weights into a model; every parameter must match in name and shape, or raise AbawError.

    `fresh`: prefixes of parameters that may be missing from the weights and then keep their initial values; their
    names are returned.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights and not name.startswith(fresh or ("\0",))]
    unexpected = [name for name in weights if name not in own]
    misshapen = [
        f"{name} {list(weights[name].shape)} for {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [
        f"{what} {len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen))
        if names
    ]
    if problems:
        raise AbawError(
            f"weights do not fit the model ({'; '.join(problems)})",
            where=where,
            fix="use the preset the weights were made with; `abaw inspect` on the file names it",
        )
    model.load_state_dict({**own, **weights})
    return [name for name in own if name not in weights]
