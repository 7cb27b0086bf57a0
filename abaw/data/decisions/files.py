"""The challenge's submission files as decisions.

Owns which files make up a submission, and how their rows become tracks. The task is told from the header.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from abaw.data.decisions.headers import Layout, read_header
from abaw.data.decisions.lines import IMAGE, LineReader
from abaw.data.decisions.rows import (
    IMAGES,
    MAX_FRAMES,
    DecidedRows,
    FileDecisions,
    RowCollector,
    column_counts,
    first_bad,
)
from abaw.data.decisions.sources import TextSource, decision_sources, stem_of
from abaw.data.key_csv import normal_key
from abaw.data.row_text import Rows, parse_rows
from abaw.errors import AbawError
from abaw.tasks import Task


def read_decisions(path: Path, *, task: Task | None) -> FileDecisions:
    """Decisions of a submission file: one text file of any edition, or a folder or zip of a file per video.

    ``task`` None: told from the header. Rows `<track>/00001.jpg,...` are frames counted from 1, of the track that the
    last folder names; rows without an image are the frames, in order, of the track that the file is named after. Other
    images (`0.jpg`) are found by path: ``FileDecisions.keys``. Read leniently: rows in any order, CRLF, a byte order
    mark, a comma at the end of a row, blank lines at the end. Raises AbawError, with file and line, for a header of no
    task or of another, a garbled row, a value that is no decision (-1 of classes and units, NaN, out of range), a row
    given twice, another encoding, and a file that is empty, damaged or too large.
    """
    sources = decision_sources(path)
    first = _layout(sources[0], task)
    if first.image and len(sources) > 1:
        raise AbawError(
            f"{path.name} holds {len(sources)} files, but one whose rows name images is a submission of its own",
            where="\n".join(source.where for source in sources[:3]),
            fix="give one of the files, or a file per video, <track>.txt, without names of images",
        )
    if first.image:
        return _read_single(sources[0], first, path)
    tracks: dict[str, DecidedRows] = {}
    for source in sources:
        layout, name = _layout(source, first.task), stem_of(source)
        if layout.image or name in tracks:
            what = f"track {name} has two files" if name in tracks else f"{source.name} is of no single video"
            raise AbawError(what, where=source.where, fix="remove it: give one <track>.txt per video")
        tracks[name] = _read_frames(source, layout)
    return FileDecisions(path, first.task, tracks)


def _layout(source: TextSource, task: Task | None) -> Layout:
    return read_header(source.first_line(), task, where=source.where)


def _read_frames(source: TextSource, layout: Layout) -> DecidedRows:
    """A file of one video: a row per frame, in order."""
    parts: list[Rows] = []
    count = 0
    for line, block in source.bodies():
        parts.append(_rows(source, layout, line, block))
        count += len(parts[-1].values)
        if count > MAX_FRAMES:
            fix = "give a file with a row per frame of its video"
            raise AbawError(f"there are more than {MAX_FRAMES} rows", where=source.where, fix=fix)
    if not count:
        fix = "give a file with a row per frame behind its header"
        raise AbawError("there are no rows behind the header", where=source.where, fix=fix)
    values, classes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "classes"))
    return DecidedRows(np.arange(count), count, values, classes)


def _rows(source: TextSource, layout: Layout, line: int, block: bytes) -> Rows:
    """Rows of a block that begins with a line of the file. Raises AbawError for the first that is no decision."""
    values, classes = column_counts(layout.task)
    rows = parse_rows(block, image=layout.image, values=values, classes=classes)
    if rows is not None and first_bad(layout.task, rows.values, rows.classes) is None:
        return rows
    return LineReader(source, layout).rows(line, block)[0]


def _read_single(source: TextSource, layout: Layout, path: Path) -> FileDecisions:
    """A file whose rows name images: frames of tracks, or images of no video, as its first row says."""
    if not _names_frames(source):
        return _read_images(source, layout, path)
    collected = RowCollector(source.where)
    for line, block in source.bodies():
        found = _rows(source, layout, line, block)
        tracks = [
            collected.folder(name, line + at) for name, at in zip(found.names, found.starts.tolist(), strict=True)
        ]
        runs = np.diff(np.append(found.starts, len(found.numbers)))
        lines = np.arange(line, line + len(found.numbers))
        collected.add(
            np.repeat(np.array(tracks, np.int32), runs), found.numbers - 1, lines, found.values, found.classes
        )
    return FileDecisions(path, layout.task, collected.finish())


def _names_frames(source: TextSource) -> bool:
    """Whether the first row is of a frame of a video: a folder, and a number as the image's name."""
    for line, block in source.bodies():
        image = source.decode(block[: block.index(b"\n")], line).partition(",")[0]
        return IMAGE.fullmatch(normal_key(image)) is not None
    return True


def _read_images(source: TextSource, layout: Layout, path: Path) -> FileDecisions:
    """Images of no video, in the file's order."""
    collected, places = RowCollector(source.where), dict[str, int]()
    reader = LineReader(source, layout, keyed=True)
    for line, block in source.bodies():
        found, keys = reader.rows(line, block)
        for number, key in enumerate(keys, start=line):
            first = places.setdefault(key, number)
            if first != number:
                where = f"{source.where}, lines {first} and {number}"
                raise AbawError(f"image {key} is given twice", where=where, fix="remove one of the rows")
        lines = np.arange(line, line + len(keys))
        track = np.full(len(keys), collected.track(IMAGES, line))
        collected.add(track, lines - 2, lines, found.values, found.classes)
    return FileDecisions(path, layout.task, collected.finish(), keys=list(places))
