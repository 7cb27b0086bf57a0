"""The faces of one video, in one decoding pass, as finished arrays for each person asked for.

Puts decoding, detection, linking and warping together. Knows nothing of configuration or of how stores are written.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from abaw.media.choosing import MIN_PERSON_S, Chosen, choose_people, choose_person, group_people
from abaw.media.crop_file import CropFile
from abaw.media.faces import Detections, FaceDetector
from abaw.media.following import FrameFaces, PreparedFrame, follow_faces, prepare_frames
from abaw.media.identity import Embedder
from abaw.media.prefetch import prefetch
from abaw.media.tracking import Linker
from abaw.media.tracklet import Tracklet
from abaw.media.video import VideoReader
from abaw.media.warp import Aligner, encode_jpeg, warp_face
from abaw.store import Chunks, Reason

RECORD = 4 + 10 + 6 + 1  # box, landmarks, warp, score
IDENTITY_ALIGNER = Aligner(112)  # what embedders look at, whatever crops are stored

TrackArrays = dict[str, np.ndarray | Chunks]


class AlignSettings(NamedTuple):
    """How faces are found, chosen and stored."""

    aligner: Aligner = Aligner()
    redetect: int = 25
    min_score: float = 0.9
    jpeg_quality: int = 95


@dataclass
class VideoFaces:
    """Result of a video: the people asked for, the clock, and what the file said and the decoder complained of.

    ``facts`` are the same for all tracks. The arrays are made when asked for, and their ``jpeg`` comes from a temporary
    file while it is written: leave the ``with`` block only when all have been.
    """

    people: list[Chosen]
    fps: float
    facts: dict[str, Any]
    candidates: _Candidates

    def __len__(self) -> int:
        return len(self.people)

    def track(self, number: int) -> TrackArrays:
        """`faces` arrays of one person, counted from 0."""
        return self.candidates.arrays(self.people[number])

    @property
    def tracks(self) -> list[TrackArrays]:
        """Those of all."""
        return [self.track(number) for number in range(len(self))]

    def __enter__(self) -> VideoFaces:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: object, trace: TracebackType | None) -> None:
        self.candidates.crops.close()


def align_video(
    path: Path,
    sides: list[str | None],
    detector: FaceDetector,
    settings: AlignSettings,
    *,
    embedder: Embedder | None = None,
    two_people: bool = False,
    all_faces: bool = False,
    scratch_dir: Path | None = None,
) -> VideoFaces:
    """Find, follow and crop the faces of a video; one track for each entry of ``sides``.

    ``two_people``: the recording has tracks of two, whichever are asked for now; while one is missing it is searched
    more often. With ``all_faces`` there is one for each person instead, strongest first, and at least one. ``embedder``
    tells people apart over cuts. Crops of all candidates wait in an unnamed file in ``scratch_dir``, so that memory
    does not grow with them. Raises AbawError where the video cannot be read or has no frame.
    """
    crops = CropFile(scratch_dir)
    try:
        with VideoReader(path) as reader:
            candidates = _Candidates(Linker(fps=reader.fps), crops, settings, embedder)
            people = 2 if all_faces or two_people or any(sides) else 1  # a side is only named where there are two
            for found in _decoded_faces(reader, detector, redetect=settings.redetect, people=people):
                candidates.add(found)
            chosen = candidates.people(fps=reader.fps) if all_faces else [candidates.person(side) for side in sides]
            return VideoFaces(chosen, reader.fps, _facts(reader, candidates), candidates)
    except BaseException:
        crops.close()
        raise


def _facts(reader: VideoReader, candidates: _Candidates) -> dict[str, Any]:
    """What the file says of itself, beside what was decoded; seconds on the container's clock."""
    times = candidates.times
    facts: dict[str, Any] = {
        "bytes": reader.num_bytes,
        "header_frames": int(reader.header_frames),
        "decode_errors": reader.errors,
        **_header_duration(reader, times),
        "duration_s": round(times[-1] - times[0] + 1 / reader.fps, 6),
        "sound": reader.sound is not None,
    }
    if reader.shifts_s:
        facts["clock_shifts_s"] = [round(shift, 6) for shift in reader.shifts_s]
    if reader.first_error_row is not None:
        facts["first_error_row"] = reader.first_error_row
    if reader.sound is not None:
        facts |= {"sound_start_s": round(reader.sound[0], 6), "sound_end_s": round(reader.sound[1], 6)}
    return facts


def _header_duration(reader: VideoReader, times: array[float]) -> dict[str, float]:
    """Seconds that the container claims, where it does, and those that its picture and sound cover."""
    if reader.header_duration_s is None:
        return {}
    spans = [(times[0], times[-1] + 1 / reader.fps), *([reader.sound] if reader.sound else [])]
    covered = max(end for _, end in spans) - min(start for start, _ in spans)
    return {"header_duration_s": round(reader.header_duration_s, 6), "covered_s": round(covered, 6)}


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


@dataclass
class _Candidates:
    """All faces of a video: numbers in flat arrays, crops in a file, and their links over time."""

    linker: Linker
    crops: CropFile
    settings: AlignSettings
    embedder: Embedder | None
    times: array[float] = field(default_factory=lambda: array("d"))
    damaged: array[int] = field(default_factory=lambda: array("B"))
    records: array[float] = field(default_factory=lambda: array("f"))
    width: int = 0
    grouped: bool = False

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
        faces = found.faces[np.asarray(kept, dtype=np.int64)]
        tracklets = self.linker.add(row, faces, indices, cut=found.cut)
        self._describe(image, faces, tracklets)

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

    def _describe(self, image: np.ndarray, faces: Detections, tracklets: list[Tracklet]) -> None:
        """Let the embedder look at the faces whose tracklets want it, now and then."""
        if self.embedder is None:
            return
        for face, tracklet in enumerate(tracklets):
            warp = None
            if tracklet.wants_descriptor:
                warp = IDENTITY_ALIGNER.fit(faces.boxes[face], faces.landmarks[face])
            if warp is not None:
                crop = warp_face(image, warp, IDENTITY_ALIGNER.size_px)
                tracklet.descriptors.append(self.embedder.embed(crop[None])[0])

    def _group(self) -> list[Tracklet]:
        if not self.grouped:
            same = 0.0 if self.embedder is None else self.embedder.same
            group_people(self.linker.tracklets, same=same, min_score=self.settings.min_score)
            self.grouped = True
        return self.linker.tracklets

    def person(self, side: str | None) -> Chosen:
        """The person on that side, or the dominant one."""
        return choose_person(
            self._group(),
            num_rows=len(self.times),
            width=self.width,
            side=side,
            min_score=self.settings.min_score,
            by_identity=self.embedder is not None and self.embedder.decides,
        )

    def people(self, *, fps: float) -> list[Chosen]:
        """Everyone seen, strongest first; one entry without rows where nobody is."""
        min_rows, min_score = round(MIN_PERSON_S * fps), self.settings.min_score
        everyone = choose_people(self._group(), num_rows=len(self.times), min_score=min_score, min_rows=min_rows)
        return everyone or [self.person(None)]

    def arrays(self, chosen: Chosen) -> TrackArrays:
        """Arrays of a person. Of a face that was refused its box and score stay."""
        jpeg, offsets = self.crops.gather(chosen.picked)
        valid, weak = chosen.picked >= 0, chosen.weak >= 0
        records = np.asarray(self.records).reshape(-1, RECORD)
        rows = np.zeros((len(valid), RECORD), dtype=np.float32)
        rows[valid] = records[chosen.picked[valid]]
        rows[weak, :4], rows[weak, -1] = records[chosen.weak[weak], :4], records[chosen.weak[weak], -1]
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
            "person": chosen.person,
        }

    def _reasons(self, chosen: Chosen) -> np.ndarray:
        reason = np.full(len(self.times), Reason.NO_FACE, dtype=np.uint8)
        reason[chosen.weak >= 0] = Reason.LOW_SCORE
        reason[chosen.other] = Reason.OTHER_PERSON
        reason[np.asarray(self.damaged, dtype=bool)] = Reason.DECODE_ERROR
        reason[chosen.picked >= 0] = Reason.VALID
        return reason
