"""The one exception a user can cause, its exit codes, and the look-up that words unknown names alike.

Knows nothing of files, tensors or commands.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import TypeVar

T = TypeVar("T")


class ExitCode(IntEnum):
    """Exit status of every command."""

    OK = 0
    BUG = 1
    USAGE = 2
    CONFIG = 3
    DATA = 4
    MISSING = 5
    PARTIAL = 6
    INTERRUPTED = 130


class AbawError(Exception):
    """Something the user can put right. Anything else that escapes is a bug and shows its traceback.

    ``what`` names the thing and its value, ``where`` the file and key, track or line, ``fix`` a command to
    paste or the exact edit.
    """

    def __init__(self, what: str, *, where: str, fix: str, code: ExitCode = ExitCode.DATA) -> None:
        super().__init__(what, where, fix, code)
        self.what = what
        self.where = where
        self.fix = fix
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, which worker processes rely on.
        return (_rebuild, (self.what, self.where, self.fix, int(self.code)))

    def __str__(self) -> str:
        indent = "\n         "
        lines = [f"error: {self.what}"]
        lines += [f"  {key} {indent.join(text.splitlines())}" for key, text in self._details()]
        return "\n".join(lines)

    def _details(self) -> list[tuple[str, str]]:
        return [("where:", self.where), ("fix:  ", self.fix)]


def _rebuild(what: str, where: str, fix: str, code: int) -> AbawError:
    return AbawError(what, where=where, fix=fix, code=ExitCode(code))


def closest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of ``names``, or None when none is similar."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def choose(registry: Mapping[str, T], name: str, *, what: str, where: str) -> T:
    """Entry ``name`` of a registry.

    Raises AbawError (configuration) that lists the valid names and the closest match.
    """
    if name in registry:
        return registry[name]
    match = closest(name, registry)
    hint = f'did you mean "{match}"? ' if match else ""
    raise AbawError(
        f'unknown {what} "{name}"',
        where=where,
        fix=f"{hint}choose one of: {', '.join(registry)}",
        code=ExitCode.CONFIG,
    )
