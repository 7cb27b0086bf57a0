"""Encoders from our own kinds of weights: masked autoencoders, and finetuned models with their scores."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from abaw.checkpoint import load_weights
from abaw.encoders.faces import RANDOM, View, VisualOptions
from abaw.encoders.model_encoder import Build, ModelEncoder, Network, Source, random_weights
from abaw.encoders.published import WHERE, named_path
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.classifier import FrozenClassifier, load_classifier
from abaw.models.dialects import DIALECTS, frozen_encoder, read_pretrained
from abaw.models.face_model import FaceModel
from abaw.models.heads import TaskHeads, logits_to_scores
from abaw.models.pixels import normalisation
from abaw.models.systems import SYSTEMS, model_from_header
from abaw.models.tokens import feature
from abaw.models.vit import VIT_PRESETS, FaceEncoder, build_vit
from abaw.models.weight_files import WeightFile, read_weight_file
from abaw.provenance import file_sha256, unknown_recipe
from abaw.tasks import TASKS, Task

BEST = "best.safetensors"  # of a run folder


def mae(options: VisualOptions) -> ModelEncoder:
    """Frozen encoder of a pretrained masked autoencoder, ours or of a known foreign layout.

    "auto" pools as the checkpoint's kind calls for: the class token, or the mean with the `fc_norm` of a finetuned one.
    """
    if options.weights == RANDOM:
        return _random_mae(options)
    path = _checkpoint("mae", options)
    source = read_pretrained(path, trained_on=options.trained_on)
    kind = source.header.get("kind")
    if kind != "mae":
        raise AbawError(
            f'{path.name} holds a finetuned model (kind "{kind}"), not a pretrained masked autoencoder',
            where=str(path),
            fix='use encoder = "finetuned" for it, or give weights of `abaw pretrain` or of another program',
        )
    model, pooling = frozen_encoder(source, options.pooling)
    return _vit("mae", model, {**source.header, "pooling": pooling}, source.sha256, options, mae, source.notes)


def _random_mae(options: VisualOptions) -> ModelEncoder:
    preset = choose(VIT_PRESETS, options.preset, what="preset", where="pretrain.preset")
    header: dict[str, Any] = {
        "architecture": {"preset": options.preset, **preset.to_dict()},
        "pooling": "cls" if options.pooling == "auto" else options.pooling,
        "normalisation": normalisation("imagenet"),
        "recipe": unknown_recipe(),
        "trained_on": [],
    }
    with random_weights():
        model = build_vit(preset, pooling=header["pooling"])
    return _vit("mae", model, header, f"{RANDOM}:{options.preset}", options, mae, ())


def finetuned(options: VisualOptions) -> ModelEncoder:
    """Pooled feature under the heads of a finetuned model of any kind, with the pooling it was trained with."""
    path = _checkpoint("finetuned", options)
    file = read_weight_file(path)
    if file.header is None or file.header.get("kind") not in SYSTEMS:
        raise _not_finetuned(path, file.header)
    return _from_run("finetuned", path, file, options, finetuned)


def emma(options: VisualOptions) -> ModelEncoder:
    """The feature of EMMA: of a finetuned run, or of the ViT in the authors' own files.

    Their files say neither order nor meaning of the outputs: no scores from them.
    """
    path = _checkpoint("emma", options)
    file = read_weight_file(path)
    if file.header is not None:
        return _of_kind("emma", path, file, options, emma)
    source = read_pretrained(path, trained_on=options.trained_on)
    if source.dialect != "emma":
        raise AbawError(
            f"{path.name} is {DIALECTS[source.dialect].title}, not EMMA",
            where=str(path),
            fix='for features of this file use encoder = "mae"',
        )
    if options.scores:
        raise _unusable("scores", "true", "emma", f"{path.name} does not name its outputs; only our own runs do")
    model, pooling = frozen_encoder(source, options.pooling)
    return _vit("emma", model, {**source.header, "pooling": pooling}, source.sha256, options, emma, source.notes)


def emae(options: VisualOptions) -> ModelEncoder:
    """The feature of EMAE, of a finetuned run: the face fused with its auxiliary view."""
    path = _checkpoint("emae", options)
    return _of_kind("emae", path, read_weight_file(path), options, emae)


# -- a ViT alone -------------------------------------------------------------------------------------------------------
def _vit(
    name: str,
    model: FaceEncoder,
    header: Mapping[str, Any],
    sha256: str,
    options: VisualOptions,
    build: Build,
    notes: tuple[str, ...],
) -> ModelEncoder:
    shape = header["architecture"]
    network = Network(partial(feature, model), model, shape["width"], shape["image_size"], header["normalisation"])
    source = Source(sha256, header["recipe"], header["trained_on"], notes)
    return ModelEncoder(name, network, source, options=options, build=build, settings={"pooling": header["pooling"]})


# -- a finetuned run ---------------------------------------------------------------------------------------------------
def _of_kind(name: str, path: Path, file: WeightFile, options: VisualOptions, build: Build) -> ModelEncoder:
    kind = None if file.header is None else file.header.get("kind")
    if kind == name:
        return _from_run(name, path, file, options, build)
    if file.header is None or kind not in SYSTEMS:
        raise _not_finetuned(path, file.header)
    raise AbawError(
        f'{path.name} holds a model of kind "{kind}", not {name}',
        where=str(path),
        fix=f'use encoder = "finetuned" for it, or give a run of `abaw finetune` with finetune.model = "{name}"',
    )


def _from_run(name: str, path: Path, file: WeightFile, options: VisualOptions, build: Build) -> ModelEncoder:
    header = dict(file.header or {})
    if options.pooling not in ("auto", header["pooling"]):
        raise _unusable(
            "pooling", options.pooling, name, f'this model was trained with "{header["pooling"]}": use "auto"'
        )
    classifier = _classifier(header, options) if options.scores else None
    model = model_from_header(header, where=str(path), classifier=classifier)
    load_weights(model, file.content, where=str(path))
    view = _view(name, header, options) if header["kind"] == "emae" else None
    shape, task = header["architecture"], TASKS[header["task"]]
    scores = tuple(label for head in task.heads for label in head.labels) if options.scores else ()
    network = Network(
        _Scored(model, task) if scores else model.pooled,
        model,
        shape["width"] + len(scores),
        shape["image_size"],
        header["normalisation"],
        scores=scores,
    )
    source = Source(file_sha256(path), header["recipe"], header["trained_on"])
    told = {"pooling": header["pooling"]}
    return ModelEncoder(name, network, source, options=options, build=build, settings=told, view=view)


class _Scored:
    """Feature and scores of one forward pass: the feature is what enters the heads, their mean where it is several."""

    def __init__(self, model: FaceModel, task: Task) -> None:
        self._model, self._task, self._entered = model, task, list[Tensor]()
        heads: list[nn.Module] = [module for module in model.modules() if isinstance(module, TaskHeads)]
        for module in heads or [model.get_submodule("head")]:  # EMMA's own layers
            module.register_forward_pre_hook(self._keep)

    def __call__(self, *inputs: Tensor) -> Tensor:
        self._entered.clear()
        scores = logits_to_scores(self._task.heads, self._model(*inputs))
        pooled = torch.stack(self._entered).mean(0).float()
        return torch.cat([pooled, *(scores[head.name] for head in self._task.heads)], dim=1)

    def _keep(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._entered.append(inputs[0])


def _classifier(header: Mapping[str, Any], options: VisualOptions) -> FrozenClassifier | None:
    """The frozen classifier that a model's scores need, from where the run's configuration had it."""
    recorded = header["architecture"].get("options", {}).get("classifier")
    if recorded is None:
        return None
    return load_classifier(recorded.get("spec", ""), recorded.get("label_space", ""), root=options.root)


def _view(name: str, header: Mapping[str, Any], options: VisualOptions) -> View | None:
    """What makes the auxiliary view that a model was trained with; None where it was trained without."""
    told = header["architecture"]["options"]
    if "none" in (told["view"], told["operator"]):
        return None
    if options.make_view is None:
        raise _unusable(
            "weights", options.weights, name, "a model of auxiliary views is built by a stage that can make them"
        )
    return partial(options.make_view, view=told["view"], style=told["style"])


def _checkpoint(name: str, options: VisualOptions) -> Path:
    """The file of a run folder, or the file named."""
    if not options.weights:
        raise AbawError(
            f'encoder "{name}" has no weights: no run and no file is named',
            where=WHERE,
            fix='name a run folder or a checkpoint: weights = "runs/..."',
            code=ExitCode.MISSING,
        )
    path = named_path(options)
    return path / BEST if path.is_dir() else path


def _not_finetuned(path: Path, header: Mapping[str, Any] | None) -> AbawError:
    """What to say of a file whose header is of another kind, or which has none and so is of another program."""
    holds = "weights of another program" if header is None else f'a model of kind "{header.get("kind")}"'
    fix = f"give a run or checkpoint of `abaw finetune` (kinds {', '.join(SYSTEMS)})"
    if header is None or header.get("kind") == "mae":
        fix += '; for features of this file use encoder = "mae"'
    return AbawError(f"{path.name} holds {holds}, no model of `abaw finetune`", where=str(path), fix=fix)


def _unusable(key: str, value: str, name: str, fix: str) -> AbawError:
    return AbawError(
        f'{key} = "{value}" cannot be used with encoder "{name}"',
        where=f"encoders.<name>.{key}",
        fix=fix,
        code=ExitCode.CONFIG,
    )
