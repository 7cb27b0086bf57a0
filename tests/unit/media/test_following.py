from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from abaw.media import cuts
from abaw.media.faces import Detections, DetectorOptions, build_detector, no_faces
from abaw.media.following import MAX_FACES, MAX_STRIDE, follow_faces, prepare_frames, reduce_image
from abaw.media.video import VideoFrame


class DotDetector:
    """Stands in for a detector: the face is the bright square of 20 pixels. Counts what it is asked."""

    short_side_px = 120
    follows = True

    def __init__(self) -> None:
        self.searches = 0
        self.looks = 0

    def detect(self, image: np.ndarray) -> Detections:
        self.searches += 1
        rows, cols = np.nonzero(image[..., 0] > 200)
        if rows.size == 0:
            return no_faces()
        box = np.array([[cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]], dtype=np.float32)
        landmarks = np.repeat(box[:, None, :2] + 10, 5, axis=1)
        return Detections(box, landmarks, np.array([0.99], dtype=np.float32))

    def look_at(self, image: np.ndarray, boxes: np.ndarray) -> list[Detections]:
        self.looks += 1
        found = self.detect(image)
        self.searches -= 1
        near = len(found) and np.abs(found.boxes[0] - boxes[0]).max() < 10
        return [found if near else no_faces() for _ in boxes]


def frames(places: Sequence[int | None]) -> list[VideoFrame]:
    """One frame per entry: a bright square at that x, or none."""
    made = []
    for row, x in enumerate(places):
        image = np.full((120, 160, 3), 90, dtype=np.uint8)
        if x is not None:
            image[40:60, x : x + 20] = 255
        made.append(VideoFrame(row, row / 25, image))
    return made


def follow(places, detector, **options):
    return list(follow_faces(prepare_frames(frames(places), short_side_px=120), detector, **options))


def test_a_moving_face_is_searched_once_and_followed_then():
    detector = DotDetector()
    found = follow(range(10, 34, 2), detector)
    assert [int(face.faces.boxes[0, 0]) for face in found] == list(range(10, 34, 2))
    assert (detector.searches, detector.looks) == (1, 11)


def test_a_detector_that_follows_nothing_searches_every_picture():
    detector = DotDetector()
    detector.follows = False
    found = follow([10, 90, 30, None, None, None, None, None, 50], detector)
    assert [len(face.faces) for face in found] == [1, 1, 1, 0, 0, 0, 0, 0, 1]
    assert (detector.searches, detector.looks) == (9, 0)


def test_the_picture_is_searched_again_every_redetect_frames():
    detector = DotDetector()
    follow([50] * 12, detector, redetect=4)
    assert detector.searches == 3


def test_a_jump_loses_the_face_and_a_search_finds_it():
    detector = DotDetector()
    found = follow([10, 10, 120, 120], detector)
    assert [int(face.faces.boxes[0, 0]) for face in found] == [10, 10, 120, 120]
    assert detector.searches == 2


def test_searches_become_rare_where_there_is_no_face():
    detector = DotDetector()
    found = follow([None] * 40, detector)
    assert len(found) == 40
    assert detector.searches == pytest.approx(4 + 36 / MAX_STRIDE, abs=1)


def test_a_face_that_returns_is_followed_back_over_the_skipped_frames():
    for absent in range(8, 14):  # wherever the search falls
        found = follow([None] * absent + [50] * 10, DotDetector())
        assert [len(face.faces) for face in found] == [0] * absent + [1] * 10


def test_frames_come_out_once_and_in_order():
    found = follow([None] * 9 + [50] * 5 + [None] * 10, DotDetector())
    assert [face.frame.row for face in found] == list(range(24))


def test_a_frame_without_a_picture_has_no_face_and_keeps_its_place():
    given = frames([50] * 6)
    given[2] = VideoFrame(2, 0.08, None)
    found = list(follow_faces(prepare_frames(given, short_side_px=120), DotDetector()))
    assert [len(face.faces) for face in found] == [1, 1, 0, 1, 1, 1]


def test_a_cut_is_seen_and_searched():
    detector = DotDetector()
    given = frames([50] * 6)
    for frame in given[3:]:
        frame.image[:, 90:] += int(2.5 * cuts.LEVEL)  # nearly half of the picture
    found = list(follow_faces(prepare_frames(given, short_side_px=120), detector))
    assert [face.cut for face in found] == [False, False, False, True, False, False]
    assert detector.searches == 2


def test_faces_are_given_in_pixels_of_the_source():
    frame = VideoFrame(0, 0.0, np.zeros((240, 320, 3), np.uint8))
    frame.image[80:120, 100:140] = 255
    (found,) = follow_faces(prepare_frames([frame], short_side_px=120), DotDetector())
    assert found.faces.boxes[0] == pytest.approx([100, 80, 140, 120], abs=2)


def test_small_pictures_are_not_enlarged():
    image = np.zeros((50, 80, 3), np.uint8)
    assert reduce_image(image, 120) is image
    assert reduce_image(image, 25).shape == (25, 40, 3)


def test_a_picture_is_halved_before_it_is_brought_to_size():
    """Means over two by two pixels, twice: the mean of each block of four by four."""
    image = np.arange(16 * 24, dtype=np.uint8).reshape(16, 24, 1).repeat(3, axis=2)
    blocks = image.reshape(4, 4, 6, 4, 3).mean(axis=(1, 3))
    reduced = reduce_image(image, 4)
    assert reduced.shape == (4, 6, 3)
    assert np.abs(reduced - blocks).max() <= 1  # rounded twice
    assert reduce_image(np.zeros((30, 50, 3), np.uint8), 10).shape == (10, 17, 3)  # 15 rows cannot be halved again


def test_of_a_crowd_the_largest_faces_are_kept():
    class Crowd(DotDetector):
        def detect(self, image):
            sides = np.arange(1, 21, dtype=np.float32)
            boxes = np.stack([sides * 0, sides * 0, sides, sides], axis=1)
            return Detections(boxes, np.zeros((20, 5, 2), np.float32), np.ones(20, np.float32))

    (found,) = follow([None], Crowd())
    assert found.faces.boxes[:, 2].tolist() == list(range(21 - MAX_FACES, 21))


def test_following_agrees_with_searching_every_frame(face_pictures):
    detector = build_detector("mtcnn", DetectorOptions())
    given = [VideoFrame(row, row / 25, image) for row, image in enumerate(face_pictures)]
    followed = list(follow_faces(prepare_frames(given, short_side_px=360), detector))
    for face, picture in zip(followed, face_pictures, strict=True):
        searched = detector.detect(picture)
        side = searched.boxes[0, 2] - searched.boxes[0, 0]
        assert np.abs(face.faces.landmarks[0] - searched.landmarks[0]).mean() < 0.05 * side


class ShyDetector(DotDetector):
    """Finds the face by its first search only; looks know it as long as it is there."""

    def detect(self, image):
        found = super().detect(image)
        return found if self.searches <= 1 else no_faces()

    def look_at(self, image, boxes):
        found = DotDetector().detect(image)
        return [found if len(found) and np.abs(found.boxes[0] - box).max() < 10 else no_faces() for box in boxes]


def test_a_face_that_only_looks_confirm_outlives_the_periodic_search():
    detector = ShyDetector()
    found = follow(range(10, 34, 2), detector, redetect=4)
    assert [int(face.faces.boxes[0, 0]) for face in found] == list(range(10, 34, 2))
    assert detector.searches == 3


def test_a_confirmed_face_does_not_outlive_its_disappearance_or_a_cut():
    found = follow([50] * 6 + [None] * 6, ShyDetector(), redetect=4)
    assert [len(face.faces) for face in found] == [1] * 6 + [0] * 6
    given = frames([50] * 6)
    for frame in given[3:]:
        frame.image[:, 90:] += int(2.5 * cuts.LEVEL)
    found = list(follow_faces(prepare_frames(given, short_side_px=120), ShyDetector()))
    assert [len(face.faces) for face in found] == [1, 1, 1, 0, 0, 0]


def test_a_face_that_search_and_look_both_see_is_one():
    found = follow([50] * 12, DotDetector(), redetect=4)
    assert [len(face.faces) for face in found] == [1] * 12


def test_while_one_of_two_people_is_missing_searches_are_frequent():
    one, two = DotDetector(), DotDetector()
    follow([50] * 25, one)
    follow([50] * 25, two, people=2)
    assert one.searches == 1
    assert two.searches == 1 + 24 // MAX_STRIDE
