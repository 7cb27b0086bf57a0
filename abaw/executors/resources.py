"""Where units run, what one of them takes, and which folders it needs: read from [run] by the stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from abaw.config import RunConfig
from abaw.errors import AbawError, ExitCode

RAY = "ray"


@dataclass(frozen=True)
class Resources:
    """What a unit takes: ``cpus`` cores, with as many threads of the numeric libraries, and ``gpus`` (a share of one).

    ``executor`` "local" or "ray"; on Ray ``at_once`` units run at most (0 = all that there is room for). ``writes`` is
    the folder that results appear in and ``reads`` what the work reads: all nodes must have them under these names.
    ``live``: what a unit logs is shown while it runs, not only its warnings at its end.
    """

    executor: str = "local"
    address: str = ""
    at_once: int = 0
    cpus: int = 1
    gpus: float = 0.0
    writes: Path | None = None
    reads: tuple[Path, ...] = ()
    live: bool = False

    @classmethod
    def of(
        cls,
        run: RunConfig,
        *,
        writes: Path,
        reads: Iterable[Path | None] = (),
        device: str = "cpu",
        cpus: int = 1,
        gpu_share: float = 1.0,
        live: bool = False,
    ) -> Resources:
        """Those of a stage whose work runs on ``device`` and takes ``gpu_share`` of a GPU there.

        None among ``reads`` stands for nothing. Raises AbawError (configuration) for a device by number on Ray.
        """
        if run.executor != RAY:
            return cls()
        kind, _, number = run.device.partition(":")
        if number:
            raise AbawError(
                f'on Ray no GPU can be asked for by its number, as device "{run.device}" does',
                where="run.device or --device",
                fix=f"use --device {kind}: Ray gives each unit a GPU",
                code=ExitCode.CONFIG,
            )
        return cls(
            executor=RAY,
            address=run.ray_address,
            at_once=run.workers,
            cpus=cpus,
            gpus=gpu_share if device.startswith("cuda") else 0.0,
            writes=writes.absolute(),
            reads=tuple(path.absolute() for path in reads if path is not None),
            live=live,
        )

    @property
    def is_ray(self) -> bool:
        """Whether units may run on other machines."""
        return self.executor == RAY
