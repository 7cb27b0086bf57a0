"""The text of a label file: its first line, its rows in pieces, and the messages for what is no such text.

Memory is bounded: rows are read piece by piece, and of a file that is too large only the beginning. Knows nothing of
tasks.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from abaw.data.row_text import BEGINNING, Readable, UnusualTextError, blocks
from abaw.errors import AbawError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FIX_FILE = "restore the file from the organisers' archive"


def pieces(file: Readable, path: Path) -> Iterator[bytes]:
    """The header line, then the rows in pieces of whole lines, each ended by "\\n"."""
    try:
        for number, block in enumerate(blocks(file)):
            if number:
                yield block
                continue
            first = decode(block[: block.index(b"\n") + 1], path).splitlines(keepends=True)[0].encode()
            yield first
            if len(first) < len(block):
                yield block[len(first) :]
    except UnusualTextError as error:
        raise AbawError(f"label file {path.name} is no table: {error}", where=str(path), fix=FIX_FILE) from error


def beginning(content: bytes, path: Path) -> str:
    """The first line of the beginning of a file."""
    if content.startswith(UTF16):
        decode(content, path)
    return trimmed((content.decode("utf-8-sig", errors="ignore").splitlines() or [""])[0])


def trimmed(line: str) -> str:
    return line.rstrip().removesuffix(",")


def read_lines(piece: bytes, path: Path, line: int) -> list[str]:
    return [trimmed(text) for text in decode(piece, path, line).splitlines()]


def decode(content: bytes, path: Path, line: int = 1) -> str:
    """Text that begins with a line of the file. Raises AbawError for what is no UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:  # a byte order mark of UTF-16 is no UTF-8 either
        encoding = "UTF-16" if line == 1 and content.startswith(UTF16) else "another encoding"
        line += content[: error.start].count(b"\n")
    raise AbawError(
        f"label file {path.name} is in {encoding}, not UTF-8",
        where=f"{path}, line {line}",
        fix=f"{FIX_FILE}, or save it as plain text in UTF-8",
    )


def unreadable_file(path: Path, error: OSError) -> AbawError:
    missing = isinstance(error, FileNotFoundError)
    what = f"label file {path.name} {'is missing' if missing else f'cannot be read ({error})'}"
    return AbawError(what, where=str(path), fix=FIX_FILE)


def empty_file(path: Path) -> AbawError:
    return AbawError(f"label file {path.name} is empty", where=str(path), fix=FIX_FILE)


def too_large(path: Path, limit: int) -> AbawError:
    what = f"label file {path.name} is larger than {limit >> 20} MB, which no label file is"
    return AbawError(what, where=str(path), fix=FIX_FILE)


def first_line(path: Path) -> str | None:
    """The first line of a file; None where it cannot be read, so that whoever reads it in earnest says why."""
    try:
        with path.open("rb") as file:
            content = file.read(BEGINNING)
    except OSError:
        return None
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    return trimmed(lines[0]) if lines else None
