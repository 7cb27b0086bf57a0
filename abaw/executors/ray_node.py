"""What a node of a Ray cluster does with a unit, and what it tells of it. Imports nothing of Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from abaw import __version__
from abaw.errors import AbawError, ExitCode
from abaw.executors.results import TrackResult, Unit, Work, run_unit

SHARED = "one file system must show the same folders under the same names on all nodes"


@dataclass(frozen=True)
class Job:
    """What all units of a run share; small and picklable.

    ``marker``: a file of the command in the folder that results go to, which shows a node that it is that folder;
    ``folder``: the command's own, which relative paths start at.
    """

    work: Work
    folder: Path
    reads: tuple[Path, ...] = ()
    marker: Path | None = None
    live: bool = False


@dataclass(frozen=True)
class Told:
    """What comes back of a unit: its results, and the warnings (level, text) that its work logged."""

    results: list[TrackResult]
    said: list[tuple[int, str]]


def run_on_node(unit: Unit, version: str, job: Job) -> Told | AbawError:
    """Do a unit's work here. An AbawError is returned where this node is not fit for the run at all."""
    if version != __version__:
        return _other_version(version)
    with contextlib.suppress(OSError):  # what is read there is missed below
        os.chdir(job.folder)
    for path in job.reads:
        if not path.exists():
            return _lacking(path, f"has no {path}")
    if job.marker is not None and not job.marker.exists():
        folder = job.marker.parent
        return _lacking(folder, f"has another folder {folder}" if folder.is_dir() else f"has no {folder}")
    with _collected(live=job.live) as said:
        results = list(run_unit(unit, job.work))
    return Told(results, said)


def _lacking(path: Path, what: str) -> AbawError:
    return AbawError(
        f"node {platform.node()} {what} that the command was given",
        where=str(path),
        fix=f"{SHARED}: mount it there, move the data to a folder that all share, or take the node out of the cluster",
    )


def _other_version(version: str) -> AbawError:
    return AbawError(
        f"node {platform.node()} has abaw {__version__}, the command is of abaw {version}",
        where="run.executor",
        fix="install the same version on every node, in the same kind of environment",
        code=ExitCode.MISSING,
    )


@contextmanager
def _collected(*, live: bool) -> Iterator[list[tuple[int, str]]]:
    """Keep the package's warnings meanwhile, for the command's screen; live, Ray brings whole lines there itself."""
    said: list[tuple[int, str]] = []
    keep = _Keeping(said)
    logger = logging.getLogger("abaw")
    if not live:
        logger.addHandler(keep)
    try:
        yield said
    finally:
        logger.removeHandler(keep)


class _Keeping(logging.Handler):
    def __init__(self, said: list[tuple[int, str]]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append((record.levelno, record.getMessage()))
