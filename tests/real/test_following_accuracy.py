"""Following costs no accuracy: on every real clip known here it agrees with a search in every frame.

Every frame of those clips is counted, and every face that a search scores as `align` asks of a face. A face that
following lost counts as no overlap and as a landmark error without bound.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from abaw.media.boxes import areas, iou
from abaw.media.faces import Detections, DetectorOptions, FaceDetector, build_detector, resolve_min_score
from abaw.media.following import find_faces, follow_faces, prepare_frames
from abaw.media.video import read_frames

pytestmark = pytest.mark.real
GRID = ("bbaf2n", "brbk7n", "lbax4n", "lbbc2a", "lrwp9a", "pwij3p", "sbia1a", "swwp2s")
ONE_FACE = [f"grid_{name}.mpg" for name in GRID]
ONE_FACE += ["intel_asl_again.mkv", "intel_asl_walk.mkv", "pyfeat_noface_face.mov", "pyfeat_single_face.mp4"]
SMALL_OR_TWO = ["chaplin_two_people.mp4", "intel_two_faces.gif"]
WITHOUT_FACE = {"bbb_1s.webm", "no_duration.webm", "pyfeat_no_face.mp4", "rotated180_vfr_noface.mp4"}


class Agreement(NamedTuple):
    """Of one clip: per searched face the overlap of its box and the error of its landmarks as a share of its side.

    ``found`` and ``searched`` count frames in which following, or the search, has a face.
    """

    overlap: np.ndarray
    error: np.ndarray
    found: int
    searched: int


@pytest.fixture(scope="module")
def agreement(real_data):
    """``agreement(name)``: a clip searched frame by frame and followed, each done once."""
    detector = build_detector("mtcnn", DetectorOptions())
    known: dict[str, Agreement] = {}

    def of_clip(name: str) -> Agreement:
        if name not in known:
            known[name] = compare(real_data / "videos" / name, detector)
        return known[name]

    return of_clip


def compare(path, detector: FaceDetector) -> Agreement:
    min_score = resolve_min_score("mtcnn", 0.0)
    searched = [find_faces(frame.image, detector) for frame in read_frames(path)]
    searched = [faces[faces.scores >= min_score] for faces in searched]
    frames = prepare_frames(read_frames(path), short_side_px=detector.short_side_px)
    followed = [found.faces for found in follow_faces(frames, detector)]
    pairs = [(one, other) for one, other in zip(searched, followed, strict=True) if len(one)]
    matched = np.array([match(one[[row]], other) for one, other in pairs for row in range(len(one))])
    return Agreement(matched[:, 0], matched[:, 1], sum(len(other) > 0 for _, other in pairs), len(pairs))


def match(face: Detections, followed: Detections) -> tuple[float, float]:
    """Overlap with the followed face that covers it best, and the mean distance of the five points to its own."""
    overlap = iou(face.boxes, followed.boxes)[0]
    if not overlap.any():
        return 0.0, np.inf
    best = overlap.argmax()
    distance = np.linalg.norm(followed.landmarks[best] - face.landmarks[0], axis=1).mean()
    return float(overlap[best]), float(distance / np.sqrt(areas(face.boxes)[0]))


def test_every_known_clip_is_here(real_data):
    names = {path.name for path in (real_data / "videos").iterdir()}
    assert {*ONE_FACE, *SMALL_OR_TWO, *WITHOUT_FACE} <= names


@pytest.mark.parametrize("name", [*ONE_FACE, *SMALL_OR_TWO])
def test_followed_boxes_cover_the_searched_ones(agreement, name):
    assert np.median(agreement(name).overlap) >= 0.85


@pytest.mark.parametrize("name", [*ONE_FACE, *SMALL_OR_TWO])
def test_followed_landmarks_are_those_of_a_search(agreement, name):
    error = agreement(name).error
    assert np.median(error) <= 0.025
    assert np.quantile(error, 0.95) <= (0.09 if name in SMALL_OR_TWO else 0.04)


@pytest.mark.parametrize("name", [*ONE_FACE, *SMALL_OR_TWO])
def test_following_has_a_face_where_a_search_finds_one(agreement, name):
    assert agreement(name).found >= 0.99 * agreement(name).searched
