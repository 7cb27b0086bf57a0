"""What the user sees: logging, progress bars, results and errors.

The only module that prints. Results go to stdout; progress, log lines and errors to stderr. Of several processes that
torchrun started, the first one prints.
"""

from __future__ import annotations

import json as json_module
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from abaw.errors import AbawError, ExitCode

T = TypeVar("T")
logger = logging.getLogger("abaw")

# An error that all processes meet is the first one's to print, upon which torchrun ends the others; after these
# seconds it was not the first one's.
OTHERS_WAIT = 5.0


def _is_silent() -> bool:
    """Whether another process does the printing: torchrun started this one, and not as the first.

    RANK and WORLD_SIZE alone do not say so; job systems set them for programs that know nothing of each other.
    """
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") not in ("", "0")


@dataclass(frozen=True, slots=True)
class Failure:
    """One track that could not be done; ``bug`` when a program error, not the data, was the cause."""

    track_id: str
    message: str
    bug: bool = False


@dataclass(frozen=True)
class Summary:
    """What a stage hands back: lines for a person, ``data`` for a machine, and the tracks that failed.

    ``code`` is the exit status that findings call for although nothing failed.
    """

    stage: str
    lines: list[tuple[str, str]]
    failed: list[Failure] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    code: ExitCode = ExitCode.OK

    @property
    def exit_code(self) -> ExitCode:
        """Exit status that failures and findings call for."""
        if any(failure.bug for failure in self.failed):
            return ExitCode.BUG
        return ExitCode.PARTIAL if self.failed else self.code


class _TqdmHandler(logging.Handler):
    """Log lines that do not tear a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if "tqdm" in sys.modules:  # a bar may be on the screen
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr)


def setup(*, verbose: bool = False, quiet: bool = False) -> None:
    """Configure the package's logging once: INFO by default, DEBUG with -v, WARNING with -q."""
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    if _is_silent():
        level = logging.CRITICAL + 1
        warnings.simplefilter("ignore")
    logger.handlers[:] = [_TqdmHandler()]
    logger.handlers[0].setFormatter(logging.Formatter("%(message)s"))
    logger.setLevel(level)
    logger.propagate = False


def _is_quiet() -> bool:
    return logger.getEffectiveLevel() > logging.INFO


def progress(items: Iterable[T], *, desc: str, total: int | None = None, unit: str = "track") -> Iterator[T]:
    """Iterate with a bar that shows rate and remaining time.

    Where stderr is no terminal there is one log line each tenth of the way instead; with -q there is nothing.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if _is_quiet():
        yield from items
    elif sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=desc, total=total, unit=unit, dynamic_ncols=True, file=sys.stderr)
    else:
        yield from _logged(items, desc=desc, total=total, unit=unit)


def _logged(items: Iterable[T], *, desc: str, total: int | None, unit: str) -> Iterator[T]:
    start, shown = time.monotonic(), 0
    for done, item in enumerate(items, start=1):
        yield item
        if total and done * 10 // total > shown:
            shown = done * 10 // total
            elapsed = time.monotonic() - start
            left = elapsed / done * (total - done)
            rate = done / elapsed if elapsed > 0 else 0.0
            logger.info("%s %d/%d %ss  %.1f/s  %.0f s left", desc, done, total, unit, rate, left)


def print_text(text: str) -> None:
    """Print a result to stdout."""
    if not _is_silent():
        print(text)


def show(summary: Summary, *, json: bool = False) -> None:
    """Print a stage's summary to stdout, its failures to stderr."""
    if _is_silent():
        return
    if json:
        failed = [{"track": f.track_id, "message": f.message, "bug": f.bug} for f in summary.failed]
        print(json_module.dumps({"stage": summary.stage, **summary.data, "failed": failed}, indent=1))
    else:
        if summary.text:
            print(summary.text)
        width = max((len(key) for key, _ in summary.lines), default=0)
        for key, value in summary.lines:
            print(f"{key:<{width}}  {value}")
    for failure in summary.failed:
        cause = "internal error in" if failure.bug else "failed:"
        print(f"{cause} {failure.track_id}: {failure.message}", file=sys.stderr)


def show_error(error: AbawError) -> None:
    """Print a user's mistake to stderr: what, where, fix. Of several processes, only the one it concerns prints it."""
    if getattr(error, "said_elsewhere", False):
        return
    if _is_silent():
        time.sleep(OTHERS_WAIT)
    print(error, file=sys.stderr)


def show_interrupted() -> None:
    """Say that the interruption left nothing broken."""
    if not _is_silent():
        print("interrupted: nothing half-written is left; run the same command again to go on", file=sys.stderr)
