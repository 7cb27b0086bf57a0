"""Which files a folder holds, in an order that never varies, and how a collection of images becomes shard tracks.

Owns the walk over folders and the names of shards. Knows nothing of what is in the files, or of configuration.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from abaw.errors import AbawError
from abaw.store import FeatureStore
from abaw.store_header import check_track_id

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SHARD_SIZE = 10_000
MAX_NAMED = 5  # unusable names that an error lists
# A name is kept as one line of UTF-8: no control characters, and no bytes that are not UTF-8 (read as surrogates).
UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Shard:
    """Up to 10,000 images of a collection as one track; iterating gives their paths below ``folder``, row by row.

    Small (about 10 bytes an image) and picklable, since a collection may hold millions.
    """

    folder: Path
    track_id: str
    count: int
    packed: bytes

    @classmethod
    def of(cls, folder: Path, track_id: str, names: Sequence[str]) -> Shard:
        """The shard of these paths, in this order."""
        return cls(folder, track_id, len(names), zlib.compress("\n".join(names).encode()))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        yield from zlib.decompress(self.packed).decode().split("\n")


def list_shards(folder: Path, *, shard_size: int = SHARD_SIZE) -> list[Shard]:
    """The images below a folder as shards ``<folder name>-00000``, ``-00001`` ...

    The order is that of the names within each folder, so that the same files give the same shards. Hidden files and
    folders are left out. Links are followed, but never back up; what a link leads to is listed under both names.
    Raises AbawError for a folder that is missing, unreadable or without images, and for names with control characters
    or bytes that are not UTF-8.
    """
    name = folder.name if folder.name not in ("", "..") else folder.resolve().name
    check_track_id(f"{name}-00000", where=f"data.images = {folder}")
    files = walk_files(folder, PICTURE_SUFFIXES, key="data.images")
    shards: list[Shard] = []
    unusable: list[str] = []
    while names := list(islice(files, shard_size)):
        bad = [path for path in names if UNUSABLE.search(path)]
        unusable += bad
        if not bad:
            shards.append(Shard.of(folder, f"{name}-{len(shards):05d}", names))
    if unusable:
        raise _unusable(folder, unusable)
    if not shards:
        raise AbawError(
            f"there is no image in {folder}",
            where="data.images",
            fix=f"point it at a folder that holds {', '.join(PICTURE_SUFFIXES)} files",
        )
    return shards


def check_keys(store: FeatureStore, shard: Shard) -> None:
    """Make sure that a finished shard holds the images that its collection has there today; AbawError where not."""
    stored = store.read(shard.track_id, "key").tolist()
    names = list(shard)
    if stored == names:
        return
    row = next((row for row, (a, b) in enumerate(zip(stored, names, strict=False)) if a != b), None)
    change = f"{len(stored)} images then, {len(names)} now"
    if row is not None:
        change = f"row {row} was {stored[row]}, and is {names[row]} now"
    path = store.track_path(shard.track_id)
    raise AbawError(
        f"the collection has changed since {shard.track_id} was aligned: {change}",
        where=f"{path}\n{shard.folder}",
        fix=f"bring the images back, or delete {path.name} and the collection's files after it and run the same "
        "command again, or pass --overwrite",
    )


def walk_files(folder: Path, suffixes: Sequence[str], *, key: str) -> Iterator[str]:
    """Paths below a folder, "/" between their parts, of the files with these suffixes in any case.

    Sorted by name within each folder. Hidden files and folders are left out. Links are followed unless they lead
    back up, so that the files of a folder beside are listed under both names; a link to nothing counts as a file, so
    that whoever reads it says so. ``key`` names the folder's place in the configuration. Raises AbawError for a folder
    that is missing or may not be read.
    """
    require_folder(folder, key)
    yield from _walk(folder, "", tuple(suffixes), ())


def require_folder(path: Path, key: str) -> None:
    """Raise AbawError unless ``path`` is a folder; ``key`` names its place in the configuration."""
    try:
        path.stat()  # says why where it may not be looked at
        what = "" if path.is_dir() else f"{path} is not a folder"
    except (FileNotFoundError, NotADirectoryError):
        what = f"folder {path} does not exist"
    except OSError as error:
        raise unreadable(path, error) from error
    if what:
        fix = "correct the path; relative ones start at the configuration file's folder"
        raise AbawError(what, where=key, fix=fix)


def unreadable(path: str | Path, error: OSError) -> AbawError:
    """The error for a folder that is there but may not be listed."""
    return AbawError(
        f"folder {path} cannot be read ({error.strerror or error})",
        where=str(path),
        fix=f"make it readable (ls '{path}' must work), or move it out of the folder that is searched",
    )


def _walk(path: Path, prefix: str, suffixes: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    try:
        status = path.stat()
        here = status.st_dev, status.st_ino
        if here in above:  # a link to a folder that this one is in
            return
        files, folders = _entries(path, suffixes)
    except OSError as error:
        raise unreadable(path, error) from error
    for name in sorted([*files, *folders]):
        if name in folders:
            yield from _walk(path / name, f"{prefix}{name}/", suffixes, (*above, here))
        else:
            yield prefix + name


def _entries(path: Path, suffixes: tuple[str, ...]) -> tuple[list[str], set[str]]:
    """Names of the files with these suffixes, and of the folders; of one folder only, since it may hold millions."""
    files: list[str] = []
    folders: set[str] = set()
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.add(entry.name)
            elif entry.name.lower().endswith(suffixes) and (entry.is_file() or not Path(entry.path).exists()):
                files.append(entry.name)
    return files, folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _unusable(folder: Path, names: list[str]) -> AbawError:
    shown = [repr(name) for name in names[:MAX_NAMED]]
    more = [f"... and {len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    return AbawError(
        f"{len(names)} file names in {folder} hold control characters, or are not UTF-8",
        where="\n".join([*shown, *more]),
        fix="rename these files; renaming one later would move all images after it to other rows",
    )
