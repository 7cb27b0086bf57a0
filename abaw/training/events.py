"""Curves for TensorBoard, where that package is installed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from abaw.training.distributed import is_main

logger = logging.getLogger(__name__)


class Events:
    """Scalars in event files of a folder; does nothing without TensorBoard, and on all processes but the first.

    Curves drawn before, from `step` on, are hidden: a resumed run draws them again.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self._writer: Any = None
        if not is_main() or importlib.util.find_spec("tensorboard") is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            logger.warning("no TensorBoard files: the package is installed but cannot be loaded (%s)", error)
            return
        self._writer = SummaryWriter(str(folder), purge_step=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Draw named values at a step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
