"""The resume point of a training: all that the following steps depend on, in one file (docs/formats.md)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from abaw.errors import AbawError
from abaw.publish import publish
from abaw.training.device import rank_and_world

logger = logging.getLogger(__name__)

# What torch's file writer says when a write fails (a full disk, a quota, a folder that went away).
WRITE_FAILURES = ("inline_container", "failed writing", "No space", "Parent directory")


@dataclass
class State:
    """All of a training that is neither weights nor optimizer; plain values.

    `round_due`: the step's validation round is still to come.
    """

    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    first_loss: float = math.nan
    last_loss: float = math.nan
    seconds: float = 0.0
    metrics_bytes: int = 0
    round_due: bool = False


def publish_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write a resume point at once, together with the number of threads and processes it was computed with."""
    setting = {"threads": torch.get_num_threads(), "world": rank_and_world()[1]}
    publish(path, partial(write_state, _on_cpu({**content, **setting})))


def read_state(path: Path, device: torch.device, *, run: str) -> dict[str, Any]:
    """Content of a resume point; warns where threads or processes changed. Raises AbawError when it is damaged."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        before = {"torch threads": int(content["threads"]), "processes": int(content.get("world", 1))}
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, UnpicklingError) as error:
        raise AbawError(
            f"resume point of run {run} cannot be read ({str(error).splitlines()[0]})",
            where=str(path),
            fix=f"delete {path}: the run then starts from its beginning",
        ) from error
    now = {"torch threads": torch.get_num_threads(), "processes": rank_and_world()[1]}
    for what, count in now.items():
        if before[what] != count:
            logger.warning(
                "this run used %d %s before and uses %d now: the last bits of its weights will differ",
                before[what],
                what,
                count,
            )
    return content


def saved_step(path: Path) -> int | None:
    """Steps that a resume point has behind it; None where there is none, or none that can be read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # the tensors stay on the disk
        return int(content["state"]["step"])
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, UnpicklingError):
        return None


def describe_unfinished(path: Path) -> str:
    """What a run that is not done would do, by its resume point: "to do", or at which step it would continue."""
    step = saved_step(path)
    return "to do" if step is None else f"stopped, would continue at step {step}"


def write_state(content: Mapping[str, Any], path: Path) -> None:
    """Save tensors and plain values. Raises OSError when the file cannot be written, a RuntimeError in torch."""
    try:
        torch.save(content, path)
    except RuntimeError as error:
        if not any(words in str(error) for words in WRITE_FAILURES):
            raise
        raise OSError(str(error).splitlines()[0]) from error


def _on_cpu(value: Any) -> Any:
    """The same nested state with its tensors in main memory, so that a failing device is not taken for a full disk."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(part) for part in value)
    return value
