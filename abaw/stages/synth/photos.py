"""Portraits from a folder of the user's photographs.

Finds the face with the embedded detector and derives the 36 landmarks from its five points, a mean face and the lip
line in the picture. Knows nothing of identities, expressions or videos.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from abaw.errors import AbawError
from abaw.media.faces import DetectorOptions, FaceDetector, build_detector
from abaw.stages.synth.plate import BOTTOM, LEFT, RIGHT, TOP, sampled
from abaw.stages.synth.portraits import FIVE, INDEX, MOUTH, Portrait, built_in_portraits, eye_frame, to_eye_frame

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MIN_EYES_PX = 24
MAX_EYES_PX = 96
_MIN_SCORE = 0.95
# Where hair begins and how evenly a face is lit is unknown: generous values, since hair is darker than skin.
_HAIRLINE = -1.4
_SKIN_TOLERANCE = 17.0


def photo_files(folder: Path) -> list[Path]:
    """Picture files of ``folder``, sorted by name; raises AbawError when there are none."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise AbawError(
            f"no photographs in {folder}" if folder.is_dir() else f"{folder} is not a folder",
            where="abaw synth, --portraits",
            fix=f"give a folder that holds {' or '.join(SUFFIXES[:3])} files, each with one face",
        )
    return files


def photos_sha256(folder: Path) -> str:
    """Hash of the names and bytes of all photographs of ``folder``."""
    digest = hashlib.sha256()
    for path in photo_files(folder):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def load_photos(folder: Path) -> tuple[list[Portrait], list[str]]:
    """Portraits of the photographs with exactly one usable face, and a line for each one left out.

    Raises AbawError when no photograph is usable.
    """
    detector = build_detector("mtcnn", DetectorOptions(min_face_px=40))
    mean = np.mean([portrait.rest for portrait in built_in_portraits()], axis=0)
    portraits, left_out = [], []
    for path in photo_files(folder):
        found = _portrait(path, detector, mean)
        if isinstance(found, str):
            left_out.append(f"{path.name}: {found}")
        else:
            portraits.append(found)
    if not portraits:
        raise AbawError(
            f"none of the {len(left_out)} photographs has exactly one usable face ({left_out[0]})",
            where=f"abaw synth, --portraits {folder}",
            fix=f"give frontal portraits whose eyes are at least {MIN_EYES_PX} pixels apart",
        )
    return portraits, left_out


def _portrait(path: Path, detector: FaceDetector, mean: np.ndarray) -> Portrait | str:
    """The portrait in ``path``, or why there is none."""
    import cv2

    encoded = np.frombuffer(path.read_bytes(), np.uint8)
    data = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
    if data is None:
        return "not a readable picture"
    image = cv2.cvtColor(data, cv2.COLOR_BGR2RGB)
    factor = min(1.0, detector.short_side_px / min(image.shape[:2]))
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    faces = detector.detect(small)
    usable = np.flatnonzero(faces.scores >= _MIN_SCORE)
    if len(usable) != 1:
        return f"{len(usable)} faces found"
    five = faces.landmarks[usable[0]].astype(np.float64) / factor
    distance = float(np.hypot(*(five[1] - five[0])))
    if distance < MIN_EYES_PX:
        return f"eyes only {distance:.0f} pixels apart"
    image, five = _reduced(image, five, distance)
    rest = _completed(five, mean)
    rest = _with_lip_line(image, five, rest)
    matrix = eye_frame(five)
    return Portrait(path.stem, image, rest @ matrix[:, :2].T + matrix[:, 2], rest, None, _HAIRLINE, _SKIN_TOLERANCE)


def _reduced(image: np.ndarray, five: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Only the part around the person, no finer than needed: workers get a copy."""
    import cv2

    reach = np.array([(LEFT - 0.3, TOP - 0.3), (RIGHT + 0.3, BOTTOM + 0.3)]) * distance + five[:2].mean(axis=0)
    low = np.clip(np.floor(reach[0]), 0, None).astype(int)
    high = np.minimum(np.ceil(reach[1]).astype(int), image.shape[1::-1])
    image, five = image[low[1] : high[1], low[0] : high[0]], five - low
    factor = min(1.0, MAX_EYES_PX / distance)
    if factor < 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image), five * factor


def _completed(five: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """All landmarks [36, 2] in the eye-to-eye frame: the mean face, moved so that its five points fit ``five``.

    An affine map carries the whole face; what it leaves over fades with the distance from the five points.
    """
    target = to_eye_frame(five)
    source = mean[[INDEX[name] for name in FIVE]]
    known = np.column_stack([source, np.ones(len(source))])
    affine, *_ = np.linalg.lstsq(known, target, rcond=None)
    carried = np.column_stack([mean, np.ones(len(mean))]) @ affine
    left_over = target - known @ affine
    distance = np.linalg.norm(mean[:, None] - source[None], axis=2)
    weights = np.exp(-0.5 * (distance / 0.35) ** 2)
    carried += weights @ left_over / np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    carried[[INDEX[name] for name in FIVE]] = target
    return carried


def _with_lip_line(image: np.ndarray, five: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The lips moved to where the picture is darkest between the corners of the mouth.

    On a smiling mouth the middle between the corners lies on the upper lip or on teeth, not between the lips.
    """
    import cv2

    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0).astype(np.float32)
    middle = (rest[INDEX["mouth_left"]] + rest[INDEX["mouth_right"]]) / 2
    xs, ys = np.linspace(-0.15, 0.15, 13), np.linspace(-0.1, 0.22, 33)
    points = np.stack(np.meshgrid(xs, ys), axis=-1) + middle
    matrix = eye_frame(five)
    places = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    rows = sampled(grey, places).mean(axis=1)
    line = middle[1] + ys[int(np.argmin(rows + 30 * np.abs(ys - 0.03)))]
    moved = rest.copy()
    lips = [INDEX[name] for name in MOUTH[2:]]
    moved[lips, 1] += line - rest[[INDEX["lip_upper_inner"], INDEX["lip_lower_inner"]], 1].mean()
    moved[lips, 0] = middle[0]
    return moved
