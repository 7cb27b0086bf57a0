"""MTCNN (Zhang, Zhang, Li, Qiao 2016, arXiv:1604.02878) in PyTorch on the weights inside the `mtcnn` package.

Owns the three networks, full detection over an image pyramid, and the cheap second look at known boxes that
following needs. The package itself (which needs TensorFlow) is never imported, only its weight files are read.
Knows nothing of videos or time.

Shapes: ``N`` boxes, ``B`` batch; images RGB uint8 ``[H, W, 3]``, boxes float32 x0 y0 x1 y1 in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from abaw.media.boxes import clean_boxes, suppress
from abaw.media.mtcnn_weights import MAX_PROPOSALS, PYRAMID_FACTOR, THRESHOLDS, weight_files

CELL, STRIDE = 12, 2  # field of view and step of the proposal network
CHANNELS_LAST = torch.channels_last


class MtcnnFaces(NamedTuple):
    """``boxes`` float32 [N, 4], ``landmarks`` float32 [N, 5, 2], ``scores`` float32 [N], best score first."""

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray


class _Net(nn.Module):
    """A trunk and linear ends; ``ends`` is the number of outputs of each, class scores last."""

    def __init__(self, trunk: nn.Sequential, ends: nn.ModuleList) -> None:
        super().__init__()
        self.trunk = trunk
        self.ends = ends

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.trunk(images)
        outputs = [end(features) for end in self.ends]
        return [*outputs[:-1], outputs[-1].softmax(dim=1)]


class _ColumnsFirst(nn.Module):
    """Flatten as the published weights expect: columns, then rows, then channels."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 2, 1).flatten(1)


def _conv(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size), nn.PReLU(outputs)]


def _pool(size: int) -> nn.Module:
    return nn.MaxPool2d(size, 2, ceil_mode=True)


def _proposal_net() -> _Net:
    trunk = nn.Sequential(*_conv(3, 10, 3), _pool(2), *_conv(10, 16, 3), *_conv(16, 32, 3))
    return _Net(trunk, nn.ModuleList([nn.Conv2d(32, 4, 1), nn.Conv2d(32, 2, 1)]))


def _refinement_net() -> _Net:
    convolutions = [*_conv(3, 28, 3), _pool(3), *_conv(28, 48, 3), _pool(3), *_conv(48, 64, 2)]
    trunk = nn.Sequential(*convolutions, _ColumnsFirst(), nn.Linear(576, 128), nn.PReLU(128))
    return _Net(trunk, nn.ModuleList([nn.Linear(128, 4), nn.Linear(128, 2)]))


def _output_net() -> _Net:
    first = [*_conv(3, 32, 3), _pool(3), *_conv(32, 64, 3), _pool(3)]
    second = [*_conv(64, 64, 3), _pool(2), *_conv(64, 128, 2)]
    trunk = nn.Sequential(*first, *second, _ColumnsFirst(), nn.Linear(1152, 256), nn.PReLU(256))
    return _Net(trunk, nn.ModuleList([nn.Linear(256, 4), nn.Linear(256, 10), nn.Linear(256, 2)]))


def _load(net: _Net, file: Path) -> _Net:
    import joblib

    state = list(net.state_dict())
    arrays = joblib.load(file)
    if len(arrays) != len(state):
        message = f"{file} holds {len(arrays)} arrays, expected {len(state)}"
        raise ValueError(message)
    net.load_state_dict({name: _as_torch(array) for name, array in zip(state, arrays, strict=True)})
    return net.eval()


def _as_torch(array: np.ndarray) -> Tensor:
    """Kernels HWIO -> OIHW, dense weights transposed, PReLU slopes flattened."""
    if array.ndim == 4:
        return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1)))
    if array.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(array.T))
    return torch.from_numpy(array.reshape(-1).copy())


class Mtcnn:
    """The three networks on one device.

    ``min_face_px`` is the smallest side of a face looked for, in pixels of the image given.
    """

    def __init__(self, *, device: str = "cpu", min_face_px: float = 30.0) -> None:
        files = weight_files()
        self.device = torch.device(device)
        self.min_face_px = float(min_face_px)
        nets = (_proposal_net(), _refinement_net(), _output_net())
        # Colour last in memory, as pictures are: pooling and convolution run twice as fast on a CPU.
        layout: dict[str, Any] = {"device": self.device, "memory_format": CHANNELS_LAST}
        loaded = [_load(net, file).to(**layout) for net, file in zip(nets, files, strict=True)]
        self._propose, self._refine, self._output = loaded

    @torch.inference_mode()
    def detect(self, image: np.ndarray) -> MtcnnFaces:
        """All faces of one image, from scratch."""
        boxes = self._proposals(image)
        boxes = self._refined(image, boxes, threshold=THRESHOLDS[1])
        return self._faces(image, boxes, threshold=THRESHOLDS[2])

    @torch.inference_mode()
    def look_at(self, image: np.ndarray, boxes: np.ndarray, *, threshold: float) -> list[MtcnnFaces]:
        """One result (with 0 or 1 face) for each given box: refinement and output networks only."""
        squares = square(boxes)
        adjust, _ = self._run(self._refine, image, squares, 24)
        squares = square(clean_boxes(_moved(squares, adjust), squares))
        adjust, points, scores = self._run(self._output, image, squares, 48)
        landmarks = _placed(squares, points)
        moved = _moved(squares, adjust)
        found = scores[:, 1] >= threshold
        return [
            MtcnnFaces(moved[keep], landmarks[keep], scores[keep, 1])
            for keep in (slice(i, i + bool(found[i])) for i in range(len(boxes)))
        ]

    def _proposals(self, image: np.ndarray) -> np.ndarray:
        found = []
        scale = CELL / self.min_face_px
        height, width = image.shape[:2]
        while min(height, width) * scale >= CELL:
            size = (max(CELL, round(width * scale)), max(CELL, round(height * scale)))
            level = self._to_input(cv2.resize(image, size, interpolation=cv2.INTER_AREA)[None])
            adjust, scores = (output[0].cpu().numpy() for output in self._propose(level))
            found.append(_cells(adjust, scores[1], width / size[0], height / size[1]))
            scale *= PYRAMID_FACTOR
        if not found:
            return np.zeros((0, 4), dtype=np.float32)
        boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return boxes[suppress(boxes, scores, 0.7)[:MAX_PROPOSALS]]

    def _refined(self, image: np.ndarray, boxes: np.ndarray, *, threshold: float) -> np.ndarray:
        squares = square(boxes)
        if len(squares) == 0:
            return squares
        adjust, scores = self._run(self._refine, image, squares, 24)
        keep = scores[:, 1] >= threshold
        boxes, scores = _moved(squares[keep], adjust[keep]), scores[keep, 1]
        return boxes[suppress(boxes, scores, 0.7)]

    def _faces(self, image: np.ndarray, boxes: np.ndarray, *, threshold: float) -> MtcnnFaces:
        squares = square(boxes)
        if len(squares) == 0:
            return MtcnnFaces(squares, np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))
        adjust, points, scores = self._run(self._output, image, squares, 48)
        keep = scores[:, 1] >= threshold
        boxes, landmarks = _moved(squares[keep], adjust[keep]), _placed(squares[keep], points[keep])
        scores = scores[keep, 1]
        best = suppress(boxes, scores, 0.7, of_smaller=True)
        return MtcnnFaces(boxes[best], landmarks[best], scores[best])

    def _run(self, net: _Net, image: np.ndarray, squares: np.ndarray, size: int) -> list[np.ndarray]:
        patches = np.stack([_patch(image, box, size) for box in squares])  # [N, size, size, 3]
        return [output.cpu().numpy() for output in net(self._to_input(patches))]

    def _to_input(self, images: np.ndarray) -> Tensor:
        """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] scaled as in training: (x - 127.5) / 128.

        Memory stays colour last: the permuted view is what the networks' layout asks for, without a copy.
        """
        pixels = images.astype(np.float32)
        pixels -= np.float32(127.5)
        pixels *= np.float32(0.0078125)
        return torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)


def square(boxes: np.ndarray) -> np.ndarray:
    """Boxes with the same centres and both sides as long as the longer one."""
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = np.max(boxes[:, 2:] - boxes[:, :2], axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _cells(adjust: np.ndarray, scores: np.ndarray, sx: float, sy: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the proposal network's cells above threshold, in pixels of the whole image; own suppression."""
    rows, cols = np.nonzero(scores >= THRESHOLDS[0])
    corner = np.stack([cols, rows], axis=1).astype(np.float32) * STRIDE  # [N, 2]
    boxes = np.concatenate([corner * (sx, sy), (corner + CELL) * (sx, sy)], axis=1).astype(np.float32)
    kept = suppress(boxes, scores[rows, cols], 0.5)
    boxes = _moved(boxes[kept], adjust[:, rows[kept], cols[kept]].T)
    return boxes, scores[rows, cols][kept]


def _moved(boxes: np.ndarray, adjust: np.ndarray) -> np.ndarray:
    """Corners shifted by the networks' offsets, which count in box sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (boxes + adjust * np.concatenate([sides, sides], axis=1)).astype(np.float32)


def _placed(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Landmarks [N, 5, 2] from the output network's five x and five y, which count in box sides."""
    points = points.reshape(-1, 2, 5).transpose(0, 2, 1)
    return (boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]).astype(np.float32)


def _patch(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The part of the image under a box, zeros outside the image, resized to a square of ``size`` pixels."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in np.rint(box))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    inside = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    if inside.size == 0:
        return np.zeros((size, size, 3), dtype=np.uint8)
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        edges = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
        inside = cv2.copyMakeBorder(inside, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA)
