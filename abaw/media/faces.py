"""Face detectors behind one protocol.

Owns the registry of detectors and the licences of their weights. Knows nothing of videos, people, crops or stores.

Landmarks are the five points of the arcface template, in picture order: eye on the left, eye on the right, nose,
mouth corner on the left, mouth corner on the right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from abaw.errors import AbawError, ExitCode, choose
from abaw.media.mtcnn_weights import MAX_PROPOSALS, PYRAMID_FACTOR, THRESHOLDS, weights_sha256
from abaw.media.warp import TEMPLATE_112
from abaw.weights import WEIGHTS, known_sha256, readable, weight_file


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces of one picture: ``boxes`` float32 [N, 4], ``landmarks`` float32 [N, 5, 2], ``scores`` float32 [N]."""

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> Detections:
        return Detections(self.boxes[rows], self.landmarks[rows], self.scores[rows])

    def scaled(self, sx: float, sy: float) -> Detections:
        """The same faces in a picture ``sx``, ``sy`` times as large."""
        factors = np.array([sx, sy], dtype=np.float32)
        return Detections(self.boxes * np.tile(factors, 2), self.landmarks * factors, self.scores)


UNREDUCED_PX = 1 << 30  # as `short_side_px`: no picture is as large

# Only detectors whose `follows` is True are asked to: anything else is a bug.
FOLLOWS_NONE = "this detector follows no face"


def no_faces() -> Detections:
    """Detections of a picture without a face."""
    return Detections(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))


class FaceDetector(Protocol):
    """Finds faces in a picture that was reduced to ``short_side_px``.

    ``look_at`` (only where ``follows``) gives zero or one face for each box, without searching elsewhere.
    """

    short_side_px: int
    follows: bool

    def detect(self, image: np.ndarray) -> Detections: ...

    def look_at(self, image: np.ndarray, boxes: np.ndarray) -> list[Detections]: ...


class DetectorOptions(NamedTuple):
    """What a detector may be told: sizes in pixels of the reduced picture, where weights are, a device.

    ``short_side_px`` 0 is the detector's own. ``follow_score`` is the score below which a followed face counts as
    lost. ``weights`` is one file (yunet), ``pack`` the folder of an insightface model pack, ``weights_dir`` the
    folder of downloads (default ~/.cache/abaw); ``offline`` never downloads.
    """

    short_side_px: int = 0
    min_face_px: int = 30
    follow_score: float = 0.7
    weights: Path | None = None
    device: str = "cpu"
    pack: Path | None = None
    weights_dir: Path | None = None
    offline: bool = False


class MtcnnDetector:
    """MTCNN: full detection over an image pyramid, and a cheap second look at known faces."""

    follows = True

    def __init__(self, options: DetectorOptions) -> None:
        from abaw.media import mtcnn  # torch

        self.short_side_px = options.short_side_px
        self._follow_score = options.follow_score
        self._nets = mtcnn.Mtcnn(device=options.device, min_face_px=options.min_face_px)

    @staticmethod
    def settings(options: DetectorOptions) -> dict[str, Any]:
        return {
            "short_side_px": options.short_side_px,
            "min_face_px": options.min_face_px,
            "thresholds": list(THRESHOLDS),
            "pyramid_factor": PYRAMID_FACTOR,
            "max_proposals": MAX_PROPOSALS,
            "follow_score": options.follow_score,
            "weights_sha256": weights_sha256(),
        }

    def detect(self, image: np.ndarray) -> Detections:
        return Detections(*self._nets.detect(image))

    def look_at(self, image: np.ndarray, boxes: np.ndarray) -> list[Detections]:
        return [Detections(*face) for face in self._nets.look_at(image, boxes, threshold=self._follow_score)]


class YunetDetector:
    """YuNet through OpenCV, on a given file or the published one; fast enough to search every picture."""

    follows = False
    # OpenCV leaves out what scores less; lower than `min_score`, so that a face is kept through its weak frames.
    SCORE = 0.6
    NMS_IOU = 0.3  # of the published demo
    # Smaller pictures get black below and right: with a side of up to 32 pixels OpenCV's findings may be infinite and
    # depend on the picture before.
    SMALLEST_PX = 64

    def __init__(self, options: DetectorOptions) -> None:
        self.short_side_px = options.short_side_px
        file = yunet_file(options)
        try:
            self._net = cv2.FaceDetectorYN.create(str(file), "", (320, 320), self.SCORE, self.NMS_IOU, 5000)
        except cv2.error as error:
            raise AbawError(
                f"{file.name} is not a model that OpenCV can read",
                where=f"[align] weights = {file}",
                fix="leave align.weights out (the published file is downloaded), or give face_detection_yunet_2023mar",
                code=ExitCode.MISSING,
            ) from error

    @staticmethod
    def settings(options: DetectorOptions) -> dict[str, Any]:
        sha256 = WEIGHTS["yunet"].sha256 if options.weights is None else known_sha256(yunet_file(options))
        return {"short_side_px": options.short_side_px, "score": YunetDetector.SCORE, "weights_sha256": sha256}

    def detect(self, image: np.ndarray) -> Detections:
        below, right = (max(0, self.SMALLEST_PX - size) for size in image.shape[:2])
        if below or right:
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT)
        self._net.setInputSize((image.shape[1], image.shape[0]))
        _, found = self._net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if found is None:
            return no_faces()
        rows = np.asarray(found, dtype=np.float32)  # x, y, w, h, five points, score
        rows = rows[np.isfinite(rows).all(axis=1)]
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return Detections(boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14])

    def look_at(self, image: np.ndarray, boxes: np.ndarray) -> list[Detections]:
        raise TypeError(FOLLOWS_NONE)


def yunet_file(options: DetectorOptions) -> Path:
    """The given file, whatever its hash, or the published one, downloaded where needed; AbawError (missing)."""
    if options.weights is None:
        return weight_file("yunet", folder=options.weights_dir, offline=options.offline)
    with readable(options.weights, fix="make it readable, or name another file: align.weights"):
        there = options.weights.is_file()
    if not there:
        raise AbawError(
            f"the file of the yunet detector is missing ({options.weights})",
            where="[align] weights",
            fix=f'set align.weights = "{WEIGHTS["yunet"].file}" (opencv_zoo), or leave it out to download the file',
            code=ExitCode.MISSING,
        )
    return options.weights


class CenterDetector:
    """The centre square of the picture taken as the face: for material that is cropped and aligned already."""

    follows = False

    def __init__(self, options: DetectorOptions) -> None:
        self.short_side_px = UNREDUCED_PX  # nothing is searched, and a reduced picture would only be rounded

    @staticmethod
    def settings(options: DetectorOptions) -> dict[str, Any]:
        return {}

    def detect(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        side = min(height, width)
        corner = np.array([(width - side) / 2, (height - side) / 2])
        box = np.concatenate([corner, corner + side]).astype(np.float32)
        landmarks = (TEMPLATE_112 * (side / 112) + corner).astype(np.float32)
        return Detections(box[None], landmarks[None], np.ones(1, dtype=np.float32))

    def look_at(self, image: np.ndarray, boxes: np.ndarray) -> list[Detections]:
        raise TypeError(FOLLOWS_NONE)


def _insightface(options: DetectorOptions) -> FaceDetector:
    from abaw.media.insightface_pack import InsightfaceDetector

    return InsightfaceDetector(options)


def _insightface_settings(options: DetectorOptions) -> dict[str, Any]:
    from abaw.media.insightface_pack import detection_settings

    return detection_settings(options)


def _insightface_check(options: DetectorOptions) -> None:
    from abaw.media.insightface_pack import check_detector

    check_detector(options)


def _nothing(options: DetectorOptions) -> None:
    pass


class DetectorEntry(NamedTuple):
    """A registry line: how to build it, what changes its findings, and the terms of its weights.

    ``settings`` loads and downloads no weights, so that a rerun with nothing to do stays quick; ``prepare`` fetches
    what ``build`` needs, or says what is missing. ``short_side_px`` and ``min_score`` are the detector's own, where
    the user sets none.
    """

    build: Callable[[DetectorOptions], FaceDetector]
    settings: Callable[[DetectorOptions], dict[str, Any]]
    licence: str
    short_side_px: int
    min_score: float
    prepare: Callable[[DetectorOptions], Any] = _nothing
    cuda: bool = False  # can run there


# yunet: measured against mtcnn on 18 clips at 240 pixels: of the faces 97 % score 0.7 or more and 81 % 0.9; nothing in
# the clips without a face is above 0.41. insightface: 480 makes a 16:9 picture about as costly as the package's own
# 640 x 640, without its black borders; 0.5 is the package's threshold.
DETECTORS: Mapping[str, DetectorEntry] = {
    "mtcnn": DetectorEntry(
        MtcnnDetector,
        MtcnnDetector.settings,
        "MIT (weights inside the package mtcnn)",
        short_side_px=360,
        min_score=0.9,
        cuda=True,
    ),
    "yunet": DetectorEntry(
        YunetDetector,
        YunetDetector.settings,
        "MIT (opencv_zoo, downloaded once or given by the user)",
        short_side_px=240,
        min_score=0.7,
        prepare=yunet_file,
    ),
    "insightface": DetectorEntry(
        _insightface,
        _insightface_settings,
        "code MIT; the model packs are for non-commercial research only (the user gives one)",
        short_side_px=480,
        min_score=0.5,
        prepare=_insightface_check,
        cuda=True,
    ),
    "center": DetectorEntry(CenterDetector, CenterDetector.settings, "no weights", short_side_px=0, min_score=0.0),
}


def build_detector(name: str, options: DetectorOptions) -> FaceDetector:
    """Detector ``name`` ready to use.

    Raises AbawError for an unknown name (configuration) or where its weights are absent (missing).
    """
    entry = _entry(name)
    return entry.build(_resolved(entry, options))


def detector_settings(name: str, options: DetectorOptions) -> dict[str, Any]:
    """Everything that changes what a detector finds, for the settings of a store; raises as `build_detector`."""
    entry = _entry(name)
    return {"name": name, **entry.settings(_resolved(entry, options))}


def prepare_detector(name: str, options: DetectorOptions) -> None:
    """Fetch what the detector needs, once and before workers start; raises as `build_detector`."""
    entry = _entry(name)
    entry.prepare(_resolved(entry, options))


def resolve_min_score(name: str, min_score: float) -> float:
    """The score from which on a finding of the detector is taken as a face: its own where ``min_score`` is 0."""
    return min_score or _entry(name).min_score


def _resolved(entry: DetectorEntry, options: DetectorOptions) -> DetectorOptions:
    return options._replace(short_side_px=options.short_side_px or entry.short_side_px)


def describe_detector(name: str, device: str) -> str:
    """A detector, the device that it takes of one asked for, and the terms of its weights, in words."""
    entry = _entry(name)
    return f"{name} on {device if entry.cuda else 'cpu'}, {entry.licence}"


def _entry(name: str) -> DetectorEntry:
    return choose(DETECTORS, name, what="face detector", where="[align] detector")
