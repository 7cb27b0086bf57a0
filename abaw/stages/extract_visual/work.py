"""The work of `extract-visual`: faces of any tracks in batches of one shape, features back to their rows.

Several threads decode and one writes; beside a model on a GPU one reads. The model has the thread that asks for
results.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np

from abaw import executors
from abaw.data.faces import crop_geometry
from abaw.data.frames import READ_ROWS, Decode, Decoding, FrameRef
from abaw.encoders.visual import Faces, VisualEncoder
from abaw.errors import AbawError
from abaw.executors import TrackResult
from abaw.extraction import Writer, read_ahead
from abaw.store import FeatureStore

# Batches ready or being decoded beside the one that the model has: while it works on a GPU, or before it does on the
# CPU; fewer where they are large.
AHEAD, ROUND, AHEAD_BYTES = 4, 16, 1 << 26
EXACT_ROWS = 8  # faces that the model in fp32 sees at once, so that the check needs little memory


@dataclass(frozen=True)
class Item:
    """A track to do, by its name in the faces store."""

    track_id: str


@dataclass(eq=False)
class Track:
    """A track whose features are being filled: `waiting` of its rows have none yet."""

    track_id: str
    features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    valid: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    reason: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    fps: float = 0.0
    waiting: int = 0
    error: AbawError | None = None

    @property
    def is_finished(self) -> bool:
        return self.error is not None or self.waiting == 0


@dataclass
class Batch:
    """Faces of some tracks; `opened` are the tracks begun since the batch before, some of which may have no face.

    `parts`: tracks and which of their rows lie here, in order; `landmarks` [B, 5, 2] and `box` [B, 4] as in `Faces`.
    """

    opened: list[Track]
    parts: list[tuple[Track, np.ndarray]]
    decoding: Decoding
    landmarks: np.ndarray
    box: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.decoding.images.nbytes

    def faces(self) -> Faces:
        """Once they are decoded. A track with a face that cannot be is given its error."""
        errors = self.decoding.wait()
        stops = np.cumsum([len(rows) for _, rows in self.parts])
        for place, error in errors.items():
            track = self.parts[int(np.searchsorted(stops, place, side="right"))][0]
            track.error = track.error or error
        return Faces(self.decoding.images, self.landmarks, self.box)

    def run(self, encoder: VisualEncoder) -> None:
        """Give the rows their features."""
        if not self.parts:
            return
        with np.errstate(over="ignore"):  # the store names the row
            features = encoder.encode(self.faces()).astype(np.float16)
        start = 0
        for track, rows in self.parts:
            track.features[rows] = features[start : start + len(rows)]
            track.waiting -= len(rows)
            start += len(rows)


class _Filling:
    """The next batch, as far as it is known."""

    def __init__(self, size: int, batch_size: int) -> None:
        self.size, self._batch_size = size, batch_size
        self.clear()

    def clear(self) -> None:
        self.opened: list[Track] = []
        self._parts: list[tuple[Track, np.ndarray]] = []
        self._decoders: list[Decode] = []
        self._landmarks = np.zeros((self._batch_size, 5, 2), np.float32)
        self._box = np.zeros((self._batch_size, 4), np.float32)
        self._count = 0

    @property
    def room(self) -> int:
        return self._batch_size - self._count

    def add(
        self, track: Track, rows: np.ndarray, decoders: Sequence[Decode], landmarks: np.ndarray, box: np.ndarray
    ) -> None:
        """Take the faces of some rows, `room` at most."""
        self._decoders += decoders
        self._parts.append((track, rows))
        stop = self._count + len(rows)
        self._landmarks[self._count : stop], self._box[self._count : stop] = landmarks[rows], box[rows]
        self._landmarks[stop:], self._box[stop:] = landmarks[rows[-1]], box[rows[-1]]
        self._count = stop

    def batch(self) -> Batch:
        """What is there, under decoding; past the last face it is repeated, so that every batch has one shape."""
        decoding = Decoding(self._decoders, self.size, num_rows=self._batch_size)
        made = Batch(self.opened, self._parts, decoding, self._landmarks, self._box)
        self.clear()
        return made


def read_batches(
    source: FeatureStore, unit: Sequence[Item], *, size: int, dim: int, batch_size: int
) -> Generator[Batch, None, None]:
    """The faces of all tracks in order, `size` pixels a side (0 = no images), in batches that cross tracks."""
    filling = _Filling(size, batch_size)
    for item in unit:
        track = Track(item.track_id)
        filling.opened.append(track)
        try:
            yield from _read_track(source, track, filling, dim)
        except AbawError as error:
            track.error = error
    yield filling.batch()


def _read_track(source: FeatureStore, track: Track, filling: _Filling, dim: int) -> Iterator[Batch]:
    name = track.track_id
    track.valid, track.reason, track.fps = source.valid(name), source.read(name, "reason"), source.fps(name)
    track.features = np.zeros((len(track.valid), dim), np.float16)
    landmarks, box = crop_geometry(source, name)
    ref = FrameRef(source, name, np.flatnonzero(track.valid))
    track.waiting = len(ref)
    for first in range(0, len(ref), READ_ROWS):
        places = np.arange(first, min(first + READ_ROWS, len(ref)))
        rows, decoders = ref.rows[places], ref.decoders(places) if filling.size else []
        start = 0
        while start < len(rows) and track.error is None:
            part = slice(start, start + filling.room)
            filling.add(track, rows[part], decoders[part], landmarks, box)
            start = part.stop
            if not filling.room:
                yield filling.batch()


def extract_unit(
    unit: Sequence[Item],
    *,
    faces: FeatureStore,
    store: FeatureStore,
    encoder: VisualEncoder,
    batch_size: int,
    on_cpu: bool,
) -> Iterator[TrackResult]:
    """Encode the faces of some tracks and publish each track when its last row is done.

    `on_cpu`: the model needs the cores that decode.
    """
    opened: list[Track] = []
    count = min(ROUND, 1 + AHEAD_BYTES // (1 + batch_size * encoder.image_size**2 * 3))
    # A store of its own, whose files the reading thread opens; the thread ends before they are closed.
    with (
        closing(FeatureStore.open(faces.path, kind="faces")) as source,
        closing(read_batches(source, unit, size=encoder.image_size, dim=encoder.dim, batch_size=batch_size)) as plain,
        closing(_in_rounds(plain, count) if on_cpu else _ahead(plain)) as batches,
        Writer[TrackResult]() as writer,
    ):
        for batch in batches:
            batch.run(encoder)
            opened = _hand_over([*opened, *batch.opened], writer, store)
            yield from writer.finished()
        yield from writer.rest()


def _ahead(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """The batches, the next ones read and decoded while the model works on the last."""
    return read_ahead(batches, depth=AHEAD, max_bytes=AHEAD_BYTES, size_of=lambda batch: batch.num_bytes)


def _in_rounds(batches: Iterator[Batch], count: int) -> Generator[Batch, None, None]:
    """The batches, `count` decoded before the first of them is given.

    A model on the CPU and the decoders want the same cores. A part of the model's work waits for its slowest thread,
    and its threads spin for milliseconds after it: taking turns, and seldom, is a tenth faster than working at once.
    """
    while waiting := list(islice(batches, count)):
        _wait(waiting)
        yield from _emptied(waiting)


def _wait(waiting: list[Batch]) -> None:
    for batch in waiting:
        batch.decoding.wait()


def _emptied(waiting: list[Batch]) -> Iterator[Batch]:
    """The batches in order; nothing is kept of those that were given."""
    waiting.reverse()
    while waiting:
        yield waiting.pop()


def _hand_over(opened: list[Track], writer: Writer[TrackResult], store: FeatureStore) -> list[Track]:
    """Have the finished tracks written; those that are not."""
    for track in opened:
        if track.is_finished:
            writer.submit(partial(executors.attempt, track.track_id, partial(_publish, track, store)))
    return [track for track in opened if not track.is_finished]


def _publish(track: Track, store: FeatureStore) -> TrackResult:
    if track.error is not None:
        raise track.error
    arrays = {"features": track.features, "reason": track.reason, "valid": track.valid}
    store.write(track.track_id, arrays, fps=track.fps)
    return TrackResult(track.track_id, info={"reasons": executors.count_reasons(track.reason)})


def first_faces(faces: FeatureStore, items: Sequence[Item], encoder: VisualEncoder, *, batch_size: int) -> Faces | None:
    """The first batch as `extract_unit` would encode it; None where no row has a face."""
    with closing(FeatureStore.open(faces.path, kind="faces")) as source:
        for batch in read_batches(source, items, size=encoder.image_size, dim=encoder.dim, batch_size=batch_size):
            if batch.parts:
                return batch.faces()
    return None


def encode_exactly(encoder: VisualEncoder, faces: Faces) -> np.ndarray:
    """Features of some faces in fp32, a few at a time, so that it takes little memory."""
    exact = encoder.exact()
    parts = (Faces(*(part[k : k + EXACT_ROWS] for part in faces)) for k in range(0, len(faces.box), EXACT_ROWS))
    return np.concatenate([exact.encode(part) for part in parts])
