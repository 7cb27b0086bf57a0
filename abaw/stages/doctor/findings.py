"""What a check has to say, and how several become one screen and one exit code."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from abaw.errors import AbawError, ExitCode

logger = logging.getLogger(__name__)

LIMIT_S = 60.0  # a check that takes longer hangs, as on a network folder whose server is gone


class Level(StrEnum):
    """OK; NOTE: worth knowing, but nothing fails of it; PROBLEM: something will fail."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


MARKS = {Level.OK: " ", Level.NOTE: "~", Level.PROBLEM: "!"}


@dataclass(frozen=True)
class Finding:
    """One line of the screen: ``check`` names it, ``fix`` says what to do, ``code`` is the exit code of a problem.

    ``data`` is for machines; ``trace`` is the traceback of a check that failed itself.
    """

    check: str
    text: str
    level: Level = Level.OK
    fix: str = ""
    code: ExitCode = ExitCode.OK
    data: dict[str, Any] = field(default_factory=dict)
    trace: str = ""

    def record(self) -> dict[str, Any]:
        """The finding for a machine."""
        return {
            "check": self.check,
            "level": self.level.value,
            "text": self.text,
            "fix": self.fix,
            "code": int(self.code),
            **({"data": self.data} if self.data else {}),
            **({"traceback": self.trace} if self.trace else {}),
        }


def good(check: str, text: str, **data: Any) -> Finding:
    """A check that found nothing wrong."""
    return Finding(check, text, data=data)


def note(check: str, text: str, fix: str = "", **data: Any) -> Finding:
    """Something to know: slower, or missing where nothing asks for it yet."""
    return Finding(check, text, Level.NOTE, fix, data=data)


def problem(check: str, text: str, *, fix: str, code: ExitCode, **data: Any) -> Finding:
    """Something that will fail."""
    return Finding(check, text, Level.PROBLEM, fix, code, data)


def of_error(check: str, error: AbawError) -> Finding:
    """A problem in the words of the error that a stage would end with."""
    return problem(check, f"{error.what}\n{error.where}", fix=error.fix, code=error.code)


Check = Callable[[], Iterable[Finding]]


def isolated(name: str, check: Check, *, limit_s: float = LIMIT_S) -> list[Finding]:
    """Findings of a check. One that fails or does not come back within the limit is a finding itself.

    A check that hangs is left behind in its thread, which ends with the program.
    """
    found: list[Finding] = []
    done = threading.Event()

    def work() -> None:
        try:
            for finding in check():
                found.append(finding)  # noqa: PERF402  what came before a failure is kept
        except AbawError as error:
            found.append(of_error(name, error))
        except BaseException as error:  # also SystemExit of some library: doctor goes on
            found.append(_failed(name, error))
        done.set()

    threading.Thread(target=work, name=f"doctor-{name}", daemon=True).start()
    if done.wait(limit_s):
        return found
    late = problem(
        name,
        f"this check did not come back within {limit_s:g} s",
        fix="look for a network folder that does not answer among the configured paths (`mount`, `ls`)",
        code=ExitCode.DATA,
    )
    return [*found, late]


def _failed(name: str, error: BaseException) -> Finding:
    trace = "".join(traceback.format_exception(error))
    logger.debug("check %s failed:\n%s", name, trace)
    if isinstance(error, ImportError):
        text = f"this check could not be done: {error}"
        return Finding(name, text, Level.PROBLEM, "install it again: pip install abaw", ExitCode.MISSING, trace=trace)
    text = f"this check failed itself: {type(error).__name__}: {error}"
    return Finding(name, text, Level.PROBLEM, "report it with the output of `-v`", ExitCode.BUG, trace=trace)


def worst(findings: Iterable[Finding]) -> ExitCode:
    """The highest exit code of the problems: missing (5) before data (4), configuration (3) and own failures (1)."""
    return max((finding.code for finding in findings), default=ExitCode.OK)


def lines_of(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """A line for each finding, marked ``!`` or ``~`` where it is none that is well, and below it its fix."""
    lines: list[tuple[str, str]] = []
    for finding in findings:
        first, *more = finding.text.splitlines() or [""]
        lines.append((f"{MARKS[finding.level]} {finding.check}", first))
        lines += [("", f"  {line}") for line in more]
        for number, line in enumerate(finding.fix.splitlines()):
            lines.append(("", f"  {'fix: ' if number == 0 else '     '}{line}"))
    return lines
