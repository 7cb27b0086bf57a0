"""Folders of images that are cropped faces already, read as they lie: no alignment, no store.

Made for millions of files: names are held packed, about 20 bytes an image. A damaged file does not end a run of days:
the next readable one of its part stands in for it, the same one every time.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from abaw.data.collection import PICTURE_SUFFIXES, SHARD_SIZE, walk_files
from abaw.data.frames import Decode
from abaw.errors import AbawError

logger = logging.getLogger(__name__)

MAX_BAD = 20  # unreadable files in a row before the folder itself is taken to be gone


@dataclass
class ImageFolder:
    """A folder of cropped faces, and what was noticed while reading it."""

    path: Path
    key: str  # its place in the configuration, for messages
    unreadable: set[str] = field(default_factory=set)
    cut: bool = False

    def note_unreadable(self, name: str, reason: str) -> None:
        """Warn of a damaged file, once."""
        if name not in self.unreadable:
            self.unreadable.add(name)
            logger.warning("%s %s: the next image of its folder stands in for it", self.path / name, reason)

    def note_cut(self, name: str, width: int, height: int) -> None:
        """Say once that images that are not square lose their longer ends."""
        if not self.cut:
            self.cut = True
            logger.warning(
                "%s is %dx%d, not square: of such images the middle square is taken (said once for %s)",
                self.path / name,
                width,
                height,
                self.path,
            )


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Up to 10,000 neighbouring images of a folder; names are cut out of one piece of bytes when they are wanted."""

    folder: ImageFolder
    track_id: str
    prefix: bytes  # what all names begin with
    rest: bytes  # the names' ends, one after the other
    ends: np.ndarray  # uint32 [n + 1], where they lie in `rest`

    @classmethod
    def of(cls, folder: ImageFolder, track_id: str, names: Sequence[str]) -> ImageRef:
        """The part with these paths below the folder, in this order."""
        raw = [os.fsencode(name) for name in names]
        first, last = min(raw), max(raw)
        prefix = first[: next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
        ends = np.concatenate([[0], np.cumsum([len(name) - len(prefix) for name in raw])]).astype(np.uint32)
        return cls(folder, track_id, prefix, b"".join(name[len(prefix) :] for name in raw), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def name(self, place: int) -> str:
        return os.fsdecode(self.prefix + self.rest[self.ends[place] : self.ends[place + 1]])

    def decoders(self, places: np.ndarray) -> list[Decode]:
        """What reads and decodes the images at these places: the middle square of those that are not square.

        For a file that cannot be read or decoded the next readable one of this part stands in, the first after the
        last. AbawError is raised when 20 in a row cannot be read.
        """
        return [partial(self._face, place) for place in places.tolist()]

    def _face(self, place: int) -> np.ndarray:
        tried = min(MAX_BAD, len(self))
        for step in range(tried):
            name = self.name((place + step) % len(self))
            image, reason = _decode(self.folder.path / name)
            if image is not None:
                return self._square(image, name)
            self.folder.note_unreadable(name, reason)
        raise AbawError(
            f"{tried} images in a row cannot be read, from {self.name(place)} on",
            where=f"{self.folder.key} = {self.folder.path}",
            fix="see that the folder is still there and holds whole image files, then run the same command again",
        )

    def _square(self, image: np.ndarray, name: str) -> np.ndarray:
        height, width = image.shape[:2]
        if height == width:
            return image
        self.folder.note_cut(name, width, height)
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return image[top : top + side, left : left + side]


def image_refs(folder: ImageFolder, *, part_size: int = SHARD_SIZE) -> list[ImageRef]:
    """The images below a folder in parts, in the order of their names. Raises AbawError where there is none."""
    files = walk_files(folder.path, PICTURE_SUFFIXES, key=folder.key)
    refs: list[ImageRef] = []
    while names := list(islice(files, part_size)):
        refs.append(ImageRef.of(folder, f"{folder.path.resolve().name}-{len(refs):05d}", names))
    if not refs:
        raise AbawError(
            f"there is no image in {folder.path}",
            where=folder.key,
            fix=f"point it at a folder that holds {', '.join(PICTURE_SUFFIXES)} files",
        )
    return refs


def listing_sha256(refs: Sequence[ImageRef]) -> str:
    """Hash of the names of all images in order: changes when one is added, removed or renamed, not with contents."""
    digest = hashlib.sha256()
    for ref in refs:
        for name in _names(ref):
            digest.update(name + b"\n")
    return digest.hexdigest()


def _names(ref: ImageRef) -> Iterator[bytes]:
    for begin, end in zip(ref.ends[:-1].tolist(), ref.ends[1:].tolist(), strict=True):
        yield ref.prefix + ref.rest[begin:end]


def _decode(path: Path) -> tuple[np.ndarray | None, str]:
    """RGB uint8 [H, W, 3], upright by its EXIF orientation; or None and what is wrong with the file."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        return None, f"cannot be read ({error.strerror or error})"
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:  # larger than OpenCV decodes
        image = None
    if image is None:
        return None, "is not a whole image" if len(data) else "is empty"
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), ""
