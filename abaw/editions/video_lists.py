"""The samples of editions with a file per video: a list of videos and their rows, or a folder of sample files.

Read leniently and in blocks. Knows nothing of stores or models.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from abaw.editions.lines import BLOCK_BYTES, ENDING, MAX_BLANK_LINES, MAX_LINE_BYTES, blocks, is_text
from abaw.editions.registry import Submission, header_fields, of_header
from abaw.editions.sample_rows import MAX_ROWS, SampleRows, foreign, unreadable
from abaw.errors import AbawError

NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f]{1,200}")  # it becomes the name of a file
VIDEO_SUFFIX = re.compile(r"\.(?:mp4|avi|mov|mkv|webm|txt)$", re.IGNORECASE)
FIRST_WORDS = {"video", "videos", "name", "video_name", "file", "filename"}


def read_videos(path: Path, submission: Submission, *, block_bytes: int = BLOCK_BYTES) -> SampleRows:
    """Read the list `video,count`, without a header or with one, or a folder of `<video>.txt`, see ``read_sample``."""
    try:
        if path.is_dir():
            counts = _counts_of_folder(path, submission, block_bytes)
        else:
            counts = _counts_of_list(path, submission, block_bytes)
    except OSError as error:
        raise unreadable(path, submission, str(error)) from error
    if not counts:
        fix = "give the organisers' list of the test videos, rows video,count, or a folder of sample files <video>.txt"
        raise AbawError("the sample file has no rows", where=str(path), fix=fix)
    number = np.array(list(counts.values()), np.int64)
    rows = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    images = [f"{video}/{row:05d}.jpg" for video, count in counts.items() for row in range(1, count + 1)]
    return SampleRows(images, list(counts), np.repeat(np.arange(len(number)), number), rows)


def _counts_of_list(path: Path, submission: Submission, block_bytes: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    total = 0
    for number, line in _lines(path, submission, block_bytes):
        fields = header_fields(line)
        if number == 1 and fields and fields[0] in FIRST_WORDS:
            continue
        if number == 1 and of_header(line):
            raise foreign(path, submission, line)
        video = VIDEO_SUFFIX.sub("", line.partition(",")[0].strip().strip('"').strip())
        count = int(fields[1]) if len(fields) == 2 and re.fullmatch("0*[0-9]{1,9}", fields[1]) else 0
        if not NAME.fullmatch(video) or count < 1:
            raise _bad_row(path, number, f"a row that gives no video and its rows: {line[:80]!r}")
        if video in counts:
            raise _bad_row(path, number, f"video {video} twice")
        total += count
        if total > MAX_ROWS:
            raise _bad_row(path, number, f"more than {MAX_ROWS} rows in all, more than any test set")
        counts[video] = count
    return counts


def _bad_row(path: Path, number: int, what: str) -> AbawError:
    fix = "rows are <video>,<number of its frames>: give the organisers' list unchanged"
    return AbawError(f"the list of videos has {what}", where=f"{path}, line {number}", fix=fix)


def _counts_of_folder(path: Path, submission: Submission, block_bytes: int) -> dict[str, int]:
    """Rows of each file of a folder: its lines behind the header, whatever they hold."""
    counts: dict[str, int] = {}
    for file in sorted(path.glob("*.txt")):
        if not NAME.fullmatch(file.stem):
            continue
        rows = 0
        for number, line in _lines(file, submission, block_bytes):
            if number == 1 and header_fields(line) != header_fields(submission.header):
                raise foreign(file, submission, line)
            rows = number - 1
            if rows + sum(counts.values()) > MAX_ROWS:
                raise _bad_row(file, number, f"more than {MAX_ROWS} rows in all, more than any test set")
        if not rows:
            raise AbawError("the sample file has no rows", where=str(file), fix="give the organisers' complete file")
        counts[file.stem] = rows
    return counts


def _lines(path: Path, submission: Submission, block_bytes: int) -> Iterator[tuple[int, str]]:
    """Numbers and texts of a file's lines, without blank ones at the end. Raises AbawError for what is no text."""
    number, blank = 0, 0
    with path.open("rb") as file:
        for block in blocks(file, block_bytes, any_line_end=True):
            if number == 0:
                block = block.removeprefix(codecs.BOM_UTF8)
                if not is_text(block.partition(b"\n")[0]):
                    raise unreadable(path, submission, "it is not UTF-8 text")
            for line in block.removesuffix(b"\n").split(b"\n"):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise _bad_row(path, number, f"a line of more than {MAX_LINE_BYTES} bytes")
                try:
                    text = line.decode().strip(ENDING)
                except UnicodeDecodeError:
                    raise _bad_row(path, number, "bytes that are not UTF-8 text") from None
                if not text:
                    blank = blank or number
                    if number - blank > MAX_BLANK_LINES:
                        raise _bad_row(path, blank, f"more than {MAX_BLANK_LINES} blank lines")
                    continue
                if blank:
                    raise _bad_row(path, blank, "a blank line between its rows")
                yield number, text
