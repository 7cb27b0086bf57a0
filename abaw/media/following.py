"""Faces of every frame of a video for little work: a found face is followed, the whole picture is searched rarely.

Owns when to search and when to follow. Knows nothing of people, crops or stores.

A search runs on the first frame, after a cut, when a followed face is lost, and every ``redetect`` frames. Between
them the detector only looks at the boxes moved on by the last motion. A face that a look confirms stays, whether or
not the search finds it too: a search misses many poses that a look still knows.

While no face is there, searches become rarer, and when one finds a face again the skipped frames are followed
backwards, so that no row is missed for speed. While one of two people is missing, searches are as frequent as that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from abaw.media import cuts
from abaw.media.boxes import iou, suppress
from abaw.media.faces import Detections, FaceDetector, no_faces
from abaw.media.video import VideoFrame

MAX_FACES = 8  # the largest ones of a picture are kept
MAX_MOTION = 0.3  # motion carried on from frame to frame, as a share of the face's size
MAX_STRIDE = 4  # frames from one search to the next on a stretch without a face
SEARCHES_BEFORE_BACKOFF = 4
SAME_FACE_IOU = 0.3
ONE_FACE_SHARE = 0.7  # of two boxes that share this part of the smaller one, only the better stays

# What changes the result, for the settings of a store.
SETTINGS = {
    "max_faces": MAX_FACES,
    "max_stride": MAX_STRIDE,
    "max_motion": MAX_MOTION,
    "cuts": cuts.SETTINGS,
    "searches_before_backoff": SEARCHES_BEFORE_BACKOFF,
    "same_face_iou": SAME_FACE_IOU,
    "one_face_share": ONE_FACE_SHARE,
    "confirmed_faces": "stay",
    "search_while_a_person_is_missing": MAX_STRIDE,
    "reduction": "halves, then area",
}


class PreparedFrame(NamedTuple):
    """A frame with its reduced picture; ``small`` and ``thumbnail`` are None where the frame has no picture."""

    frame: VideoFrame
    small: np.ndarray | None
    thumbnail: np.ndarray | None


class FrameFaces(NamedTuple):
    """Faces of a frame in its own pixels; ``cut`` where the picture jumps from the frame before."""

    frame: VideoFrame
    faces: Detections
    cut: bool


def prepare_frames(frames: Iterable[VideoFrame], *, short_side_px: int) -> Iterator[PreparedFrame]:
    """Reduce every picture to ``short_side_px`` (never enlarge): work for the decoding thread."""
    for frame in frames:
        if frame.image is None:
            yield PreparedFrame(frame, None, None)
            continue
        small = reduce_image(frame.image, short_side_px)
        yield PreparedFrame(frame, small, cuts.thumbnail_of(small))


def reduce_image(image: np.ndarray, short_side_px: int) -> np.ndarray:
    """The picture with its short side at most ``short_side_px``: halved while that fits, then brought to size.

    Means over two by two pixels are three times as fast as means over larger areas.
    """
    height, width = image.shape[:2]
    factor = short_side_px / min(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    while min(image.shape[:2]) >= 2 * short_side_px and image.shape[0] % 2 == image.shape[1] % 2 == 0:
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def find_faces(image: np.ndarray, detector: FaceDetector) -> Detections:
    """Faces of one picture, searched at the detector's size, in the picture's own pixels."""
    small = reduce_image(image, detector.short_side_px)
    return _largest(detector.detect(small)).scaled(image.shape[1] / small.shape[1], image.shape[0] / small.shape[0])


def follow_faces(
    frames: Iterable[PreparedFrame], detector: FaceDetector, *, redetect: int = 25, people: int = 1
) -> Iterator[FrameFaces]:
    """Faces of every frame, in order; at most ``MAX_STRIDE - 1`` frames are held back at a time.

    While fewer faces than ``people`` are followed, every ``MAX_STRIDE``-th frame is searched.
    """
    follower = _Follower(detector, redetect=redetect, people=people)
    for prepared in frames:
        yield from follower.push(prepared)
    yield from follower.finish()


class _Follower:
    def __init__(self, detector: FaceDetector, *, redetect: int, people: int) -> None:
        self._detector = detector
        self._redetect = redetect
        self._people = people
        self._faces = no_faces()  # of the frame before, in pixels of the reduced picture
        self._motion = np.zeros((0, 2), dtype=np.float32)
        self._since_search = 0
        self._misses = 0
        self._held: list[tuple[PreparedFrame, bool]] = []
        self._cuts = cuts.CutDetector()

    def push(self, prepared: PreparedFrame) -> Iterator[FrameFaces]:
        cut = self._cuts.is_cut(prepared.thumbnail)
        if prepared.small is None:
            if self._held:
                self._held.append((prepared, cut))
            else:
                yield FrameFaces(prepared.frame, no_faces(), cut)
            return
        if self._may_skip(cut=cut):
            self._held.append((prepared, cut))
            return
        found, searched = self._found(prepared.small, cut=cut)
        if self._held:
            yield from self._release(found, follow=searched and not cut)
        if self._detector.follows:
            self._motion = _motion(self._faces, found)
        self._faces = found
        yield FrameFaces(prepared.frame, _in_source(found, prepared), cut)

    def finish(self) -> Iterator[FrameFaces]:
        yield from self._release(no_faces(), follow=False)

    def _may_skip(self, *, cut: bool) -> bool:
        if cut or len(self._faces) or not self._detector.follows or self._misses < SEARCHES_BEFORE_BACKOFF:
            return False
        return len(self._held) < MAX_STRIDE - 1

    def _found(self, small: np.ndarray, *, cut: bool) -> tuple[Detections, bool]:
        """The faces of a picture, and whether it was searched."""
        self._since_search += 1
        followed = no_faces()
        if len(self._faces) and self._detector.follows and not cut:
            followed = _look(self._detector, small, self._faces.boxes + self._motion[:, [0, 1, 0, 1]])
        redetect = self._redetect if len(self._faces) >= self._people else min(self._redetect, MAX_STRIDE)
        if 0 < len(self._faces) == len(followed) and self._since_search < redetect:
            return followed, False
        found = _largest(_joined(self._detector.detect(small), followed))
        self._since_search = 0
        self._misses = 0 if len(found) else self._misses + 1
        return found, True

    def _release(self, found: Detections, *, follow: bool) -> Iterator[FrameFaces]:
        """The frames held back, in order, with the faces of the frame after them followed backwards."""
        held, self._held = self._held, []
        faces: list[Detections] = []
        current = found
        for prepared, _ in reversed(held):
            if not follow or len(current) == 0 or prepared.small is None:
                faces.append(no_faces())
                continue
            current = _look(self._detector, prepared.small, current.boxes)
            faces.append(current)
        for (prepared, cut), result in zip(held, reversed(faces), strict=True):
            yield FrameFaces(prepared.frame, _in_source(result, prepared), cut)


def _look(detector: FaceDetector, small: np.ndarray, boxes: np.ndarray) -> Detections:
    """The faces still seen at the boxes: fewer than boxes where one is lost or two fell onto one face."""
    return _without_doubles(detector.look_at(small, boxes))


def _joined(found: Detections, followed: Detections) -> Detections:
    """What a search found, and the confirmed faces that it missed."""
    if len(followed) == 0:
        return found
    if len(found):
        followed = followed[iou(followed.boxes, found.boxes).max(axis=1) < SAME_FACE_IOU]
    return _without_doubles([found, followed])


def _without_doubles(parts: list[Detections]) -> Detections:
    faces = Detections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
    return faces[np.sort(suppress(faces.boxes, faces.scores, ONE_FACE_SHARE, of_smaller=True))]


def _largest(faces: Detections) -> Detections:
    if len(faces) <= MAX_FACES:
        return faces
    sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1)
    return faces[np.sort(np.argsort(-sides, kind="stable")[:MAX_FACES])]


def _motion(before: Detections, after: Detections) -> np.ndarray:
    """Shift of each face's landmarks from the frame before, float32 [N, 2]; 0 for a face that is new."""
    motion = np.zeros((len(after), 2), dtype=np.float32)
    if len(before) == 0 or len(after) == 0:
        return motion
    overlap = iou(after.boxes, before.boxes)
    for row, best in enumerate(overlap.argmax(axis=1)):
        if overlap[row, best] > SAME_FACE_IOU:
            shift = (after.landmarks[row] - before.landmarks[best]).mean(axis=0)
            limit = MAX_MOTION * float((after.boxes[row, 2:] - after.boxes[row, :2]).max())
            motion[row] = np.minimum(np.maximum(shift, -limit), limit)
    return motion


def _in_source(faces: Detections, prepared: PreparedFrame) -> Detections:
    if prepared.small is None or prepared.frame.image is None or len(faces) == 0:
        return faces
    (height, width), (small_height, small_width) = prepared.frame.image.shape[:2], prepared.small.shape[:2]
    return faces.scaled(width / small_width, height / small_height)
