"""Text files in blocks of whole lines, so that memory does not grow with the file.

Knows nothing of what the lines say.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 4096  # no row of any edition has more than a few hundred
MAX_BLANK_LINES = 1000
ENDING = " \t\n\r\v\f\x1a"  # what may follow the last row; old DOS programs end a text with Ctrl-Z
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def blocks(file: BinaryIO, block_bytes: int = BLOCK_BYTES, *, any_line_end: bool = False) -> Iterator[bytes]:
    """A file's bytes, cut behind line feeds; the last block may end without one.

    A line that is longer than both a block and MAX_LINE_BYTES is handed over as far as it was read, and is the last.
    ``any_line_end``: CR and CRLF come as LF.
    """
    held = b""
    while block := file.read(block_bytes):
        if any_line_end and b"\r" in block:
            block += file.read(1) if block.endswith(b"\r") else b""
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        stop = block.rfind(b"\n") + 1
        if stop:
            yield held + block[:stop]
            held = block[stop:]
        else:
            held += block
        if len(held) > MAX_LINE_BYTES:
            break
    if held:
        yield held


def is_text(line: bytes) -> bool:
    """Whether a file's first line may be UTF-8 text, not another encoding's."""
    return not line.startswith(UTF16) and b"\0" not in line


def between(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> bytes:
    """The bytes of uint8 ``data`` that lie in any [start, stop); the spans are in order and do not overlap."""
    steps = np.zeros(len(data) + 1, np.int8)
    steps[starts] = 1
    steps[stops] -= 1  # one span may begin where another stops
    return data[np.cumsum(steps[:-1], dtype=np.int8).view(bool)].tobytes()
