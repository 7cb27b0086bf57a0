"""What features made by other programs look like here: where each track's lie, and a block of rows as it was read.

Owns the names: which file belongs to which track. Knows nothing of any format.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np

from abaw.data.manifest import VIDEO_SUFFIXES, split_person, split_side
from abaw.errors import AbawError, closest
from abaw.store_header import Reason

RESHAPE = "save one vector per video frame: an array [frames, columns] of numbers"


@dataclass(frozen=True, slots=True)
class Item:
    """Where the features of one track lie.

    ``name``: the track as its source spells it. ``inner``: array or dataset inside ``path``, which is a file, or a
    folder where every frame has a file. ``frames``: keys of the frames, where each has a dataset of its own.
    """

    name: str
    path: Path
    inner: str = ""
    frames: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{self.path}: {self.inner}" if self.inner else str(self.path)


@dataclass(frozen=True)
class Layout:
    """What all tracks of a source share; small and picklable.

    ``dim`` columns, with their names in ``columns`` where the format has names; ``left_out`` are columns that are no
    features. ``first``: number of the first frame, None where rows are not numbered but in order.
    """

    format: str
    dim: int
    columns: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    first: int | None = None


@dataclass(frozen=True)
class Block:
    """Rows of one track as they were read, in any order.

    ``values`` [N, D] of any number type; ``frames`` int64 [N] counted from 0, or None: row k is frame k. ``reason``
    uint8 [N], 0 where the source says nothing against a row. ``boxes`` float32 [N, 4] (x0 y0 x1 y1 in pixels of the
    source picture, NaN where unknown): then several rows of a frame are several faces.
    """

    values: np.ndarray
    frames: np.ndarray | None
    reason: np.ndarray
    boxes: np.ndarray | None = None


class TrackNames:
    """The tracks that features can be for. ``people``: ``video_person2`` is a person of ``video``, not a recording."""

    def __init__(self, track_ids: Collection[str], *, people: bool = False) -> None:
        self._known = {normalize("NFC", track_id): track_id for track_id in track_ids}
        self._people: dict[str, list[str]] = {}
        for track_id in track_ids:
            base, side = split_side(track_id)
            number = None
            if people and side is None:
                base, number = split_person(track_id)
            if side is not None or number is not None:
                self._people.setdefault(normalize("NFC", base), []).append(track_id)

    def exact(self, name: str) -> str | None:
        """The track of that name; a video's suffix at the end of a name does not count."""
        return next((self._known[one] for one in _spellings(name) if one in self._known), None)

    def people_of(self, name: str) -> list[str]:
        """Tracks of the people in the recording of that name; none where the recording is one track."""
        return next((self._people[one] for one in _spellings(name) if one in self._people), [])

    def knows(self, name: str) -> bool:
        """Whether a track, or the recording of some, has that name."""
        return self.exact(name) is not None or bool(self.people_of(name))

    def nearest(self, name: str) -> str | None:
        """The track whose name is most alike."""
        return closest(name, self._known.values())


def _spellings(name: str) -> tuple[str, str]:
    plain = normalize("NFC", name)
    suffix = next((one for one in VIDEO_SUFFIXES if plain.lower().endswith(one)), "")
    return plain, plain[: len(plain) - len(suffix)]


def unreadable(item: Item | Path, what: str, fix: str) -> AbawError:
    """The error for a file that does not hold what it should: ``what`` continues its name."""
    path = item if isinstance(item, Path) else item.path
    where = str(item) if isinstance(item, Path) else item.where
    return AbawError(f"{path.name} {what}", where=where, fix=fix)


def as_table(value: np.ndarray, item: Item) -> np.ndarray:
    """[N, D] of numbers; a plain list of numbers is one column. Raises AbawError for anything else."""
    check_numbers(value, item)
    if value.ndim == 1:
        return value[:, None]
    if value.ndim != 2 or value.shape[1] == 0:
        raise unreadable(item, f"holds an array of shape {list(value.shape)}", RESHAPE)
    return value


def check_numbers(value: np.ndarray, item: Item) -> None:
    """Raise AbawError unless an array holds real numbers."""
    if value.dtype.kind not in "fiub":
        raise unreadable(item, f"holds {value.dtype} values, not numbers", RESHAPE)


def stated_reasons(num_rows: int, valid: np.ndarray | None, reason: np.ndarray | None) -> np.ndarray:
    """uint8 [num_rows] from what a source says of its rows; one that is not valid for no known reason has no value."""
    known = np.zeros(num_rows, np.int64) if reason is None else reason.astype(np.int64)
    known[(known < 0) | (known > max(Reason))] = Reason.NO_VALUE
    if valid is not None:
        known = np.where(valid.astype(bool), Reason.VALID, np.where(known == Reason.VALID, Reason.NO_VALUE, known))
    return known.astype(np.uint8)
