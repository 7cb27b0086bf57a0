"""Whether a submission is what the sample asks for, told by reading it again: a file, a folder or a zip.

Independent of the code that writes one. Memory is bounded by the sample's rows, whatever the files hold. Knows nothing
of stores or models.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from abaw.editions.checked_rows import ENOUGH, SHOWN, FileCheck, Findings, Names, Offence
from abaw.editions.lines import BLOCK_BYTES
from abaw.editions.registry import Submission
from abaw.editions.sample_rows import SampleRows
from abaw.errors import AbawError

DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError, struct.error)
FOLDER_OF_VIDEOS = "predictions"


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    ``rows`` read, the first ten ``offences`` of ``count``, and ``notes`` on what is unusual but not refused. An offence
    is a line, a run of rows that are missing, or a file.
    """

    rows: int
    offences: list[Offence]
    count: int
    notes: list[str]

    @property
    def ok(self) -> bool:
        """Nothing would be refused."""
        return self.count == 0


def check_submission(
    path: Path, submission: Submission, sample: SampleRows, *, block_bytes: int = BLOCK_BYTES
) -> Verdict:
    """Check a file, folder or zip against the sample, strictly: every line must be as the writer's would be.

    Numbers may be written in any way that reads back as one. ``block_bytes`` are read at once.

    Raises AbawError for a path that is not there, a damaged zip, or a folder without a submission.
    """
    found = Findings()
    try:
        with _files(path, submission) as files:
            if submission.layout == "videos":
                _check_videos(files, submission, sample, found, block_bytes)
            else:
                _check_file(files, submission, sample, found, block_bytes)
    except OSError as error:
        fix = "give the file, folder or zip that is to be handed in"
        raise AbawError(f"the submission cannot be read ({error})", where=str(path), fix=fix) from error
    except DAMAGE as error:
        raise AbawError(f"the zip is damaged ({error})", where=str(path), fix="make the archive again") from error
    offences = sorted(found.offences, key=lambda offence: (offence.file, offence.line))[:SHOWN]
    return Verdict(found.rows, offences, found.count, [*found.notes, *_remarks(found)])


def _remarks(found: Findings) -> list[str]:
    notes = []
    if found.unended:
        where = "the last line has" if found.unended == 1 else f"the last lines of {found.unended} files have"
        notes.append(f"{where} no line feed at the end")
    if found.marked:
        rows = f"{found.marked} row{' is' if found.marked == 1 else 's are'}"
        notes.append(f"{rows} exactly -1,-1, which some programs write for frames without a face")
    if found.stopped:
        notes.append(f"reading stopped after {ENOUGH} offences: there may be more")
    return notes


class _Files:
    """The text files of a submission by name, in a folder, in a zip, or one alone."""

    def __init__(self, names: dict[str, str | Path], archive: zipfile.ZipFile | None = None) -> None:
        self.names = names
        self._archive = archive

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file's bytes."""
        place = self.names[name]
        if self._archive is not None:
            try:
                member = self._archive.open(str(place))
            except (NotImplementedError, RuntimeError) as error:  # another compression, a password
                raise zipfile.BadZipFile(str(error)) from error
            with member:
                yield member  # type: ignore[misc]
        else:
            with Path(place).open("rb") as file:
                yield file


@contextmanager
def _files(path: Path, submission: Submission) -> Iterator[_Files]:
    if path.is_dir():
        yield _Files(_in_folder(path, submission))
        return
    with path.open("rb") as file:
        is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    if is_zip:
        with _archive(path) as archive:
            inside = [name for name in archive.namelist() if not name.endswith("/")]
            yield _Files({name: name for name in inside if not _is_litter(name)}, archive)
    elif submission.layout == "videos":
        fix = "give the folder with a file <video>.txt for each video, or its zip"
        raise AbawError(f"edition {submission.edition} wants a file per video", where=str(path), fix=fix)
    else:
        yield _Files({"": path})


def _archive(path: Path) -> zipfile.ZipFile:
    """A zip, opened. Raises BadZipFile, also for one whose list asks for what no zip has."""
    try:
        return zipfile.ZipFile(path)
    except (NotImplementedError, ValueError) as error:  # a version from the future, a name that is no text
        raise zipfile.BadZipFile(str(error)) from error


def _in_folder(path: Path, submission: Submission) -> dict[str, str | Path]:
    if submission.layout == "videos":
        folder = path / FOLDER_OF_VIDEOS if (path / FOLDER_OF_VIDEOS).is_dir() else path
        return {item.name: item for item in sorted(folder.iterdir()) if not _is_litter(item.name)}
    if (path / submission.filename).is_file():
        return {"": path / submission.filename}
    texts = sorted(path.glob("*.txt"))
    if len(texts) != 1:
        what = f"the folder holds {len(texts)} text files, and no {submission.filename}"
        raise AbawError(what, where=str(path), fix="name the file that is to be handed in")
    return {"": texts[0]}


def _is_litter(name: str) -> bool:
    """Files that operating systems leave behind."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (".DS_Store", "Thumbs.db", "desktop.ini")


def _check_file(files: _Files, submission: Submission, sample: SampleRows, found: Findings, block_bytes: int) -> None:
    names = list(files.names)
    chosen = submission.filename if submission.filename in names else names[0] if names else ""
    for name in names:
        if name != chosen:
            found.add(0, f"the archive holds it beside {chosen}, one file is wanted", name)
    if not names:
        found.add(0, "the archive is empty")
        return
    check = FileCheck(submission, found, names=Names(sample.images), count=len(sample.images), file=chosen)
    with files.open(chosen) as file:
        check.read(file, block_bytes)


def _check_videos(files: _Files, submission: Submission, sample: SampleRows, found: Findings, block_bytes: int) -> None:
    counts = np.zeros(len(sample.tracks), np.int64)
    np.maximum.at(counts, sample.track_index, sample.rows + 1)
    expected = {f"{track}.txt": count for track, count in zip(sample.tracks, counts.tolist(), strict=True)}
    by_name = {name.rpartition("/")[2]: name for name in files.names}
    folders = {name.rpartition("/")[0] for name in files.names}
    if folders - {""}:
        found.notes.append(f"the files lie in {len(folders)} folder{'s' if len(folders) > 1 else ''} of the archive")
    for name in files.names:
        if name.rpartition("/")[2] not in expected or by_name[name.rpartition("/")[2]] != name:
            found.add(0, "is there, but the sample has no such video, or it is there twice", name)
    for name, count in expected.items():
        if name not in by_name:
            found.add(0, f"is not there: {count} rows are missing", name)
            continue
        with files.open(by_name[name]) as file:
            FileCheck(submission, found, names=None, count=count, file=name).read(file, block_bytes)
        found.stopped |= found.enough
        if found.stopped:
            return
