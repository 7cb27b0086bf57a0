"""Visual encoders: aligned faces in, one vector per face out.

Adding an encoder is adding a builder and an entry of VISUAL_ENCODERS. Knows nothing of stores, tracks or
configuration files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from abaw.encoders import networks, onnx_files, own
from abaw.encoders.faces import RANDOM, Faces, View, VisualEncoder, VisualOptions
from abaw.encoders.published import PUBLISHED, Published
from abaw.errors import AbawError, ExitCode, choose
from abaw.provenance import unknown_recipe

logger = logging.getLogger(__name__)

__all__ = [
    "RANDOM",
    "VISUAL_ENCODERS",
    "Entry",
    "Faces",
    "View",
    "VisualEncoder",
    "VisualOptions",
    "build_visual_encoder",
    "entry_of",
]


class Landmarks:
    """The five points and the box in the crop, centred and in units of half its side; needs no weights."""

    name = "landmarks"
    dim = 14
    image_size = 0
    precision = "fp32"
    notes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"encoder": self.name, "unit": "half the crop's side, from its centre"}
        self.recipe = unknown_recipe()
        self.trained_on: list[dict[str, Any]] = []

    def encode(self, faces: Faces) -> np.ndarray:
        points = faces.landmarks.reshape(len(faces.landmarks), 10)
        return (2 * np.concatenate([points, faces.box], axis=1) - 1).astype(np.float32)

    def exact(self) -> VisualEncoder:
        return self


def _landmarks(_options: VisualOptions) -> VisualEncoder:
    return Landmarks()


@dataclass(frozen=True)
class Entry:
    """An encoder of the registry.

    `stage`: the command whose run gives its weights by default ("" = it has none), and `model` the `finetune.model` of
    that run ("" = as configured); `takes`: options that some encoders have and this one does; `named`: the name goes
    on after a colon, with a model or a file; `width`, `images`: its features and its images, for people; `published`:
    its files, their origin and licence.
    """

    build: Callable[..., VisualEncoder]
    stage: str = ""
    model: str = ""
    takes: tuple[str, ...] = ()
    named: str = ""
    width: str = ""
    images: str = ""
    published: Published = field(default_factory=Published)


_OF_RUN = "as trained: RGB, constants of the run"

VISUAL_ENCODERS: dict[str, Entry] = {
    "mae": Entry(
        own.mae,
        stage="pretrain",
        takes=("random", "pooling", "flip"),
        width="of the ViT: 384, 768, 1024 for S, B, L",
        images="of the ViT: 224 px for the published ones; RGB, ImageNet's constants, or MAE-Face's",
        published=PUBLISHED["mae"],
    ),
    "finetuned": Entry(
        own.finetuned,
        stage="finetune",
        takes=("pooling", "scores", "flip"),
        width="of the ViT; with scores one more per label of the task",
        images=_OF_RUN,
        published=PUBLISHED["finetuned"],
    ),
    "emma": Entry(
        own.emma,
        stage="finetune",
        model="emma",
        takes=("pooling", "scores", "flip"),
        width="768 for ViT-B; with scores 22 more",
        images=_OF_RUN,
        published=PUBLISHED["emma"],
    ),
    "emae": Entry(
        own.emae,
        stage="finetune",
        model="emae",
        takes=("pooling", "scores", "flip"),
        width="768 for ViT-B; with scores one more per label of the task",
        images=_OF_RUN,
        published=PUBLISHED["emae"],
    ),
    "dan": Entry(
        networks.dan,
        takes=("random", "scores", "labels", "flip"),
        width="512; with scores 520",
        images="224 px, RGB, ImageNet's constants",
        published=PUBLISHED["dan"],
    ),
    "iresnet": Entry(
        networks.iresnet,
        takes=("random", "flip"),
        width="512",
        images="112 px, RGB in [-1, 1]",
        published=PUBLISHED["iresnet"],
    ),
    "hsemotion": Entry(
        onnx_files.hsemotion,
        takes=("scores", "labels", "flip"),
        width="of the file: 1280 for enet_b0, 1408 for enet_b2; with scores 7 or 8 more, 10 for *_mtl",
        images="224 px, 260 for enet_b2, 112 for mbf; RGB, ImageNet's constants, [-1, 1] for mbf",
        published=PUBLISHED["hsemotion"],
    ),
    "landmarks": Entry(_landmarks, width="14", images="none: five points and the box"),
    "timm": Entry(
        networks.timm_encoder,
        takes=("random", "scores", "labels", "flip", "mean", "std"),
        named="model",
        width="of the model",
        images="of the model: RGB, size and constants as timm has them",
        published=PUBLISHED["timm"],
    ),
    "onnx": Entry(
        onnx_files.onnx_encoder,
        takes=("flip", "mean", "std", "color"),
        named="file",
        width="of the graph's first output",
        images="side of the graph; RGB or BGR and constants as configured",
        published=PUBLISHED["onnx"],
    ),
}


def entry_of(name: str, *, where: str = "extract_visual.encoders") -> Entry:
    """The entry of that name, which goes on after a colon for "timm:<model>" and "onnx:<file>".

    Raises AbawError for an unknown name, and for one that lacks or has too much of such an end.
    """
    first, colon, rest = name.partition(":")
    entry = choose(VISUAL_ENCODERS, first if colon else name, what="visual encoder", where=where)
    if bool(entry.named) != bool(rest):
        written = f'"{first}:<{entry.named}>"' if entry.named else f'"{first}"'
        raise AbawError(
            f'"{name}" {"lacks its " + entry.named if entry.named else "takes nothing after its name"}',
            where=where,
            fix=f"write {written}",
            code=ExitCode.CONFIG,
        )
    return entry


def build_visual_encoder(name: str, options: VisualOptions) -> VisualEncoder:
    """The encoder of that name.

    Raises AbawError for an unknown name, for options that it does not have, and for weights that are missing or do
    not fit.
    """
    entry = entry_of(name)
    _require_taken(name, entry, options)
    encoder = (partial(entry.build, name) if entry.named else entry.build)(options)
    if options.weights == RANDOM:
        logger.warning("random weights: features are fit for tests of speed only")
    for note in encoder.notes:
        logger.info("%s: %s", name, note)
    return encoder


def _require_taken(name: str, entry: Entry, options: VisualOptions) -> None:
    """Refuse options that change nothing in this encoder, before anybody takes their results for what they are not."""
    if "labels" in entry.takes and options.labels and not options.scores:
        raise AbawError(
            f'labels = "{options.labels}" names the class scores, and there are none without scores = true',
            where="encoders.<name>.labels",
            fix="write scores = true beside it, or leave it out",
            code=ExitCode.CONFIG,
        )
    given = {
        "random": options.weights == RANDOM,
        "pooling": options.pooling != "auto",
        "scores": options.scores,
        "labels": bool(options.labels),
        "flip": options.flip,
        "mean": bool(options.mean),
        "std": bool(options.std),
        "color": options.color != "rgb",
    }
    for key, is_given in given.items():
        if is_given and key not in entry.takes:
            written = "weights" if key == "random" else key
            has = ", ".join(other for other, one in VISUAL_ENCODERS.items() if key in one.takes)
            raise AbawError(
                f'{written} = {json.dumps(getattr(options, written))} cannot be used with encoder "{name}"',
                where=f"encoders.<name>.{written}",
                fix=f"leave it out; encoders that have it: {has}",
                code=ExitCode.CONFIG,
            )
