from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from abaw.errors import AbawError, ExitCode
from abaw.media.faces import DETECTORS, DetectorOptions, build_detector, detector_settings
from abaw.media.following import find_faces
from abaw.media.warp import template

FREE = ("mtcnn", "center")  # need no file of the user's


@pytest.mark.parametrize("name", FREE)
def test_every_detector_finds_the_astronaut_in_the_agreed_form(name):
    picture = data.astronaut()[:240, 110:350]
    faces = find_faces(picture, build_detector(name, DetectorOptions()))
    assert len(faces) == 1
    assert faces.boxes.dtype == faces.landmarks.dtype == faces.scores.dtype == np.float32
    assert faces.boxes.shape == (1, 4)
    assert faces.landmarks.shape == (1, 5, 2)
    left_eye, right_eye, nose, left_mouth, right_mouth = faces.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_states_its_licence(name):
    assert DETECTORS[name].licence


@pytest.mark.parametrize("name", FREE)
def test_settings_name_the_detector(name):
    assert detector_settings(name, DetectorOptions())["name"] == name


def test_what_changes_the_faces_is_in_the_settings():
    one = detector_settings("mtcnn", DetectorOptions())
    other = detector_settings("mtcnn", DetectorOptions(short_side_px=240))
    assert one != other
    assert len(one["weights_sha256"]) == 64


def test_an_unknown_detector_is_refused_with_the_closest_name():
    with pytest.raises(AbawError) as caught:
        build_detector("mtcn", DetectorOptions())
    assert caught.value.code == ExitCode.CONFIG
    assert 'did you mean "mtcnn"' in caught.value.fix


def test_yunet_without_its_file_says_where_it_goes(tmp_path):
    with pytest.raises(AbawError) as caught:
        build_detector("yunet", DetectorOptions(weights=tmp_path / "none.onnx"))
    assert caught.value.code == ExitCode.MISSING
    assert "align.weights" in caught.value.fix


def test_the_centre_square_is_taken_as_the_face():
    faces = find_faces(np.zeros((120, 160, 3), np.uint8), build_detector("center", DetectorOptions()))
    assert faces.boxes[0].tolist() == [20, 0, 140, 120]
    assert faces.landmarks[0] == pytest.approx(template(120) + (20, 0), abs=1e-4)


@pytest.mark.real
def test_yunet_and_mtcnn_agree_on_a_photograph(real_data):
    picture = np.ascontiguousarray(data.astronaut())
    options = DetectorOptions(weights=real_data / "weights" / "face_detection_yunet_2023mar.onnx")
    yunet, mtcnn = (find_faces(picture, build_detector(name, options)) for name in ("yunet", "mtcnn"))
    assert np.abs(yunet.landmarks[0] - mtcnn.landmarks[0]).max() < 8  # of a face 117 pixels high
