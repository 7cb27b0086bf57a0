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
from abaw.provenance import file_sha256


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
    """What a detector may be told: sizes in pixels of the reduced picture, a file of weights, a device.

    ``follow_score`` is the score below which a followed face counts as lost.
    """

    short_side_px: int = 360
    min_face_px: int = 30
    follow_score: float = 0.7
    weights: Path | None = None
    device: str = "cpu"


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
    """YuNet through OpenCV, on a given file; fast enough to search every picture."""

    follows = False
    SCORE = 0.6

    def __init__(self, options: DetectorOptions) -> None:
        self.short_side_px = options.short_side_px
        file = str(_required_file(options.weights))
        self._net = cv2.FaceDetectorYN.create(file, "", (320, 320), self.SCORE, 0.3, 5000)

    @staticmethod
    def settings(options: DetectorOptions) -> dict[str, Any]:
        return {
            "short_side_px": options.short_side_px,
            "score": YunetDetector.SCORE,
            "weights_sha256": file_sha256(_required_file(options.weights)),
        }

    def detect(self, image: np.ndarray) -> Detections:
        self._net.setInputSize((image.shape[1], image.shape[0]))
        _, found = self._net.detect(np.ascontiguousarray(image[..., ::-1]))
        if found is None:
            return no_faces()
        rows = np.asarray(found, dtype=np.float32)  # x, y, w, h, five points, score
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return Detections(boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14])

    def look_at(self, image: np.ndarray, boxes: np.ndarray) -> list[Detections]:
        raise TypeError(FOLLOWS_NONE)


def _required_file(weights: Path | None) -> Path:
    if weights is None or not weights.is_file():
        raise AbawError(
            f"the file of the yunet detector is missing ({weights or 'none given'})",
            where="[align] weights",
            fix='set align.weights = "face_detection_yunet_2023mar.onnx" (opencv_zoo), or detector = "mtcnn"',
            code=ExitCode.MISSING,
        )
    return weights


class CenterDetector:
    """The centre square of the picture taken as the face: for material that is cropped and aligned already."""

    follows = False

    def __init__(self, options: DetectorOptions) -> None:
        self.short_side_px = options.short_side_px

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


class DetectorEntry(NamedTuple):
    """A registry line: how to build it, what changes its findings, and the terms of its weights.

    ``settings`` loads no weights, so that a rerun with nothing to do stays quick.
    """

    build: Callable[[DetectorOptions], FaceDetector]
    settings: Callable[[DetectorOptions], dict[str, Any]]
    licence: str


DETECTORS: Mapping[str, DetectorEntry] = {
    "mtcnn": DetectorEntry(MtcnnDetector, MtcnnDetector.settings, "MIT (weights inside the package mtcnn)"),
    "yunet": DetectorEntry(YunetDetector, YunetDetector.settings, "MIT (opencv_zoo; the user gives the file)"),
    "center": DetectorEntry(CenterDetector, CenterDetector.settings, "no weights"),
}


def build_detector(name: str, options: DetectorOptions) -> FaceDetector:
    """Detector ``name`` ready to use.

    Raises AbawError for an unknown name (configuration) or where its weights are absent (missing).
    """
    return _entry(name).build(options)


def detector_settings(name: str, options: DetectorOptions) -> dict[str, Any]:
    """Everything that changes what a detector finds, for the settings of a store; raises as `build_detector`."""
    return {"name": name, **_entry(name).settings(options)}


def _entry(name: str) -> DetectorEntry:
    return choose(DETECTORS, name, what="face detector", where="[align] detector")
