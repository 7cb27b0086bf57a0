"""Small weights files of every visual encoder, in the layouts that are published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from abaw.checkpoint import save_checkpoint
from abaw.encoders.visual import Faces
from abaw.models.dan import Dan
from abaw.models.iresnet import DEPTHS, IResNet
from abaw.models.mae import MaskedAutoencoder
from abaw.models.network_files import timm_library
from abaw.models.systems import SYSTEMS, ModelOptions, architecture
from abaw.models.vit import VitPreset
from abaw.provenance import unknown_recipe
from abaw.tasks import TASKS
from tests.unit.foreign_weights import random_weights

TINY = VitPreset(32, 8, 32, 2, 2, "conv", 16, 1, 2)
PIXELS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}


def faces(count: int, size: int, seed: int = 4) -> Faces:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Faces(images, rng.random((count, 5, 2), np.float32), rng.random((count, 4), np.float32))


def header(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "architecture": {"preset": "tiny", **TINY.to_dict()},
        "pooling": "cls",
        "normalisation": PIXELS,
        "recipe": unknown_recipe(),
        "trained_on": [{"dataset": "d"}],
        **more,
    }


def write_mae(path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(path, MaskedAutoencoder(TINY).state_dict(), header("mae"))
    return path


def write_run(path: Path, kind: str, task: str, *, classifier: dict[str, Any] | None = None) -> torch.nn.Module:
    """A finetuned model of a kind with weights of which none is at its start."""
    options = ModelOptions(num_scores=8)
    model = SYSTEMS[kind].build(TINY, TASKS[task], options)
    model.load_state_dict(random_weights(model))
    shape = architecture(kind, TINY, options)
    if kind == "emma":
        shape["options"]["classifier"] = classifier or {"labels": list("abcdefgh")}
    order = {head.name: list(head.labels) for head in TASKS[task].heads}
    pooling = "mean" if kind in ("static", "emae") else "cls"
    save_checkpoint(
        path, model.state_dict(), header(kind, architecture=shape, pooling=pooling, task=task, label_order=order)
    )
    return model.eval()


def write_dan(path: Path, classes: int = 8) -> Dan:
    torch.manual_seed(0)
    model = Dan(classes).eval()
    torch.save({"iter": 5, "model_state_dict": model.state_dict(), "optimizer_state_dict": {}}, path)
    return model


def write_iresnet(path: Path, depth: str = "r18") -> IResNet:
    """As arcface_torch saves its backbones: names and tensors, and nothing around them; norms have seen something."""
    torch.manual_seed(0)
    model = IResNet(DEPTHS[depth]).eval()
    with torch.no_grad():
        for name, values in model.state_dict().items():
            if name.endswith(("running_mean", "bn1.bias", "features.bias")):
                values.normal_(0, 0.1)
            elif name.endswith("running_var"):
                values.uniform_(0.5, 2)
    torch.save(model.state_dict(), path)
    return model


def write_timm(path: Path, model: str, classes: int = 8) -> torch.nn.Module:
    torch.manual_seed(0)
    network = timm_library(model, where="test").create_model(model, num_classes=classes).eval()
    save_file(network.state_dict(), path)
    return network


def write_classifier(
    path: Path,
    outputs: int = 8,
    *,
    size: int = 224,
    layer: str = "Gemm",
    end: str = "",
    shape: Sequence[int | str] | None = None,
) -> np.ndarray:
    """A graph whose feature is the mean of red, green and blue; gives the matrix [outputs, 3] of its last layer.

    `layer`: "Gemm", or "MatMul" with an addition after it; `end`: an operation after the layer, such as "Softmax".
    """
    shape = shape or ("batch", 3, size, size)
    channels_last = shape[-1] == 3
    matrix = np.random.default_rng(outputs).normal(size=(outputs, 3)).astype(np.float32)
    bias = np.linspace(-1, 1, outputs, dtype=np.float32)
    axes = [1, 2] if channels_last else [2, 3]
    nodes = [helper.make_node("ReduceMean", ["input"], ["feature"], axes=axes, keepdims=0)]
    last = "layer" if end else "output"
    if layer == "Gemm":
        nodes.append(helper.make_node("Gemm", ["feature", "matrix", "bias"], [last], transB=1))
    else:
        nodes += [
            helper.make_node("MatMul", ["feature", "matrix"], ["product"]),
            helper.make_node("Add", ["product", "bias"], [last]),
        ]
    if end:
        nodes.append(helper.make_node(end, [last], ["output"]))
    constants = {"matrix": matrix if layer == "Gemm" else np.ascontiguousarray(matrix.T), "bias": bias}
    write_graph(path, nodes, constants, shape, (shape[0], outputs))
    return np.concatenate([matrix, bias[:, None]], axis=1)


def write_graph(
    path: Path,
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    shape: Sequence[int | str],
    out: Sequence[int | str],
) -> Path:
    """A graph from "input" to "output"."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def write_means(path: Path, shape: Sequence[int | str] = ("batch", 3, 24, 24)) -> Path:
    """A graph whose output is the mean of each channel."""
    axes = [1, 2] if shape[-1] == 3 else [2, 3]
    node = helper.make_node("ReduceMean", ["input"], ["output"], axes=axes, keepdims=0)
    return write_graph(path, [node], {}, shape, (shape[0], 3))
