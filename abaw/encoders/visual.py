"""Visual encoders: aligned faces in, one vector per face out.

Adding an encoder is adding a builder and an entry of VISUAL_ENCODERS. Knows nothing of stores, tracks or
configuration files.

Shapes: ``N`` faces, ``S`` the encoder's image size in pixels, ``D`` feature dim.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from abaw.checkpoint import load_weights
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.dialects import frozen_encoder, read_pretrained
from abaw.models.face_model import FaceModel
from abaw.models.pixels import BICUBIC, normalisation
from abaw.models.systems import SYSTEMS, model_from_header
from abaw.models.tokens import feature
from abaw.models.vit import VIT_PRESETS, FaceEncoder, build_vit
from abaw.models.weight_files import read_weight_file
from abaw.provenance import file_sha256, unknown_recipe

logger = logging.getLogger(__name__)

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

    `weights`: checkpoint file, or "random"; `preset`: shape of a model with random weights; `pooling`: "auto", "mean"
    or "cls"; `device`, `precision`: resolved names; `trained_on`: as in `provenance.undeclared_record`;
    `make_view`: `data.views.auxiliary_view`, for models that take one.
    """

    weights: str = ""
    preset: str = "vit_tiny_64"
    pooling: str = "auto"
    device: str = "cpu"
    precision: str = "fp32"
    trained_on: tuple[str, ...] = ()
    make_view: Callable[..., np.ndarray] | None = None


class VisualEncoder(Protocol):
    """Faces -> float32 [N, dim]; a row depends on its own face alone.

    `image_size` in pixels, 0 where no image is needed. `settings` is everything that changes the output; `recipe`
    and `trained_on` are those of the weights.
    """

    name: str
    dim: int
    image_size: int
    settings: dict[str, Any]
    recipe: dict[str, Any]
    trained_on: list[dict[str, Any]]

    def encode(self, faces: Faces) -> np.ndarray: ...


class Landmarks:
    """The five points and the box in the crop, centred and in units of half its side; needs no weights."""

    name = "landmarks"
    dim = 14
    image_size = 0

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"encoder": self.name, "unit": "half the crop's side, from its centre"}
        self.recipe = unknown_recipe()
        self.trained_on: list[dict[str, Any]] = []

    def encode(self, faces: Faces) -> np.ndarray:
        points = faces.landmarks.reshape(len(faces.landmarks), 10)
        return (2 * np.concatenate([points, faces.box], axis=1) - 1).astype(np.float32)


class ModelEncoder:
    """A model of ours with its normalisation; runs on one device in one precision.

    `view` makes the auxiliary view of a model that takes one, as `VisualOptions.make_view` told what to show.
    """

    def __init__(
        self,
        name: str,
        model: FaceEncoder | FaceModel,
        header: Mapping[str, Any],
        *,
        options: VisualOptions,
        sha256: str,
        view: View | None = None,
    ) -> None:
        preset = header["architecture"]
        self.name, self.dim, self.image_size = name, preset["width"], preset["image_size"]
        self.recipe, self.trained_on = header["recipe"], header["trained_on"]
        self.settings = {
            "encoder": name,
            "weights": sha256,
            "pooling": header["pooling"],
            "precision": options.precision,
            "resize": BICUBIC,
            "image_size": self.image_size,
            "normalisation": header["normalisation"],
        }
        self._device, self._bf16 = torch.device(options.device), options.precision == "bf16"
        model.to(self._device).eval()
        self._pooled = model.pooled if isinstance(model, FaceModel) else partial(feature, model)
        self._view = view
        constants = (header["normalisation"]["mean"], header["normalisation"]["std"])
        self._mean, self._std = (255 * torch.tensor(c, device=self._device)[None, :, None, None] for c in constants)

    @torch.inference_mode()
    def encode(self, faces: Faces) -> np.ndarray:
        inputs = [self._normalised(faces.images)]
        if self._view is not None:
            inputs.append(self._normalised(self._view(faces.images, faces.landmarks)))
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16):
            features = self._pooled(*inputs)
        return features.float().cpu().numpy()

    def _normalised(self, images: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
        return ((pixels.float() - self._mean) / self._std).contiguous()


def _mae(options: VisualOptions) -> VisualEncoder:
    """Frozen encoder of a pretrained masked autoencoder, ours or of a known foreign layout.

    "auto" pools as the checkpoint's kind calls for: the class token, or the mean with the `fc_norm` of a finetuned one.
    """
    if options.weights == RANDOM:
        return _random_mae(options)
    path = Path(options.weights)
    source = read_pretrained(path, trained_on=options.trained_on)
    kind = source.header.get("kind")
    if kind != "mae":
        raise AbawError(
            f'{path.name} holds a finetuned model (kind "{kind}"), not a pretrained masked autoencoder',
            where=str(path),
            fix='use encoder = "finetuned" for it, or give weights of `abaw pretrain` or of another program',
        )
    model, pooling = frozen_encoder(source, options.pooling)
    for note in source.notes:
        logger.info(note)
    header = {**source.header, "pooling": pooling}
    return ModelEncoder("mae", model, header, options=options, sha256=source.sha256)


def _random_mae(options: VisualOptions) -> VisualEncoder:
    preset = choose(VIT_PRESETS, options.preset, what="preset", where="pretrain.preset")
    logger.warning("random weights: features are fit for tests of speed only")
    header: dict[str, Any] = {
        "architecture": {"preset": options.preset, **preset.to_dict()},
        "pooling": "cls" if options.pooling == "auto" else options.pooling,
        "normalisation": normalisation("imagenet"),
        "recipe": unknown_recipe(),
        "trained_on": [],
    }
    torch.manual_seed(0)
    model = build_vit(preset, pooling=header["pooling"])
    return ModelEncoder("mae", model, header, options=options, sha256=f"{RANDOM}:{options.preset}")


def _finetuned(options: VisualOptions) -> VisualEncoder:
    """Pooled feature under the heads of a finetuned model of any kind, with the pooling it was trained with."""
    if options.weights == RANDOM:
        raise _fixed("weights", RANDOM, "name a run folder or a checkpoint of `abaw finetune`")
    path = Path(options.weights)
    file = read_weight_file(path)
    if file.header is None or file.header.get("kind") not in SYSTEMS:
        raise _not_finetuned(path, file.header)
    header = file.header
    if options.pooling not in ("auto", header["pooling"]):
        raise _fixed("pooling", options.pooling, f'this model was trained with "{header["pooling"]}": use "auto"')
    model = model_from_header(header, where=str(path))
    load_weights(model, file.content, where=str(path))
    view = _view(header, options) if header["kind"] == "emae" else None
    return ModelEncoder("finetuned", model, header, options=options, sha256=file_sha256(path), view=view)


def _not_finetuned(path: Path, header: Mapping[str, Any] | None) -> AbawError:
    """What to say of a file whose header is of another kind, or which has none and so is of another program."""
    holds = "weights of another program" if header is None else f'a model of kind "{header.get("kind")}"'
    fix = f"give a run or checkpoint of `abaw finetune` (kinds {', '.join(SYSTEMS)})"
    if header is None or header.get("kind") == "mae":
        fix += '; for features of this file use encoder = "mae"'
    return AbawError(f"{path.name} holds {holds}, no model of `abaw finetune`", where=str(path), fix=fix)


def _view(header: Mapping[str, Any], options: VisualOptions) -> View | None:
    """What makes the auxiliary view that a model was trained with; None where it was trained without."""
    told = header["architecture"]["options"]
    if "none" in (told["view"], told["operator"]):
        return None
    if options.make_view is None:
        raise _fixed("weights", options.weights, "a model of auxiliary views is built by a stage that can make them")
    return partial(options.make_view, view=told["view"], style=told["style"])


def _landmarks(_options: VisualOptions) -> VisualEncoder:
    return Landmarks()


@dataclass(frozen=True)
class Entry:
    """An encoder of the registry; ``stage``: the command whose run gives its weights by default ("" = it has none)."""

    build: Callable[[VisualOptions], VisualEncoder]
    stage: str = ""


VISUAL_ENCODERS: dict[str, Entry] = {
    "mae": Entry(_mae, stage="pretrain"),
    "finetuned": Entry(_finetuned, stage="finetune"),
    "landmarks": Entry(_landmarks),
}


def build_visual_encoder(name: str, options: VisualOptions) -> VisualEncoder:
    """The encoder of that name. Raises AbawError for an unknown name or weights that are missing or do not fit."""
    return choose(VISUAL_ENCODERS, name, what="visual encoder", where="extract_visual.encoders").build(options)


def _fixed(key: str, value: str, fix: str) -> AbawError:
    return AbawError(
        f'{key} = "{value}" cannot be used with encoder "finetuned"',
        where=f"[encoders.<name>] {key}",
        fix=fix,
        code=ExitCode.CONFIG,
    )
