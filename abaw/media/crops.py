"""The organisers' ready-made crops of one track, `<folder>/00001.jpg`, as `faces` arrays, taken as they are.

The one-based numbers of the files end here: file k is row k - 1, and a missing number is a row without a face.
Knows nothing of videos, labels or stores.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from abaw.crop_names import crop_number
from abaw.errors import AbawError
from abaw.media.boxes import iou
from abaw.media.crop_file import CropFile
from abaw.media.faces import CenterDetector, Detections, FaceDetector
from abaw.media.following import find_faces
from abaw.media.images import JPEG_START, blank_rows, decode_picture, read_file, then_closed
from abaw.media.people import TrackArrays
from abaw.media.warp import encode_jpeg, template
from abaw.store import Chunks, Reason

MAX_NUMBER = 10_000_000  # 92 hours at 30 a second, a gigabyte of rows; larger ones are dates and the like

# A tight crop is searched with some grey around it: detectors miss faces that the picture's edge cuts.
BORDER = 0.25  # on each side, as a share of the crop's side
GREY = (127, 127, 127)
# Where MTCNN puts the box of a face that is warped onto the template: the median over nine clips, made symmetric.
FACE_BOX = (0.155, 0.09, 0.845, 1.035)
SAME_BOX_IOU = 0.7  # a face found further away is looked at again: landmarks are best where the box is right
# Mean distance of the five points from the template's, as a share of the crop's side, up to which they are believed:
# of aligned faces 95 in 100 are within 0.04, and crops that show half as much again on each side are 0.12 away.
MAX_DISTANCE = 0.15

# What changes the result, for the settings of a store.
CROP_SETTINGS = {
    "border": BORDER,
    "face_box": list(FACE_BOX),
    "same_box_iou": SAME_BOX_IOU,
    "max_distance": MAX_DISTANCE,
}


class CropTrack(NamedTuple):
    """Arrays of a track of crops, and what the folder held: ``num_crops`` files, the last numbered ``highest_crop``."""

    arrays: TrackArrays
    facts: dict[str, int]


class CropFace(NamedTuple):
    """Five landmarks float32 [5, 2] in the crop's pixels and the detector's score."""

    landmarks: np.ndarray
    score: float


def read_crops(
    folder: Path,
    *,
    fps: float,
    min_rows: int = 0,
    jpeg_quality: int = 95,
    detector: FaceDetector | None = None,
    scratch_dir: Path | None = None,
) -> CropTrack:
    """Arrays of a track with a row for every number up to the highest crop or ``min_rows``.

    JPEG files are kept byte for byte; other pictures are encoded. They wait in an unnamed file in ``scratch_dir`` until
    ``jpeg`` has been written. ``time`` is nominal (row / fps), ``box`` the whole crop, ``warp`` the identity.
    ``landmarks`` and ``score`` are the detector's where it finds the crop's face; else, and without a detector, the
    template's points at the crop's size and 0, and ``template`` is True. A file that is no whole picture is a row with
    reason DECODE_ERROR. Raises AbawError for a crop that is not square, a number over ten million and a folder without
    crops.
    """
    files = _numbered(folder)
    if not files:
        what = f"folder {folder.name} holds no crops"
        raise AbawError(what, where=str(folder), fix="crops are named 00001.jpg, 00002.jpg ...; or remove the folder")
    highest = max(files) + 1
    num_rows = max(highest, min_rows)
    arrays = blank_rows(num_rows, reason=Reason.MISSING_CROP)
    arrays["time"] = np.arange(num_rows, dtype=np.float64) / fps
    arrays["template"] = np.zeros(num_rows, dtype=bool)
    kept = np.full(num_rows, -1, dtype=np.int64)
    kept[list(files)] = np.arange(len(files))
    searched = None if isinstance(detector, CenterDetector) else detector  # which takes any picture for a face
    crops = CropFile(scratch_dir)
    try:
        for row, path in files.items():
            crops.append(_fill(arrays, row, path, searched, jpeg_quality=jpeg_quality))
    except BaseException:
        crops.close()
        raise
    jpeg, offsets = crops.gather(kept)
    track: TrackArrays = {**arrays, "jpeg": Chunks(jpeg.total, then_closed(crops, jpeg.blocks)), "offsets": offsets}
    return CropTrack(track, {"num_crops": len(files), "highest_crop": highest})


def find_on_crop(image: np.ndarray, detector: FaceDetector) -> CropFace | None:
    """The face that fills a square crop, RGB uint8; None where none is found near the template's points.

    A detector that follows first looks where the face must be, for a quarter of the work of a search; where it finds
    it elsewhere, as on looser crops, it looks there again.
    """
    side = len(image)
    border = round(BORDER * side)
    framed = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT, value=GREY)
    if detector.follows:
        box = np.asarray([FACE_BOX], dtype=np.float32) * side + border
        seen = detector.look_at(framed, box)[0]
        if len(seen) and iou(seen.boxes, box)[0, 0] < SAME_BOX_IOU:
            seen = detector.look_at(framed, seen.boxes)[0]
        face = _nearest(seen, side, border=border)
        if face is not None:
            return face
    return _nearest(find_faces(framed, detector), side, border=border)


def _nearest(faces: Detections, side: int, *, border: int) -> CropFace | None:
    """The face whose points are nearest to the template's, if they are near enough."""
    if len(faces) == 0:
        return None
    landmarks = faces.landmarks - np.float32(border)
    distances = np.linalg.norm(landmarks - template(side), axis=2).mean(axis=1) / side
    best = int(distances.argmin())
    return CropFace(landmarks[best], float(faces.scores[best])) if distances[best] <= MAX_DISTANCE else None


def _numbered(folder: Path) -> dict[int, Path]:
    """Row -> file, by row; of two files with one number (00001.jpg, 1.png) the first by name."""
    files: dict[int, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        what = f"folder {folder} cannot be read ({error.strerror or error})"
        raise AbawError(what, where=str(folder), fix="make the folder readable, or remove it") from error
    for path in paths:
        number = crop_number(path.name)
        if number is not None and number > MAX_NUMBER:
            what = f"crop {path.name} of {folder.name} has a number over {MAX_NUMBER}"
            raise AbawError(what, where=str(path), fix="rename it by its frame, from 00001.jpg on, or remove it")
        if number is not None:
            files.setdefault(number - 1, path)
    return dict(sorted(files.items()))


def _fill(
    arrays: dict[str, np.ndarray], row: int, path: Path, detector: FaceDetector | None, *, jpeg_quality: int
) -> bytes:
    """Fill the row of one crop and give its JPEG data; nothing where the file is no whole picture."""
    data = read_file(path)
    image = _square(data, path)
    if image is None:
        arrays["reason"][row] = Reason.DECODE_ERROR
        return b""
    side = len(image)
    face = None if detector is None else find_on_crop(image, detector)
    arrays["valid"][row], arrays["reason"][row] = True, Reason.VALID
    arrays["box"][row] = (0, 0, side, side)
    arrays["warp"][row] = ((1, 0, 0), (0, 1, 0))
    arrays["landmarks"][row] = template(side) if face is None else face.landmarks
    arrays["score"][row] = 0 if face is None else face.score
    arrays["template"][row] = face is None
    return data if data.startswith(JPEG_START) else encode_jpeg(image, jpeg_quality)


def _square(data: bytes, path: Path) -> np.ndarray | None:
    picture = decode_picture(data) if data else None
    if picture is None:
        return None
    height, width = picture.image.shape[:2]
    if height != width:
        what = f"crop {path.name} of {path.parent.name} is {width}x{height}, not square"
        raise AbawError(what, where=str(path), fix='give square crops, or align the videos: kind = "videos"')
    if picture.reduced > 1:
        what = f"crop {path.name} of {path.parent.name} has over 100 million pixels"
        raise AbawError(what, where=str(path), fix='give smaller crops, or take them as pictures: kind = "images"')
    return picture.image
