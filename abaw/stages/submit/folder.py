"""The folder of one submission: an archive, hashes, and its appearing whole or not at all.

Knows nothing of what the files say.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from abaw.errors import AbawError
from abaw.provenance import file_sha256

MANIFEST, STATEMENT = "manifest.json", "statement.md"
# The archive depends on the files alone: the earliest date a zip can hold, one mode, one system (3 = Unix).
DATE, MODE, SYSTEM = (1980, 1, 1, 0, 0, 0), 0o100644, 3
LEVEL = 4  # a million rows in 0.6 s instead of 2.3 s with zlib's own 6, for 2 % more bytes


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``, which is gone afterwards unless it was renamed, with what was made for it.

    Raises AbawError where the disk is full or may not be written to.
    """
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        temporary.mkdir(parents=True)
        yield temporary
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)
        for folder in made:
            with suppress(OSError):  # it holds the submission
                folder.rmdir()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder elsewhere, for a trial. Raises AbawError where it cannot be written to."""
    try:
        with tempfile.TemporaryDirectory(prefix="abaw-submit-") as name:
            yield Path(name)
    except OSError as error:
        raise _not_written(Path(tempfile.gettempdir()) / "trial", error) from error


def _not_written(target: Path, error: OSError) -> AbawError:
    return AbawError(
        f"{target.name} could not be written: {error}",
        where=str(target.parent),
        fix="free disk space or name a writable folder (submit.output), then run the same command again",
    )


def text_files(written: Path) -> dict[str, Path]:
    """The prediction files by the name they have in the archive: one file, or all of a folder."""
    return {path.name: path for path in (sorted(written.iterdir()) if written.is_dir() else [written])}


def write_zip(path: Path, files: Mapping[str, Path]) -> None:
    """An archive of files by their name in it: equal bytes for equal files, wherever and whenever they were written."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system, entry.external_attr = SYSTEM, MODE << 16
            archive.writestr(entry, files[name].read_bytes(), zipfile.ZIP_DEFLATED, LEVEL)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but its manifest, by path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: file_sha256(found[name]) for name in sorted(found) if name != MANIFEST}


def sample_sha256(path: Path) -> str:
    """SHA-256 of a sample file; of a folder, that of the names and hashes of its files."""
    if path.is_file():
        return file_sha256(path)
    listing = "\n".join(f"{item.name} {file_sha256(item)}" for item in sorted(path.glob("*.txt")))
    return hashlib.sha256(listing.encode()).hexdigest()


# -- what is there already ---------------------------------------------------------------------------------------------
def damage(folder: Path) -> list[str]:
    """What of a written submission is not as its manifest says, in words; raises AbawError for a garbled manifest."""
    said = _read_manifest(folder / MANIFEST)
    there = hashes(folder)
    found = [f"{name} is gone" for name in said if name not in there]
    found += [f"{name} was changed since it was written" for name in said if there.get(name, said[name]) != said[name]]
    return found


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(name): str(sha256) for name, sha256 in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AbawError(
            f"the manifest of a submission cannot be read ({type(error).__name__}: {error})",
            where=str(path),
            fix="move the folder away, or write the submission again: abaw submit ... --overwrite",
        ) from error


def is_same(target: Path, predictions: Mapping[str, str]) -> bool:
    """Whether a submission of these prediction files (path -> sha256) is there, undamaged.

    False where nothing is there. Raises AbawError where something else is.
    """
    if not target.exists() and not target.is_symlink():
        return False
    if target.is_dir() and not any(target.iterdir()):
        return False
    if not (target / MANIFEST).is_file():
        raise _in_the_way(target, "is there, and is no folder that `submit` wrote", replaceable=False)
    damaged = damage(target)
    if damaged:
        raise _in_the_way(target, f"is there, and {'; '.join(damaged[:3])}")
    said = _read_manifest(target / MANIFEST)
    if {name: said.get(name) for name in predictions} != predictions or _texts(said) != _texts(predictions):
        raise _in_the_way(target, "is there with other predictions")
    return True


def _texts(files: Mapping[str, str]) -> set[str]:
    return {name for name in files if name.endswith(".txt")}


def _in_the_way(target: Path, what: str, *, replaceable: bool = True) -> AbawError:
    number = int(target.name.rpartition("-")[2])
    free = [n for n in range(1, 6) if not target.with_name(f"submission-{n}").exists()]
    another = f"keep it and write another: --number {free[0]}" if free else "move it away"
    replace = "; or replace it: --overwrite" if replaceable else ", or move it away"
    return AbawError(f"submission {number} {what}", where=str(target), fix=f"{another}{replace}")


def require_replaceable(target: Path, names: set[str]) -> None:
    """Before a submission is replaced: raises AbawError for files in it that are not of a submission."""
    if not target.exists():
        return
    if not target.is_dir():
        raise AbawError(f"{target.name} is there, as a file", where=str(target), fix="move it away")
    there = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    own = names | {MANIFEST}
    with suppress(AbawError):  # a garbled manifest is replaced like the rest
        own |= _read_manifest(target / MANIFEST).keys()
    foreign = sorted(there - own)
    if foreign:
        raise AbawError(
            f"submission folder {target.name} holds files that `submit` did not write: {', '.join(foreign[:5])}",
            where=str(target),
            fix="move them away, then run the same command again",
        )


def publish(temporary: Path, target: Path) -> None:
    """Bring a finished folder to disk and rename it into place; what is there goes first. Raises OSError."""
    for path in temporary.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if not target.exists() or not any(target.iterdir()):
        temporary.rename(target)
        return
    aside = target.with_name(f".{uuid.uuid4().hex}.old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    with suppress(OSError):  # it is replaced already
        shutil.rmtree(aside)


def to_json(content: Mapping[str, Any]) -> str:
    """JSON as the manifest is written."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
