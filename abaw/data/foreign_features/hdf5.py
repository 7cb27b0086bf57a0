"""HDF5 files of other programs: a dataset [frames, columns] per video, in groups of any depth, or a dataset per frame.

The latter comes with a group per image and a dataset per video in it (`00001/<video>`), or a group per video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from abaw.data.foreign_features.arrays import FEATURES
from abaw.data.foreign_features.source import RESHAPE, Block, Item, TrackNames, as_table, check_numbers, unreadable
from abaw.errors import AbawError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".npy")
FRAME = "{frame}"  # stands for the frame's key in the path of its dataset
DAMAGED = "make the file again, or remove it"
MAX_SHOWN = 5


def hdf5_items(files: Sequence[Path], tracks: TrackNames) -> list[Item]:
    """Tracks of files; of several, one that cannot be read is an item too, whose reading says why.

    Raises AbawError for a single file that is no HDF5 file, or holds no table of numbers.
    """
    items: list[Item] = []
    for path in files:
        try:
            with _opened(Item(path.stem, path)) as file:
                items += _frame_items(file, path, tracks) or _track_items(file, path, tracks)
        except AbawError:
            if len(files) == 1:
                raise
            items.append(Item(path.stem, path))
    return items


def frame_number(key: str) -> int | None:
    """The number in a frame's key, such as `00001` or `00001.jpg`; None where it is none."""
    stem = next((key[: -len(suffix)] for suffix in IMAGES if key.lower().endswith(suffix)), key)
    return int(stem) if stem.isascii() and stem.isdecimal() else None


def read_hdf5(item: Item, *, first: int) -> Block:
    """The rows of a track. Raises AbawError for damaged data and for what is no table of numbers."""
    with _opened(item) as file:
        if not item.inner:
            _track_items(file, item.path, TrackNames([]))
        if not item.frames:
            values = as_table(_read(file[item.inner], item), item)
            return Block(values, None, np.zeros(len(values), np.uint8))
        rows = [_vector(file[item.inner.replace(FRAME, key)], item) for key in item.frames]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise unreadable(item, f"has frames of {lengths[0]} and of {lengths[-1]} columns", "make them with one model")
    frames = np.array([frame_number(key) for key in item.frames], np.int64) - first
    return Block(np.stack(rows), frames, np.zeros(len(rows), np.uint8))


def dim_of(item: Item) -> int:
    """Columns of a track, without reading it."""
    with _opened(item) as file:
        if not item.inner:
            _track_items(file, item.path, TrackNames([]))
        if item.frames:
            return len(_vector(file[item.inner.replace(FRAME, item.frames[0])], item))
        return int(file[item.inner].shape[1])


@contextmanager
def _opened(item: Item) -> Iterator[h5py.File]:
    try:
        with h5py.File(item.path, "r", locking=False) as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        what = "is empty" if item.path.is_file() and not item.path.stat().st_size else f"cannot be read ({error})"
        raise unreadable(item, f"{what}, as an HDF5 file", DAMAGED) from error


def _track_items(file: h5py.File, path: Path, tracks: TrackNames) -> list[Item]:
    """A dataset per video. Of several of one video, `features` is meant."""
    if "fingerprint" in file.attrs and "num_rows" in file.attrs:
        fix = "name the store in fuse.visual or fuse.audio as it is; there is nothing to import"
        raise unreadable(path, "is a track of one of this program's stores", fix)
    found: list[tuple[str, tuple[int, ...]]] = []

    def look(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset) and thing.dtype.kind in "fiub":
            found.append((name, thing.shape))

    file.visititems(look)
    tables = [name for name, shape in found if len(shape) == 2]
    if not tables:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in found[:MAX_SHOWN]) or "nothing"
        raise unreadable(path, f"holds no table of numbers, but {shown}", RESHAPE)
    items: dict[str, Item] = {}
    several: dict[str, list[str]] = {}
    for inner in tables:
        name = _name(inner, path, tracks)
        several.setdefault(name, []).append(inner)
        items.setdefault(name, Item(name, path, inner))
    for name, inners in several.items():
        if len(inners) > 1:
            meant = [inner for inner in inners if inner.rpartition("/")[2] == FEATURES]
            if len(meant) != 1:
                fix = f"name the one that is meant {FEATURES}, or write it to a file of its own"
                raise unreadable(path, f"holds {len(inners)} tables of {name}: {', '.join(inners[:MAX_SHOWN])}", fix)
            items[name] = Item(name, path, meant[0])
    return list(items.values())


def _name(inner: str, path: Path, tracks: TrackNames) -> str:
    """The part of a dataset's path, from its end, that names a track; or the file's name; else the whole path."""
    parts = inner.split("/")
    known = [part for part in (*reversed(parts), path.stem) if tracks.knows(part)]
    return known[0] if known else inner


def _frame_items(file: h5py.File, path: Path, tracks: TrackNames) -> list[Item]:
    """Items of a file with a dataset per frame, by its first dataset; none where it is laid out another way."""
    top = [key for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)]
    if not top or not isinstance(file[top[0]], h5py.Group):
        return []
    inside = list(file[top[0]])
    if not inside or not _is_vector(getattr(file[top[0]][inside[0]], "shape", (0, 0))):
        return []
    if frame_number(top[0]) is not None and not tracks.knows(top[0]):  # a group per image
        frames: dict[str, list[str]] = {}
        for key in sorted(top, key=lambda key: (frame_number(key) is None, frame_number(key) or 0)):
            for name in file[key]:
                frames.setdefault(name, []).append(key)
        return [Item(name, path, f"{FRAME}/{name}", _numbered(keys, path)) for name, keys in frames.items()]
    if frame_number(inside[0]) is None:
        return []
    return [Item(name, path, f"{name}/{FRAME}", _numbered(list(file[name]), path)) for name in top]


def _numbered(keys: list[str], path: Path) -> tuple[str, ...]:
    odd = [key for key in keys if frame_number(key) is None]
    if odd:
        raise unreadable(path, f"holds {odd[0]!r} among its frames' numbers", "name frames 00001, 00002 ...")
    return tuple(sorted(keys, key=lambda key: frame_number(key) or 0))


def _read(dataset: Any, item: Item) -> np.ndarray:
    if not isinstance(dataset, h5py.Dataset):
        raise unreadable(item, "is a group, not a dataset", RESHAPE)
    if dataset.external or dataset.is_virtual or dataset.file.filename != str(item.path):
        what = "takes its numbers from another file, which may be any of this machine"
        raise unreadable(item, what, "write the numbers themselves into the file")
    return np.asarray(dataset[()])


def _vector(dataset: Any, item: Item) -> np.ndarray:
    value = _read(dataset, item)
    check_numbers(value, item)
    if not _is_vector(value.shape) or not value.size:
        raise unreadable(item, f"holds an array of shape {list(value.shape)} as a frame", RESHAPE)
    return value.reshape(-1)


def _is_vector(shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or (len(shape) == 2 and shape[0] == 1)
