"""The organisers' sample files with a row per image.

Read leniently and in blocks, so that memory grows with the rows only. Owns the 1-based image names of these files.
Knows nothing of stores or models.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import NoReturn

import numpy as np

from abaw.editions.lines import BLOCK_BYTES, ENDING, MAX_BLANK_LINES, MAX_LINE_BYTES, between, blocks, is_text
from abaw.editions.registry import Submission, header_fields
from abaw.editions.sample_rows import MAX_ROWS, SampleRows, foreign, unreadable
from abaw.errors import AbawError

# A name has no comma and no control character; nine digits number the frames of a year.
TRACK_IMAGE = re.compile(r"(?P<track>[^\x00-\x1f\x7f]+)/0*(?P<number>[0-9]{1,9})\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE)
KEY_IMAGE = re.compile(r"[^\x00-\x1f\x7f]+\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE)
PRINTABLE = bytes(range(0x20, 0x7F))
NEWLINE, COMMA, SLASH, ZERO = b"\n,/0"


def read_images(path: Path, submission: Submission, *, block_bytes: int = BLOCK_BYTES) -> SampleRows:
    """Read a sample file, see ``read_sample``."""
    reader = _Reader(path, submission)
    try:
        with path.open("rb") as file:
            for block in blocks(file, block_bytes, any_line_end=True):
                reader.add(block)
    except OSError as error:
        raise unreadable(path, submission, str(error)) from error
    return reader.finish()


class _Reader:
    """Takes a file block by block; ``finish`` gives its rows."""

    def __init__(self, path: Path, submission: Submission) -> None:
        self._path, self._submission = path, submission
        self._line = 1  # number of the next line
        self._blank = 0  # number of the first of the blank lines just seen
        self._images: list[str] = []
        self._order: dict[str, int] = {}
        self._index: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def add(self, block: bytes) -> None:
        """Read the lines of the next block."""
        if self._line == 1:
            block = self._header(block)
        if not block:
            return
        if not block.endswith(b"\n"):
            block += b"\n"
        unusual = self._blank or self._submission.keyed or not block.isascii() or b"\0" in block
        quick = None if unusual else _parse(block)
        if quick is None:
            self._add_slowly(block)
        else:
            names, lengths, rows = quick
            self._line += len(names)
            self._keep(names, [name[:length] for name, length in zip(names, lengths, strict=True)], rows)

    def _header(self, block: bytes) -> bytes:
        """Read the first line; returns what follows it."""
        line, _, rest = block.removeprefix(codecs.BOM_UTF8).partition(b"\n")
        if not is_text(line):
            raise unreadable(self._path, self._submission, "it is not UTF-8 text")
        self._require_length(line)
        text = self._decode(line)
        if header_fields(text) != header_fields(self._submission.header):
            raise foreign(self._path, self._submission, text)
        self._line = 2
        return rest

    def _add_slowly(self, block: bytes) -> None:
        """Line by line: what is unusual, and where an error is."""
        names, tracks, rows = [], [], []
        for line in block[:-1].split(b"\n"):
            self._require_length(line)
            text = self._decode(line)
            if not text.strip(ENDING):
                self._blank = self._blank or self._line
                self._line += 1
                if self._line - self._blank > MAX_BLANK_LINES:
                    self._refuse(self._blank, f"more than {MAX_BLANK_LINES} blank lines")
                continue
            if self._blank:
                self._refuse(self._blank, "a blank line between its rows, which names no image")
            image = text.partition(",")[0].strip(ENDING)
            match = (KEY_IMAGE if self._submission.keyed else TRACK_IMAGE).fullmatch(image)
            if match is None or (not self._submission.keyed and int(match["number"]) < 1):
                self._refuse(self._line, f"a row that names no image: {text[:80]!r}")
            names.append(image)
            if not self._submission.keyed:
                tracks.append(match["track"])
                rows.append(int(match["number"]) - 1)
            self._line += 1
        self._keep(names, tracks, np.array(rows, np.int64))

    def _keep(self, names: list[str], tracks: list[str], rows: np.ndarray) -> None:
        if len(self._images) + len(names) > MAX_ROWS:
            self._refuse(self._line, f"more than {MAX_ROWS} rows, more than any test set")
        order = self._order
        self._images += names
        self._index.append(np.array([order.setdefault(track, len(order)) for track in tracks], np.int64))
        self._rows.append(rows)

    def finish(self) -> SampleRows:
        """The rows. Raises AbawError where there are none, or one is there twice."""
        if self._line == 1:
            raise foreign(self._path, self._submission, "")
        if not self._images:
            raise AbawError(
                "the sample file has no rows", where=str(self._path), fix="give the organisers' complete file"
            )
        index, rows = np.concatenate(self._index), np.concatenate(self._rows)
        twice = _first_repeated(self._images, None if self._submission.keyed else index * (rows.max() + 1) + rows)
        if twice is not None:
            raise AbawError(
                f"the sample file names {self._images[twice]} twice",
                where=f"{self._path}, line {twice + 2}",
                fix="give the organisers' file unchanged",
            )
        return SampleRows(self._images, list(self._order), index, rows, keyed=self._submission.keyed)

    def _decode(self, line: bytes) -> str:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._refuse(self._line, "bytes that are not UTF-8 text")
        if "\0" in text:
            self._refuse(self._line, "a NUL character, which no text has")
        return text

    def _require_length(self, line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES:
            self._refuse(self._line, f"a line of more than {MAX_LINE_BYTES} bytes")

    def _refuse(self, line: int, what: str) -> NoReturn:
        rows = "0.jpg" if self._submission.keyed else "<track>/00001.jpg, counted from 1"
        raise AbawError(
            f"the sample file has {what}",
            where=f"{self._path}, line {line}",
            fix=f"give the organisers' file of task {self._submission.task} unchanged: rows begin with {rows}",
        )


def _parse(block: bytes) -> tuple[list[str], list[int], np.ndarray] | None:
    """Names, lengths of their tracks and 0-based rows int64 [N] of usual lines; None where a line is unusual.

    Usual: ASCII, `<track>/<digits>.jpg` right at the beginning, then a comma or the end.
    """
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == NEWLINE)
    starts = np.append(0, ends[:-1] + 1)
    commas = np.append(np.flatnonzero(data == COMMA), len(data))
    stops = np.minimum(commas[np.searchsorted(commas, starts)], ends)
    slashes = np.append(-1, np.flatnonzero(data == SLASH))
    cuts = slashes[np.searchsorted(slashes, stops) - 1]
    digits = stops - len(".jpg") - cuts - 1
    if (cuts <= starts).any() or digits.min() < 1 or digits.max() > 9 or (ends - starts).max() > MAX_LINE_BYTES:
        return None
    if any((data[stops - 4 + place] != byte).any() for place, byte in enumerate(b".jpg")):
        return None
    numbers = np.zeros(len(ends), np.int64)
    for place in range(int(digits.max())):
        figures = data[stops - 5 - place] - ZERO  # wraps around below "0"
        inside = digits > place
        if (figures[inside] > 9).any():
            return None
        numbers += np.where(inside, figures, 0).astype(np.int64) * 10**place
    names = between(data, starts, stops + 1).replace(b",", b"\n")
    plain = len(names.translate(None, PRINTABLE)) == len(ends) and (data[starts] != ord(" ")).all()
    if not plain or numbers.min() < 1:
        return None
    return names.decode().split("\n")[:-1], (cuts - starts).tolist(), numbers - 1


def _first_repeated(images: list[str], numbers: np.ndarray | None) -> int | None:
    """Index of the first image that was there before, by its row's number int64 [N] or else its name."""
    if numbers is None:
        if len(set(images)) == len(images):
            return None
        seen: set[str] = set()
        return next(place for place, image in enumerate(images) if image in seen or seen.add(image))  # type: ignore[func-returns-value]
    ordered = np.sort(numbers)
    if (ordered[1:] != ordered[:-1]).all():
        return None
    firsts = np.unique(numbers, return_index=True)[1]
    return int(np.setdiff1d(np.arange(len(numbers)), firsts)[0])
