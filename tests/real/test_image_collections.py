"""Photographs as a collection, and the organisers' kind of crops, on real pictures given by --real-data."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.data.collection import list_shards
from abaw.media.crops import read_crops
from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.following import find_faces
from abaw.media.images import align_images
from abaw.media.people import AlignSettings
from abaw.media.video import read_frames
from abaw.media.warp import align_face
from abaw.store import Reason

pytestmark = pytest.mark.real
MARGINS = (0.0, 0.25, 0.5)


@pytest.fixture(scope="module")
def detector():
    return build_detector("mtcnn", DetectorOptions())


@pytest.fixture(scope="module")
def rows(real_data, detector) -> dict[str, int]:
    """Row of each photograph in the only shard, by name."""
    shard = list_shards(real_data / "images")[0]
    return {name: row for row, name in enumerate(shard)}


@pytest.fixture(scope="module")
def arrays(real_data, detector, rows):
    arrays = align_images(real_data / "images", list(rows), detector, AlignSettings())
    return arrays | {"jpeg": np.concatenate(list(arrays["jpeg"].blocks))}


def crop_of(arrays, row: int) -> np.ndarray:
    start, end = arrays["offsets"][row : row + 2]
    return cv2.imdecode(arrays["jpeg"][start:end], cv2.IMREAD_COLOR)[..., ::-1]


def test_all_photographs_are_rows_of_one_shard(arrays, rows):
    assert len(arrays["valid"]) == len(rows) == 3
    assert arrays["key"].tolist() == sorted(rows)


def test_a_small_face_is_found(arrays, rows):
    row = rows["mtcnn_ivan.jpg"]
    assert arrays["valid"][row]
    assert arrays["score"][row] > 0.95


def test_grass_is_no_face(arrays, rows):
    assert arrays["reason"][rows["fa_grass_noface.jpg"]] == Reason.NO_FACE


def test_a_group_photograph_gives_one_face(real_data, arrays, rows, detector):
    row = rows["solvay_1927.jpg"]
    picture = cv2.imread(str(real_data / "images" / "solvay_1927.jpg"))[..., ::-1]
    assert len(find_faces(picture, detector)) > 1
    assert arrays["valid"][row]


def test_a_stored_crop_shows_the_face_that_its_landmarks_name(arrays, rows, detector):
    for name in ("mtcnn_ivan.jpg", "solvay_1927.jpg"):
        seen = find_faces(crop_of(arrays, rows[name]), detector)
        warp = arrays["warp"][rows[name]]
        points = arrays["landmarks"][rows[name]] @ warp[:, :2].T + warp[:, 2]
        distances = np.linalg.norm(seen.landmarks - points, axis=2).mean(axis=1)
        assert distances.min() < 0.08 * 112


@pytest.mark.parametrize("margin", MARGINS)
def test_landmarks_are_found_on_the_crops_of_real_speakers(real_data, tmp_path, detector, margin):
    """Crops of 16 frames, tight ones and looser ones: all are found, where the source had them."""
    folder, truth = tmp_path / "t", []
    folder.mkdir()
    for path in sorted((real_data / "videos").glob("grid_*.mpg")):
        for frame in list(read_frames(path))[5:75:40]:
            landmarks = find_faces(frame.image, detector).landmarks[0]
            crop, warp = align_face(frame.image, landmarks, margin=margin)
            truth.append(landmarks @ warp[:, :2].T + warp[:, 2])
            cv2.imwrite(str(folder / f"{len(truth):05d}.png"), crop[..., ::-1])
    arrays = read_crops(folder, fps=25, detector=detector).arrays
    assert len(truth) == 16
    assert not arrays["template"].any()
    size = np.linalg.norm(np.ptp(np.stack(truth), axis=1), axis=1)
    distances = np.linalg.norm(arrays["landmarks"] - np.stack(truth), axis=2).mean(axis=1) / size
    assert np.median(distances) < 0.03
    assert distances.max() < 0.1


def test_grass_on_crops_leaves_the_templates_landmarks(real_data, tmp_path, detector):
    picture = cv2.imread(str(real_data / "images" / "fa_grass_noface.jpg"))
    folder = Path(tmp_path) / "t"
    folder.mkdir()
    for number, start in enumerate(range(0, min(picture.shape[:2]) - 112, 16), start=1):
        cv2.imwrite(str(folder / f"{number:05d}.png"), picture[start : start + 112, start : start + 112])
    arrays = read_crops(folder, fps=25, detector=detector).arrays
    assert arrays["valid"].all()
    assert arrays["template"].mean() > 0.9
