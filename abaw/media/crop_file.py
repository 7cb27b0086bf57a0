"""Encoded crops in an unnamed temporary file: appended as they are made, read back in any order.

Keeps memory flat: an hour of video has a gigabyte of crops. Knows nothing of faces, people or stores' layout.
"""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from abaw.errors import AbawError
from abaw.store import Chunks

READ_BYTES = 1 << 20


class CropFile:
    """The crops of one video; the file has no name and goes with the process."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._spans = array("q", [0])
        try:
            self._file: BinaryIO = tempfile.TemporaryFile(dir=folder, prefix=".")  # noqa: SIM115
        except OSError as err:
            raise self._error(err) from err

    def close(self) -> None:
        """Give the space back."""
        with contextlib.suppress(OSError):  # what is still to be written may not fit, and is not wanted any more
            self._file.close()

    def append(self, data: bytes) -> None:
        """Keep one more crop. Raises AbawError where the disk is full."""
        try:
            self._file.write(data)
        except OSError as err:
            raise self._error(err) from err
        self._spans.append(self._spans[-1] + len(data))

    def gather(self, index: np.ndarray) -> tuple[Chunks, np.ndarray]:
        """Crops number ``index`` [T] (-1 = none): their bytes one after the other, and offsets int64 [T+1]."""
        begins, ends = np.zeros(len(index), np.int64), np.zeros(len(index), np.int64)
        wanted = index >= 0
        spans = np.asarray(self._spans)
        begins[wanted], ends[wanted] = spans[index[wanted]], spans[index[wanted] + 1]
        offsets = np.concatenate([[0], np.cumsum(ends - begins)]).astype(np.int64)
        return Chunks(int(offsets[-1]), self._blocks(begins[wanted], ends[wanted])), offsets

    def _blocks(self, begins: np.ndarray, ends: np.ndarray) -> Iterator[np.ndarray]:
        """Bytes of the spans in order; spans that follow each other are read together."""
        try:
            self._file.flush()
            for run in np.split(np.arange(len(begins)), np.flatnonzero(begins[1:] != ends[:-1]) + 1):
                if len(run) == 0:
                    continue
                start, stop = int(begins[run[0]]), int(ends[run[-1]])
                for place in range(start, stop, READ_BYTES):
                    self._file.seek(place)
                    yield np.frombuffer(self._file.read(min(READ_BYTES, stop - place)), dtype=np.uint8)
        except OSError as err:
            raise self._error(err) from err

    def _error(self, err: OSError) -> AbawError:
        what = f"crops could not be kept in a temporary file ({err.strerror})"
        return AbawError(what, where=str(self._folder), fix="free disk space, then run the same command")
