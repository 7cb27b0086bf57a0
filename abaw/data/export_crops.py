"""The crops of a faces store as files for other tools: the organisers' layout, or the tree of an image collection.

Owns the names of the files. Knows nothing of how crops were made.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from abaw.data.collection import PICTURE_SUFFIXES
from abaw.errors import AbawError
from abaw.store import FeatureStore

READ_ROWS = 512
JPEG_SUFFIXES = (".jpg", ".jpeg")


class Exported(NamedTuple):
    """Tracks written and tracks that were there already, and the crops written."""

    written: int
    already: int
    crops: int


def prepare_export(folder: Path) -> None:
    """Make the folder, before hours of work. Raises AbawError where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_written(folder, error) from error


def export_crops(store: FeatureStore, track_ids: Iterable[str], folder: Path) -> Exported:
    """Write the JPEG files of tracks below ``folder``, as they are stored; rows without a face have no file.

    Row k of a track becomes ``<track>/<k + 1>.jpg`` with at least five digits, and the track's folder appears at once.
    An image of a collection keeps its path, with ``.jpg`` added unless it is a JPEG file's; ``a.png.jpg`` becomes
    ``a.png.jpg.jpg``, since the crop of ``a.png`` has that name. There each file appears at once. What is there and
    equal stays. Raises AbawError where something else is there (nothing is ever overwritten), and where the disk is
    full.
    """
    export = _export_images if "key" in store.header.arrays else _export_track
    written = already = crops = 0
    for track_id in track_ids:
        count = export(store, track_id, folder)
        written, already, crops = written + (count is not None), already + (count is None), crops + (count or 0)
    return Exported(written, already, crops)


def _export_track(store: FeatureStore, track_id: str, folder: Path) -> int | None:
    """Files written; None where the folder was there already."""
    target = folder / track_id
    if target.is_symlink() or target.exists():
        _require_equal(store, track_id, target)
        return None
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.mkdir(parents=True)
        count = 0
        for row, data in _crops(store, track_id):
            (temporary / _name(row)).write_bytes(data)
            count += 1
        temporary.rename(target)
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def _require_equal(store: FeatureStore, track_id: str, target: Path) -> None:
    """Names and sizes of the files must be those of the track; hidden files do not count."""
    offsets = store.read(track_id, "offsets").tolist()
    sizes = {_name(row): end - start for row, (start, end) in enumerate(zip(offsets, offsets[1:], strict=False))}
    expected = {name: size for name, size in sizes.items() if size}
    try:
        there = {e.name: e.stat().st_size for e in os.scandir(target) if not e.name.startswith(".")}
    except OSError:  # a file of that name, or a link to nothing
        there = {"": 0}
    if there != expected:
        raise AbawError(
            f"{target} is there and does not hold the crops of track {track_id}",
            where=f"{target}\n{store.track_path(track_id)}",
            fix=f"remove it (rm -r '{target}'), or export to another folder",
        )


def _export_images(store: FeatureStore, track_id: str, folder: Path) -> int | None:
    """Files written; None where all were there already."""
    keys = store.read(track_id, "key").tolist()
    count = new = 0
    for row, data in _crops(store, track_id):
        target = folder / _image_name(keys[row], store, track_id)
        count += 1
        new += _write_image(target, data)
    return new if new or not count else None


def _write_image(target: Path, data: bytes) -> bool:
    """Write one file unless it is there with these bytes."""
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        if target.is_symlink() or target.exists():
            _require_same(target, data)
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.rename(target)
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        if temporary.is_file():
            temporary.unlink(missing_ok=True)
    return True


def _require_same(target: Path, data: bytes) -> None:
    if not target.is_file() or target.read_bytes() != data:
        raise AbawError(
            f"{target} is there and is another picture",
            where=str(target),
            fix="remove it, or export to another folder",
        )


def _image_name(key: str, store: FeatureStore, track_id: str) -> str:
    r"""Path of an image's crop below the folder, another for every key; AbawError for a key that would lead out of it.

    Where "\" parts folders it is refused, elsewhere it is a character like others.
    """
    path = PurePosixPath(key)
    if not path.name or path.is_absolute() or ".." in path.parts or (os.sep != "/" and os.sep in key) or "\0" in key:
        raise AbawError(
            f"{key!r} is no path below a folder",
            where=str(store.track_path(track_id)),
            fix="align the collection again; this store was not written by abaw align",
        )
    name = PurePosixPath(path.name)
    while name.suffix.lower() in JPEG_SUFFIXES:
        name = name.with_suffix("")
    plain = path.suffix.lower() in JPEG_SUFFIXES and name.suffix.lower() not in PICTURE_SUFFIXES
    return key if plain else f"{key}.jpg"


def _crops(store: FeatureStore, track_id: str) -> Iterator[tuple[int, bytes]]:
    """Row and JPEG file of every row that has one; a part of the track in memory at a time."""
    offsets = store.read(track_id, "offsets")
    for start in range(0, len(offsets) - 1, READ_ROWS):
        spans = offsets[start : start + READ_ROWS + 1].tolist()
        block = store.read(track_id, "jpeg", slice(spans[0], spans[-1]))
        for row, (begin, end) in enumerate(zip(spans, spans[1:], strict=False), start=start):
            if end > begin:
                yield row, block[begin - spans[0] : end - spans[0]].tobytes()


def _name(row: int) -> str:
    return f"{row + 1:05d}.jpg"


def _not_written(target: Path, error: OSError) -> AbawError:
    return AbawError(
        f"{target.name} could not be written ({error.strerror or error})",
        where=str(target.parent),
        fix="free disk space or name a writable folder, then run the same command again: it adds what is missing",
    )
