"""NumPy files: an array per video, an array per frame, and archives. Pickled objects are never loaded."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from abaw.data.foreign_features.source import (
    RESHAPE,
    Block,
    Item,
    TrackNames,
    as_table,
    check_numbers,
    stated_reasons,
    unreadable,
)
from abaw.errors import AbawError

NUMBERED = re.compile(r"(?P<number>[0-9]+)\.npy", re.IGNORECASE)
MAGIC = b"\x93NUMPY"
FEATURES = "features"  # the array of an archive that holds others beside it
PLAIN = "save plain numbers: np.save(file, np.asarray(features, dtype=np.float32))"
DAMAGED = "make the file again, or remove it"
Numpy = Callable[[], np.ndarray]


# -- a file per video --------------------------------------------------------------------------------------------------
def npy_items(files: Sequence[Path]) -> list[Item]:
    """One item per file, named by it."""
    return [Item(path.stem, path) for path in files]


def read_npy(item: Item) -> Block:
    """The array of a file. Raises AbawError for one that is damaged, pickled, or no table of numbers."""
    values = as_table(load_npy(item), item)
    return Block(values, None, np.zeros(len(values), np.uint8))


def load_npy(item: Item) -> np.ndarray:
    """The array of an .npy file as it is. Raises AbawError for what is none, and for pickled objects."""
    path = item.path
    try:
        with path.open("rb") as file:
            begin = file.read(len(MAGIC))
    except OSError as error:
        raise unreadable(item, f"cannot be read ({error.strerror or error})", DAMAGED) from error
    if not begin:
        raise unreadable(item, "is empty", DAMAGED)
    if begin.startswith(b"PK"):
        raise unreadable(item, "is an archive of arrays (npz), not one array", "name it .npz, and give --format npz")
    if begin != MAGIC:
        raise unreadable(item, "is no NumPy array: a pickle, or another kind of file", PLAIN)
    return _plain(item, lambda: np.load(path, allow_pickle=False))


def _plain(item: Item, load: Numpy) -> np.ndarray:
    """What ``load`` gives, with NumPy's refusals worded."""
    try:
        return np.asarray(load())
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if "pickle" in str(error):
            what = "holds Python objects, not numbers: loading them would run whatever code is in the file"
            raise unreadable(item, what, PLAIN) from error
        raise unreadable(item, f"is damaged ({error})", DAMAGED) from error


# -- a file per frame --------------------------------------------------------------------------------------------------
def is_numbered(name: str) -> bool:
    """Whether a file's name is a frame's number."""
    return NUMBERED.fullmatch(name) is not None


def frame_items(folders: Sequence[Path]) -> list[Item]:
    """One item per folder of numbered files."""
    return [Item(folder.name, folder) for folder in folders]


def frame_files(item: Item) -> list[tuple[int, Path]]:
    """Number and file of every frame, in order. Raises AbawError for two files of one number."""
    found: dict[int, Path] = {}
    try:
        names = sorted(file.name for file in item.path.iterdir())
    except OSError as error:
        raise unreadable(item, f"cannot be listed ({error.strerror or error})", "make the folder readable") from error
    for name in names:
        match = NUMBERED.fullmatch(name)
        if match is None:
            continue
        path = item.path / name
        other = found.setdefault(int(match["number"]), path)
        if other != path:
            raise unreadable(item, f"has two files of frame {int(match['number'])}", f"remove {other.name} or {name}")
    return sorted(found.items())


def starts_at_zero(item: Item) -> bool:
    """Whether a folder has a file of frame 0."""
    matches = (NUMBERED.fullmatch(file.name) for file in item.path.iterdir())
    return any(match and not int(match["number"]) for match in matches)


def read_frames(item: Item, *, first: int, dim: int | None = None) -> Block:
    """The vectors of a folder; ``dim``: columns they must have (default: those of the first)."""
    files = frame_files(item)
    values = np.zeros((len(files), dim or 0), np.float32)
    for row, (_, path) in enumerate(files):
        vector = _vector(Item(item.name, path))
        if dim is None:
            dim, values = len(vector), np.zeros((len(files), len(vector)), np.float32)
        if len(vector) != dim:
            raise unreadable(path, f"has {len(vector)} columns, the others {dim}", "make all of them with one model")
        values[row] = vector
    frames = np.array([number for number, _ in files], np.int64) - first
    return Block(values, frames, np.zeros(len(files), np.uint8))


def first_vector(item: Item) -> np.ndarray:
    """The vector of a folder's first file. Raises AbawError where it has none."""
    files = frame_files(item)
    if not files:
        raise unreadable(item, "holds no numbered .npy file", "name them 00001.npy, 00002.npy ...")
    return _vector(Item(item.name, files[0][1]))


def _vector(item: Item) -> np.ndarray:
    value = load_npy(item)
    check_numbers(value, item)
    if value.ndim == 0 or value.size != value.shape[-1] or not value.size:
        what = f"holds an array of shape {list(value.shape)}, not one vector"
        raise unreadable(item, what, "save the vector of a frame in its file: an array [columns]")
    return value.reshape(-1)


# -- archives ----------------------------------------------------------------------------------------------------------
def npz_items(files: Sequence[Path], tracks: TrackNames) -> list[Item]:
    """Tracks of archives: an archive with an array `features`, or with one array, is a track of its own name; of any
    other, every array is one.

    A file that cannot be read is an item too, whose reading says why.
    """
    items: list[Item] = []
    for path in files:
        try:
            names = _members(path)
        except AbawError:
            names = []
        if FEATURES in names:
            items.append(Item(path.stem, path, FEATURES))
        elif not names or (len(names) == 1 and (tracks.knows(path.stem) or not tracks.knows(names[0]))):
            items.append(Item(path.stem, path, names[0] if names else ""))
        else:
            items += [Item(name.rpartition("/")[2], path, name) for name in names]
    return items


def _members(path: Path) -> list[str]:
    """Names of an archive's arrays. Raises AbawError for what is none."""
    again = "make it again with np.savez_compressed, without pickled objects"
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        what = "is empty" if path.is_file() and not path.stat().st_size else f"is no archive of arrays ({error})"
        raise unreadable(path, what, again) from error
    if isinstance(archive, np.ndarray):
        raise unreadable(path, "is one array (npy), not an archive of them", "name it .npy, and give --format npy")
    with archive:
        return list(archive.files)


def read_npz(item: Item) -> Block:
    """An array of an archive; beside `features` also `valid` [T] and `reason` [T], where they are there."""
    if not item.inner and not _members(item.path):
        raise unreadable(item, "holds no array", RESHAPE)
    with np.load(item.path, allow_pickle=False) as archive:
        values = as_table(_plain(item, lambda: archive[item.inner]), item)
        beside = archive.files if item.inner == FEATURES else []
        given = {
            name: _plain(item, partial(archive.__getitem__, name)) for name in ("valid", "reason") if name in beside
        }
    for name, flags in given.items():
        if flags.shape != (len(values),) or flags.dtype.kind not in "bui":
            raise unreadable(item, f"has an array {name} {list(flags.shape)}, not one number a row", RESHAPE)
    return Block(values, None, stated_reasons(len(values), given.get("valid"), given.get("reason")))
