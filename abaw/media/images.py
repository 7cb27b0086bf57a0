"""Single pictures: reading any of them as RGB, and the face of each image of a collection as `faces` arrays.

Knows nothing of videos, of how collections are listed, or of how stores are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from abaw.errors import AbawError
from abaw.media.crop_file import CropFile
from abaw.media.faces import Detections, FaceDetector
from abaw.media.following import find_faces
from abaw.media.people import AlignSettings, TrackArrays
from abaw.media.warp import encode_jpeg, warp_face
from abaw.store import Chunks, Reason

MAX_PIXELS = 100_000_000  # 300 MB decoded; JPEG files beyond are decoded at a half, a quarter or an eighth
MAX_BYTES = 1 << 29  # files beyond are not read
REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
REDUCED_MOST = (8, cv2.IMREAD_REDUCED_COLOR_8)
PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
# Markers of JPEG's frame headers, which hold the size: C0 to CF but for tables (C4, C8, CC). ITU-T T.81, table B.1.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
CENTRE_WEIGHT = 0.5

# What changes the result, for the settings of a store.
IMAGE_SETTINGS = {"face": "largest, less towards the edge", "centre_weight": CENTRE_WEIGHT, "max_pixels": MAX_PIXELS}


class Picture(NamedTuple):
    """RGB uint8 [H, W, 3], upright; ``reduced`` pixels of the file make one of it (1 unless the file is huge)."""

    image: np.ndarray
    reduced: int = 1


def align_images(
    folder: Path,
    names: Sequence[str],
    detector: FaceDetector,
    settings: AlignSettings,
    *,
    scratch_dir: Path | None = None,
) -> TrackArrays:
    """Arrays of a shard: row k is the dominant face of image ``names[k]``, a path below ``folder``.

    Every image is a row; without a face of ``min_score`` it is an invalid one (NO_FACE, LOW_SCORE with the box and
    score of what was refused), and DECODE_ERROR where the file is no whole picture. The dominant face is the one with
    the largest side, which counts half in the corner of the picture. ``time`` is the row number. The crops wait in an
    unnamed file in ``scratch_dir`` until ``jpeg`` has been written. Raises AbawError for a file that may not be read: a
    folder that is not there must not pass for thousands of damaged pictures.
    """
    arrays = blank_rows(len(names), reason=Reason.NO_FACE)
    arrays["time"] = np.arange(len(names), dtype=np.float64)
    crops = CropFile(scratch_dir)
    try:
        for row, name in enumerate(names):
            crops.append(_align_file(arrays, row, folder / name, detector, settings))
    except BaseException:
        crops.close()
        raise
    jpeg, offsets = crops.gather(np.arange(len(names)))
    return {
        **arrays,
        "jpeg": Chunks(jpeg.total, then_closed(crops, jpeg.blocks)),
        "offsets": offsets,
        "key": np.array([*names, None], dtype=object)[:-1],  # the None keeps numpy from guessing a type
    }


def then_closed(crops: CropFile, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks; the file is closed after the last, or where reading them is given up."""
    try:
        yield from blocks
    finally:
        crops.close()


def blank_rows(num_rows: int, *, reason: Reason) -> dict[str, np.ndarray]:
    """`faces` arrays of rows that are all invalid; without ``time`` and crops."""
    return {
        "valid": np.zeros(num_rows, dtype=bool),
        "reason": np.full(num_rows, reason, dtype=np.uint8),
        "box": np.zeros((num_rows, 4), dtype=np.float32),
        "landmarks": np.zeros((num_rows, 5, 2), dtype=np.float32),
        "warp": np.zeros((num_rows, 2, 3), dtype=np.float32),
        "score": np.zeros(num_rows, dtype=np.float32),
    }


def _align_file(
    arrays: dict[str, np.ndarray], row: int, path: Path, detector: FaceDetector, settings: AlignSettings
) -> bytes:
    data = read_file(path)
    picture = decode_picture(data) if data else None
    if picture is None:
        arrays["reason"][row] = Reason.DECODE_ERROR
        return b""
    return _align_row(arrays, row, picture, detector, settings)


def _align_row(
    arrays: dict[str, np.ndarray], row: int, picture: Picture, detector: FaceDetector, settings: AlignSettings
) -> bytes:
    """Fill a row and give its encoded crop; nothing where no face is good enough."""
    image, reduced = picture
    faces = find_faces(image, detector)
    best = dominant_face(faces, width=image.shape[1], height=image.shape[0], min_score=settings.min_score)
    if best is None:
        return b""
    face, aligner = faces[best], settings.aligner
    warp = aligner.fit(face.boxes, face.landmarks)
    if warp is None:
        return b""
    arrays["box"][row] = face.boxes * reduced
    arrays["score"][row] = face.scores
    if face.scores < settings.min_score:
        arrays["reason"][row] = Reason.LOW_SCORE
        return b""
    arrays["valid"][row], arrays["reason"][row] = True, Reason.VALID
    arrays["landmarks"][row] = face.landmarks * reduced
    arrays["warp"][row] = warp / (reduced, reduced, 1)
    return encode_jpeg(warp_face(image, warp, aligner.size_px), settings.jpeg_quality)


def dominant_face(faces: Detections, *, width: int, height: int, min_score: float) -> int | None:
    """Index of the largest face of those of ``min_score``, else of all; None where there is none.

    A face's size is its longer side, times 1 in the middle of the picture, falling to a half in its corners.
    """
    if len(faces) == 0:
        return None
    size = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1)
    shift = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - (width / 2, height / 2)
    off_centre = np.hypot(*shift.T) / np.hypot(width / 2, height / 2)
    weight = size * (1 - CENTRE_WEIGHT * np.clip(off_centre, 0, 1))
    good = faces.scores >= min_score
    return int(np.argmax(np.where(good, weight, -1.0) if good.any() else weight))


def read_file(path: Path) -> bytes:
    """The bytes of a file; nothing for one over half a gigabyte. Raises AbawError where it cannot be read."""
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    except OSError as error:
        raise AbawError(
            f"{path.name} cannot be read ({error.strerror or error})",
            where=str(path),
            fix="make the file readable, or remove it; then run the same command again",
        ) from error


def decode_picture(data: bytes) -> Picture | None:
    """The picture in a file's bytes as RGB uint8, upright by its EXIF orientation; None where there is no whole one.

    Grey, 16-bit and CMYK become RGB, an alpha channel is dropped, of several pages the first is taken. A JPEG of over
    100 million pixels is decoded at a reduced size; a PNG of that size counts as none.
    """
    width, height = _size(data)
    reduced, flag = next(((by, f) for by, f in REDUCED.items() if width * height <= MAX_PIXELS * by * by), REDUCED_MOST)
    if reduced > 1 and not data.startswith(JPEG_START):
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag)
    except cv2.error:  # OpenCV refuses over 2^30 pixels
        return None
    return None if image is None else Picture(image[..., ::-1], reduced)


def _size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a JPEG or PNG file; 0, 0 where there is none (other formats included)."""
    if data.startswith(PNG_START):
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    place = len(JPEG_START)
    while data.startswith(JPEG_START) and data[place : place + 1] == b"\xff" and place + 9 <= len(data):
        if data[place + 1] in JPEG_FRAMES:  # length, precision, height, width
            return int.from_bytes(data[place + 7 : place + 9], "big"), int.from_bytes(
                data[place + 5 : place + 7], "big"
            )
        padding = data[place + 1] == 0xFF
        place += 1 if padding else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0, 0
