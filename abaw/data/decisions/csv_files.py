"""Csv tables of decisions, and of the scores that `abaw export` writes.

Owns how a row's frame is counted, and how fields become decisions. Read in batches of rows.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from abaw.data.decisions.columns import Columns, HeadColumns, read_columns
from abaw.data.decisions.lines import IMAGE
from abaw.data.decisions.rows import IMAGES, MAX_FRAMES, DecidedRows, FileDecisions, RowCollector
from abaw.data.decisions.sources import TextSource, decision_sources, stem_of
from abaw.data.key_csv import normal_key
from abaw.data.row_text import NUMBER
from abaw.errors import AbawError
from abaw.label_spaces import by_name
from abaw.postprocess import UNIT
from abaw.tasks import Problem, Task

logger = logging.getLogger(__name__)

BATCH = 1 << 14
THRESHOLD = 0.5  # of a unit's probability, as where none was tuned
ROUNDING = 1e-3  # by which a probability may miss 0 or 1
FLAGS = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False, "": False}
NUMBER_LETTERS = frozenset("0123456789+-.eE")


def read_csv_decisions(path: Path, *, task: Task | None) -> FileDecisions:
    """Decisions of a csv file, or of a folder (or zip) of one per track, as `abaw export` writes them.

    Which row: a column `frame`, counted from 0 as `abaw export` counts, or `frame_number`, counted from 1 as the
    organisers do, with a column `track` (or `video`) beside it, or none where the file is named after its track; or a
    column `image` (`path`, `key`, ...) such as stem/00001.jpg, counted from 1, or of an image that is of no video.
    Decisions: `valence` and `arousal`; `AU1` ... as 0 and 1 or probabilities (1 from 0.5 on); `expression` (`label`)
    as a name or index, or a column of probabilities for each class, of which the largest counts (the first of equals).
    A row whose column `valid` is 0, or whose decisions are all empty, has none. With that column, which `abaw export`
    writes, values are scores, and clipped as those are. Other columns are left out. ``task``
    None: the one task that has most of the columns. Raises AbawError, with file and line, for columns that are missing
    or there twice, a garbled row, an unknown class, a value that is no decision, and a row given twice.
    """
    tracks: dict[str, DecidedRows] = {}
    keys: list[str] | None = None
    starts: list[int] = []
    for source in (sources := decision_sources(path, ".csv")):
        table = _Table(source, read_columns(next(_records(source))[1], task, where=source.where))
        task = table.columns.task
        table.read()
        found, keys = table.collected.finish(table.counts), table.keys
        both = tracks.keys() & found.keys()
        if both or (keys is not None and len(sources) > 1):
            what = f"track {min(both)} is in two files" if both else "several files name images of no video"
            raise AbawError(what, where=source.where, fix="remove one of them")
        tracks |= found
        starts += table.starts.values()
    _doubt(path, starts)
    if task is None:
        msg = "no source"
        raise ValueError(msg)
    return FileDecisions(path, task, tracks, keys=keys)


def _doubt(path: Path, starts: list[int]) -> None:
    """Warn of frames that seem to be counted from 1: ``starts`` are the first of each track, counted from 0."""
    if starts and all(start == 1 for start in starts):
        logger.warning(
            "%s: no track has a frame 0, all begin at 1; where frames are counted from 1, name the column frame_number",
            path.name,
        )


def _records(source: TextSource) -> Iterator[tuple[int, list[str]]]:
    """Rows with content, and the line each begins in: a quoted field may hold line ends. Raises AbawError."""
    reader, before = csv.reader(source.lines(), strict=True), 0
    try:
        for fields in reader:
            if any(text.strip() for text in fields):
                yield before + 1, fields
            before = reader.line_num
    except csv.Error as error:
        what = f"{source.name} is no csv table ({error})"
        fix = "write it again, with quotes around texts that hold commas"
        raise AbawError(what, where=f"{source.where}, line {before + 1}", fix=fix) from error


class _Table:
    """One file's rows, batch by batch.

    ``counts``: rows that each track has at least, decided or not; ``starts``: the first of them, of a column `frame`.
    """

    def __init__(self, source: TextSource, columns: Columns) -> None:
        self.source, self.columns = source, columns
        self.collected = RowCollector(source.where)
        self.counts: dict[str, int] = {}
        self.starts: dict[str, int] = {}
        self._keys: dict[str, int] | None = None

    @property
    def keys(self) -> list[str] | None:
        """The images in order, where they are of no video."""
        return None if self._keys is None else list(self._keys)

    def read(self) -> None:
        """Collect all rows. Raises AbawError for the first that cannot be read."""
        records = _records(self.source)
        next(records)
        while batch := list(islice(records, BATCH)):
            lines, rows = [line for line, _ in batch], [fields for _, fields in batch]
            width = self.columns.width
            wrong = next((number for number, fields in enumerate(rows) if len(fields) != width), None)
            if wrong is not None:
                what = f"has a row of {len(rows[wrong])} fields, not {width}: {','.join(rows[wrong])[:80]!r}"
                raise self._error(lines[wrong], what, "give every row the fields of the header")
            self._add(lines, list(zip(*rows, strict=True)))

    def _add(self, lines: list[int], texts: list[tuple[str, ...]]) -> None:
        """Add a batch, given by column."""
        tracks, rows = self._frames(lines, texts) if self.columns.image is None else self._images(lines, texts)
        names = self.collected.track_names
        for track in np.unique(tracks).tolist():
            last = int(rows[tracks == track].max()) + 1
            self.counts[names[track]] = max(self.counts.get(names[track], 0), last)
            if self.columns.frame is not None and not self.columns.first:
                first = int(rows[tracks == track].min())
                self.starts[names[track]] = min(self.starts.get(names[track], first), first)
        kept = self._decided(lines, texts)
        values, classes = [np.zeros((len(kept), 0), np.float32)], [np.zeros((len(kept), 0), np.int8)]
        places = np.array(lines)[kept]
        for columns in self.columns.heads:
            own = [[texts[place][row] for row in kept] for place in columns.places]
            if columns.head.problem is Problem.REGRESSION:
                values.append(self._values(columns, places, own))
            elif columns.named:
                classes.append(self._named(columns, places, own[0]))
            else:
                classes.append(self._scores(columns, places, own))
        self.collected.add(
            tracks[kept], rows[kept], places, np.concatenate(values, axis=1), np.concatenate(classes, axis=1)
        )

    # -- which row -------------------------------------------------------------------------------------------------
    def _frames(self, lines: list[int], texts: list[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """Track and row of each by the columns of track and frame."""
        columns = self.columns
        numbers = self._numbers(lines, texts[columns.frame or 0], np.float64)
        bad = np.flatnonzero((numbers < columns.first) | (numbers != np.floor(numbers)) | (numbers > MAX_FRAMES))
        if len(bad):
            what = f"has a row whose frame is {texts[columns.frame or 0][bad[0]][:80]!r}"
            raise self._error(lines[bad[0]], what, f"frames are whole numbers, here counted from {columns.first}")
        rows = numbers.astype(np.int64) - columns.first
        if columns.track is None:
            number = self.collected.track(stem_of(self.source), lines[0])
            return np.full(len(lines), number), rows
        names = [name.strip() for name in texts[columns.track]]
        return np.array([self.collected.track(name, line) for name, line in zip(names, lines, strict=True)]), rows

    def _images(self, lines: list[int], texts: list[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """Track and row of each by its image: of a frame, or of no video, as the first row says."""
        images = [normal_key(text) for text in texts[self.columns.image or 0]]
        matches = [IMAGE.fullmatch(image) for image in images]
        if self._keys is None and not self.counts and matches[0] is None:
            self._keys = {}
        if self._keys is not None:
            return np.full(len(lines), self.collected.track(IMAGES, lines[0])), self._new_keys(lines, images)
        tracks, rows = np.empty(len(lines), np.int64), np.empty(len(lines), np.int64)
        for place, (match, line) in enumerate(zip(matches, lines, strict=True)):
            if match is None or int(match["number"]) < 1:
                what = f"has a row that names no frame: {images[place][:80]!r}"
                raise self._error(line, what, "name images like <track>/00001.jpg, counted from 1")
            tracks[place] = self.collected.folder(match["folder"], line)
            rows[place] = int(match["number"]) - 1
        return tracks, rows

    def _new_keys(self, lines: list[int], images: list[str]) -> np.ndarray:
        """Rows of images that are of no video."""
        known = self._keys if self._keys is not None else {}
        start = len(known)
        for line, image in zip(lines, images, strict=True):
            if not image or image in known:
                what = f"gives image {image} twice" if image else "has a row that names no image"
                raise self._error(line, what, "give one row for each image")
            known[image] = line
        return np.arange(start, len(known))

    def _decided(self, lines: list[int], texts: list[tuple[str, ...]]) -> np.ndarray:
        """The rows int64 that have a decision."""
        own = [texts[place] for columns in self.columns.heads for place in columns.places]
        has = np.array([any(fields) for fields in zip(*own, strict=True)])
        if self.columns.valid is not None:
            flags = [FLAGS.get(text.strip().lower()) for text in texts[self.columns.valid]]
            if None in flags:
                bad = flags.index(None)
                what = f"has a row whose column valid is {texts[self.columns.valid][bad][:80]!r}"
                raise self._error(lines[bad], what, "write 1 or 0 there")
            has &= np.array(flags, bool)
        return np.flatnonzero(has)

    # -- what it says ----------------------------------------------------------------------------------------------
    def _values(self, columns: HeadColumns, lines: np.ndarray, texts: list[list[str]]) -> np.ndarray:
        table = np.stack([self._numbers(lines, own, np.float32) for own in texts], axis=1)
        is_scores = self.columns.valid is not None
        good = np.isfinite(table) if is_scores else np.abs(table) <= 1
        return np.clip(self._require(good, lines, texts, table, "values lie between -1 and 1"), *UNIT)

    def _scores(self, columns: HeadColumns, lines: np.ndarray, texts: list[list[str]]) -> np.ndarray:
        """Units from 0 and 1 or probabilities, or classes from probabilities."""
        table = np.stack([self._numbers(lines, own, np.float32) for own in texts], axis=1)
        good = (table >= -ROUNDING) & (table <= 1 + ROUNDING)
        self._require(good, lines, texts, table, "probabilities lie between 0 and 1")
        if columns.head.problem is Problem.MULTILABEL:
            return (table >= THRESHOLD).astype(np.int8)
        return table.argmax(axis=1).astype(np.int8)[:, None]

    def _named(self, columns: HeadColumns, lines: np.ndarray, texts: list[str]) -> np.ndarray:
        """Classes by name or index."""
        head = columns.head
        found: dict[str, int] = {}
        for text in dict.fromkeys(texts):
            index = int(by_name([text], head.labels)[0])
            if index < 0 and NUMBER.fullmatch(text) and float(text) in range(head.output_dim):
                index = int(float(text))
            if index < 0:
                what = f"has a class that {head.name} lacks: {text[:80]!r}"
                fix = f"give 0 to {head.output_dim - 1} or one of {', '.join(head.labels)}; every row needs one"
                raise self._error(int(lines[texts.index(text)]), what, fix)
            found[text] = index
        return np.array([found[text] for text in texts], np.int8)[:, None]

    def _numbers(self, lines: Sequence[int] | np.ndarray, texts: Sequence[str], dtype: type) -> np.ndarray:
        """Numbers of a column. Raises AbawError for the first field that is none."""
        if NUMBER_LETTERS.issuperset("".join(texts)):
            try:
                with np.errstate(over="ignore"):
                    return np.array(list(map(float, texts))).astype(dtype)
            except ValueError:
                pass
        bad = next((place for place, text in enumerate(texts) if not NUMBER.fullmatch(text)), None)
        if bad is None:
            return np.array(list(map(float, texts))).astype(dtype)
        what = f"has a field that is no number: {texts[bad][:80]!r}"
        raise self._error(int(lines[bad]), what, "give a number; rows without a decision leave all of them empty")

    def _require(
        self, good: np.ndarray, lines: np.ndarray, texts: list[list[str]], table: np.ndarray, rule: str
    ) -> np.ndarray:
        if not good.all():
            row, column = np.argwhere(~good)[0].tolist()
            what = f"has a value that no decision can have: {texts[column][row][:80]!r}"
            raise self._error(int(lines[row]), what, f"{rule}; rows without a decision leave all fields empty")
        return table

    def _error(self, line: int, what: str, fix: str) -> AbawError:
        return AbawError(f"{self.source.name} {what}", where=f"{self.source.where}, line {line}", fix=fix)
