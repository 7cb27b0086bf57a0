"""The work of `extract-audio`: pieces of recordings in batches of one shape, their tokens onto the tracks' rows.

One thread decodes, one writes; the model has the thread that asks for results. Tokens are added to the rows at once
and not kept.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import numpy as np

from abaw import executors
from abaw.data.manifest import Track
from abaw.encoders.audio import AudioEncoder, Piece, cut_piece, encode_batch
from abaw.executors import TrackResult
from abaw.extraction import Writer
from abaw.stages.extract_audio.recordings import Recording, Rows, read_recording
from abaw.stages.extract_audio.setup import Plan
from abaw.stages.extract_audio.tracks import group_by_sound
from abaw.store import FeatureStore

# Of a longer sound the next one is not read before it is encoded: 64 MiB are 17 minutes.
LARGE_BYTES = 1 << 26


class _Filling:
    """The next batch. Pieces of several recordings share one; a recording of a single piece runs alone."""

    def __init__(self, encoder: AudioEncoder) -> None:
        self._encoder = encoder
        self._waiting: list[tuple[Recording, Piece, np.ndarray]] = []

    def add(self, recording: Recording) -> Iterator[None]:
        """Cut a recording into pieces; yields after every forward pass."""
        alone = len(recording.pieces) == 1
        for piece in recording.pieces:
            sound = cut_piece(recording.samples, piece, recording.statistics)
            if alone:
                self._run([(recording, piece, sound)], 1)
                yield
                break
            self._waiting.append((recording, piece, sound))
            if len(self._waiting) == self._encoder.batch_size:
                self.flush()
                yield
        recording.samples = np.zeros(0, np.float32)

    def flush(self) -> None:
        """Run what is there."""
        batch, self._waiting = self._waiting, []
        if batch:
            self._run(batch, self._encoder.batch_size)

    def _run(self, batch: list[tuple[Recording, Piece, np.ndarray]], size: int) -> None:
        tokens = encode_batch(self._encoder, [sound for *_, sound in batch], size)
        for (recording, piece, _), part in zip(batch, tokens, strict=True):
            recording.add(piece, part)


def extract_unit(unit: Sequence[Track], *, plan: Plan) -> Iterator[TrackResult]:
    """Encode the sound of every recording once and publish it for each of its tracks."""
    encoder, store = plan.build(), FeatureStore.open(plan.store, kind="audio")
    filling, opened = _Filling(encoder), list[Recording]()
    with (
        # A store of its own, whose files the reading thread opens; the thread ends before they are closed.
        closing(FeatureStore.open(plan.faces, kind="faces")) as faces,
        closing(_ahead(group_by_sound(unit), faces, plan, encoder)) as recordings,
        Writer[TrackResult]() as writer,
    ):
        for recording in recordings:
            opened.append(recording)
            for _ in filling.add(recording):
                opened = _hand_over(opened, writer, store)
                yield from writer.finished()
            opened = _hand_over(opened, writer, store)
        filling.flush()
        _hand_over(opened, writer, store)
        yield from writer.rest()


def _ahead(
    groups: Sequence[list[Track]], faces: FeatureStore, plan: Plan, encoder: AudioEncoder
) -> Generator[Recording, None, None]:
    """The recordings in order; beside one that is not large the next one is decoded."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:

        def read(number: int) -> Recording | None:
            return read_recording(groups[number], faces, plan, encoder) if number < len(groups) else None

        coming = reader.submit(read, 0)
        for number in range(1, len(groups) + 1):
            recording = coming.result()
            if recording is None:
                break
            is_large = recording.samples.nbytes > LARGE_BYTES
            if not is_large:
                coming = reader.submit(read, number)
            yield recording
            if is_large:
                coming = reader.submit(read, number)


def _hand_over(opened: list[Recording], writer: Writer[TrackResult], store: FeatureStore) -> list[Recording]:
    """Have the tracks of finished recordings written; those that are not."""
    for recording in opened:
        if not recording.waiting:
            for rows in recording.tracks:
                work = partial(_publish, rows, store, recording.decode_errors)
                writer.submit(partial(executors.attempt, rows.track.track_id, work))
    return [recording for recording in opened if recording.waiting]


def _publish(rows: Rows, store: FeatureStore, decode_errors: int) -> TrackResult:
    arrays, name = rows.arrays(), rows.track.track_id
    store.write(name, arrays, fps=rows.fps)
    reasons = executors.count_reasons(rows.reason)
    return TrackResult(name, info={"reasons": reasons, "store": store.path, "decode_errors": decode_errors})


def first_sounds(groups: Sequence[list[Track]], plan: Plan) -> np.ndarray | None:
    """The first batch that is no silence, as `extract_unit` would encode it, float32 ``[B, S]``; None where all is."""
    encoder = plan.build()
    with closing(FeatureStore.open(plan.faces, kind="faces")) as faces:
        for group in groups:
            found = read_recording(group, faces, plan, encoder)
            for start in range(0, len(found.pieces), encoder.batch_size):
                batch = found.pieces[start : start + encoder.batch_size]
                sounds = np.stack([cut_piece(found.samples, piece, found.statistics) for piece in batch])
                if np.ptp(sounds) > 0:
                    return sounds
    return None
