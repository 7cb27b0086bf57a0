"""Files and folders that appear whole or not at all, and disappear at once.

Knows nothing of what is written.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from abaw.errors import AbawError


def publish(path: Path, write: Callable[[Path], Any], *, failures: tuple[type[Exception], ...] = (OSError,)) -> None:
    """Let ``write`` fill a temporary file beside ``path``, bring it to disk, and rename it into place.

    ``failures``: what ``write`` raises when the disk is full or the folder read-only. Raises AbawError for these.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # some writers make files that nobody else may read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except failures as error:
        raise _not_written(path, error) from error
    finally:
        _remove(temporary)


def _not_written(path: Path, error: Exception) -> AbawError:
    return AbawError(
        f"{path.name} could not be written: {error}",
        where=str(path.parent),
        fix="free disk space or choose a writable folder, then run the same command again",
    )


def publish_text(path: Path, text: str) -> None:
    """Publish UTF-8 text as it is, without touching its line ends. A file that holds it already keeps its time."""
    content = text.encode()
    with suppress(OSError):  # then there is something to write
        if path.read_bytes() == content:
            return
    publish(path, lambda temporary: temporary.write_bytes(content))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes of this program out of a folder meanwhile, as far as its file system knows locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network folder without locks: then the last writer wins
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Take a folder away in one step, then delete it. Raises AbawError when it may not be removed."""
    place = folder.resolve()
    aside = place.with_name(f".{uuid.uuid4().hex}.old")
    try:
        place.rename(aside)
        if folder.is_symlink():  # a link stays, and needs something to point to
            place.mkdir()
        shutil.rmtree(aside)
    except OSError as error:
        raise AbawError(
            f"{folder.name} could not be removed: {error}",
            where=str(folder.parent),
            fix="make the folder writable, or name another one",
        ) from error


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # the folder itself is not to be had; the first error says why
        if temporary.is_file():
            raise
