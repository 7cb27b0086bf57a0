"""An ONNX graph as a network: normalised images in, logits out, run by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from abaw.errors import AbawError, ExitCode


class OnnxNetwork(nn.Module):
    """The graph's first output for images [B, 3, S, S]; `image_size` and `num_outputs` are read from the graph.

    A graph with a fixed batch is run in pieces of that size, the last one padded. Gradients do not pass.
    """

    def __init__(self, path: Path, *, where: str) -> None:
        super().__init__()
        self._session = _open(path, where)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape, out = inputs[0].shape, outputs[0].shape
        square = len(shape) == 4 and shape[1] == 3 and isinstance(shape[2], int) and shape[2] == shape[3]
        if len(inputs) != 1 or not square or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{value.name} {value.type} {value.shape}" for value in inputs)
            raise _unfit(path, where, f"takes {found}", "one float input [batch, 3, S, S] of a fixed side S")
        if len(out) != 2 or not isinstance(out[1], int):
            raise _unfit(path, where, f"gives {outputs[0].name} {out}", "logits [batch, classes] as its first output")
        self._input, self._output = inputs[0].name, outputs[0].name
        self.image_size, self.num_outputs = int(shape[2]), int(out[1])
        self._batch = shape[0] if isinstance(shape[0], int) else 0

    def forward(self, images: Tensor) -> Tensor:
        values = np.ascontiguousarray(images.detach().cpu().numpy(), np.float32)
        return torch.from_numpy(self._run(values)).to(images.device)

    def _run(self, values: np.ndarray) -> np.ndarray:
        size = self._batch or max(1, len(values))
        found = [np.zeros((0, self.num_outputs), np.float32)]
        for start in range(0, len(values), size):
            part = values[start : start + size]
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            found.append(self._session.run([self._output], {self._input: padded})[0][: len(part)])
        return np.concatenate(found)

    def __deepcopy__(self, _memo: dict[int, Any]) -> OnnxNetwork:
        return self  # a session holds no state that changes, and cannot be copied


def _open(path: Path, where: str) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    failures = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NotImplemented)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except failures as error:
        raise AbawError(
            f"{path.name} is not an ONNX graph that onnxruntime can run ({str(error).splitlines()[0]})",
            where=where,
            fix="export it again, or restore the file from a copy",
            code=ExitCode.DATA,
        ) from error


def _unfit(path: Path, where: str, found: str, wanted: str) -> AbawError:
    return AbawError(
        f"{path.name} {found}",
        where=where,
        fix=f"export the classifier with {wanted}",
        code=ExitCode.DATA,
    )
