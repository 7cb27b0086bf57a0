"""Lets timm and torchaudio import beside a CPU-only torch.

The published torchvision and torchaudio wheels are linked to CUDA. Beside a CPU-only torch their native libraries do
not load, and both packages then fail at import although nothing used here needs those libraries. Each function is
called before the first import of its package and does nothing where the native library loads.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

_kept: list[Any] = []  # torch.library definitions vanish with the object that made them
_EXTENSION = "torchaudio._extension"


def prepare_timm() -> bool:
    """Declare the two torchvision operators that its Python side registers itself on.

    Returns True where the native library loads (nothing declared). `torchvision.ops.nms` and `torchvision.io` stay
    unusable where it does not.
    """
    if "torchvision" in sys.modules or _kept:
        return not _kept
    if _loads(_library("torchvision", "_C*.so")):
        return True
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return False


def prepare_torchaudio() -> bool:
    """Put a stand-in at `torchaudio._extension` where the native library does not load.

    Returns True where it loads (nothing replaced). Forced alignment stays unusable where it does not.
    """
    if _EXTENSION in sys.modules:
        return not getattr(sys.modules[_EXTENSION], "_is_stand_in", False)
    if _loads(_library("torchaudio", "lib/_torchaudio*.so")):
        return True
    stand_in: Any = ModuleType(_EXTENSION)
    stand_in._is_stand_in = True
    stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stand_in._IS_ALIGN_AVAILABLE = False
    stand_in.fail_if_no_align = _unusable
    stand_in._check_cuda_version = lambda: None
    sys.modules[_EXTENSION] = stand_in
    return False


def _unusable(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    def fail(*_args: Any, **_kwargs: Any) -> NoReturn:
        message = f"{function.__name__} needs torchaudio's native library, which does not load beside this torch"
        raise RuntimeError(message)

    return fail


def _library(package: str, pattern: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob(pattern))), None)


def _loads(library: Path | None) -> bool:
    """Whether torch can load the library; True when there is none, so that the import itself gives the message."""
    if library is None:
        return True
    import torch

    try:
        torch.ops.load_library(str(library))
    except OSError:
        return False
    return True
