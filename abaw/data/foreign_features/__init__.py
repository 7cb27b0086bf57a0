"""Features that other programs made: NumPy files, csv tables, HDF5. No torch, and no pickled objects.

``open_source`` finds the tracks of a file or folder, ``layout`` tells what they share, ``read`` reads one of them, and
``rows.to_rows`` puts it onto the rows of its track.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from abaw.data.collection import walk_files
from abaw.data.foreign_features import arrays, hdf5, tables
from abaw.data.foreign_features.source import Block, Item, Layout, TrackNames, unreadable
from abaw.errors import AbawError, ExitCode, choose
from abaw.provenance import file_sha256

__all__ = ["FORMATS", "Block", "Item", "Layout", "Source", "TrackNames", "layout", "open_source", "read", "sha256s"]

FORMATS = {
    "npy": (".npy",),
    "frames": (".npy",),
    "npz": (".npz",),
    "csv": (".csv",),
    "openface": (".csv",),
    "py-feat": (".csv",),
    "hdf5": (".h5", ".hdf5", ".hdf", ".he5"),
}
LOOKED_AT = 1000  # files of a folder by which its format is told
SHOWN = 5


@dataclass(frozen=True)
class Source:
    """A file or folder of features: its format, and an item for each track in it."""

    path: Path
    format: str
    items: list[Item]


def open_source(path: Path, *, format: str = "auto", tracks: TrackNames) -> Source:
    """Find the tracks of a file, or of a folder and those below it.

    Raises AbawError for a path that is missing, a format that cannot be told, a store of this program, and where
    nothing of the format is there.
    """
    if format != "auto":
        choose(FORMATS, format, what="format", where="--format")
    if not path.exists():
        raise AbawError(f"{path} does not exist", where=str(path), fix="correct the path", code=ExitCode.USAGE)
    if (path / "store.json").is_file() or (path.parent / "store.json").is_file():
        raise AbawError(
            f"{path} is a store of this program",
            where=str(path),
            fix="name it in fuse.visual or fuse.audio as it is; there is nothing to import",
        )
    chosen = _format_of(path, tracks) if format == "auto" else format
    files = [path] if path.is_file() else (path / name for name in walk_files(path, FORMATS[chosen], key=str(path)))
    items = _items(chosen, files, path, tracks)
    if not items:
        raise AbawError(
            f"there are no features of format {chosen} in {path}",
            where=str(path),
            fix=f"it must hold {' or '.join(FORMATS[chosen])} files; --format names another format",
        )
    return Source(path, chosen, items)


def _items(format: str, files: Iterator[Path] | list[Path], path: Path, tracks: TrackNames) -> list[Item]:
    if format == "frames":
        folders = dict.fromkeys(file.parent for file in files if arrays.is_numbered(file.name))
        return arrays.frame_items(list(folders))
    found = list(files)
    if format == "npz":
        return arrays.npz_items(found, tracks)
    return hdf5.hdf5_items(found, tracks) if format == "hdf5" else arrays.npy_items(found)


def _format_of(path: Path, tracks: TrackNames) -> str:
    """The format of a file, or of a folder's files by their suffixes. Raises AbawError where that cannot be told."""
    every = sorted({suffix for suffixes in FORMATS.values() for suffix in suffixes})
    files = [path] if path.is_file() else [path / n for n in islice(walk_files(path, every, key=str(path)), LOOKED_AT)]
    by_suffix = {suffix: name for name, suffixes in reversed(FORMATS.items()) for suffix in suffixes}
    kinds = sorted({by_suffix[file.suffix.lower()] for file in files if file.suffix.lower() in by_suffix})
    if len(kinds) != 1:
        raise AbawError(
            f"{path} holds files of several formats: {', '.join(kinds)}" if kinds else f"{path} holds no features",
            where=str(path),
            fix=f"choose one with --format: {', '.join(FORMATS)}" if kinds else f"there are none of {', '.join(every)}",
            code=ExitCode.USAGE if kinds else ExitCode.DATA,
        )
    numbered = kinds == ["npy"] and path.is_dir() and all(arrays.is_numbered(file.name) for file in files)
    if numbered and (tracks.knows(path.name) or all(file.parent != path for file in files)):
        return "frames"
    return _dialect(files) if kinds == ["csv"] else kinds[0]


def _dialect(files: Sequence[Path]) -> str:
    """Which program wrote csv files, by the first that can be read."""
    for file in files[:-1]:
        try:
            return tables.recognise(file)
        except AbawError:
            continue
    return tables.recognise(files[-1])


# -- what all tracks share ---------------------------------------------------------------------------------------------
def layout(source: Source, items: Sequence[Item], *, columns: Sequence[str] = ()) -> Layout:
    """What the items of a source share, by the first that can be read; ``columns``: only those of these names.

    Raises AbawError where none can be read, and for columns by name in a format that names none.
    """
    if columns and source.format not in tables.DIALECTS:
        raise AbawError(
            f"columns of format {source.format} have no names",
            where="--columns",
            fix="leave --columns out; all columns are imported",
            code=ExitCode.USAGE,
        )
    first = _first(source, items)
    for item in items[:-1]:
        try:
            return _layout_of(source.format, item, columns, first)
        except AbawError as error:
            if error.code is ExitCode.USAGE:
                raise
    return _layout_of(source.format, items[-1], columns, first)


def _layout_of(format: str, item: Item, patterns: Sequence[str], first: int | None) -> Layout:
    if format in tables.DIALECTS:
        names, left_out = tables.feature_columns(item, format, patterns)
        return Layout(format, len(names), names, left_out, first)
    if format == "hdf5":
        return Layout(format, hdf5.dim_of(item), first=first)
    if format == "frames":
        return Layout(format, len(arrays.first_vector(item)), first=first)
    reader = arrays.read_npz if format == "npz" else arrays.read_npy
    return Layout(format, reader(item).values.shape[1])


def _first(source: Source, items: Sequence[Item]) -> int | None:
    """Number of the first frame: 0 where any track has a frame 0, else 1; None where frames are not numbered."""
    if source.format == "frames":
        return 0 if any(map(arrays.starts_at_zero, items)) else 1
    if source.format == "hdf5":
        numbers = [hdf5.frame_number(item.frames[0]) for item in items if item.frames]
        return (0 if 0 in numbers else 1) if numbers else None
    if source.format not in tables.DIALECTS or tables.DIALECTS[source.format].first is not None:
        return tables.DIALECTS[source.format].first if source.format in tables.DIALECTS else None
    numbers = []
    for item in items:
        try:
            numbers.append(tables.first_frame(item))
        except AbawError:  # said when it is read
            continue
    known = [number for number in numbers if number is not None]
    return (0 if 0 in known else 1) if known else None


def read(item: Item, shape: Layout) -> Block:
    """The rows of one track. Raises AbawError for what cannot be read."""
    first = shape.first or 0
    if shape.format in tables.DIALECTS:
        return tables.read_table(item, shape.format, shape.columns, first)
    if shape.format == "hdf5":
        return hdf5.read_hdf5(item, first=first)
    if shape.format == "frames":
        return arrays.read_frames(item, first=first, dim=shape.dim)
    return arrays.read_npz(item) if shape.format == "npz" else arrays.read_npy(item)


def sha256s(items: Sequence[Item]) -> Iterator[str]:
    """One hash for each file or folder of the items, of its name as a track and its content; in order of the items.

    Where a folder lies does not count. Raises AbawError for a file that cannot be read.
    """
    for path in dict.fromkeys(item.path for item in items):
        try:
            if path.is_dir():
                numbers = hashlib.sha256()
                for number, file in arrays.frame_files(Item(path.name, path)):
                    numbers.update(f"{number}:{file_sha256(file)}\n".encode())
                yield f"{path.name}:{numbers.hexdigest()}"
            else:
                yield f"{path.stem}:{file_sha256(path)}"
        except OSError as error:
            raise unreadable(path, f"cannot be read ({error.strerror or error})", "make it readable") from error
