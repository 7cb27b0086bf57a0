"""Frozen classifiers from files of four kinds."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from abaw.checkpoint import save_checkpoint
from abaw.errors import AbawError
from abaw.label_spaces import LABEL_SPACES
from abaw.models.classifier import check_classifier, load_classifier
from abaw.models.dan import Dan
from abaw.models.static import StaticModel
from abaw.provenance import unknown_recipe
from abaw.tasks import TASKS
from tests.unit.models.tiny_models import TINY, Brightness, tiny_classifier

AFFECTNET = LABEL_SPACES["affectnet8"].labels
TRAINED_ON = [{"dataset": "aff-wild2", "labels": "expr"}]


def pictures(size: int = 32, count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def write_static(path: Path, task: str = "expr", **changed: object) -> StaticModel:
    torch.manual_seed(0)
    model = StaticModel(TINY, TASKS[task]).eval()
    header = {
        "kind": "static",
        "architecture": {"preset": "tiny", **TINY.to_dict()},
        "task": task,
        "label_order": {head.name: list(head.labels) for head in TASKS[task].heads},
        "pooling": "mean",
        "normalisation": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]},
        "resize": "bicubic",
        "recipe": unknown_recipe(),
        "trained_on": TRAINED_ON,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, model.state_dict(), {**header, **changed})
    return model


def write_onnx(path: Path, shape: Sequence[int | str] = ("batch", 3, 24, 24), outputs: int = 8) -> None:
    """A graph whose logit k is k times the mean of the picture."""
    constants = {"factors": np.arange(outputs, dtype=np.float32)[None], "flat": np.array([-1, 1], np.int64)}
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Reshape", ["mean", "flat"], ["column"]),
        helper.make_node("MatMul", ["column", "factors"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


# -- frozen ------------------------------------------------------------------------------------------------------------
def test_it_stays_in_eval_mode_and_passes_no_gradient() -> None:
    classifier = tiny_classifier()
    images = pictures().requires_grad_()
    found = classifier.train()(images)
    assert not classifier.network.training
    assert not found.requires_grad
    assert list(classifier.parameters()) == []
    assert list(classifier.state_dict()) == []


def test_it_follows_the_model_to_another_type_and_back() -> None:
    classifier = nn.Sequential(tiny_classifier()).double()[0]
    assert classifier.network.norm.weight.dtype == torch.float64
    assert deepcopy(classifier).float()(pictures()).dtype == torch.float32
    assert classifier.network.norm.weight.dtype == torch.float64


def test_images_are_resized_and_normalised_as_it_was_trained() -> None:
    flat = torch.ones(1, 3, 40, 40) * torch.tensor([0.5, 0.75, 0.0]).reshape(3, 1, 1)
    found = tiny_classifier(Brightness())(flat)
    assert torch.allclose(found, torch.tensor([[0.0, 1.0, -2.0, -1.0]]), atol=1e-5)


def test_autocast_does_not_reach_it() -> None:
    classifier, images = tiny_classifier(nn.Sequential(nn.Flatten(), nn.Linear(768, 4))), pictures()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = classifier(images)
    assert torch.equal(inside, classifier(images))


# -- ours --------------------------------------------------------------------------------------------------------------
def test_a_run_of_ours_gives_its_own_logits_labels_and_provenance(tmp_path: Path) -> None:
    model = write_static(tmp_path / "runs" / "finetune-expr" / "best.safetensors")
    classifier = load_classifier("runs/finetune-expr", "", root=tmp_path)
    images = pictures()
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
    assert torch.allclose(classifier(images), model((images - mean) / std)["expr"], atol=1e-5)
    assert classifier.labels == TASKS["expr"].heads[0].labels
    assert classifier.trained_on == TRAINED_ON
    assert load_classifier("runs/finetune-expr", "affwild2", root=tmp_path).labels == classifier.labels


@pytest.mark.parametrize(
    ("task", "changed"), [("au", {}), ("mtl", {}), ("expr", {"kind": "mae"})], ids=["units", "many", "mae"]
)
def test_a_checkpoint_that_is_no_classifier_is_refused(tmp_path: Path, task: str, changed: dict[str, object]) -> None:
    write_static(tmp_path / "best.safetensors", task, **changed)
    with pytest.raises(AbawError, match="no classifier"):
        load_classifier("best.safetensors", "", root=tmp_path)


def test_another_label_order_than_the_files_is_refused(tmp_path: Path) -> None:
    write_static(tmp_path / "best.safetensors")
    with pytest.raises(AbawError, match="not the classes of the label space"):
        load_classifier("best.safetensors", "affectnet8", root=tmp_path)


# -- DAN ---------------------------------------------------------------------------------------------------------------
def test_a_dan_file_loads_with_affectnets_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Dan(8).eval()
    torch.save({"iter": 5, "model_state_dict": model.state_dict(), "optimizer_state_dict": {}}, tmp_path / "dan.pth")
    classifier = load_classifier("dan.pth", "", root=tmp_path)
    assert classifier.labels == AFFECTNET
    assert classifier.describe()["label_space"] == "affectnet8"
    images = pictures(224, 1)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        assert torch.allclose(classifier(images), model((images - mean) / std), atol=1e-5)
    assert [record["labels"] for record in classifier.trained_on] == ["undeclared"]


def test_a_dan_file_of_seven_classes_needs_a_named_order(tmp_path: Path) -> None:
    torch.save({"model_state_dict": Dan(7).state_dict()}, tmp_path / "dan.pth")
    with pytest.raises(AbawError, match="7 outputs and does not say"):
        load_classifier("dan.pth", "", root=tmp_path)
    assert load_classifier("dan.pth", "rafdb", root=tmp_path).labels == LABEL_SPACES["rafdb"].labels


def test_dan_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    weights = {name: value for name, value in Dan(8).state_dict().items() if name != "features.0.weight"}
    torch.save({"model_state_dict": weights}, tmp_path / "dan.pth")
    with pytest.raises(AbawError, match=r"do not fit the network .*features\.0\.weight"):
        load_classifier("dan.pth", "", root=tmp_path)


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(AbawError, match="whole module"):
        load_classifier("whole.pth", "", root=tmp_path)


def test_weights_of_another_network_are_refused_as_dan(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(AbawError, match="does not hold DAN's weights"):
        load_classifier("other.pth", "", root=tmp_path)


# -- timm --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("file", ["faces.pth", "faces.safetensors"])
def test_a_timm_model_loads_by_name(tmp_path: Path, file: str) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=8).eval()
    if file.endswith("pth"):
        torch.save({"state_dict": {f"module.{n}": v for n, v in model.state_dict().items()}}, tmp_path / file)
    else:
        save_file(model.state_dict(), tmp_path / file)
    classifier = load_classifier(f"timm:resnet10t:{file}", "hsemotion8", root=tmp_path)
    assert classifier.image_size == 176  # of the model's own configuration
    assert classifier.labels == LABEL_SPACES["hsemotion8"].labels
    images = pictures(176, 1)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        assert torch.allclose(classifier(images), model((images - mean) / std), atol=1e-5)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "model.", "model.backbone."])
def test_a_compiled_or_lightning_saved_classifier_loads(tmp_path: Path, prefix: str) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=8).eval()
    weights = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 3, "callbacks": {}}, tmp_path / "faces.ckpt")
    classifier = load_classifier("timm:resnet10t:faces.ckpt", "hsemotion8", root=tmp_path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in classifier.network.state_dict().items())


def test_a_compiled_dan_loads(tmp_path: Path) -> None:
    model = Dan(8)
    torch.save(
        {"model": {f"_orig_mod.{name}": value for name, value in model.state_dict().items()}}, tmp_path / "d.pth"
    )
    found = load_classifier("d.pth", "", root=tmp_path).network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "content", [[1, 2], {"epoch": 3}, {"state_dict": {"lr": 0.1}}], ids=["list", "plain", "inside"]
)
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "faces.pth")
    with pytest.raises(AbawError, match="holds no named weights"):
        load_classifier("timm:resnet10t:faces.pth", "affectnet8", root=tmp_path)


def test_timm_weights_with_another_number_of_outputs_are_refused(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet10t", num_classes=7).state_dict(), tmp_path / "faces.pth")
    with pytest.raises(AbawError, match="has 7 outputs, the label space 8"):
        load_classifier("timm:resnet10t:faces.pth", "affectnet8", root=tmp_path)


@pytest.mark.parametrize("spec", ["timm:resnet10t", "timm::faces.pth"])
def test_a_timm_model_is_named_with_its_file(tmp_path: Path, spec: str) -> None:
    with pytest.raises(AbawError, match="lacks the model or the file"):
        load_classifier(spec, "affectnet8", root=tmp_path)


def test_an_unknown_timm_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "faces.pth").write_bytes(b"")
    with pytest.raises(AbawError, match='unknown timm model "resnet10x"'):
        load_classifier("timm:resnet10x:faces.pth", "affectnet8", root=tmp_path)


# -- ONNX --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", ["batch", 1, 2])
def test_an_onnx_graph_gives_its_logits_at_its_own_size(tmp_path: Path, batch: int | str) -> None:
    write_onnx(tmp_path / "faces.onnx", (batch, 3, 24, 24))
    classifier = load_classifier("faces.onnx", "affectnet8", root=tmp_path)
    assert classifier.image_size == 24
    flat = torch.tensor([0.2, 0.5, 0.9])[:, None, None, None].expand(3, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((torch.tensor([0.2, 0.5, 0.9])[:, None] - mean) / std).mean(1)
    assert torch.allclose(classifier(flat), expected[:, None] * torch.arange(8.0), atol=1e-4)
    assert torch.equal(deepcopy(classifier)(flat), classifier(flat))


@pytest.mark.parametrize(
    "shape", [("batch", 3, "side", "side"), (1, 24, 24, 3), (1, 3, 24, 32)], ids=["free", "channels last", "oblong"]
)
def test_an_onnx_graph_with_another_input_is_refused(tmp_path: Path, shape: Sequence[int | str]) -> None:
    write_onnx(tmp_path / "faces.onnx", shape)
    with pytest.raises(AbawError, match="faces.onnx takes picture tensor"):
        load_classifier("faces.onnx", "affectnet8", root=tmp_path)


def test_onnx_outputs_must_fit_the_label_space(tmp_path: Path) -> None:
    write_onnx(tmp_path / "faces.onnx")
    with pytest.raises(AbawError, match="has 8 outputs, the label space 7"):
        load_classifier("faces.onnx", "rafdb", root=tmp_path)
    with pytest.raises(AbawError, match="8 outputs and does not say"):
        load_classifier("faces.onnx", "", root=tmp_path)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "faces.onnx").write_bytes(b"no graph")
    with pytest.raises(AbawError, match="not an ONNX graph"):
        load_classifier("faces.onnx", "affectnet8", root=tmp_path)


# -- which one ---------------------------------------------------------------------------------------------------------
def test_missing_files_and_unknown_spaces_are_named(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="no classifier at"):
        load_classifier("nowhere.pth", "", root=tmp_path)
    with pytest.raises(AbawError, match="no frozen classifier is named"):
        load_classifier("", "", root=tmp_path)
    write_onnx(tmp_path / "faces.onnx")
    with pytest.raises(AbawError, match='unknown label space "affectnet9"'):
        load_classifier("faces.onnx", "affectnet9", root=tmp_path)


def test_another_file_than_the_recorded_one_is_refused() -> None:
    classifier = tiny_classifier()
    check_classifier(classifier, classifier.describe(), where="here")
    with pytest.raises(AbawError, match="not the classifier this model was trained with"):
        check_classifier(classifier, {**classifier.describe(), "sha256": "f" * 64}, where="here")
