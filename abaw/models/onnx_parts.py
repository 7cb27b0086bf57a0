"""Looking into an ONNX file: the feature under its last layer, its own normalisation, and files that it needs.

The one module that opens graphs with the package `onnx`; running them needs `onnxruntime` alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from abaw.errors import AbawError, ExitCode
from abaw.weights import known_sha256

_PASSES = ("Identity", "Flatten", "Reshape", "Squeeze", "Cast")  # what may lie between a layer and the output
_SQUASHES = ("Softmax", "Sigmoid")
_FIRST_NODES = 8  # where insightface's own router looks for a graph that starts with its normalisation


class Opened(NamedTuple):
    """A classifier's graph with its feature as a further output.

    `content`: the graph, serialised; `feature`, `scores`: names of the two outputs; `are_probabilities`: whether the
    graph ends in a softmax.
    """

    content: bytes
    feature: str
    scores: str
    are_probabilities: bool


def with_feature(path: Path, *, where: str) -> Opened:
    """Give a classifier's graph the input of its last linear layer as an output.

    Raises AbawError for a file that is no graph, and for a graph whose first output is no linear layer's.
    """
    import onnx

    model = _load(path, where)
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    scores, tensor = graph.output[0].name, graph.output[0].name
    are_probabilities = False
    while (node := made_by.get(tensor)) is not None and node.op_type in (*_PASSES, *_SQUASHES):
        are_probabilities |= node.op_type in _SQUASHES
        tensor = node.input[0]
    feature = _input_of_layer(made_by, tensor)
    if not feature:
        kind = f"by {node.op_type}" if node is not None else "by nothing"
        raise AbawError(
            f"{path.name} has no last linear layer: its first output is made {kind}",
            where=where,
            fix=f'give a published classifier, or take its first output as feature: encoder = "onnx:{path.name}"',
        )
    if feature not in [output.name for output in graph.output]:
        graph.output.append(onnx.helper.make_tensor_value_info(feature, onnx.TensorProto.FLOAT, None))
    return Opened(model.SerializeToString(), feature, scores, are_probabilities)


def normalises_itself(path: Path, *, where: str) -> bool:
    """Whether a recognition graph begins with its own subtraction and scaling, so that it wants pixels of 0..255.

    The rule is that of insightface's router: both operations among the first nodes.
    """
    kinds = {node.op_type for node in _load(path, where, with_tensors=False).graph.node[:_FIRST_NODES]}
    return "Sub" in kinds and bool(kinds & {"Mul", "Div"})


def graph_sha256(path: Path, *, where: str) -> str:
    """SHA-256 of a graph and its weights: of the file, or of its sum and those of the files that hold its tensors.

    Exporters write large weights beside the graph, whose own bytes then are the same whatever the weights.
    """
    tensors = _load(path, where, with_tensors=False).graph.initializer
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    beside = sorted({ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)})
    if not beside:
        return known_sha256(path)
    sums = [known_sha256(file) for file in (path, *(path.parent / name for name in beside))]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()


def _input_of_layer(made_by: dict[str, Any], tensor: str) -> str:
    """Name of what enters the linear layer that makes `tensor`; "" where no such layer does."""
    node = made_by.get(tensor)
    if node is None:
        return ""
    if node.op_type in ("Gemm", "MatMul"):
        return str(node.input[0])
    if node.op_type == "Add":
        products = [made_by[name] for name in node.input if name in made_by and made_by[name].op_type == "MatMul"]
        return str(products[0].input[0]) if len(products) == 1 else ""
    return ""


def _load(path: Path, where: str, *, with_tensors: bool = True) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise AbawError(
            f"{path.name} cannot be looked into without the package onnx ({error})",
            where=where,
            fix="pip install onnx",
            code=ExitCode.MISSING,
        ) from error
    try:
        model = onnx.load(str(path), load_external_data=with_tensors)
    except DecodeError as error:
        raise _no_graph(path, where) from error
    if not model.graph.output:  # what an empty file reads as
        raise _no_graph(path, where)
    return model


def _no_graph(path: Path, where: str) -> AbawError:
    return AbawError(
        f"{path.name} is not an ONNX graph", where=where, fix="download it again, or restore the file from a copy"
    )
