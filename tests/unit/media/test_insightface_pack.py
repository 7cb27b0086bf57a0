"""The models are tiny ones of the same shape, run through the package itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import load, save

from abaw.errors import AbawError, ExitCode
from abaw.media.faces import DetectorOptions, build_detector, detector_settings, prepare_detector
from abaw.media.following import find_faces
from abaw.media.insightface_pack import SAME, ArcfaceEmbedder, pack_files
from abaw.provenance import file_sha256
from tests.unit.media.tiny_pack import DIM, face_at, write_pack

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def detector(pack):
    return build_detector("insightface", DetectorOptions(pack=pack))


def picture(*, x=64, y=40, side=8, colour=RED, width=136, height=96):
    """A grey RGB picture with one coloured square."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[y : y + side, x : x + side] = colour
    return image


def refusal(act):
    with pytest.raises(AbawError) as caught:
        act()
    assert caught.value.code == ExitCode.MISSING
    return caught.value


def test_a_face_is_found_where_it_is(detector):
    faces = detector.detect(picture())
    box, points = face_at(64, 40)
    assert faces.boxes.tolist() == [box]
    assert faces.landmarks.tolist() == [points]
    assert faces.scores == pytest.approx([(255 - 0) / 2 / 128])
    assert faces.boxes.dtype == faces.landmarks.dtype == faces.scores.dtype == np.float32


def test_colours_reach_the_model_in_its_order(detector):
    assert len(detector.detect(picture(colour=BLUE))) == 0


def test_two_faces_come_best_score_first(detector):
    image = picture(x=8, y=16, colour=(200, 0, 0))
    image[64:72, 104:112] = RED
    assert detector.detect(image).boxes.tolist() == [face_at(104, 64)[0], face_at(8, 16)[0]]


def test_a_picture_without_a_face_gives_none(detector):
    faces = detector.detect(np.full((50, 70, 3), 128, np.uint8))
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)


def test_a_face_of_a_large_picture_is_in_its_own_pixels(detector):
    faces = find_faces(picture(x=128, y=80, side=16, width=1280, height=960), detector)  # searched at 640 x 480
    box, points = face_at(64, 40)
    assert faces.boxes.tolist() == [[2 * value for value in box]]
    assert faces.landmarks.tolist() == [[[2 * x, 2 * y] for x, y in points]]


def test_a_face_too_large_for_the_first_look_is_found_on_the_second(tmp_path):
    detector = build_detector("insightface", DetectorOptions(pack=write_pack(tmp_path / "p", max_width=128)))
    faces = detector.detect(picture(x=128, y=80, side=16, width=256, height=256))  # seen at 128 x 128
    assert faces.boxes.tolist() == [[2 * value for value in face_at(64, 40)[0]]]


def test_a_model_of_one_size_is_used_at_that_size(tmp_path):
    pack = write_pack(tmp_path / "p")
    model = load(pack / "det_tiny.onnx")
    height, width = model.graph.input[0].type.tensor_type.shape.dim[2:]
    height.dim_value, width.dim_value = 320, 320
    save(model, pack / "det_tiny.onnx")
    detector = build_detector("insightface", DetectorOptions(pack=pack))
    faces = detector.detect(picture(x=128, y=80, side=16, width=640, height=480))
    assert faces.boxes.tolist() == [[2 * value for value in face_at(64, 40)[0]]]


def test_it_follows_nobody(detector):
    assert not detector.follows
    with pytest.raises(TypeError):
        detector.look_at(picture(), np.zeros((1, 4)))


def test_it_runs_on_one_thread(detector):
    options = detector._model.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_settings_name_the_model_and_the_size(pack):
    settings = detector_settings("insightface", DetectorOptions(pack=pack))
    assert settings["weights_sha256"] == file_sha256(pack / "det_tiny.onnx")
    assert settings["short_side_px"] == 480
    assert settings == detector_settings("insightface", DetectorOptions(pack=pack, device="cuda"))


def test_loading_prints_nothing(pack):
    code = (
        "from pathlib import Path\n"
        "from abaw.media.faces import DetectorOptions, build_detector\n"
        f"build_detector('insightface', DetectorOptions(pack=Path({str(pack)!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_without_a_pack_the_message_says_which_where_and_its_terms(tmp_path):
    missing = tmp_path / "models" / "buffalo_l"
    for pack in (None, missing):
        error = refusal(lambda pack=pack: build_detector("insightface", DetectorOptions(pack=pack)))
        assert "buffalo_l" in error.fix
        assert "align.pack" in error.fix
        assert "non-commercial" in error.fix
    assert not missing.exists()


def test_an_empty_folder_is_no_pack(tmp_path):
    error = refusal(lambda: detector_settings("insightface", DetectorOptions(pack=tmp_path)))
    assert "no .onnx file" in error.what


def test_a_pack_without_a_detection_model_is_refused(tmp_path):
    options = DetectorOptions(pack=write_pack(tmp_path, detection=False))
    assert "no detection model" in refusal(lambda: build_detector("insightface", options)).what


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", ["det_tiny.onnx", "w_tiny.onnx"])
def test_a_damaged_model_is_named(tmp_path, name, share):
    file = write_pack(tmp_path) / name
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    error = refusal(lambda: build_detector("insightface", DetectorOptions(pack=tmp_path)))
    assert error.where == str(file)


def test_a_model_that_onnxruntime_refuses_is_the_packs_fault(tmp_path):
    model = load(write_pack(tmp_path) / "w_tiny.onnx")
    model.graph.node[0].op_type = "NoSuchOperation"
    save(model, tmp_path / "w_tiny.onnx")
    for build in (lambda options: build_detector("insightface", options), ArcfaceEmbedder):
        error = refusal(lambda build=build: build(DetectorOptions(pack=tmp_path)))
        assert "NoSuchOperation" in error.what


@pytest.mark.parametrize("act", [build_detector, prepare_detector])
def test_a_device_that_onnxruntime_does_not_offer_is_refused(pack, act):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime offers CUDA")
    error = refusal(lambda: act("insightface", DetectorOptions(pack=pack, device="cuda:0")))
    assert "CPUExecutionProvider" in error.what


def test_without_the_package_the_message_says_how_to_install_it(pack, monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    error = refusal(lambda: build_detector("insightface", DetectorOptions(pack=pack)))
    assert "pip install" in error.fix
    assert "insightface" in error.fix
    assert len(build_detector("center", DetectorOptions()).detect(picture())) == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("act", [build_detector, prepare_detector])
def test_without_onnxruntime_the_message_says_how_to_install_it(pack, monkeypatch, act, device):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = refusal(lambda: act("insightface", DetectorOptions(pack=pack, device=device)))
    assert "no module named onnxruntime" in error.what
    assert "onnxruntime" in error.fix


def test_a_pack_that_may_not_be_looked_at_is_named():
    error = refusal(lambda: detector_settings("insightface", DetectorOptions(pack=Path("x" * 300))))
    assert "cannot be read (File name too long)" in error.what
    assert "align.pack" in error.fix


def test_a_folder_in_a_models_place_is_named(tmp_path):
    (write_pack(tmp_path) / "a.onnx").mkdir()
    error = refusal(lambda: detector_settings("insightface", DetectorOptions(pack=tmp_path)))
    assert "cannot be read (Is a directory)" in error.what
    assert str(tmp_path) in error.where


@pytest.mark.parametrize("act", [build_detector, prepare_detector])
def test_a_package_that_does_not_import_is_said(pack, monkeypatch, act):
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    assert "pip install" in refusal(lambda: act("insightface", DetectorOptions(pack=pack))).fix


def test_a_complete_pack_passes_the_check(pack):
    prepare_detector("insightface", DetectorOptions(pack=pack))


def test_the_models_of_a_pack_are_told_apart(pack):
    assert pack_files(pack) == (pack / "det_tiny.onnx", pack / "w_tiny.onnx")


def test_a_face_becomes_a_unit_vector_of_its_colours(pack):
    crops = np.zeros((2, 112, 112, 3), np.uint8)
    crops[0] = RED
    crops[1] = (255, 255, 255)
    vectors = ArcfaceEmbedder(DetectorOptions(pack=pack)).embed(crops)
    third = 3**-0.5  # 0 is fed as -1 and 255 as 1
    assert vectors.shape == (2, DIM)
    assert vectors.dtype == np.float32
    assert vectors[0, :3] == pytest.approx([third, -third, -third], abs=1e-6)
    assert vectors[1, :3] == pytest.approx([third, third, third], abs=1e-6)
    assert not vectors[:, 3:].any()


def test_a_vector_does_not_depend_on_its_neighbours(pack):
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    embedder = ArcfaceEmbedder(DetectorOptions(pack=pack))
    assert np.array_equal(embedder.embed(crops)[1], embedder.embed(crops[1:2])[0])


def test_no_face_gives_no_vector(pack):
    assert ArcfaceEmbedder(DetectorOptions(pack=pack)).embed(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, DIM)


def test_the_embedder_is_sure_of_its_findings(pack):
    embedder = ArcfaceEmbedder(DetectorOptions(pack=pack))
    assert (embedder.name, embedder.same, embedder.decides) == ("arcface", SAME, True)
