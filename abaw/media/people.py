"""The faces of one video, in one decoding pass, as finished arrays for each person asked for.

Puts decoding, detection, linking and warping together. Knows nothing of configuration or of how stores are written.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from abaw.errors import AbawError
from abaw.media.faces import Detections, FaceDetector
from abaw.media.following import FrameFaces, PreparedFrame, follow_faces, prepare_frames
from abaw.media.prefetch import prefetch
from abaw.media.tracking import Chosen, Linker, choose_person
from abaw.media.video import VideoReader
from abaw.media.warp import Aligner, encode_jpeg, warp_face
from abaw.store import Reason

RECORD = 4 + 10 + 6 + 1  # box, landmarks, warp, score


class AlignSettings(NamedTuple):
    """How faces are found, chosen and stored."""

    aligner: Aligner = Aligner()
    redetect: int = 25
    min_score: float = 0.9
    jpeg_quality: int = 95


class VideoFaces(NamedTuple):
    """Result of a video: track arrays for each side asked for, the clock, and what the decoder complained of."""

    tracks: list[dict[str, np.ndarray]]
    fps: float
    decode_errors: int
    first_error: str


def align_video(
    path: Path,
    sides: list[str | None],
    detector: FaceDetector,
    settings: AlignSettings,
    *,
    scratch_dir: Path | None = None,
) -> VideoFaces:
    """Find, follow and crop the faces of a video; one dict of `faces` arrays for each entry of ``sides``.

    Crops of all candidates wait in an unnamed file in ``scratch_dir`` until the persons are chosen. Only the chosen
    ones come into memory, those of all ``sides`` together: about 6 kB a row and side at 112 pixels. Raises AbawError
    where the video cannot be read or has no frame.
    """
    with VideoReader(path) as reader, _CropFile(scratch_dir) as crops:
        candidates = _Candidates(Linker(fps=reader.fps), crops, settings)
        people = 2 if any(sides) else 1  # a side is only named where there are two
        for found in _decoded_faces(reader, detector, redetect=settings.redetect, people=people):
            candidates.add(found)
        tracks = [candidates.track(side) for side in sides]
        return VideoFaces(tracks, reader.fps, reader.errors, reader.first_error)


def _decoded_faces(reader: VideoReader, detector: FaceDetector, *, redetect: int, people: int) -> Iterator[FrameFaces]:
    """Faces of all frames; decoding and reducing run in a thread of their own."""
    prepared = prepare_frames(reader, short_side_px=detector.short_side_px)
    frames = prefetch(prepared, size_of=_num_bytes)
    try:
        yield from follow_faces(frames, detector, redetect=redetect, people=people)
    finally:
        frames.close()  # type: ignore[attr-defined]  # ends the thread before the reader is closed


def _num_bytes(prepared: PreparedFrame) -> int:
    return 0 if prepared.frame.image is None else prepared.frame.image.nbytes


class _CropFile:
    """Encoded crops in an unnamed temporary file: appended, then read back by span."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._spans = array("q", [0])

    def __enter__(self) -> _CropFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as err:
            what = f"crops could not be kept in a temporary file ({err.strerror})"
            raise AbawError(what, where=str(self._folder), fix="free disk space, then run the same command") from err
        self._spans.append(self._spans[-1] + len(data))

    def gather(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Crops number ``index`` [T] (-1 = none) as flat uint8 [N] and offsets int64 [T+1]."""
        spans = np.asarray(self._spans)
        lengths = np.where(index >= 0, np.diff(spans)[index] if len(spans) > 1 else 0, 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.empty(int(offsets[-1]), dtype=np.uint8)
        for row in np.flatnonzero(lengths):
            self._file.seek(int(spans[index[row]]))
            self._file.readinto(flat[offsets[row] : offsets[row + 1]])  # type: ignore[attr-defined]
        return flat, offsets


@dataclass
class _Candidates:
    """All faces of a video: numbers in flat arrays, crops in a file, and their links over time."""

    linker: Linker
    crops: _CropFile
    settings: AlignSettings
    times: array[float] = field(default_factory=lambda: array("d"))
    damaged: array[int] = field(default_factory=lambda: array("B"))
    records: array[float] = field(default_factory=lambda: array("f"))
    width: int = 0

    def add(self, found: FrameFaces) -> None:
        row = len(self.times)
        image = found.frame.image
        self.times.append(found.frame.time_s)
        self.damaged.append(image is None)
        if image is None:
            return
        self.width = self.width or image.shape[1]
        kept, indices = [], []
        for face in range(len(found.faces)):
            if self._crop(image, found.faces[face]):
                kept.append(face)
                indices.append(len(self.records) // RECORD - 1)
        self.linker.add(row, found.faces[np.asarray(kept, dtype=np.int64)], indices, cut=found.cut)

    def _crop(self, image: np.ndarray, face: Detections) -> bool:
        """Crop one face and note its numbers; False where its landmarks allow no warp."""
        aligner = self.settings.aligner
        warp = aligner.fit(face.boxes, face.landmarks)
        if warp is None:
            return False
        crop = warp_face(image, warp, aligner.size_px)
        self.crops.append(encode_jpeg(crop, self.settings.jpeg_quality))
        parts = (face.boxes, face.landmarks, warp, face.scores)
        self.records.frombytes(np.concatenate([np.ravel(part) for part in parts]).astype(np.float32).tobytes())
        return True

    def track(self, side: str | None) -> dict[str, np.ndarray]:
        """Arrays of the person on that side."""
        num_rows = len(self.times)
        chosen = choose_person(
            self.linker.tracklets,
            num_rows=num_rows,
            width=self.width,
            side=side,
            min_score=self.settings.min_score,
        )
        jpeg, offsets = self.crops.gather(chosen.picked)
        valid = chosen.picked >= 0
        rows = np.zeros((num_rows, RECORD), dtype=np.float32)
        rows[valid] = np.asarray(self.records).reshape(-1, RECORD)[chosen.picked[valid]]
        return {
            "valid": valid,
            "jpeg": jpeg,
            "offsets": offsets,
            "time": np.asarray(self.times, dtype=np.float64),
            "reason": self._reasons(chosen),
            "box": rows[:, :4],
            "landmarks": rows[:, 4:14].reshape(-1, 5, 2),
            "warp": rows[:, 14:20].reshape(-1, 2, 3),
            "score": rows[:, 20],
        }

    def _reasons(self, chosen: Chosen) -> np.ndarray:
        reason = np.full(len(self.times), Reason.NO_FACE, dtype=np.uint8)
        reason[chosen.weak] = Reason.LOW_SCORE
        reason[chosen.other] = Reason.OTHER_PERSON
        reason[np.asarray(self.damaged, dtype=bool)] = Reason.DECODE_ERROR
        reason[chosen.picked >= 0] = Reason.VALID
        return reason
