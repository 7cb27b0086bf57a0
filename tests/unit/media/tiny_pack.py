"""A model pack in the shape of insightface's, small enough to work out by hand.

Published packs may not be passed on. The detection model here has SCRFD's nine outputs: it sees a face wherever an
8 x 8 cell of the picture is red, with a box and landmarks at fixed distances from the cell's corner. The recognition
model gives the mean of each colour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BOX = (1, 2, 3, 4)  # left, top, right, bottom of the cell's corner, in cells of 8 pixels
POINTS = ((0, 0), (2, 0), (1, 1), (0, 2), (2, 2))  # from the corner, in cells
DIM = 512


def face_at(x: int, y: int) -> tuple[list[float], list[list[float]]]:
    """Box and landmarks that the model gives for a red cell with that corner."""
    left, top, right, bottom = (8 * distance for distance in BOX)
    return [x - left, y - top, x + right, y + bottom], [[x + 8 * dx, y + 8 * dy] for dx, dy in POINTS]


def write_pack(folder: Path, *, detection: bool = True, recognition: bool = True, max_width: int = 1 << 20) -> Path:
    """Fill a folder with the models; the detection model sees nothing in pictures wider than ``max_width``."""
    folder.mkdir(parents=True, exist_ok=True)
    if detection:
        onnx.save(_detection(max_width), folder / "det_tiny.onnx")
    if recognition:
        onnx.save(_recognition(), folder / "w_tiny.onnx")
    return folder


def _detection(max_width: int) -> onnx.ModelProto:
    red = np.float32([0.5, 0, -0.5]).reshape(1, 3, 1, 1)  # (red - blue) / 2: 1 of a red cell, 0 of a grey one
    constants = {
        "red": red,
        "flat": np.int64([-1, 1]),
        "pair": np.float32([[1, 0]]),  # of the two anchors in a cell, the first
        "zero": np.float32([0]),
        "box": np.float32([BOX]),
        "points": np.float32(POINTS).reshape(1, 10),
        "three": np.int64(3),
        "limit": np.int64(max_width),
    }
    nodes = [
        helper.make_node("Conv", ["picture", "red"], ["redness"]),
        helper.make_node("Shape", ["picture"], ["shape"]),
        helper.make_node("Gather", ["shape", "three"], ["width"]),
        helper.make_node("LessOrEqual", ["width", "limit"], ["narrow"]),
        helper.make_node("Cast", ["narrow"], ["sees"], to=TensorProto.FLOAT),
    ]
    for stride in (8, 16, 32):
        size = [stride, stride]
        nodes += [
            helper.make_node("AveragePool", ["redness"], [f"cells{stride}"], kernel_shape=size, strides=size),
            helper.make_node("Mul", [f"cells{stride}", "sees"], [f"seen{stride}"]),
            helper.make_node("Reshape", [f"seen{stride}", "flat"], [f"column{stride}"]),
            helper.make_node("MatMul", [f"column{stride}", "pair"], [f"anchors{stride}"]),
            helper.make_node("Reshape", [f"anchors{stride}", "flat"], [f"raw{stride}"]),
            helper.make_node("Mul", [f"raw{stride}", "zero"], [f"none{stride}"]),
            # Only the finest level scores.
            helper.make_node("Identity", [f"{'raw' if stride == 8 else 'none'}{stride}"], [f"score{stride}"]),
            helper.make_node("Add", [f"none{stride}", "box"], [f"box{stride}"]),
            helper.make_node("Add", [f"none{stride}", "points"], [f"points{stride}"]),
        ]
    outputs = [
        (f"{kind}{stride}", width)
        for kind, width in (("score", 1), ("box", 4), ("points", 10))
        for stride in (8, 16, 32)
    ]
    return _model(
        nodes,
        ["picture", 1, 3, "height", "width_"],
        [(name, ["n" + name, width]) for name, width in outputs],
        constants,
    )


def _recognition() -> onnx.ModelProto:
    constants = {"pad": np.eye(3, DIM, dtype=np.float32)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["crop"], ["means"]),
        helper.make_node("Flatten", ["means"], ["colours"]),
        helper.make_node("MatMul", ["colours", "pad"], ["vector"]),
    ]
    return _model(nodes, ["crop", "n", 3, 112, 112], [("vector", ["n", DIM])], constants)


def _model(nodes: list, picture: list, outputs: list, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    name, *shape = picture
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, size) for output, size in outputs],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model
