"""Visual encoders: aligned faces in, one vector per face out.

Adding an encoder is adding a builder and an entry of VISUAL_ENCODERS. Knows nothing of stores, tracks or
configuration files.

Shapes: ``N`` faces, ``S`` the encoder's image size in pixels, ``D`` feature dim.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from abaw.checkpoint import load_checkpoint, load_weights
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.mae import encoder_weights
from abaw.models.static import StaticModel
from abaw.models.vit import VIT_PRESETS, FaceEncoder, VitPreset, build_vit
from abaw.provenance import file_sha256, unknown_recipe
from abaw.tasks import TASKS

logger = logging.getLogger(__name__)

RANDOM = "random"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
RESIZE = "bicubic"


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
    or "cls"; `device`, `precision`: resolved names.
    """

    weights: str = ""
    preset: str = "vit_tiny_64"
    pooling: str = "auto"
    device: str = "cpu"
    precision: str = "fp32"


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
    """A model of ours with its normalisation; runs on one device in one precision."""

    def __init__(
        self, name: str, model: FaceEncoder, header: Mapping[str, Any], *, options: VisualOptions, sha256: str
    ) -> None:
        preset = header["architecture"]
        self.name, self.dim, self.image_size = name, preset["width"], preset["image_size"]
        self.recipe, self.trained_on = header["recipe"], header["trained_on"]
        self.settings = {
            "encoder": name,
            "weights": sha256,
            "pooling": header["pooling"],
            "precision": options.precision,
            "resize": RESIZE,
            "image_size": self.image_size,
            "normalisation": header["normalisation"],
        }
        self._device, self._bf16 = torch.device(options.device), options.precision == "bf16"
        self._model = model.to(self._device).eval()
        constants = (header["normalisation"]["mean"], header["normalisation"]["std"])
        self._mean, self._std = (255 * torch.tensor(c, device=self._device)[None, :, None, None] for c in constants)

    @torch.inference_mode()
    def encode(self, faces: Faces) -> np.ndarray:
        images = torch.from_numpy(faces.images).to(self._device).permute(0, 3, 1, 2)
        images = ((images.float() - self._mean) / self._std).contiguous()
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16):
            features = self._model.forward_head(self._model.forward_features(images), pre_logits=True)
        return features.float().cpu().numpy()


def _mae(options: VisualOptions) -> VisualEncoder:
    """Frozen encoder of a pretrained masked autoencoder: class token ("auto", "cls") or mean of the patch tokens."""
    if options.weights == RANDOM:
        return _random_mae(options)
    path = Path(options.weights)
    weights, header = load_checkpoint(path, kind="mae")
    header = {**header, "pooling": header["pooling"] if options.pooling == "auto" else options.pooling}
    model = build_vit(_preset(header), pooling=header["pooling"])
    load_weights(model, encoder_weights(weights), where=str(path))
    return ModelEncoder("mae", model, header, options=options, sha256=file_sha256(path))


def _random_mae(options: VisualOptions) -> VisualEncoder:
    preset = choose(VIT_PRESETS, options.preset, what="preset", where="pretrain.preset")
    logger.warning("random weights: features are fit for tests of speed only")
    header: dict[str, Any] = {
        "architecture": {"preset": options.preset, **preset.to_dict()},
        "pooling": "cls" if options.pooling == "auto" else options.pooling,
        "normalisation": IMAGENET,
        "recipe": unknown_recipe(),
        "trained_on": [],
    }
    torch.manual_seed(0)
    model = build_vit(preset, pooling=header["pooling"])
    return ModelEncoder("mae", model, header, options=options, sha256=f"{RANDOM}:{options.preset}")


def _finetuned(options: VisualOptions) -> VisualEncoder:
    """Pooled feature under the heads of a finetuned static model, with the pooling it was trained with."""
    if options.weights == RANDOM:
        raise _fixed("weights", RANDOM, "name a run folder or a checkpoint of `abaw finetune`")
    path = Path(options.weights)
    weights, header = load_checkpoint(path, kind="static")
    if options.pooling not in ("auto", header["pooling"]):
        raise _fixed("pooling", options.pooling, f'this model was trained with "{header["pooling"]}": use "auto"')
    task = choose(TASKS, header["task"], what="task", where=str(path))
    model = StaticModel(_preset(header), task, pooling=header["pooling"])
    load_weights(model, weights, where=str(path))
    return ModelEncoder("finetuned", model, header, options=options, sha256=file_sha256(path))


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


def _preset(header: Mapping[str, Any]) -> VitPreset:
    return VitPreset(**{key: value for key, value in header["architecture"].items() if key != "preset"})


def _fixed(key: str, value: str, fix: str) -> AbawError:
    return AbawError(
        f'{key} = "{value}" cannot be used with encoder "finetuned"',
        where=f"[encoders.<name>] {key}",
        fix=fix,
        code=ExitCode.CONFIG,
    )
