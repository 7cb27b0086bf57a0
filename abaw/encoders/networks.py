"""Encoders from other programs' networks: DAN, ArcFace's IResNet, and the models of timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from abaw.encoders.faces import RANDOM, VisualOptions
from abaw.encoders.model_encoder import ModelEncoder, Network, foreign_source, random_source, random_weights
from abaw.encoders.onnx_files import arcface_onnx
from abaw.encoders.published import ARCFACE, DAN, WHERE, find_weights, named_path, usual_folders
from abaw.errors import AbawError, ExitCode
from abaw.label_spaces import label_space
from abaw.models import dan as dan_model
from abaw.models import iresnet as iresnet_model
from abaw.models.network_files import built, named_tensors, timm_library
from abaw.models.pixels import BICUBIC, normalisation

TIMM = "timm:"
WHERE_LABELS = "encoders.<name>.labels"


def dan(options: VisualOptions) -> ModelEncoder:
    """What enters DAN's last layer (512), and its class scores. Eight classes are in AffectNet's order, unless said."""
    if options.weights == RANDOM:
        with random_weights():
            model, source = dan_model.Dan(8), random_source("dan")
    else:
        path, notes = find_weights("dan", options, DAN)
        weights = named_tensors(path)
        if dan_model.MARKER not in weights or "fc.bias" not in weights:
            raise _other_network(path, "DAN's weights")
        model = built(path, lambda: dan_model.dan_from_weights(weights), where=str(path))
        source = foreign_source(path, options, notes)
    count = model.fc.out_features
    labels = _labels(options, count, "affectnet8" if count == 8 else "") if options.scores else ()

    def columns(images: Tensor) -> Tensor:
        pooled = model.pooled(images)
        return torch.cat([pooled, model.logits(pooled).float().softmax(1)], dim=1) if labels else pooled

    network = Network(
        columns,
        model,
        dan_model.WIDTH + len(labels),
        dan_model.IMAGE_SIZE,
        normalisation("imagenet"),
        scores=labels,
    )
    return ModelEncoder("dan", network, source, options=options, build=dan, settings={})


def iresnet(options: VisualOptions) -> ModelEncoder:
    """The embedding (512) of an ArcFace network, not scaled to unit length: from a .pth file, an .onnx file or a pack.

    Random weights are those of r50.
    """
    pixels = normalisation("half")
    if options.weights == RANDOM:
        with random_weights():
            model, source = iresnet_model.IResNet(iresnet_model.DEPTHS["r50"]), random_source("r50")
    else:
        path, notes = find_weights("iresnet", options, ARCFACE)
        if path.suffix == ".onnx":
            return arcface_onnx(path, notes, options=options, build=iresnet)
        weights = named_tensors(path)
        if not set(iresnet_model.MARKS) <= set(weights):
            raise _other_network(path, "an IResNet of arcface_torch")
        model = built(path, lambda: iresnet_model.iresnet_from_weights(weights), where=str(path))
        source = foreign_source(path, options, notes)
    network = Network(model, model, iresnet_model.WIDTH, iresnet_model.IMAGE_SIZE, pixels)
    return ModelEncoder("iresnet", network, source, options=options, build=iresnet, settings={})


# -- timm --------------------------------------------------------------------------------------------------------------
def timm_encoder(name: str, options: VisualOptions) -> ModelEncoder:
    """The feature under the classifier of the model named "timm:<model>", from a file or the hub cache."""
    model = name.removeprefix(TIMM)
    timm = timm_library(model, where="encoders.<name>.encoder")
    if options.weights == RANDOM:
        with random_weights():
            network, source, count = timm.create_model(model, num_classes=0), random_source(model), 0
    else:
        path = _timm_file(timm, model, options)
        weights = named_tensors(path)
        network, count = built(path, lambda: _timm_network(timm, model, weights), where=str(path))
        source = foreign_source(path, options, _resized(model, path, network, weights))
    labels = _labels(options, count, "") if options.scores else ()
    data = timm.data.resolve_data_config({}, model=network)
    pixels = {"mean": options.mean or data["mean"], "std": options.std or data["std"]}
    if data["interpolation"] != BICUBIC:
        note = f"{model} was trained on images resized by {data['interpolation']}; faces are resized by {BICUBIC}"
        source = replace(source, notes=(*source.notes, note))

    def columns(images: Tensor) -> Tensor:
        maps = network.forward_features(images)
        pooled = network.forward_head(maps, pre_logits=True)
        if not labels:
            return pooled
        return torch.cat([pooled, network.forward_head(maps).float().softmax(1)], dim=1)

    size = int(data["input_size"][-1])
    if data["input_size"][-2] != size:
        raise AbawError(
            f"{model} takes images of {data['input_size'][-2]}x{size} pixels, and faces are square",
            where="encoders.<name>.encoder",
            fix="choose a model of square images",
            code=ExitCode.CONFIG,
        )
    net = Network(columns, network, _width(network, size) + len(labels), size, pixels, scores=labels)
    return ModelEncoder(name, net, source, options=options, build=partial(timm_encoder, name), settings={})


def _timm_file(timm: Any, model: str, options: VisualOptions) -> Path:
    """The file named, or the model's own in the hub cache. Offline, timm would try for a minute: it is not asked."""
    if options.weights:
        path = named_path(options)
        if path.is_file():
            return path
        raise _no_timm_file(model, f"there is no file {path}", "")
    config = timm.get_pretrained_cfg(model)
    address = (config.url or "") if config else ""
    repository = (config.hf_hub_id or "") if config else ""
    for folder in usual_folders(options):
        for file in (address.rpartition("/")[2], f"{model}.safetensors", f"{model}.pth"):
            if file and (folder / file).is_file():
                return folder / file
    from huggingface_hub import try_to_load_from_cache

    for file in (config.hf_hub_filename if config else None, "model.safetensors", "pytorch_model.bin"):
        cached = try_to_load_from_cache(repository, file) if repository and file else None
        if isinstance(cached, str):
            return Path(cached)
    origin = f"huggingface.co/{repository}" if repository else address
    raise _no_timm_file(model, "neither the folder of weights nor a hub cache holds its file", origin)


def _no_timm_file(model: str, why: str, origin: str) -> AbawError:
    get = f", e.g. model.safetensors from {origin}, or fetch it once: hf download {origin.partition('/')[2]}"
    return AbawError(
        f'encoder "{TIMM}{model}" has no weights: {why}',
        where=WHERE,
        fix=f'name a file: weights = "FILE"{get if origin.startswith("huggingface") else ""}',
        code=ExitCode.MISSING,
    )


def _timm_network(timm: Any, model: str, weights: Mapping[str, Tensor]) -> tuple[nn.Module, int]:
    """The model with the weights, and its number of classes: as many as the file has."""
    config = timm.get_pretrained_cfg(model)
    layers = config.classifier if config else "fc"
    last = weights.get(f"{layers if isinstance(layers, str) else layers[0]}.weight")
    count = 0 if last is None else len(last)
    overlay = {"state_dict": dict(weights), "num_classes": count}
    network = timm.create_model(model, pretrained=True, num_classes=count, pretrained_cfg_overlay=overlay)
    network.pretrained_cfg.pop("state_dict", None)
    return network, count


def _resized(model: str, path: Path, network: nn.Module, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A sentence where timm has interpolated tensors, as it does without a word for other images or patches."""
    own = network.state_dict()
    names = [name for name, value in weights.items() if name in own and own[name].shape != value.shape]
    return (f"timm resized {', '.join(names)} of {path.name} to the shapes of {model}",) if names else ()


@torch.inference_mode()
def _width(network: nn.Module, size: int) -> int:
    images = torch.zeros(1, 3, size, size)
    network.eval()
    found = network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[operator]
    return int(found.shape[1])


# -- shared ------------------------------------------------------------------------------------------------------------
def _labels(options: VisualOptions, count: int, known: str) -> tuple[str, ...]:
    """Names of a file's outputs. Raises AbawError where nobody says them, and for a space of another size."""
    name = options.labels or known
    space = label_space(name, where=WHERE_LABELS).labels if name else ()
    if len(space) == count and count:
        return space
    outputs = f"the weights have {count} outputs"
    what = f"{outputs}, the label space {name} {len(space)}: {', '.join(space)}" if space else outputs
    raise AbawError(
        f"{what}" if space else f"{what} and do not say what they stand for",
        where=WHERE_LABELS,
        fix='name the label space they were trained with, e.g. labels = "affectnet8", or leave scores out',
        code=ExitCode.CONFIG,
    )


def _other_network(path: Path, wanted: str) -> AbawError:
    return AbawError(
        f"{path.name} does not hold {wanted}",
        where=str(path),
        fix=f'`abaw inspect {path}` shows what it holds; for a model of timm write encoder = "timm:<model>"',
    )
