"""What every visual encoder takes, offers, and may be told.

Shapes: ``N`` faces, ``S`` the encoder's image size in pixels, ``D`` feature dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

RANDOM = "random"
View = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (images, landmarks) -> images


class Faces(NamedTuple):
    """Faces of some rows.

    `images` RGB uint8 [N, S, S, 3]; `landmarks` float32 [N, 5, 2] and `box` float32 [N, 4] in units of the crop's
    side, from its top left corner.
    """

    images: np.ndarray
    landmarks: np.ndarray
    box: np.ndarray


@dataclass(frozen=True)
class VisualOptions:
    """What a visual encoder may be told.

    `weights`: file or folder, relative ones from `root` on; "random", where the encoder allows it; "" = the published
    files of the encoder, looked for in `weights_dir` (None = `abaw.weights.DEFAULT_FOLDER`) and in torch's hub cache.
    `preset`: shape of a model with random weights; `pooling`: "auto", "mean" or "cls"; `scores`: class scores as
    further columns; `labels`: label space of the scores, for files that do not say; `flip`: the mean of the face's and
    its mirror image's feature; `mean`, `std`: pixel constants in 0..1, () = the encoder's own; `color`: "rgb" or "bgr",
    as an ONNX graph wants it; `device`: resolved name; `precision`: "fp32" or "bf16"; `auto_precision`: nobody asked
    for that one, so that an encoder without bf16 may take fp32; `trained_on`: as in `provenance.undeclared_record`;
    `make_view`: `data.views.auxiliary_view`, for models that take one.
    """

    weights: str = ""
    preset: str = "vit_tiny_64"
    pooling: str = "auto"
    scores: bool = False
    labels: str = ""
    flip: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    color: str = "rgb"
    device: str = "cpu"
    precision: str = "fp32"
    auto_precision: bool = False
    trained_on: tuple[str, ...] = ()
    make_view: Callable[..., np.ndarray] | None = None
    weights_dir: Path | None = None
    root: Path = Path()


class VisualEncoder(Protocol):
    """Faces -> float32 [N, dim]; a row depends on its own face alone.

    `image_size` in pixels, 0 where no image is needed. `settings` is everything that changes the output, plain values;
    `recipe` and `trained_on` are those of the weights; `precision`: "fp32" or "bf16", as it runs; `notes`: what was
    taken from elsewhere than the weights, as sentences for the log and the store.
    """

    name: str
    dim: int
    image_size: int
    settings: dict[str, Any]
    recipe: dict[str, Any]
    trained_on: list[dict[str, Any]]
    precision: str
    notes: tuple[str, ...]

    def encode(self, faces: Faces) -> np.ndarray: ...

    def exact(self) -> VisualEncoder:
        """The same in fp32, sharing nothing that changes; itself where it is fp32 already."""
        ...
