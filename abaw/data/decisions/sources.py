"""Where the text of decisions is read from: a file, the files of a folder, or the members of a zip archive.

Nothing is unpacked: members are read as they are, within limits, and their names are never used as paths. Knows
nothing of what the text says.
"""

from __future__ import annotations

import codecs
import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from abaw.data.collection import PICTURE_SUFFIXES, unreadable
from abaw.data.manifest import VIDEO_SUFFIXES
from abaw.data.row_text import BEGINNING, ENDING, UnusualTextError, blocks
from abaw.errors import AbawError
from abaw.store_header import check_track_id

MAX_SIZE = 1 << 30  # bytes of a file, and of an archive when unpacked
MAX_FILES = 100_000
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ARCHIVE_ERRORS = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    *(NotImplementedError, RuntimeError, ValueError),  # a version from the future, a password, a name that is no text
)
FIX_ENCODING = "save it as plain text in UTF-8"


class _Reader:
    """A file whose errors name it: a damaged or encrypted archive, a disk that fails."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file, self._where = file, where

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes. Raises AbawError."""
        try:
            return self._file.read(count)
        except ARCHIVE_ERRORS as error:
            raise _cannot_read(error, self._where) from error


@dataclass(frozen=True)
class TextSource:
    """A text of ``size`` bytes that can be read again and again. ``name``: of the file; ``where``: for messages."""

    name: str
    where: str
    size: int
    open: Callable[[], IO[bytes]]

    def first_line(self) -> str:
        """The first line, without its end. Raises AbawError for an empty file and for one that is no UTF-8 there."""
        with self._opened() as file:
            beginning = _Reader(file, self.where).read(BEGINNING).removeprefix(codecs.BOM_UTF8)
        if not beginning.strip(ENDING):
            fix = "give a file that begins with a header"
            raise AbawError(f"{self.name} is empty", where=self.where, fix=fix)
        return self.decode(re.split(rb"\r\n|\r|\n", beginning, maxsplit=1)[0], 1)

    def bodies(self) -> Iterator[tuple[int, bytes]]:
        """Pieces of the text behind the first line, of whole lines ended by "\\n", and the number of their first line.

        Raises AbawError for a file past MAX_SIZE: call `first_line` before, which says when it is something else.
        """
        if self.size > MAX_SIZE:
            raise AbawError(
                f"{self.name} holds {self.size / 2**30:.1f} GB of text",
                where=self.where,
                fix=f"give a file of one test set: at most {MAX_SIZE >> 30} GB are read",
            )
        line = 1
        for block in self._blocks():
            body = block if line > 1 else block[block.index(b"\n") + 1 :]
            line = max(line, 2)
            if body:
                yield line, body
                line += body.count(b"\n")

    def lines(self) -> Iterator[str]:
        """The text line by line, each with its end. Raises AbawError as `first_line` and `bodies` do."""
        yield self.first_line() + "\n"
        for line, block in self.bodies():
            yield from io.StringIO(self.decode(block, line))

    def decode(self, text: bytes, line: int) -> str:
        """Text that begins with a line of the file, as str. Raises AbawError for what is no UTF-8."""
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            line += text[: error.start].count(b"\n")
            kind = "UTF-16" if line == 1 and text.startswith(UTF16) else "another encoding"
        raise AbawError(f"{self.name} is in {kind}, not UTF-8", where=f"{self.where}, line {line}", fix=FIX_ENCODING)

    def _blocks(self) -> Iterator[bytes]:
        with self._opened() as file:
            try:
                yield from blocks(_Reader(file, self.where))
            except UnusualTextError as error:
                fix = "give a text file with a row per line"
                raise AbawError(f"{self.name} is no table: {error}", where=self.where, fix=fix) from error

    def _opened(self) -> IO[bytes]:
        try:
            return self.open()
        except ARCHIVE_ERRORS as error:
            raise _cannot_read(error, self.where) from error


def _cannot_read(error: Exception, where: str) -> AbawError:
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return AbawError(f"it cannot be read ({what})", where=where, fix="restore it, or make it again")


def decision_sources(path: Path, suffix: str = ".txt") -> list[TextSource]:
    """The texts at a path, sorted by name: a file, the ``suffix`` files of a folder, or of a zip archive.

    Hidden files are what other systems leave, and are passed over. Raises AbawError where there is none, for what is
    neither file nor folder, and for an archive that is damaged, encrypted or too large.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            found = [_file(file) for file in sorted(path.iterdir()) if _is_named(file.name, suffix) and file.is_file()]
        elif stat.S_ISREG(mode):
            found = _members(path, suffix) if zipfile.is_zipfile(path) else [_file(path)]
        else:
            raise AbawError(f"{path.name} is neither a file nor a folder", where=str(path), fix="give a file")
    except FileNotFoundError as error:
        raise AbawError(f"{path} does not exist", where=str(path), fix="correct the path") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not found:
        fix = f"it must hold a {suffix} file per video, or one {suffix} file"
        raise AbawError(f"{path.name} holds no {suffix} file", where=str(path), fix=fix)
    return found


def stem_of(source: TextSource) -> str:
    """The track that a file is named after. Raises AbawError for a name that no track has, as `a.jpg.txt`."""
    stem = PurePosixPath(source.name).stem
    suffix = PurePosixPath(stem).suffix.lower()
    if suffix in (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES, ".txt", ".csv"):
        fix = f"rename it to {PurePosixPath(stem).stem}{PurePosixPath(source.name).suffix}"
        raise AbawError(f"{source.name} is named after a file, not after a track", where=source.where, fix=fix)
    check_track_id(stem, where=source.where)
    return stem


def _is_named(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix) and not name.startswith(".")


def _file(path: Path) -> TextSource:
    return TextSource(path.name, str(path), path.stat().st_size, lambda: path.open("rb"))


def _members(path: Path, suffix: str) -> list[TextSource]:
    """The texts of an archive, in any of its folders."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.filename.endswith("/")]
    except ARCHIVE_ERRORS as error:
        raise _cannot_read(error, str(path)) from error
    wanted = [info for info in members if _is_text(info, suffix, path)]
    if len(wanted) > MAX_FILES or sum(info.file_size for info in wanted) > MAX_SIZE:
        size = sum(info.file_size for info in wanted) / 2**30
        raise AbawError(
            f"the archive holds {len(wanted)} files of {size:.1f} GB when unpacked",
            where=str(path),
            fix=f"give the archive of one test set: at most {MAX_FILES} files and {MAX_SIZE >> 30} GB are read",
        )
    return [_member(path, info) for info in sorted(wanted, key=lambda info: info.filename)]


def _is_text(info: zipfile.ZipInfo, suffix: str, path: Path) -> bool:
    """Whether a member counts. Raises AbawError for a name that leads out of the archive."""
    name = info.filename.replace("\\", "/")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or ":" in parts[0] or any(ord(letter) < 32 for letter in name):
        raise AbawError(
            f"the archive has a member whose name leads out of it: {name[:80]!r}",
            where=str(path),
            fix="make the archive again, with the files at its top",
        )
    return _is_named(parts[-1], suffix) and parts[0] != "__MACOSX"


def _member(path: Path, info: zipfile.ZipInfo) -> TextSource:
    def opened() -> IO[bytes]:
        with zipfile.ZipFile(path) as archive:  # the member keeps the file open for as long as it is read
            return archive.open(info)

    name = info.filename.replace("\\", "/").rpartition("/")[2]
    return TextSource(name, f"{path}: {info.filename}", info.file_size, opened)
