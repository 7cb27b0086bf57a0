"""Parts of a list of units, for job arrays: ``--shard I/N``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from abaw.errors import AbawError, ExitCode

T = TypeVar("T")


def shard(items: Sequence[T], spec: str | None) -> list[T]:
    """Part I of N of a list for ``spec`` "I/N" (I from 1): every N-th item, so that each part is like the whole.

    None gives everything. Raises AbawError (usage) for anything else.
    """
    if spec is None:
        return list(items)
    first, _, second = spec.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise AbawError(f'"{spec}" is not a shard', where="--shard", fix="write I/N, such as 1/4", code=ExitCode.USAGE)
    return list(items[int(first) - 1 :: int(second)])


def refuse_overwrite_of_parts(*, overwrite: bool, shard: str | None, limit: int | None, store: Path) -> None:
    """AbawError (usage) for --overwrite with --shard or --limit: all tracks would go, and only some come back."""
    if overwrite and (shard not in (None, "1/1") or limit is not None):
        raise AbawError(
            f"--overwrite with {'--limit' if limit is not None else '--shard'} would delete tracks that are not redone",
            where="--overwrite",
            fix=f"delete {store}, or the files of those tracks in it, and run without --overwrite",
            code=ExitCode.USAGE,
        )
