from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from abaw.media import mtcnn_weights
from abaw.media.mtcnn import Mtcnn, square


@pytest.fixture(scope="module")
def nets() -> Mtcnn:
    return Mtcnn(min_face_px=40)


def test_the_astronauts_face_is_found_where_it_is(nets):
    faces = nets.detect(data.astronaut())
    assert faces.scores[0] > 0.99
    # Read off the picture by eye: eyes, nose, mouth corners.
    by_eye = [(203, 101), (246, 104), (224, 126), (202, 140), (247, 139)]
    assert faces.landmarks[0] == pytest.approx(np.array(by_eye), abs=5)


def test_a_second_look_at_a_shifted_box_gives_the_same_face(nets):
    picture = data.astronaut()
    face = nets.detect(picture)
    (again,) = nets.look_at(picture, face.boxes[:1] + np.array([6, -5, 6, -5]), threshold=0.7)
    assert again.landmarks[0] == pytest.approx(face.landmarks[0], abs=4)


def test_a_look_beside_the_face_finds_nothing(nets):
    looks = nets.look_at(data.astronaut(), np.array([[380, 20, 460, 100], [10, 380, 90, 460]]), threshold=0.7)
    assert [len(look.scores) for look in looks] == [0, 0]


def test_boxes_outside_the_picture_are_no_error(nets):
    looks = nets.look_at(data.astronaut(), np.array([[-300, -300, -200, -200], [500, 500, 700, 700]]), threshold=0.7)
    assert [len(look.scores) for look in looks] == [0, 0]


def test_a_flat_picture_has_no_face(nets):
    assert len(nets.detect(np.full((120, 160, 3), 128, np.uint8)).scores) == 0


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 300, 3), (39, 39, 3)])
def test_pictures_smaller_than_a_face_have_none(nets, shape):
    assert len(nets.detect(np.zeros(shape, np.uint8)).scores) == 0


def test_a_grey_level_picture_is_found_too(nets):
    grey = np.repeat(data.astronaut().mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    assert len(nets.detect(grey).scores) >= 1


def test_pixels_are_scaled_as_in_training_and_stay_colour_last_in_memory(nets):
    given = np.array([[0, 128, 255], [255, 127, 0]], dtype=np.uint8).reshape(1, 1, 2, 3)
    tensor = nets._to_input(given)
    assert tensor.shape == (1, 3, 1, 2)
    assert tensor[0, :, 0, 0].tolist() == [-127.5 / 128, 0.5 / 128, 127.5 / 128]
    assert tensor.permute(0, 2, 3, 1).is_contiguous()


def test_squares_keep_the_centre():
    assert square(np.array([[0, 0, 10, 20]])).tolist() == [[-5, 0, 15, 20]]


def test_the_weights_are_the_published_ones():
    files = mtcnn_weights.weight_files()
    assert [file.name for file in files] == ["pnet.lz4", "rnet.lz4", "onet.lz4"]
    assert mtcnn_weights.weights_sha256() == mtcnn_weights.weights_sha256()
