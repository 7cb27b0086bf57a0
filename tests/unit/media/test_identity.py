from __future__ import annotations

import sys

import numpy as np
import pytest

from abaw.errors import AbawError, ExitCode
from abaw.media.faces import DetectorOptions
from abaw.media.identity import build_embedder, embedder_settings, prepare_embedder
from abaw.provenance import canonical_json, file_sha256
from tests.unit.media.tiny_pack import write_pack


def test_a_pack_with_a_recognition_model_tells_people_apart_by_it(tmp_path):
    options = DetectorOptions(pack=write_pack(tmp_path))
    embedder = build_embedder(options)
    assert (embedder.name, embedder.decides) == ("arcface", True)
    settings = embedder_settings(options)
    assert settings == {
        "name": "arcface",
        "same": embedder.same,
        "weights_sha256": file_sha256(tmp_path / "w_tiny.onnx"),
    }


@pytest.mark.parametrize("recognition", [None, False], ids=["no pack", "a pack for detection only"])
def test_otherwise_appearance_does(tmp_path, recognition):
    pack = None if recognition is None else write_pack(tmp_path, recognition=recognition)
    embedder = build_embedder(DetectorOptions(pack=pack))
    assert (embedder.name, embedder.decides) == ("appearance", False)
    settings = embedder_settings(DetectorOptions(pack=pack))
    assert (settings["name"], settings["same"]) == ("appearance", embedder.same)


def test_vectors_of_both_have_length_one(tmp_path):
    crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    for pack in (None, write_pack(tmp_path)):
        vectors = build_embedder(DetectorOptions(pack=pack)).embed(crops)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_settings_are_plain_values(tmp_path):
    for pack in (None, write_pack(tmp_path)):
        assert canonical_json(embedder_settings(DetectorOptions(pack=pack)))


def test_a_named_pack_that_is_missing_is_never_passed_over(tmp_path):
    options = DetectorOptions(pack=tmp_path / "none")
    for act in (build_embedder, embedder_settings, prepare_embedder):
        with pytest.raises(AbawError) as caught:
            act(options)
        assert caught.value.code == ExitCode.MISSING


@pytest.mark.parametrize("act", [build_embedder, prepare_embedder])
def test_a_pack_without_the_package_is_never_passed_over(tmp_path, monkeypatch, act):
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(AbawError) as caught:
        act(DetectorOptions(pack=write_pack(tmp_path)))
    assert caught.value.code == ExitCode.MISSING
    assert "pip install" in caught.value.fix


def test_what_is_complete_passes(tmp_path):
    prepare_embedder(DetectorOptions())
    prepare_embedder(DetectorOptions(pack=write_pack(tmp_path)))
