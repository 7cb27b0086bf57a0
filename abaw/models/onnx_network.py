"""ONNX graphs as networks: normalised images in, features or logits out, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from abaw.errors import AbawError, ExitCode


class OnnxGraph:
    """An open graph with one float input of images.

    `providers`: where it runs, in onnxruntime's names. A graph with a fixed batch is run in pieces of that size, the
    last one padded.
    """

    def __init__(self, path: Path, *, where: str, content: bytes = b"", device: str = "cpu") -> None:
        """`content`: the graph to run in place of the file's own; `device`: a CUDA one counts where it is offered."""
        self.path, self.where = path, where
        self._session = _open(path, where, content or str(path), device)
        self.providers = tuple(self._session.get_providers())
        inputs, self._outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            raise self.unfit_input()
        self.input_shape = list(inputs[0].shape)  # numbers, or names of free dimensions
        self._batch = self.input_shape[0] if isinstance(self.input_shape[0], int) else 0

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs in order."""
        return [value.name for value in self._outputs]

    def output_shape(self, place: int = 0) -> list[Any]:
        """Declared shape of an output, numbers or names of free dimensions."""
        return list(self._outputs[place].shape)

    def run(self, values: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """The named outputs for at least one image, float32 of the input's shape."""
        size = self._batch or len(values)
        found: list[list[np.ndarray]] = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            results = self._session.run(list(outputs), {self._session.get_inputs()[0].name: padded})
            found.append([result[: len(part)] for result in results])
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def unfit_input(self, wanted: str = "one float input [batch, 3, S, S] of a fixed side S") -> AbawError:
        """What to say of a graph that takes something else than `wanted`."""
        found = ", ".join(f"{value.name} {value.type} {value.shape}" for value in self._session.get_inputs())
        return self.unfit(f"takes {found}", wanted)

    def unfit(self, found: str, wanted: str) -> AbawError:
        """What to say of a graph that does `found` instead of `wanted`."""
        return AbawError(
            f"{self.path.name} {found}",
            where=self.where,
            fix=f"export the network with {wanted}",
            code=ExitCode.DATA,
        )

    def __deepcopy__(self, _memo: dict[int, Any]) -> OnnxGraph:
        return self  # a session holds no state that changes, and cannot be copied


class OnnxNetwork(nn.Module):
    """The graph's first output, logits, for images [B, 3, S, S]; runs on the CPU.

    `image_size` and `num_outputs` are read from the graph. Gradients do not pass.
    """

    def __init__(self, path: Path, *, where: str) -> None:
        super().__init__()
        self._graph = graph = OnnxGraph(path, where=where)
        shape, out = graph.input_shape, graph.output_shape()
        if shape[1] != 3 or not isinstance(shape[2], int) or shape[2] != shape[3]:
            raise graph.unfit_input()
        if len(out) != 2 or not isinstance(out[1], int):
            found = f"gives {graph.output_names[0]} {out}"
            raise graph.unfit(found, "logits [batch, classes] as its first output")
        self.image_size, self.num_outputs = int(shape[2]), int(out[1])

    def forward(self, images: Tensor) -> Tensor:
        values = np.ascontiguousarray(images.detach().cpu().numpy(), np.float32)
        if not len(values):
            return torch.zeros(0, self.num_outputs, device=images.device)
        return torch.from_numpy(self._graph.run(values, self._graph.output_names[:1])[0]).to(images.device)


class OnnxFeatures(nn.Module):
    """Some outputs of a graph side by side, float32 [B, sum of `widths`], for images [B, 3, S, S].

    The graph may want its channels last. `image_size`: the side it was made for, where the graph leaves it free (0 =
    refuse such a graph). A graph that takes another size is refused, as is an output that is no vector per image.
    """

    def __init__(self, graph: OnnxGraph, outputs: Sequence[str] = (), *, image_size: int = 0) -> None:
        super().__init__()
        self._graph, self._names = graph, list(outputs) or graph.output_names[:1]
        shape = graph.input_shape
        self._channels_last = shape[3] == 3 and shape[1] != 3
        sides = shape[1:3] if self._channels_last else shape[2:]
        if not (self._channels_last or shape[1] == 3) or {type(side) for side in sides} not in ({int}, {str}):
            raise graph.unfit_input()
        free = isinstance(sides[0], str)
        if sides[0] != sides[1] and not free or free and not image_size:
            raise graph.unfit_input()
        self.image_size = image_size if free else int(sides[0])
        if image_size and self.image_size != image_size:
            raise graph.unfit_input(f"images of {image_size} pixels, as its name says")
        probe = self._run(np.zeros((1, 3, self.image_size, self.image_size), np.float32))
        for name, values in zip(self._names, probe, strict=True):
            if values.ndim < 2 or values.size != values.shape[1]:
                raise graph.unfit(f"gives {name} {list(values.shape)}", "one vector per image as its first output")
        self.widths = tuple(int(values.shape[1]) for values in probe)

    def forward(self, images: Tensor) -> Tensor:
        values = np.ascontiguousarray(images.detach().cpu().numpy(), np.float32)
        parts = [part.reshape(len(values), -1) for part in self._run(values)]
        return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))

    def _run(self, values: np.ndarray) -> list[np.ndarray]:
        values = np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if self._channels_last else values
        return self._graph.run(values, self._names)


def _open(path: Path, where: str, source: str | bytes, device: str) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    kind, _, number = device.partition(":")
    providers: list[Any] = ["CPUExecutionProvider"]
    if kind == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        # float32 is to be float32, and the same convolution to be taken each time
        told = {"device_id": int(number or 0), "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
        providers.insert(0, ("CUDAExecutionProvider", told))
    failures = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NotImplemented)
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers)
    except failures as error:
        raise AbawError(
            f"{path.name} is not an ONNX graph that onnxruntime can run ({str(error).splitlines()[0]})",
            where=where,
            fix="export it again, or restore the file from a copy",
            code=ExitCode.DATA,
        ) from error
