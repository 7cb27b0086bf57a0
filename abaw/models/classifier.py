"""A frozen expression classifier from a file: one of our checkpoints, DAN, a timm model or an ONNX graph.

It takes images in [0, 1] and does its own resizing and normalisation. Nothing here runs code from a weights file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abaw.checkpoint import load_checkpoint, load_weights
from abaw.errors import AbawError, ExitCode
from abaw.label_spaces import label_space, same_class
from abaw.models import dan
from abaw.models.face_model import preset_of
from abaw.models.network_files import built, named_tensors, timm_library
from abaw.models.onnx_network import OnnxNetwork
from abaw.models.onnx_parts import graph_sha256
from abaw.models.pixels import BICUBIC, BILINEAR, normalisation
from abaw.models.static import StaticModel
from abaw.provenance import file_sha256, undeclared_record, unknown_recipe
from abaw.tasks import TASKS, Problem

WHERE = "finetune.emma.classifier"
WHERE_LABELS = "finetune.emma.classifier_labels"
TIMM = "timm:"


class FrozenClassifier(nn.Module):
    """Images in [0, 1], float [B, 3, S, S] of any S -> logits [B, classes] in float32, without gradient.

    The network is no part of a model that holds this one: its weights are in no parameter list, state dict or
    average, and `train` does not reach it. It follows the model to a device. `labels` names the outputs in order;
    `recipe`: the alignment of the faces it learned from; `trained_on`: the labels it has seen, undeclared where the
    file does not say.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        labels: Sequence[str],
        image_size: int,
        normalisation: Mapping[str, Sequence[float]],
        resize: str,
        facts: Mapping[str, Any],
        trained_on: Sequence[dict[str, Any]] | None = None,
        recipe: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.recipe = recipe or unknown_recipe()
        self.trained_on = [undeclared_record(facts["sha256"])] if trained_on is None else list(trained_on)
        self.image_size, self.resize = image_size, resize
        self._facts, self._normalisation = dict(facts), {key: list(normalisation[key]) for key in ("mean", "std")}
        self._held = (network.eval().requires_grad_(False),)  # in a tuple, so that it is not registered
        for key, values in self._normalisation.items():
            self.register_buffer(key, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    @property
    def network(self) -> nn.Module:
        """The network itself, in eval mode."""
        return self._held[0]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            if images.shape[-1] != self.image_size:
                size = (self.image_size, self.image_size)
                images = F.interpolate(images, size, mode=self.resize, antialias=True).clamp(0, 1)
            return self.network((images - self.mean) / self.std).float()

    def describe(self) -> dict[str, Any]:
        """What a checkpoint's header says of it: plain values, enough to load it again."""
        own = {"labels": list(self.labels), "image_size": self.image_size, "resize": self.resize}
        return {**self._facts, **own, "normalisation": self._normalisation}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenClassifier:
        self.network._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self


def load_classifier(spec: str, labels: str, *, root: Path) -> FrozenClassifier:
    """The classifier that a configuration names.

    `spec`: a run folder or checkpoint of `finetune --task expr`, a DAN file, "timm:<model>:<file>" or an .onnx file;
    paths are relative to `root`. `labels`: label space of its outputs; "" where the file says (ours) or the outputs
    do (DAN with AffectNet's eight). Raises AbawError for a missing or foreign file, an unknown label space, and
    outputs that do not fit it.
    """
    if not spec:
        raise AbawError(
            "no frozen classifier is named",
            where=WHERE,
            fix="name a run of `abaw finetune --task expr`, a DAN file, timm:<model>:<file> or an .onnx file",
            code=ExitCode.CONFIG,
        )
    model, file = ("", spec) if not spec.startswith(TIMM) else _timm_parts(spec)
    path = root / Path(file).expanduser()
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise AbawError(f"there is no classifier at {path}", where=WHERE, fix="correct the path", code=ExitCode.MISSING)
    sha256 = graph_sha256(path, where=f"{WHERE}: {path}") if path.suffix == ".onnx" else file_sha256(path)
    facts = {"spec": spec, "label_space": labels, "sha256": sha256}
    space = label_space(labels, where=WHERE_LABELS).labels if labels else ()
    if model:
        return _timm(model, path, space, facts)
    if path.suffix == ".onnx":
        return _onnx(path, space, facts)
    return _ours(path, space, facts) if path.suffix == ".safetensors" else _dan(path, space, facts)


def check_classifier(classifier: FrozenClassifier, recorded: Mapping[str, Any], *, where: str) -> None:
    """Raise AbawError unless it is the one that a model was trained with, as its header records it."""
    described = classifier.describe()
    different = [key for key in ("sha256", "labels") if described[key] != recorded.get(key)]
    if different:
        raise AbawError(
            f"{described['spec']} is not the classifier this model was trained with (other {', '.join(different)})",
            where=where,
            fix=f"give the file that was {recorded.get('spec')} then, sha256 {recorded.get('sha256')}",
        )


def _timm_parts(spec: str) -> tuple[str, str]:
    model, _, file = spec.removeprefix(TIMM).partition(":")
    if not model or not file:
        raise AbawError(
            f'"{spec}" lacks the model or the file',
            where=WHERE,
            fix='write "timm:<model>:<file>", e.g. "timm:resnet18:weights/faces.pth"',
            code=ExitCode.CONFIG,
        )
    return model, file


# -- the four kinds ----------------------------------------------------------------------------------------------------
def _ours(path: Path, space: tuple[str, ...], facts: Mapping[str, Any]) -> FrozenClassifier:
    weights, header = load_checkpoint(path)
    heads = TASKS[header["task"]].heads if header.get("task") in TASKS else ()
    is_static = header.get("kind") == "static" and header["architecture"].get("model", "static") == "static"
    if not is_static or len(heads) != 1 or heads[0].problem is not Problem.MULTICLASS:
        raise AbawError(
            f"{path.name} holds a model of kind {header.get('kind')}, task {header.get('task')}: no classifier",
            where=f"{WHERE}: {path}",
            fix="name a run of the static model, made by `abaw finetune --task expr`",
        )
    labels = tuple(header["label_order"][heads[0].name])
    if space and not (len(space) == len(labels) and all(map(same_class, space, labels))):
        raise AbawError(
            f"{path.name} gives {', '.join(labels)}, not the classes of the label space named",
            where=WHERE_LABELS,
            fix='leave it empty: this file says its order ("")',
            code=ExitCode.CONFIG,
        )
    model = StaticModel(preset_of(header), TASKS[header["task"]], pooling=header["pooling"])
    load_weights(model, weights, where=str(path))
    return FrozenClassifier(
        _OneHead(model, heads[0].name),
        labels=labels,
        image_size=model.preset.image_size,
        normalisation=header["normalisation"],
        resize=header.get("resize", BICUBIC),
        facts={"kind": "static", **facts},
        trained_on=header["trained_on"],
        recipe=header["recipe"],
    )


class _OneHead(nn.Module):
    """The logits of a model's only head."""

    def __init__(self, model: nn.Module, head: str) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[self.head]


def _dan(path: Path, space: tuple[str, ...], facts: Mapping[str, Any]) -> FrozenClassifier:
    weights = named_tensors(path)
    if dan.MARKER not in weights or "fc.bias" not in weights:
        raise AbawError(
            f"{path.name} does not hold DAN's weights",
            where=f"{WHERE}: {path}",
            fix=f'for a model of timm write "{TIMM}<model>:{path.name}"; else export it to ONNX',
        )
    if not space and len(weights["fc.bias"]) == 8:
        facts, space = {**facts, "label_space": "affectnet8"}, label_space("affectnet8", where=WHERE_LABELS).labels
    _check_outputs(path, len(weights["fc.bias"]), space)
    network = built(path, lambda: dan.dan_from_weights(weights), where=f"{WHERE}: {path}")
    return FrozenClassifier(
        network,
        labels=space,
        image_size=dan.IMAGE_SIZE,
        normalisation=normalisation("imagenet"),
        resize=BILINEAR,
        facts={"kind": "dan", **facts},
    )


def _timm(model: str, path: Path, space: tuple[str, ...], facts: Mapping[str, Any]) -> FrozenClassifier:
    timm = timm_library(model, where=WHERE)
    weights = named_tensors(path)
    network = timm.create_model(model, pretrained=False, num_classes=max(1, len(space)))
    layers = network.pretrained_cfg.get("classifier", "fc")
    last = weights.get(f"{layers if isinstance(layers, str) else layers[0]}.bias")
    _check_outputs(path, len(space) if last is None else len(last), space)
    built(path, lambda: network.load_state_dict(weights), where=f"{WHERE}: {path}")
    data = timm.data.resolve_data_config({}, model=network)
    return FrozenClassifier(
        network,
        labels=space,
        image_size=data["input_size"][-1],
        normalisation=data,
        resize=data["interpolation"] if data["interpolation"] in (BICUBIC, BILINEAR) else BICUBIC,
        facts={"kind": "timm", "model": model, **facts},
    )


def _onnx(path: Path, space: tuple[str, ...], facts: Mapping[str, Any]) -> FrozenClassifier:
    network = OnnxNetwork(path, where=f"{WHERE}: {path}")
    _check_outputs(path, network.num_outputs, space)
    return FrozenClassifier(
        network,
        labels=space,
        image_size=network.image_size,
        normalisation=normalisation("imagenet"),
        resize=BILINEAR,
        facts={"kind": "onnx", **facts},
    )


def _check_outputs(path: Path, count: int, space: tuple[str, ...]) -> None:
    if not space:
        raise AbawError(
            f"{path.name} has {count} outputs and does not say what they stand for",
            where=WHERE_LABELS,
            fix='name the label space it was trained with, e.g. classifier_labels = "affectnet8"',
            code=ExitCode.CONFIG,
        )
    if count != len(space):
        raise AbawError(
            f"{path.name} has {count} outputs, the label space {len(space)}: {', '.join(space)}",
            where=WHERE_LABELS,
            fix="name the label space the classifier was trained with",
            code=ExitCode.CONFIG,
        )
