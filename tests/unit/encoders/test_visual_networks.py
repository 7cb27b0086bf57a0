"""Encoders from the files of DAN, ArcFace and timm, and of MAE and EMMA as others publish them."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abaw.encoders.networks import ARCFACE
from abaw.encoders.visual import Faces, VisualEncoder, VisualOptions, build_visual_encoder
from abaw.errors import AbawError, ExitCode
from abaw.label_spaces import LABEL_SPACES
from abaw.models.network_files import timm_library
from tests.unit.encoders.encoder_files import (
    TINY,
    faces,
    write_dan,
    write_graph,
    write_iresnet,
    write_mae,
    write_means,
    write_run,
    write_timm,
)
from tests.unit.foreign_weights import encoder_only, save

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalised(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    pixels = (images.astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))


def build(name: str, path: Path | str, **told: object) -> VisualEncoder:
    return build_visual_encoder(name, VisualOptions(weights=str(path), **told))  # type: ignore[arg-type]


# -- MAE and EMMA ------------------------------------------------------------------------------------------------------
def test_mae_features_equal_timms_own_model_on_a_published_file(tmp_path: Path) -> None:
    from timm.models.vision_transformer import VisionTransformer  # importable once abaw has prepared it

    weights = encoder_only()
    path = save(tmp_path / "mae_pretrain_vit_tiny.pth", {"model": weights})
    theirs = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=0, global_pool="token",
        norm_layer=lambda width, **more: nn.LayerNorm(width, eps=1e-6, **more),
    ).eval()  # fmt: skip
    theirs.load_state_dict(weights)
    some = faces(3, 32)
    with torch.inference_mode():
        expected = theirs(normalised(some.images, *IMAGENET))
    assert torch.allclose(torch.from_numpy(build("mae", path).encode(some)), expected, atol=1e-4)


def test_emma_takes_the_vit_of_the_authors_layout_and_gives_no_scores_from_it(tmp_path: Path) -> None:
    vit = encoder_only()
    other = {
        "vit.head.0.weight": torch.ones(9, 64),
        "cnn.fc.weight": torch.ones(8, 512),
        "va_head.0.bias": torch.ones(9),
    }
    path = save(tmp_path / "emma.pth", {"model": {**{f"vit.{name}": v for name, v in vit.items()}, **other}})
    plain = save(tmp_path / "vit.pth", {"model": vit})
    some = faces(2, 32)
    encoder = build("emma", path, trained_on=("s-aff-wild2",))
    assert np.array_equal(encoder.encode(some), build("mae", plain).encode(some))
    assert (encoder.settings["encoder"], encoder.trained_on[0]["dataset"]) == ("emma", "s-aff-wild2")
    with pytest.raises(AbawError, match='scores = "true" cannot be used') as caught:
        build("emma", path, scores=True)
    assert "does not name its outputs" in caught.value.fix
    with pytest.raises(AbawError, match=r"vit\.pth is MAE, encoder only, not EMMA") as caught:
        build("emma", plain)
    assert 'encoder = "mae"' in caught.value.fix


@pytest.mark.parametrize("name", ["emma", "emae"])
def test_a_run_of_another_kind_is_refused_with_the_encoder_that_takes_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run" / "best.safetensors"
    path.parent.mkdir()
    write_run(path, "static", "expr")
    with pytest.raises(AbawError, match=f'holds a model of kind "static", not {name}') as caught:
        build(name, path.parent)
    assert 'encoder = "finetuned"' in caught.value.fix
    write_mae(tmp_path / "mae.safetensors")
    with pytest.raises(AbawError, match='holds a model of kind "mae"'):
        build(name, tmp_path / "mae.safetensors")


def test_the_scores_of_a_run_are_those_of_its_model(tmp_path: Path) -> None:
    model = write_run(tmp_path / "m.safetensors", "cotex", "expr")
    some = faces(2, TINY.image_size)
    images = normalised(some.images, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    with torch.inference_mode():
        expected = torch.cat([model.pooled(images), model(images)["expr"].softmax(1)], dim=1)  # type: ignore[operator]
    encoder = build("finetuned", tmp_path / "m.safetensors", scores=True)
    assert np.allclose(encoder.encode(some), expected, atol=1e-4)
    assert encoder.settings["scores"] == list(LABEL_SPACES["affwild2"].labels)


def test_emma_without_its_classifier_gives_features_but_no_scores(tmp_path: Path) -> None:
    gone = {"labels": list("abcdefgh"), "spec": "gone.pth", "label_space": "affectnet8", "sha256": "0" * 64}
    write_run(tmp_path / "m.safetensors", "emma", "mtl", classifier=gone)
    assert build("emma", tmp_path / "m.safetensors").dim == TINY.width
    with pytest.raises(AbawError, match=r"no classifier at .*gone\.pth"):
        build("emma", "m.safetensors", scores=True, root=tmp_path)


# -- DAN ---------------------------------------------------------------------------------------------------------------
def test_dan_gives_what_enters_its_last_layer_and_its_softmax(tmp_path: Path) -> None:
    model = write_dan(tmp_path / "dan.pth")
    some = faces(1, 224)
    entered = []
    model.fc.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    with torch.inference_mode():
        scores = model(normalised(some.images, *IMAGENET)).softmax(1)
    encoder = build("dan", tmp_path / "dan.pth", scores=True)
    found = encoder.encode(some)
    assert np.allclose(found[:, :512], entered[0], rtol=1e-3, atol=1e-3)
    assert np.allclose(found[:, 512:], scores, atol=1e-3)
    assert encoder.settings["scores"] == list(LABEL_SPACES["affectnet8"].labels)
    assert encoder.settings["normalisation"]["mean"] == list(IMAGENET[0])


def test_dan_with_seven_classes_needs_a_named_order_for_its_scores(tmp_path: Path) -> None:
    write_dan(tmp_path / "dan.pth", 7)
    assert build("dan", tmp_path / "dan.pth").dim == 512
    with pytest.raises(AbawError, match="have 7 outputs and do not say"):
        build("dan", tmp_path / "dan.pth", scores=True)
    with pytest.raises(AbawError, match="have 7 outputs, the label space affectnet8 8: Neutral"):
        build("dan", tmp_path / "dan.pth", scores=True, labels="affectnet8")
    named = build("dan", tmp_path / "dan.pth", scores=True, labels="rafdb")
    assert named.settings["scores"] == list(LABEL_SPACES["rafdb"].labels)


@pytest.mark.parametrize("name", ["dan", "iresnet"])
def test_other_networks_and_pickled_modules_are_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path / "other.pth", {"weight": torch.ones(2)})
    with pytest.raises(AbawError, match=r"other\.pth does not hold"):
        build(name, tmp_path / "other.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(AbawError, match="whole module"):
        build(name, tmp_path / "whole.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(AbawError, match="it is empty"):
        build(name, tmp_path / "empty.pth")


# -- ArcFace -----------------------------------------------------------------------------------------------------------
def test_iresnet_sees_rgb_between_minus_one_and_one(tmp_path: Path) -> None:
    model = write_iresnet(tmp_path / "backbone.pth")
    some = faces(1, 112)
    with torch.inference_mode():
        expected = model((torch.from_numpy(some.images).permute(0, 3, 1, 2).float() - 127.5) / 127.5)
    encoder = build("iresnet", tmp_path / "backbone.pth", trained_on=("none",))
    assert np.allclose(encoder.encode(some), expected, rtol=1e-3, atol=1e-3)
    assert encoder.trained_on[0]["labels"] == "none"


def test_iresnet_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    weights = write_iresnet(tmp_path / "backbone.pth").state_dict()
    save(tmp_path / "cut.pth", {name: value for name, value in weights.items() if "layer4.1." not in name})
    with pytest.raises(AbawError, match=r"stages of \(2, 2, 2, 1\) blocks are of no published depth"):
        build("iresnet", tmp_path / "cut.pth")
    save(tmp_path / "odd.pth", {name: value for name, value in weights.items() if name != "bn2.weight"})
    with pytest.raises(AbawError, match=r"do not fit the network .*bn2\.weight"):
        build("iresnet", tmp_path / "odd.pth")


@pytest.mark.parametrize("batch", ["None", 1])
def test_a_pack_of_insightface_gives_its_recognition_model(tmp_path: Path, batch: str | int) -> None:
    write_means(tmp_path / "det_10g.onnx", (1, 3, 640, 640))
    write_means(tmp_path / "w600k_r50.onnx", (batch, 3, 112, 112))
    encoder = build("iresnet", tmp_path)
    some = faces(3, 112)
    assert np.allclose(encoder.encode(some), some.images.mean((1, 2)) / 127.5 - 1, atol=1e-5)
    assert encoder.image_size == 112
    named = build("iresnet", tmp_path / "w600k_r50.onnx")
    assert named.settings == encoder.settings
    assert f"not the published {ARCFACE.files['w600k_r50.onnx']}" in named.notes[0]
    assert encoder.notes[1:] == named.notes


def test_a_recognition_graph_that_normalises_itself_gets_plain_pixels(tmp_path: Path) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("Sub", ["input", "half"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["output"], axes=[2, 3], keepdims=0),
    ]
    constants = {"half": np.float32([127.5]), "scale": np.float32([1 / 128])}
    path = write_graph(tmp_path / "old.onnx", nodes, constants, ("b", 3, 112, 112), ("b", 3))
    some = faces(2, 112)
    found = build("iresnet", path).encode(some)
    assert np.allclose(found, (some.images.mean((1, 2)) - 127.5) / 128, atol=1e-4)


def test_pixels_of_a_recognition_graph_are_those_of_insightface_itself(tmp_path: Path) -> None:
    from insightface.model_zoo import get_model

    path = write_means(tmp_path / "w600k_r50.onnx", ("None", 3, 112, 112))
    some = faces(3, 112)
    theirs = get_model(str(path), providers=["CPUExecutionProvider"])
    expected = theirs.get_feat([np.ascontiguousarray(image[..., ::-1]) for image in some.images])  # it takes BGR
    assert np.allclose(build("iresnet", path).encode(some), expected, atol=1e-5)


def test_a_pack_without_recognition_and_a_graph_of_another_size_are_refused(tmp_path: Path) -> None:
    write_means(tmp_path / "det_10g.onnx", (1, 3, 640, 640))
    with pytest.raises(AbawError, match="none of its published files") as caught:
        build("iresnet", tmp_path)
    assert "w600k_r50.onnx (sha256 4c06341c" in caught.value.fix
    with pytest.raises(AbawError, match=r"det_10g\.onnx takes input .*640, 640"):
        build("iresnet", tmp_path / "det_10g.onnx")


def test_a_file_of_the_usual_folder_must_be_the_published_one(tmp_path: Path) -> None:
    write_means(tmp_path / "w600k_r50.onnx", ("b", 3, 112, 112))
    with pytest.raises(
        AbawError, match=r"w600k_r50\.onnx is not the published file \(its sha256 is not 4c06"
    ) as caught:
        build("iresnet", "", weights_dir=tmp_path)
    assert caught.value.code is ExitCode.MISSING


# -- timm --------------------------------------------------------------------------------------------------------------
def test_timm_gives_the_feature_under_the_classifier_at_the_models_own_size(tmp_path: Path) -> None:
    network = write_timm(tmp_path / "w.safetensors", "test_vit", 7)
    some = faces(2, 160)
    data = timm_library("test_vit", where="here").data.resolve_data_config({}, model=network)
    images = normalised(some.images, data["mean"], data["std"])
    with torch.inference_mode():
        maps = network.forward_features(images)  # type: ignore[operator]
        feature, scores = network.forward_head(maps, pre_logits=True), network(images).softmax(1)  # type: ignore[operator]
    encoder = build("timm:test_vit", tmp_path / "w.safetensors", scores=True, labels="rafdb")
    assert encoder.image_size == 160
    assert np.allclose(encoder.encode(some), torch.cat([feature, scores], 1), atol=1e-4)
    other = build("timm:test_vit", tmp_path / "w.safetensors", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    assert other.settings["normalisation"] == {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    with pytest.raises(AbawError, match="have 7 outputs and do not say"):
        build("timm:test_vit", tmp_path / "w.safetensors", scores=True)


def test_timm_weights_without_a_classifier_give_features(tmp_path: Path) -> None:
    weights = write_timm(tmp_path / "w.safetensors", "test_resnet").state_dict()
    bare = save(tmp_path / "bare.pth", {name: v for name, v in weights.items() if not name.startswith("fc.")})
    some = faces(1, 160)
    found = build("timm:test_resnet", bare).encode(some)
    assert np.array_equal(found, build("timm:test_resnet", tmp_path / "w.safetensors").encode(some))


def test_timm_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    write_timm(tmp_path / "w.safetensors", "test_resnet")
    with pytest.raises(AbawError, match="do not fit the network"):
        build("timm:test_vit", tmp_path / "w.safetensors")


def test_timm_weights_that_timm_resizes_are_told(tmp_path: Path) -> None:
    network = timm_library("test_vit", where="here").create_model("test_vit", img_size=96, num_classes=0)
    path = save(tmp_path / "small.pth", network.state_dict())
    assert "timm resized pos_embed of small.pth to the shapes of test_vit" in build("timm:test_vit", path).notes
    write_timm(tmp_path / "w.safetensors", "test_vit")
    assert not any("resized pos_embed" in note for note in build("timm:test_vit", tmp_path / "w.safetensors").notes)


def test_a_timm_model_without_a_file_is_told_without_asking_the_network(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    with pytest.raises(AbawError, match='encoder "timm:resnet18" has no weights') as caught:
        build("timm:resnet18", "", weights_dir=tmp_path)
    assert asked == []  # timm itself would ask again and again for a minute
    assert "huggingface.co/timm/resnet18.a1_in1k" in caught.value.fix
    assert caught.value.code is ExitCode.MISSING


@pytest.mark.parametrize("place", ["own", "torch", "hub"])
def test_a_timm_model_is_found_in_the_folder_of_weights_and_in_both_caches(tmp_path, monkeypatch, place) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k" / "snapshots" / "abc"
    folder, file = {
        "own": (tmp_path / "own", "test_resnet.safetensors"),
        "torch": (tmp_path / "torch" / "hub" / "checkpoints", "test_resnet.safetensors"),
        "hub": (snapshot, "model.safetensors"),
    }[place]
    folder.mkdir(parents=True)
    if place == "hub":
        reference = snapshot.parent.parent / "refs" / "main"
        reference.parent.mkdir()
        reference.write_text("abc")
    write_timm(folder / file, "test_resnet")
    assert build("timm:test_resnet", "", weights_dir=tmp_path / "own").dim == 96


def test_an_unknown_timm_model_shows_the_closest_names_alone() -> None:
    with pytest.raises(AbawError, match='unknown timm model "vit_base_patch16_225"') as caught:
        build("timm:vit_base_patch16_225", "random")
    assert "vit_base_patch16_224" in caught.value.fix
    assert len(caught.value.fix) < 300
    with pytest.raises(AbawError, match='unknown weights of a timm model "resnet18.a9_in1k"') as caught:
        build("timm:resnet18.a9_in1k", "random")
    assert "resnet18.a1_in1k" in caught.value.fix


def test_random_weights_of_a_published_shape_repeat_in_another_order(tmp_path: Path) -> None:
    some = faces(1, 112)
    first = build("iresnet", "random").encode(some)
    torch.rand(3)
    assert np.array_equal(first, build("iresnet", "random").encode(some))


def test_random_weights_leave_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    build("timm:test_resnet", "random")
    assert torch.equal(torch.rand(2), expected)


def test_large_faces_run_in_parts_of_one_shape_on_the_cpu() -> None:
    encoder = build_visual_encoder("timm:resnet18", VisualOptions(weights="random"))
    some = faces(20, encoder.image_size)
    parts = ([*range(16)], [16, 17, 18, 19, *[19] * 12])  # the second one filled up with its last face
    first, second = (encoder.encode(Faces(*(values[part] for values in some))) for part in parts)
    assert np.array_equal(encoder.encode(some), np.concatenate([first, second[:4]]))
