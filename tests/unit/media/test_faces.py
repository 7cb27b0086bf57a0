from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from abaw.errors import AbawError, ExitCode
from abaw.media.faces import (
    DETECTORS,
    DetectorOptions,
    build_detector,
    describe_detector,
    detector_settings,
    prepare_detector,
    resolve_min_score,
)
from abaw.media.following import find_faces, reduce_image
from abaw.media.video import read_frames
from abaw.media.warp import template
from abaw.provenance import file_sha256
from abaw.weights import WEIGHTS
from tests.unit.media.tiny_pack import write_pack

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


def test_an_unknown_detector_has_no_threshold_either():
    with pytest.raises(AbawError):
        resolve_min_score("mtcn", 0.0)


@pytest.mark.parametrize(("name", "expected"), [("mtcnn", 360), ("yunet", 240), ("insightface", 480)])
def test_every_detector_has_its_own_size_unless_told(tmp_path, name, expected):
    options = DetectorOptions(pack=write_pack(tmp_path))
    assert detector_settings(name, options)["short_side_px"] == expected
    assert detector_settings(name, options._replace(short_side_px=200))["short_side_px"] == 200


def test_a_built_detector_carries_its_size():
    assert build_detector("mtcnn", DetectorOptions()).short_side_px == 360
    assert build_detector("mtcnn", DetectorOptions(short_side_px=200)).short_side_px == 200


@pytest.mark.parametrize(("name", "own"), [("mtcnn", 0.9), ("yunet", 0.7), ("insightface", 0.5), ("center", 0.0)])
def test_every_detector_has_its_own_threshold_unless_told(name, own):
    assert resolve_min_score(name, 0.0) == own
    assert resolve_min_score(name, 0.8) == 0.8


def refusal(act):
    with pytest.raises(AbawError) as caught:
        act()
    assert caught.value.code == ExitCode.MISSING
    return caught.value


@pytest.mark.parametrize("act", [build_detector, detector_settings, prepare_detector])
def test_yunet_without_its_file_says_where_it_goes(tmp_path, act):
    error = refusal(lambda: act("yunet", DetectorOptions(weights=tmp_path / "none.onnx")))
    assert "align.weights" in error.fix


@pytest.mark.parametrize("act", [build_detector, prepare_detector])
def test_yunet_offline_says_which_file_goes_where(tmp_path, act):
    error = refusal(lambda: act("yunet", DetectorOptions(weights_dir=tmp_path, offline=True)))
    assert str(tmp_path / "face_detection_yunet_2023mar.onnx") in error.fix
    assert "MIT" in error.fix


def test_settings_of_yunet_need_no_file(tmp_path):
    settings = detector_settings("yunet", DetectorOptions(weights_dir=tmp_path, offline=True))
    assert settings["weights_sha256"] == WEIGHTS["yunet"].sha256
    assert list(tmp_path.iterdir()) == []


def test_another_file_for_yunet_is_recorded(tmp_path):
    file = tmp_path / "own.onnx"
    file.write_bytes(b"own")
    assert detector_settings("yunet", DetectorOptions(weights=file))["weights_sha256"] == file_sha256(file)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    file = tmp_path / "own.onnx"
    file.write_bytes(b"own")
    assert str(file) in refusal(lambda: build_detector("yunet", DetectorOptions(weights=file))).where


@pytest.mark.parametrize("name", FREE)
def test_detectors_without_files_of_the_users_need_no_preparation(name):
    prepare_detector(name, DetectorOptions(offline=True))


def test_detectors_load_what_they_need_only_when_built():
    code = (
        "import sys, abaw.media.faces, abaw.media.identity\n"
        "heavy = ('torch', 'insightface', 'onnxruntime', 'onnx', 'av')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", FREE)
def test_the_package_insightface_is_needed_for_its_own_detector_only(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "insightface", None)
    picture = np.ascontiguousarray(data.astronaut()[:240, 110:350])
    assert len(build_detector(name, DetectorOptions()).detect(picture)) == 1
    options = DetectorOptions(pack=write_pack(tmp_path))
    assert "pip install" in refusal(lambda: prepare_detector("insightface", options)).fix


def test_the_centre_square_is_exact_in_large_pictures():
    faces = find_faces(np.zeros((700, 1000, 3), np.uint8), build_detector("center", DetectorOptions(short_side_px=96)))
    assert faces.boxes[0].tolist() == [150, 0, 850, 700]


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


@pytest.mark.real
def test_yunet_from_the_cache_is_the_one_that_is_given(real_data):
    cache = DetectorOptions(weights_dir=real_data / "weights", offline=True)
    given = DetectorOptions(weights=real_data / "weights" / WEIGHTS["yunet"].file)
    prepare_detector("yunet", cache)
    assert detector_settings("yunet", cache) == detector_settings("yunet", given)
    picture = np.ascontiguousarray(data.astronaut())
    one, other = (find_faces(picture, build_detector("yunet", options)) for options in (cache, given))
    assert np.array_equal(one.boxes, other.boxes)


@pytest.mark.real
@pytest.mark.parametrize(
    ("clip", "num_faces"),
    [("grid_swwp2s.mpg", 1), ("intel_asl_walk.mkv", 1), ("intel_two_faces.gif", 2), ("pyfeat_no_face.mp4", 0)],
)
def test_yunets_own_threshold_tells_faces_from_the_rest(real_data, clip, num_faces):
    yunet = build_detector("yunet", DetectorOptions(weights_dir=real_data / "weights", offline=True))
    for frame in islice(read_frames(real_data / "videos" / clip), 0, 50, 5):
        scores = yunet.detect(reduce_image(frame.image, yunet.short_side_px)).scores
        assert (scores >= resolve_min_score("yunet", 0.0)).sum() == num_faces


@pytest.mark.real
@pytest.mark.parametrize(("width", "height"), [(400, 31), (500, 1), (31, 200), (1, 1)])
def test_yunet_finds_the_same_in_small_pictures_whatever_came_before(real_data, width, height):
    options = DetectorOptions(weights_dir=real_data / "weights", offline=True)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    fresh = build_detector("yunet", options).detect(picture)
    used = build_detector("yunet", options)
    used.detect(np.ascontiguousarray(data.astronaut()))
    used.detect(np.full((40, 700, 3), 255, np.uint8))
    after = used.detect(picture)
    assert np.isfinite(fresh.boxes).all()
    assert np.isfinite(fresh.landmarks).all()
    assert np.array_equal(fresh.boxes, after.boxes)
    assert np.array_equal(fresh.scores, after.scores)


def test_a_file_for_yunet_that_may_not_be_looked_at_is_named():
    error = refusal(lambda: build_detector("yunet", DetectorOptions(weights=Path("x" * 300))))
    assert "cannot be read (File name too long)" in error.what
    assert "align.weights" in error.fix


def test_a_detector_that_knows_no_gpu_says_that_it_stays_on_the_cpu():
    assert describe_detector("yunet", "cuda:0").startswith("yunet on cpu, MIT")
    assert describe_detector("mtcnn", "cuda:0").startswith("mtcnn on cuda:0, MIT")
