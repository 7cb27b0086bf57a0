"""Encoders from ONNX files: the feature under the last layer, label orders by name, pixels as the graph wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from abaw.encoders.onnx_files import HSEMOTION, Variant, variant_of
from abaw.encoders.visual import Faces, VisualEncoder, VisualOptions, build_visual_encoder
from abaw.errors import AbawError, ExitCode
from tests.unit.encoders.encoder_files import faces, write_classifier, write_graph, write_means

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
EIGHT = ["Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise"]
AFFECTNET = ["Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt"]


def build(name: str, path: Path | str = "", **told: object) -> VisualEncoder:
    return build_visual_encoder(name, VisualOptions(weights=str(path), **told))  # type: ignore[arg-type]


def colours(some: Faces) -> np.ndarray:
    """Mean of red, green and blue in 0..1, [N, 3]."""
    return some.images.mean((1, 2), dtype=np.float64) / 255


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


# -- HSEmotion ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("file", "variant"),
    [
        ("enet_b0_8_best_vgaf.onnx", Variant("hsemotion8", 224, "imagenet", False)),
        ("enet_b0_8_best_afew.onnx", Variant("hsemotion8", 224, "imagenet", False)),
        ("enet_b0_8_va_mtl.onnx", Variant("hsemotion8", 224, "imagenet", True)),
        ("enet_b2_8.onnx", Variant("hsemotion8", 260, "imagenet", False)),
        ("enet_b2_7.onnx", Variant("hsemotion7", 260, "imagenet", False)),
        ("mbf_va_mtl.onnx", Variant("hsemotion8", 112, "half", True)),
        ("mobilevit_va_mtl.onnx", Variant("hsemotion8", 224, "imagenet", True)),
        ("mobilenet_7.onnx", Variant("hsemotion7", 224, "caffe", False)),
    ],
)
def test_a_published_name_tells_size_constants_and_label_order(file: str, variant: Variant) -> None:
    assert variant_of(file) == variant
    assert file in HSEMOTION.files


@pytest.mark.parametrize("layer", ["Gemm", "MatMul"])
def test_scores_are_mapped_by_name_from_the_files_order(tmp_path: Path, layer: str) -> None:
    path = tmp_path / "enet_b0_8_best_vgaf.onnx"
    layers = write_classifier(path, 8, layer=layer)
    some = faces(2, 224)
    feature = (colours(some) - MEAN) / STD
    by_name = dict(zip(EIGHT, softmax(feature @ layers[:, :3].T + layers[:, 3]).T, strict=True))
    encoder = build("hsemotion", path, scores=True)
    found = encoder.encode(some)
    assert encoder.settings["scores"] == AFFECTNET
    assert np.allclose(found[:, :3], feature, atol=1e-4)
    assert np.allclose(found[:, 3:], np.stack([by_name[name] for name in AFFECTNET], axis=1), atol=1e-4)
    assert np.allclose(build("hsemotion", path).encode(some), found[:, :3], atol=1e-6)


def test_values_of_a_multi_task_file_follow_its_classes_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "mbf_va_mtl.onnx"
    layers = write_classifier(path, 10, size=112)
    some = faces(2, 112)
    outputs = (2 * colours(some) - 1) @ layers[:, :3].T + layers[:, 3]
    encoder = build("hsemotion", path, scores=True)
    found = encoder.encode(some)
    assert encoder.settings["scores"] == [*AFFECTNET, "valence", "arousal"]
    assert np.allclose(found[:, -2:], outputs[:, -2:], atol=1e-4)
    assert np.allclose(found[:, 3:11].sum(1), 1, atol=1e-5)


def test_seven_classes_have_no_contempt_and_probabilities_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "mobilenet_7.onnx"
    layers = write_classifier(path, 7, layer="MatMul", end="Softmax", shape=(1, 224, 224, 3))
    some = faces(2, 224)
    feature = 255 * colours(some) - np.array([103.939, 116.779, 123.68])
    seven = [name for name in EIGHT if name != "Contempt"]
    by_name = dict(zip(seven, softmax(feature @ layers[:, :3].T + layers[:, 3]).T, strict=True))
    encoder = build("hsemotion", path, scores=True)
    found = encoder.encode(some)
    assert encoder.settings["scores"] == AFFECTNET[:7]
    assert np.allclose(found[:, :3], feature, atol=1e-2)
    assert np.allclose(found[:, 3:], np.stack([by_name[name] for name in AFFECTNET[:7]], axis=1), atol=1e-3)


def test_a_label_order_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "enet_b0_8_best_vgaf.onnx"
    write_classifier(path, 8)
    with pytest.raises(AbawError, match='labels = "affectnet8" is not the order of .*: Anger, Contempt') as caught:
        build("hsemotion", path, scores=True, labels="affectnet8")
    assert caught.value.code is ExitCode.CONFIG
    assert "hsemotion8" in caught.value.fix
    assert build("hsemotion", path, scores=True, labels="hsemotion8").dim == 11
    write_classifier(path, 7)
    with pytest.raises(AbawError, match="has 7 outputs, where its name tells of 8"):
        build("hsemotion", path)


def test_a_graph_of_another_size_than_its_name_tells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "enet_b2_8.onnx"
    write_classifier(path, 8, size=224)
    with pytest.raises(AbawError, match=r"enet_b2_8\.onnx takes input .*224, 224") as caught:
        build("hsemotion", path)
    assert "260 pixels" in caught.value.fix
    write_classifier(path, 8, shape=("batch", 3, "height", "width"))
    assert build("hsemotion", path).image_size == 260


def test_unknown_names_pickled_modules_and_graphs_without_a_layer_are_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path / "faces.onnx", 8)
    with pytest.raises(AbawError, match=r"faces\.onnx is no name of HSEmotion's") as caught:
        build("hsemotion", tmp_path / "faces.onnx")
    assert 'encoder = "onnx:faces.onnx"' in caught.value.fix
    (tmp_path / "enet_b0_8_best_vgaf.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(AbawError, match="pickled whole modules") as caught:
        build("hsemotion", tmp_path / "enet_b0_8_best_vgaf.pt")
    assert "enet_b0_8_best_vgaf.onnx" in caught.value.fix
    write_means(tmp_path / "enet_b0_8_va_mtl.onnx", ("batch", 3, 224, 224))
    with pytest.raises(AbawError, match="has no last linear layer: its first output is made by ReduceMean"):
        build("hsemotion", tmp_path / "enet_b0_8_va_mtl.onnx")
    (tmp_path / "enet_b2_8.onnx").write_bytes(b"no graph")
    with pytest.raises(AbawError, match=r"enet_b2_8\.onnx is not an ONNX graph"):
        build("hsemotion", tmp_path / "enet_b2_8.onnx")


def test_a_file_with_its_published_sum_is_taken_from_the_usual_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    write_classifier(tmp_path / "enet_b0_8_best_afew.onnx", 8)  # nobody states the sum of this one
    found = build("hsemotion", weights_dir=tmp_path)
    assert found.image_size == 224
    assert found.notes == (f"weights are those of {tmp_path / 'enet_b0_8_best_afew.onnx'}, the first that was found",)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (tmp_path / "enet_b0_8_best_afew.onnx").rename(folder / "enet_b0_8_best_afew.onnx")
    assert build("hsemotion", weights_dir=tmp_path).image_size == 224


# -- any graph ---------------------------------------------------------------------------------------------------------
def test_the_first_output_is_the_feature_of_imagenets_pixels(tmp_path: Path) -> None:
    write_means(tmp_path / "means.onnx")
    some = faces(3, 24)
    encoder = build("onnx:means.onnx", root=tmp_path)
    assert np.allclose(encoder.encode(some), (colours(some) - MEAN) / STD, atol=1e-5)
    assert encoder.notes == ("pixel constants of means.onnx are taken as ImageNet's",)
    assert encoder.settings["encoder"] == "onnx"


def test_constants_and_colour_order_are_as_configured(tmp_path: Path) -> None:
    write_means(tmp_path / "means.onnx")
    some = faces(2, 24)
    told = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 4.0)}
    encoder = build(f"onnx:{tmp_path / 'means.onnx'}", color="bgr", **told)
    expected = ((colours(some) - told["mean"]) / told["std"])[:, ::-1]
    assert np.allclose(encoder.encode(some), expected, atol=1e-6)
    assert encoder.settings["color"] == "bgr"
    assert encoder.notes == ()


@pytest.mark.parametrize("shape", [(1, 3, 24, 24), (2, 3, 24, 24), ("batch", 24, 24, 3)])
def test_fixed_batches_and_channels_last_give_the_same(tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    write_means(tmp_path / "means.onnx", shape)
    some = faces(3, 24)
    assert np.allclose(build("onnx:means.onnx", root=tmp_path).encode(some), (colours(some) - MEAN) / STD, atol=1e-5)


def test_where_a_graph_lies_is_no_setting(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_means(tmp_path / folder / "means.onnx")
    settings = [build("onnx:means.onnx", root=tmp_path / folder).settings for folder in ("a", "b")]
    assert settings[0] == settings[1]


def test_weights_beside_a_graph_are_part_of_its_sum(tmp_path: Path) -> None:
    sums = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        matrix = np.full((192, 2), number, np.float32)
        nodes = [helper.make_node("Flatten", ["input"], ["x"]), helper.make_node("MatMul", ["x", "m"], ["output"])]
        path = write_graph(folder / "g.onnx", nodes, {"m": matrix}, ("b", 3, 8, 8), ("b", 2))
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="g.onnx.data", size_threshold=0)
        sums.append(build("onnx:g.onnx", root=folder).settings["weights"])
    assert (tmp_path / "0" / "g.onnx").read_bytes() == (tmp_path / "1" / "g.onnx").read_bytes()
    assert sums[0] != sums[1]


@pytest.mark.parametrize("shape", [("b", 3, "h", "w"), ("b", 1, 24, 24), ("b", 3, 24, 32), ("b", 3, 24)])
def test_graphs_of_other_inputs_are_refused(tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    node = helper.make_node("Identity", ["input"], ["output"])
    write_graph(tmp_path / "odd.onnx", [node], {}, shape, shape)
    with pytest.raises(AbawError, match=r"odd\.onnx takes input tensor"):
        build("onnx:odd.onnx", root=tmp_path)


def test_an_output_that_is_no_vector_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["input"], ["output"])
    write_graph(tmp_path / "maps.onnx", [node], {}, ("b", 3, 8, 8), ("b", 3, 8, 8))
    with pytest.raises(AbawError, match=r"maps\.onnx gives output \[1, 3, 8, 8\]"):
        build("onnx:maps.onnx", root=tmp_path)


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="names its file, and so does weights") as caught:
        build("onnx:means.onnx", "other.onnx")
    assert caught.value.code is ExitCode.CONFIG


def test_the_feature_output_leaves_the_graphs_own_output_as_it_is(tmp_path: Path) -> None:
    from abaw.models.onnx_parts import with_feature

    path = tmp_path / "g.onnx"
    write_classifier(path, 8, end="Softmax")
    opened = with_feature(path, where="here")
    names = [output.name for output in onnx.load_from_string(opened.content).graph.output]
    assert (names, opened.are_probabilities) == ([opened.scores, opened.feature], True)
