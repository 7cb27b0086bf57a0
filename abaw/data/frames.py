"""Face crops as images: decoding those of a faces store, resizing to a model's size, and tables of frames.

Knows nothing of labels' file layouts, of models or of training order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from abaw.data.image_threads import PART, Parts, in_parts, num_threads
from abaw.errors import AbawError
from abaw.store import FeatureStore

RESIZE = "bicubic"  # recorded wherever a model's input is described
CACHE_BYTES = 2 << 30
READ_ROWS = 512
SKIP_BYTES = 1 << 18  # reading over this many unwanted bytes costs about as much as another read

# Gives one face, RGB uint8 [S, S, 3] of the side it is stored with; safe to call in any thread.
Decode = Callable[[], np.ndarray]


class Frames(Protocol):
    """Some frames that lie together: rows of a store's track, or images of a folder (`image_files.ImageRef`)."""

    @property
    def track_id(self) -> str:
        """Name of the track or of the part of a folder."""

    def __len__(self) -> int: ...

    def name(self, place: int) -> str:
        """The frame at a place, counted from 0, for messages."""

    def decoders(self, places: np.ndarray) -> list[Decode]:
        """What decodes the frames at these increasing places, in their order."""


@dataclass(slots=True)
class FrameRef:
    """Some rows of one track of a store. The track's offsets are kept from the first reading on."""

    store: FeatureStore
    track_id: str
    rows: np.ndarray  # int64 [n], increasing
    _offsets: np.ndarray | None = field(init=False, default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, place: int) -> str:
        return f"{self.track_id}:{int(self.rows[place])}"

    def decoders(self, places: np.ndarray) -> list[Decode]:
        """Reads the bytes of the faces at these increasing places of `rows`; see `read_faces`."""
        if self._offsets is None:
            self._offsets = self.store.read(self.track_id, "offsets")
        return _stored(self.store, self.track_id, self.rows[places], self._offsets)


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, evenly spread; all of them when count is 0."""
    if not count or len(rows) <= count:
        return rows
    return rows[(np.arange(count) * len(rows)) // count]


def read_faces(
    store: FeatureStore, track_id: str, rows: np.ndarray, size: int, *, offsets: np.ndarray | None = None
) -> np.ndarray:
    """Faces of the given increasing rows, RGB uint8 [n, size, size, 3].

    `offsets`: the track's offsets, where the caller has read them already. Raises AbawError for an empty, corrupt or
    non-square image, naming track and row.
    """
    images = np.empty((len(rows), size, size, 3), np.uint8)
    if offsets is None:
        offsets = store.read(track_id, "offsets")
    for start in range(0, len(rows), READ_ROWS):
        part = rows[start : start + READ_ROWS]
        images[start : start + READ_ROWS] = decode(_stored(store, track_id, part, offsets), size)
    return images


def _stored(store: FeatureStore, track_id: str, rows: np.ndarray, offsets: np.ndarray) -> list[Decode]:
    """Decoders of increasing rows, whose bytes are read now: near ones together."""
    skipped = offsets[rows[1:]] - offsets[rows[:-1] + 1]
    found: list[Decode] = []
    for near in np.split(rows, np.flatnonzero(skipped > SKIP_BYTES) + 1):
        first = int(offsets[near[0]])
        span = store.read(track_id, "jpeg", slice(first, int(offsets[near[-1] + 1])))
        cuts = zip(offsets[near] - first, offsets[near + 1] - first, near.tolist(), strict=True)
        found += [partial(_decode, span[begin:end], store, track_id, row) for begin, end, row in cuts]
    return found


def decode(decoders: Sequence[Decode], size: int) -> np.ndarray:
    """RGB uint8 [n, size, size, 3], decoded and resized in several threads; raises the first error of a decoder."""
    images = np.empty((len(decoders), size, size, 3), np.uint8)

    def fill(part: slice) -> None:
        images[part] = resize([one() for one in decoders[part]], size)

    in_parts(fill, len(decoders))
    return images


class Decoding:
    """Faces that are being decoded and resized in several threads, from now on.

    `images`: RGB uint8 [num_rows, size, size, 3], complete after `wait`; rows past the last decoder repeat its face.
    """

    def __init__(self, decoders: Sequence[Decode], size: int, *, num_rows: int) -> None:
        self.images = np.empty((num_rows, size, size, 3), np.uint8)
        self._decoders, self._errors = decoders, dict[int, AbawError]()
        # Larger parts cost less, and all threads are to have some.
        part_size = max(PART, len(decoders) // (2 * num_threads()))
        self._parts = Parts(self._fill, len(decoders), size=part_size)

    def _fill(self, part: slice) -> None:
        faces = [self._face(place) for place in range(*part.indices(len(self._decoders)))]
        self.images[part.start : part.start + len(faces)] = resize(faces, len(self.images[0]))

    def _face(self, place: int) -> np.ndarray:
        try:
            return self._decoders[place]()
        except AbawError as error:
            self._errors[place] = error
            return np.zeros_like(self.images[place])

    def wait(self) -> dict[int, AbawError]:
        """Until all are decoded; what is wrong with those that cannot be, by place. Their images are black."""
        self._parts.wait()
        self.images[len(self._decoders) :] = self.images[len(self._decoders) - 1]
        return dict(sorted(self._errors.items()))


def _decode(jpeg: np.ndarray, store: FeatureStore, track_id: str, row: int) -> np.ndarray:
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR) if len(jpeg) else None
    if image is None or _is_cut(jpeg):
        raise AbawError(
            f"face of track {track_id}, row {row} is {'not a readable JPEG' if len(jpeg) else 'empty'}",
            where=str(store.track_path(track_id)),
            fix=f"delete {store.track_path(track_id)} and run `abaw align` again",
        )
    if image.shape[0] != image.shape[1]:
        raise AbawError(
            f"face of track {track_id}, row {row} is {image.shape[1]}x{image.shape[0]}, not square",
            where=str(store.track_path(track_id)),
            fix="align to square crops: run `abaw align` on the videos",
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_cut(jpeg: np.ndarray) -> bool:
    """Whether a JPEG lacks its end marker (FF D9): decoders fill what is missing with grey and say nothing."""
    if jpeg[-2:].tolist() == [0xFF, 0xD9]:
        return False
    content = jpeg.tobytes()  # some programs write on after the end
    return content.startswith(b"\xff\xd8") and b"\xff\xd9" not in content


def check_first_faces(refs: Sequence[FrameRef]) -> None:
    """Decode the first face of every track. Raises AbawError for one that is corrupt, empty or not square.

    What is wrong with a whole track is found so before a training, and at no cost; single bad faces are not.
    """
    for ref in refs:
        if len(ref):
            for one in ref.decoders(np.zeros(1, np.int64)):
                one()


def resize(faces: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Square RGB images of any sizes -> uint8 [n, size, size, 3], antialiased bicubic."""
    resized = np.empty((len(faces), size, size, 3), np.uint8)
    for side in sorted({face.shape[0] for face in faces}):
        chosen = [number for number, face in enumerate(faces) if face.shape[0] == side]
        batch = np.stack([faces[number] for number in chosen])
        if side != size:
            tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)  # channels-last memory: the fast path
            tensor = F.interpolate(tensor, (size, size), mode="bicubic", antialias=True)
            batch = tensor.permute(0, 2, 3, 1).numpy()
        resized[chosen] = batch
    return resized


@dataclass
class FrameTable:
    """Frames of many tracks and folders under one running index, decoded at one size.

    Decoded frames are kept in memory when all of them fit into `cache_bytes`. Index i belongs to the i-th frame of the
    concatenated `refs`.
    """

    refs: Sequence[Frames]
    size: int
    cache_bytes: int = CACHE_BYTES
    _starts: np.ndarray = field(init=False)
    _cache: np.ndarray | None = field(init=False, default=None)
    _filled: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._starts = np.concatenate([[0], np.cumsum([len(ref) for ref in self.refs])]).astype(np.int64)
        if len(self) * self.size * self.size * 3 <= self.cache_bytes:
            self._cache = np.empty((len(self), self.size, self.size, 3), np.uint8)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        """Track and row, or file, of a frame, for messages."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.refs[number].name(int(index - self._starts[number]))

    def images(self, indices: np.ndarray) -> np.ndarray:
        """RGB uint8 [n, size, size, 3] of frames in the given order."""
        numbers = np.searchsorted(self._starts, indices, side="right") - 1
        if self._cache is not None:
            for number in np.unique(numbers):
                self._fill(int(number))
            return self._cache[indices]
        decoders: list[Decode] = []
        order = np.argsort(indices, kind="stable")
        for number in np.unique(numbers).tolist():
            wanted, again = np.unique(indices[numbers == number] - self._starts[number], return_inverse=True)
            own = self.refs[number].decoders(wanted)
            decoders += [own[k] for k in np.sort(again).tolist()]
        images = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        images[order] = decode(decoders, self.size)
        return images

    def _fill(self, number: int) -> None:
        """Decode a whole track into the cache: rows of one track lie together, and all are wanted in the end."""
        if self._cache is not None and number not in self._filled:
            ref, start = self.refs[number], self._starts[number]
            for first in range(0, len(ref), READ_ROWS):
                places = np.arange(first, min(first + READ_ROWS, len(ref)))
                self._cache[start + places] = decode(ref.decoders(places), self.size)
            self._filled.add(number)

    def in_order(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices [batch_size] and images of all frames once; the last batch is padded with its last frame.

        The caller cuts what lies past the end. Every batch has one shape, so a frame's result does not depend on
        how many others there are.
        """
        for start in range(0, len(self), batch_size):
            indices = np.minimum(np.arange(start, start + batch_size), len(self) - 1)
            yield indices, self.images(indices)


def measure_normalisation(table: FrameTable, *, limit: int = 2000) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, in [0, 1], over at most `limit` evenly spread frames."""
    indices = spread(np.arange(len(table)), limit)
    total, squares, pixels = np.zeros(3), np.zeros(3), 0
    for start in range(0, len(indices), 256):
        values = table.images(indices[start : start + 256]).reshape(-1, 3).astype(np.float64) / 255
        total += values.sum(0)
        squares += (values**2).sum(0)
        pixels += len(values)
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-6))
    return [round(float(v), 5) for v in mean], [round(float(v), 5) for v in deviation]
