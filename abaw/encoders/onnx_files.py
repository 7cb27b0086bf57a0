"""Encoders from ONNX files: HSEmotion's classifiers, ArcFace's recognition models, and any graph of faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from abaw.encoders.faces import VisualOptions
from abaw.encoders.model_encoder import Build, ModelEncoder, Network, Source, foreign_source
from abaw.encoders.published import HSEMOTION, Published, find_weights
from abaw.errors import AbawError, ExitCode
from abaw.label_spaces import LABEL_SPACES, by_name, label_space
from abaw.models.iresnet import IMAGE_SIZE
from abaw.models.onnx_network import OnnxFeatures, OnnxGraph
from abaw.models.onnx_parts import graph_sha256, normalises_itself, with_feature
from abaw.models.pixels import normalisation

ONNX = "onnx:"
ORDER = LABEL_SPACES["affectnet8"].labels  # in which expression scores are given, whatever the file's order
VALUES = ("valence", "arousal")


class Variant(NamedTuple):
    """What a file's name tells: label space of its classes, side in pixels, pixel constants, values behind classes."""

    space: str
    image_size: int
    pixels: str
    has_values: bool


def variant_of(file: str) -> Variant | None:
    """What the name of a published file tells, None for other names. The rules are the library's own."""
    name = file.lower().removesuffix(".onnx")
    seven, values = "_7" in name, "_mtl" in name
    if not (seven or values or "_8" in name):
        return None
    size = 112 if "mbf_" in name else 260 if "_b2_" in name else 224
    pixels = "half" if "mbf_" in name else "caffe" if name.startswith("mobilenet_7") else "imagenet"
    return Variant("hsemotion7" if seven else "hsemotion8", size, pixels, values)


def hsemotion(options: VisualOptions) -> ModelEncoder:
    """The feature under the last layer of an HSEmotion file, and its scores: classes by name in ORDER, then values."""
    path, notes = find_weights("hsemotion", options, HSEMOTION)
    where, variant = str(path), _require_variant(path)
    labels = _label_order(path, variant, options)
    opened = with_feature(path, where=where)
    graph = OnnxGraph(path, where=where, content=opened.content, device=options.device)
    net = OnnxFeatures(graph, (opened.feature, opened.scores), image_size=variant.image_size)
    width, outputs = net.widths
    expected = len(labels) + (len(VALUES) if variant.has_values else 0)
    if outputs != expected:
        raise AbawError(
            f"{path.name} has {outputs} outputs, where its name tells of {expected}: {', '.join(labels)}",
            where=where,
            fix="give the published file under its own name",
        )
    order = [name for name in ORDER if name in labels]
    scores = (*order, *(VALUES if variant.has_values else ())) if options.scores else ()
    places = by_name(order, labels).tolist()

    def columns(images: Tensor) -> Tensor:
        feature, logits = net(images).split([width, outputs], dim=1)
        classes = logits[:, : len(labels)] if opened.are_probabilities else logits[:, : len(labels)].softmax(1)
        return torch.cat([feature, classes[:, places], logits[:, len(labels) :]], dim=1) if scores else feature

    pixels = normalisation(variant.pixels)
    network = _network(columns, net, pixels, scores, width + len(scores))
    source = _source(graph, options, notes)
    return ModelEncoder("hsemotion", network, source, options=options, build=hsemotion, settings={})


def _require_variant(path: Path) -> Variant:
    """What the file's name tells; AbawError for other names, and for the pickled twins of the ONNX files."""
    if path.suffix != ".onnx":
        raise AbawError(
            f"{path.name} is no ONNX file; HSEmotion's .pt files are pickled whole modules, and reading one runs code",
            where=str(path),
            fix=f"give its ONNX twin, {path.stem}.onnx, from {HSEMOTION.origin}",
        )
    variant = variant_of(path.name)
    if variant is None:
        raise AbawError(
            f"{path.name} is no name of HSEmotion's, from which size and label order are taken",
            where=str(path),
            fix=f'keep the published name ({", ".join(HSEMOTION.files)}), or use encoder = "onnx:{path.name}"',
        )
    return variant


def _label_order(path: Path, variant: Variant, options: VisualOptions) -> tuple[str, ...]:
    """Class names of the file's outputs; AbawError where the configuration names others than the file's name tells."""
    told = label_space(variant.space, where="encoders.<name>.labels").labels
    if options.labels and label_space(options.labels, where="encoders.<name>.labels").labels != told:
        raise AbawError(
            f'labels = "{options.labels}" is not the order of {path.name}: {", ".join(told)}',
            where="encoders.<name>.labels",
            fix=f'leave it out, or write "{variant.space}"; scores are mapped by name',
            code=ExitCode.CONFIG,
        )
    return told


def arcface_onnx(path: Path, notes: tuple[str, ...], *, options: VisualOptions, build: Build) -> ModelEncoder:
    """The embedding of a recognition model in ONNX, as encoder "iresnet"."""
    graph = OnnxGraph(path, where=str(path), device=options.device)
    net = OnnxFeatures(graph, image_size=IMAGE_SIZE)
    pixels = normalisation("bytes" if normalises_itself(path, where=str(path)) else "half")
    network, source = _network(net, net, pixels, (), net.widths[0]), _source(graph, options, notes)
    return ModelEncoder("iresnet", network, source, options=options, build=build, settings={})


def onnx_encoder(name: str, options: VisualOptions) -> ModelEncoder:
    """The first output of the graph named "onnx:<file>" as feature; normalised as the options say, else ImageNet's."""
    if options.weights:
        raise AbawError(
            f'encoder "{name}" names its file, and so does weights = "{options.weights}"',
            where="encoders.<name>.weights",
            fix="leave it out",
            code=ExitCode.CONFIG,
        )
    told = replace(options, weights=name.removeprefix(ONNX))
    path, _ = find_weights(name, told, Published())
    graph = OnnxGraph(path, where=str(path), device=options.device)
    net = OnnxFeatures(graph)
    usual = normalisation("imagenet")
    pixels = {"mean": list(options.mean) or usual["mean"], "std": list(options.std) or usual["std"]}
    notes = () if options.mean and options.std else (f"pixel constants of {path.name} are taken as ImageNet's",)
    is_bgr = options.color == "bgr"

    def columns(images: Tensor) -> Tensor:
        return net(images.flip(1) if is_bgr else images)

    network = _network(columns, net, pixels, (), net.widths[0])
    source = _source(graph, options, notes)
    settings = {"encoder": "onnx", **({"color": "bgr"} if is_bgr else {})}  # the file by its sha256, wherever it lies
    return ModelEncoder(name, network, source, options=options, build=partial(onnx_encoder, name), settings=settings)


def _network(
    columns: Callable[..., Tensor],
    net: OnnxFeatures,
    pixels: Mapping[str, Sequence[float]],
    scores: tuple[str, ...],
    dim: int,
) -> Network:
    return Network(columns, net, dim, net.image_size, pixels, scores=scores, has_bf16=False, on_cpu=True)


def _source(graph: OnnxGraph, options: VisualOptions, notes: tuple[str, ...]) -> Source:
    """Provenance of a graph's weights; says so where it runs on another device than the options name."""
    if options.device.startswith("cuda") and "CUDAExecutionProvider" not in graph.providers:
        notes = (*notes, f"{graph.path.name} runs on the CPU: this onnxruntime offers no CUDA")
    return foreign_source(graph.path, options, notes, sha256=graph_sha256(graph.path, where=graph.where))
