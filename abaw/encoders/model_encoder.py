"""A network and its normalisation as an encoder, on one device in one precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from abaw.encoders.faces import RANDOM, Faces, View, VisualEncoder, VisualOptions
from abaw.errors import AbawError, ExitCode
from abaw.models.classifier import FrozenClassifier
from abaw.models.pixels import BICUBIC
from abaw.provenance import undeclared_record, unknown_recipe
from abaw.weights import known_sha256

# A CPU gains nothing from more faces at once than this, and they take memory; small ones may come all together.
CPU_PART, SMALL = 16, 128

Build = Callable[[VisualOptions], VisualEncoder]


@dataclass(frozen=True)
class Network:
    """What runs.

    `columns`: normalised images [N, 3, S, S], a tensor for each view -> columns [N, dim], scores behind the feature;
    `module`: what holds its weights; `scores`: names of the score columns; `has_bf16`: False for what runs in float32
    alone; `on_cpu`: it takes its images in the CPU's memory, wherever it runs.
    """

    columns: Callable[..., Tensor]
    module: nn.Module
    dim: int
    image_size: int
    normalisation: Mapping[str, Sequence[float]]
    scores: tuple[str, ...] = ()
    has_bf16: bool = True
    on_cpu: bool = False


@dataclass(frozen=True)
class Source:
    """Where weights come from: ``sha256`` of the file; the rest as in `VisualEncoder`."""

    sha256: str
    recipe: dict[str, Any]
    trained_on: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


def foreign_source(path: Path, options: VisualOptions, notes: tuple[str, ...] = (), *, sha256: str = "") -> Source:
    """Provenance of another program's weights: alignment unknown, labels as declared. `sha256`: "" = the file's own."""
    sha256 = sha256 or known_sha256(path)
    return Source(sha256, unknown_recipe(), [undeclared_record(sha256, options.trained_on)], notes)


def random_source(shape: str) -> Source:
    """Provenance of random weights, which have seen nothing."""
    return Source(f"{RANDOM}:{shape}", unknown_recipe(), [])


@contextmanager
def random_weights() -> Iterator[None]:
    """Weights that are drawn in here are the same each time, and torch's generator stays where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class ModelEncoder:
    """An encoder that runs a network.

    `settings`: what an encoder of this kind records besides the usual; `build`: makes the encoder from options, for
    its twin in float32; `view`: makes the auxiliary view of a model that takes one.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        source: Source,
        *,
        options: VisualOptions,
        build: Build,
        settings: Mapping[str, Any],
        view: View | None = None,
    ) -> None:
        self.name, self.dim, self.image_size = name, network.dim, network.image_size
        self.recipe, self.trained_on, self.notes = source.recipe, source.trained_on, source.notes
        self.precision = _precision(name, network, options)
        normalisation = {key: list(network.normalisation[key]) for key in ("mean", "std")}
        self.settings: dict[str, Any] = {
            "encoder": name,
            "weights": source.sha256,
            "precision": self.precision,
            "resize": BICUBIC,
            "image_size": self.image_size,
            "normalisation": normalisation,
            **settings,
        }
        if options.flip:
            self.settings["flip"] = True
        if network.scores:
            self.settings["scores"] = list(network.scores)
        self._options, self._build, self._view, self._flip = options, build, view, options.flip
        self._device = torch.device("cpu" if network.on_cpu else options.device)
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        network.module.to(self._device).eval().requires_grad_(False)
        if self._dtype is torch.bfloat16:
            lower(network.module)
        self._columns = network.columns
        constants = (normalisation["mean"], normalisation["std"])
        self._mean, self._std = (255 * torch.tensor(c, device=self._device)[None, :, None, None] for c in constants)

    @torch.inference_mode()
    def encode(self, faces: Faces) -> np.ndarray:
        if not len(faces.images):
            return np.zeros((0, self.dim), np.float32)
        count = len(faces.images)
        if self._device.type != "cpu" or self.image_size <= SMALL or count <= CPU_PART:
            return self._encode(faces)
        # All parts have one shape, the last one filled up: a row's numbers do not depend on its place.
        places = [np.minimum(np.arange(k, k + CPU_PART), count - 1) for k in range(0, count, CPU_PART)]
        found = [self._encode(Faces(*(part[own] for part in faces))) for own in places]
        return np.concatenate(found)[:count]

    def _encode(self, faces: Faces) -> np.ndarray:
        inputs = [self._normalised(faces.images)]
        if self._view is not None:
            inputs.append(self._normalised(self._view(faces.images, faces.landmarks)))
        columns = self._columns(*inputs).float()
        if self._flip:
            columns = (columns + self._columns(*(images.flip(3) for images in inputs)).float()) / 2
        return columns.cpu().numpy()

    def exact(self) -> VisualEncoder:
        return self if self.precision == "fp32" else self._build(replace(self._options, precision="fp32"))

    def _normalised(self, images: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
        # Reordered first and changed in place: a third of the time of what reads more naturally.
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.sub_(self._mean).div_(self._std).to(self._dtype)


def lower(module: nn.Module) -> None:
    """Turn a model's weights into bfloat16, and leave frozen classifiers inside it as they are."""
    children = [(parent, name, child) for parent in module.modules() for name, child in parent.named_children()]
    frozen = [entry for entry in children if isinstance(entry[2], FrozenClassifier)]
    for parent, name, _ in frozen:
        setattr(parent, name, None)
    module.bfloat16()
    for parent, name, child in frozen:
        setattr(parent, name, child)


def _precision(name: str, network: Network, options: VisualOptions) -> str:
    if options.precision != "bf16" or network.has_bf16:
        return options.precision
    if options.auto_precision:
        return "fp32"
    raise AbawError(
        f'precision = "bf16" cannot be used with these weights of encoder "{name}": ONNX graphs run in float32',
        where="encoders.<name>.precision",
        fix='leave it out, or use precision = "fp32"',
        code=ExitCode.CONFIG,
    )
