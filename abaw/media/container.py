"""Opening media files, and what goes wrong while they are decoded: counted when the file is at fault, raised when
its disk is.

Knows nothing of pictures, sound or stores.
"""

from __future__ import annotations

import errno
from pathlib import Path

import av

from abaw.errors import AbawError

# The disk or its network failed, not the file: the same file may decode whole a minute later.
DISK_ERRORS = frozenset({errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT})


# A clock that goes back by more starts anew: recordings were put one after the other, or a counter wrapped. Frames
# and packets of sound come in order, so that little is needed.
RESTART_S = 0.25


def is_restart(time_s: float | None, before_s: float | None) -> bool:
    """Whether a stream's clock starts anew between two of its stamps."""
    return time_s is not None and before_s is not None and time_s < before_s - RESTART_S


class Damage:
    """What a decoder complained of in one file: how often, and the first complaint."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.errors = 0
        self.first_error = ""

    def note(self, err: object) -> None:
        """Count one complaint; AbawError where it is the disk's, so that a part is not taken for the whole."""
        refuse_disk_error(err, self._path)
        self.errors += 1
        self.first_error = self.first_error or str(err)


def refuse_disk_error(err: object, path: Path) -> None:
    """AbawError where ``err`` says that the disk or the network failed while the file was read."""
    if isinstance(err, OSError) and err.errno in DISK_ERRORS:
        what = f"reading {path.name} failed: {err.strerror}"
        raise AbawError(
            what, where=str(path), fix="check the disk or network mount, then run the same command"
        ) from err


def open_container(path: Path, *, kind: str) -> av.container.InputContainer:
    """The file, opened; AbawError that calls it a ``kind`` where it cannot be."""
    try:
        return av.open(str(path), metadata_errors="replace")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as err:
        what = f"cannot read {kind} {path.name}: {err.strerror}"
        raise AbawError(what, where=str(path), fix="check the path and its permissions") from err
    except (av.error.FFmpegError, OSError, ValueError) as err:
        refuse_disk_error(err, path)
        what = f"{path.name} is not a readable {kind} ({path.stat().st_size} bytes: {_reason(err)})"
        raise AbawError(what, where=str(path), fix="replace the file by a whole copy, or remove it") from err


def _reason(err: Exception) -> str:
    return getattr(err, "strerror", None) or str(err)
