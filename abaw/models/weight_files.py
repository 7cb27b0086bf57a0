"""Reading weights of any origin without running code from the file.

Three containers: safetensors, torch's zip archive and torch's old pickle. The last two are read by torch's restricted
unpickler. Its allow-list is opened for argparse's Namespace and NumPy's arrays of plain numbers, and nothing else.
"""

from __future__ import annotations

import argparse
import builtins
import pickle
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from abaw.checkpoint import HEADER_KEY, load_checkpoint, read_layout
from abaw.errors import AbawError, ExitCode

_ZIP = b"PK\x03\x04"
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)|but got <class '([\w.]+)'>|unrecognized function (.+)")
_PLAIN_NUMBERS = "?bhilqBHILQefd"  # NumPy's type letters: bool, integers, floats; objects and structures stay out


@dataclass(frozen=True)
class WeightFile:
    """What a file holds: usually a dictionary with tensors in it; ``header``: ours, where this program wrote it."""

    content: Any
    header: dict[str, Any] | None = None


def read_weight_file(path: Path) -> WeightFile:
    """Read a file once, on the CPU.

    Raises AbawError for a file that is missing, empty, cut off or of another format, and for a pickle that asks to
    run or to build anything beyond tensors, plain values, Namespace and NumPy arrays.
    """
    first = _first_bytes(path)
    if path.suffix == ".safetensors" or _is_safetensors(first):
        return _read_safetensors(path)
    if first.startswith(_ZIP) or _PICKLE.match(first):
        return WeightFile(_read_torch(path, is_zip=first.startswith(_ZIP)))
    reason = "it is empty" if not first else "it is neither safetensors nor a file of torch.save"
    raise AbawError(
        f"{path.name} is not a weights file ({reason})",
        where=str(path),
        fix="give a .safetensors, .pth, .pt or .bin file with weights; download it again if it should be one",
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except FileNotFoundError as error:
        raise AbawError(
            f"there is no weights file {path}",
            where=str(path),
            fix="run the stage that writes it first, or correct the path",
            code=ExitCode.MISSING,
        ) from error
    except OSError as error:
        fix = "give the file itself, not its folder" if path.is_dir() else "make the file readable"
        raise AbawError(f"{path.name} cannot be read ({error.strerror})", where=str(path), fix=fix) from error


def _is_safetensors(first: bytes) -> bool:
    return len(first) > 8 and first[8:9] == b"{" and 2 <= struct.unpack("<Q", first[:8])[0] < 2**32


def _read_safetensors(path: Path) -> WeightFile:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _, metadata = read_layout(path)
    try:
        if HEADER_KEY in metadata:
            weights, header = load_checkpoint(path)
            return WeightFile(weights, header)
        return WeightFile(load_file(path))
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error


def _read_torch(path: Path, *, is_zip: bool) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of is refused below, in words
            # Mapped, so that a save with an optimiser in it costs memory for its weights alone.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # what a damaged pickle raises depends on the byte that is wrong
        if "TorchScript" in str(error):
            raise _refused(path, "it is a TorchScript program, not weights") from error
        reason = str(error).partition(". ")[0].splitlines() or [type(error).__name__]
        raise _damaged(path, reason[0]) from error


def _allowed() -> list[Any]:
    """What may be built from a file, by the names that old and new NumPy write."""
    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float32(0).__reduce__()[0]
    listed: list[Any] = [argparse.Namespace, np.ndarray, np.dtype]
    listed += [type(np.dtype(letter)) for letter in _PLAIN_NUMBERS]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
        listed += [(reconstruct, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    return listed


def _refusal(path: Path, message: str) -> AbawError:
    """Why torch's restricted unpickler stopped, in words of what the file is."""
    found = _GLOBAL.search(message)
    name = next(text for text in found.groups() if text).rstrip(".") if found else ""
    last = name.rpartition(".")[2]
    if "." not in name and not hasattr(builtins, name or "."):
        detail = message.partition("WeightsUnpickler error:")[2].strip() or message
        return _damaged(path, f"not a pickle that torch.save writes: {detail.splitlines()[0][:80]}")
    if name.startswith(("torch.", "timm.", "torchvision.", "__main__.")) and last[:1].isupper():
        return _refused(path, f"it is a pickled whole module, of class {name}, and reading it would run that code")
    if last[:1].isupper():
        return _refused(
            path, f"it needs an object of class {name}, which is not weights, and reading it would run code"
        )
    return _refused(path, f"it is a pickle that would call {name} when read")


def _refused(path: Path, reason: str) -> AbawError:
    return AbawError(
        f"{path.name} is refused: {reason}",
        where=str(path),
        fix="ask for the state_dict alone (torch.save(model.state_dict(), FILE)), a .safetensors file, or an ONNX twin",
    )


def _damaged(path: Path, reason: str) -> AbawError:
    return AbawError(
        f"{path.name} is not a readable weights file ({reason})",
        where=str(path),
        fix="it is cut off or damaged: download it again, or restore it from a copy",
    )
