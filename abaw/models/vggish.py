"""VGGish (arXiv 1609.09430) under the parameter names of its PyTorch port, and its front end.

The constants of the front end are those of the authors' AudioSet code: magnitudes of 25-ms windows every 10 ms, 64 mel
bands, logarithm; an example is 96 such frames. Embeddings go through a last ReLU, as in the port.

Shapes: ``F`` frames of 10 ms, ``B`` examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from abaw.errors import AbawError
from abaw.models.layouts import unwrap
from abaw.models.weight_files import read_weight_file

SAMPLE_RATE = 16000
HOP = 160  # samples between frames
WINDOW = 400  # samples of a frame
FFT = 512
NUM_BANDS = 64
NUM_FRAMES = 96  # frames of an example
MEL_RANGE_HZ = (125.0, 7500.0)
LOG_OFFSET = 0.01
WIDTH = 128
PCA_RANGE = (-2.0, 2.0)
PCA_NAMES = ("pca_eigen_vectors", "pca_means")

_CHANNELS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")
_PIXELS = (NUM_FRAMES // 16) * (NUM_BANDS // 16)


class Vggish(nn.Module):
    """Examples [B, 96, 64] of log mel frames -> embeddings [B, 128], none of them negative."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in _CHANNELS:
            if isinstance(outputs, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(inputs * _PIXELS, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, WIDTH)
        )

    def forward(self, examples: Tensor) -> Tensor:
        maps = self.features(examples[:, None])  # [B, 512, 6, 4]
        flat = maps.permute(0, 2, 3, 1).flatten(1)  # channels last, as the weights were trained
        return self.embeddings(flat).relu()


def log_mel(samples: Tensor) -> Tensor:
    """float32 samples at 16 kHz, ``[..., S]`` -> float32 ``[..., F, 64]``; frame f covers 400 samples from 160 f on.

    Computed in float64, as the authors' code does: beside loud bands a quiet one is below float32's noise.
    """
    frames = samples.double().unfold(-1, WINDOW, HOP) * torch.hann_window(WINDOW, dtype=torch.float64)
    magnitudes = torch.fft.rfft(frames, FFT).abs()
    return (magnitudes @ mel_weights() + LOG_OFFSET).log().float()


@cache
def mel_weights() -> Tensor:
    """float64 ``[257, 64]``: triangles that are straight in mel (not in Hz), each with a peak of 1; nothing of DC.

    mel = 1127 ln(1 + Hz / 700).
    """
    mel = 1127 * np.log1p(np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1) / 700)[:, None]
    low, high = (1127 * np.log1p(edge / 700) for edge in MEL_RANGE_HZ)
    edges = np.linspace(low, high, NUM_BANDS + 2)
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    weights = np.clip(np.minimum(rising, falling), 0, None)
    weights[0] = 0
    return torch.from_numpy(weights)


def quantise(embeddings: Tensor, vectors: Tensor, means: Tensor) -> Tensor:
    """Embeddings ``[B, 128]`` as AudioSet publishes them: whitened, clipped to [-2, 2], in 256 steps from 0 to 255."""
    low, high = PCA_RANGE
    whitened = (embeddings - means) @ vectors.T
    return ((whitened.clamp(low, high) - low) * (255 / (high - low))).round()


def read_vggish(path: Path) -> Vggish:
    """The network with a file's weights. Raises AbawError for a file that cannot be read or is of another network."""
    tensors = unwrap(read_weight_file(path).content, path=path).tensors
    weights = {name: value.float() for name, value in tensors.items() if not name.startswith("pproc.")}
    model = _empty()
    _refuse_others(path, weights, {name: tuple(value.shape) for name, value in model.state_dict().items()})
    return _filled(model, weights)


def read_pca(path: Path) -> tuple[Tensor, Tensor]:
    """Eigenvectors ``[128, 128]``, one a row, and means ``[128]``. Raises AbawError for a file without them."""
    tensors = unwrap(read_weight_file(path).content, path=path).tensors
    found = {name: tensors[name].float() for name in PCA_NAMES if name in tensors}
    if PCA_NAMES[1] in found:  # published as a column
        found[PCA_NAMES[1]] = found[PCA_NAMES[1]].flatten()
    _refuse_others(path, found, {PCA_NAMES[0]: (WIDTH, WIDTH), PCA_NAMES[1]: (WIDTH,)})
    return found[PCA_NAMES[0]], found[PCA_NAMES[1]]


def random_vggish() -> Vggish:
    """The network with the same random weights each time, which keep the size of what passes through (He et al.)."""
    generator = torch.Generator().manual_seed(0)
    model = _empty()
    weights = {name: torch.zeros(value.shape) for name, value in model.state_dict().items()}
    for value in weights.values():
        if value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    return _filled(model, weights)


def _empty() -> Vggish:
    with torch.device("meta"):
        return Vggish()


def _filled(model: Vggish, weights: Mapping[str, Tensor]) -> Vggish:
    # Kernels with their channels last: a quarter faster in float32 on a CPU, twice as fast in bfloat16.
    orders = {4: torch.channels_last}
    ready = {
        name: value.contiguous(memory_format=orders.get(value.ndim, torch.contiguous_format))
        for name, value in weights.items()
    }
    model.load_state_dict(ready, assign=True)
    return model.eval().requires_grad_(False)


def _refuse_others(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in wanted if name not in found]
    others = [name for name in found if name not in wanted]
    shapes = [
        f"{name} is {list(found[name].shape)} and not {list(shape)}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    reasons = [f"it lacks {_some(missing)}"] if missing else []
    reasons += [f"it also holds {_some(others)}"] if others else []
    reasons += [_some(shapes)] if shapes else []
    if reasons:
        raise AbawError(
            f"{path.name} is not VGGish: {'; '.join(reasons)}",
            where=str(path),
            fix=f"give the published file; `abaw inspect {path}` shows what this one holds",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
