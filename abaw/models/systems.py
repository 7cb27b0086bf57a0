"""The published systems by name: how each is built, what goes into it, and how a checkpoint names it.

Adding one is adding a module with a `FaceModel` and an entry of SYSTEMS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from abaw.errors import AbawError, ExitCode, choose
from abaw.models.classifier import FrozenClassifier, check_classifier
from abaw.models.cotex import Cotex
from abaw.models.emae import NONE, OPERATORS, Emae
from abaw.models.emma import Emma
from abaw.models.face_model import FaceModel, preset_of
from abaw.models.static import StaticModel
from abaw.models.vit import VitPreset
from abaw.tasks import TASKS, Task

__all__ = ["SYSTEMS", "FaceModel", "ModelOptions", "System", "architecture", "model_from_header", "system_for"]


@dataclass(frozen=True)
class ModelOptions:
    """What models can be told; each reads its own fields.

    `mean`, `std`: how images are normalised, for a classifier with constants of its own; `num_scores`: its outputs,
    where it is not at hand; `operator`, `after`: how and after which block views are fused (0 = half of the blocks);
    `view`, `style`: which and how made, recorded. Either of view and operator "none": the face alone.
    """

    pooling: str = "mean"
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    classifier: FrozenClassifier | None = None
    num_scores: int = 0
    hidden: int = 512
    va_hidden: int = 256
    views: int = 2
    mask_ratio: float = 0.75
    view: str = "eyes+mouth"
    style: str = "crop"
    operator: str = "concat"
    after: int = 0


@dataclass(frozen=True)
class System:
    """A model of the registry.

    `inputs`, `scoring`: tensors of a batch that a training and a scoring pass take; `options`: fields of
    `ModelOptions` that shape it, recorded in checkpoints; `tasks`: those it is for, () = every one; `pooling`: the
    only one it has, "" = as configured; `encoder`: prefix of its first encoder's parameters.
    """

    build: Callable[[VitPreset, Task, ModelOptions], FaceModel]
    inputs: tuple[str, ...] = ("images",)
    scoring: tuple[str, ...] = ("images",)
    options: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    pooling: str = ""
    encoder: str = ""

    def taken(self, options: ModelOptions, *, training: bool) -> tuple[str, ...]:
        """`inputs` or `scoring`, without views for a model that was told to use none."""
        names = self.inputs if training else self.scoring
        return tuple(name for name in names if name != "views" or NONE not in (options.view, options.operator))


def system_for(name: str, task: Task) -> System:
    """The system of that name. Raises AbawError for an unknown one and for a task it is not for."""
    system = choose(SYSTEMS, name, what="model", where="finetune.model")
    if system.tasks and task.name not in system.tasks:
        fitting = [other for other, entry in SYSTEMS.items() if not entry.tasks or task.name in entry.tasks]
        raise AbawError(
            f'model "{name}" is for {", ".join(system.tasks)}, not for task {task.name}',
            where="finetune.model",
            fix=f"for this task choose one of: {', '.join(fitting)}",
            code=ExitCode.CONFIG,
        )
    return system


def architecture(name: str, preset: VitPreset, options: ModelOptions) -> dict[str, Any]:
    """A model's entry in the header of its checkpoint: plain values, read by `model_from_header`."""
    own = {key: getattr(options, key) for key in SYSTEMS[name].options}
    if options.classifier is not None and name == "emma":
        own["classifier"] = options.classifier.describe()
    return {"model": name, **preset.to_dict(), "options": own}


def model_from_header(
    header: Mapping[str, Any], *, where: str, classifier: FrozenClassifier | None = None
) -> FaceModel:
    """The model that a checkpoint's header describes, its weights not yet loaded.

    Headers without a model's name are of static models. EMMA without its classifier gives features but no scores.
    Raises AbawError for an unknown model or task, for outputs in another order than the task's, and for another
    classifier than the one it was trained with.
    """
    shape = header["architecture"]
    system = choose(SYSTEMS, shape.get("model", "static"), what="model", where=where)
    task = choose(TASKS, header["task"], what="task", where=where)
    _require_order(header, task, where=where)
    recorded = dict(shape.get("options", {}))
    described = recorded.pop("classifier", None)
    if described is not None and classifier is not None:
        check_classifier(classifier, described, where=where)
    options = ModelOptions(
        pooling=header["pooling"],
        mean=tuple(header["normalisation"]["mean"]),
        std=tuple(header["normalisation"]["std"]),
        classifier=classifier,
        num_scores=len(described["labels"]) if described else 0,
        **recorded,
    )
    return system.build(preset_of(header), task, options)


def _require_order(header: Mapping[str, Any], task: Task, *, where: str) -> None:
    ours = {head.name: list(head.labels) for head in task.heads}
    theirs = header.get("label_order", ours)
    if theirs != ours:
        name = next((name for name in ours if theirs.get(name) != ours[name]), "")
        raise AbawError(
            f"these weights give {', '.join(theirs.get(name, ['nothing']))} for {name or task.name}; this version's "
            f"order is {', '.join(ours.get(name, []))}",
            where=where,
            fix="use weights made by `abaw finetune` of this version, or start from them with --init-from, which takes "
            "the encoder alone",
        )


def _static(preset: VitPreset, task: Task, options: ModelOptions) -> FaceModel:
    return StaticModel(preset, task, pooling=options.pooling, drop_path=options.drop_path)


def _emma(preset: VitPreset, task: Task, options: ModelOptions) -> FaceModel:
    num_scores = options.num_scores if options.classifier is None else len(options.classifier.labels)
    if not num_scores:
        raise AbawError(
            "EMMA needs a frozen classifier",
            where="finetune.emma.classifier",
            fix="name a run of `abaw finetune --task expr`, a DAN file, timm:<model>:<file> or an .onnx file",
            code=ExitCode.CONFIG,
        )
    return Emma(
        preset,
        task,
        classifier=options.classifier,
        num_scores=num_scores,
        mean=options.mean,
        std=options.std,
        hidden=options.hidden,
        va_hidden=options.va_hidden,
        drop_path=options.drop_path,
    )


def _cotex(preset: VitPreset, task: Task, options: ModelOptions) -> FaceModel:
    if int(preset.num_patches * (1 - options.mask_ratio)) < 1:
        raise AbawError(
            f"mask_ratio {options.mask_ratio} leaves none of the {preset.num_patches} patches visible",
            where="finetune.cotex.mask_ratio",
            fix=f"use at most {1 - 1 / preset.num_patches:.4g}",
            code=ExitCode.CONFIG,
        )
    return Cotex(preset, task, views=options.views, mask_ratio=options.mask_ratio, drop_path=options.drop_path)


def _emae(preset: VitPreset, task: Task, options: ModelOptions) -> FaceModel:
    operator = NONE if options.view == NONE else options.operator
    if operator != NONE:
        choose(OPERATORS, operator, what="operator", where="finetune.emae.operator")
    if not 0 <= options.after < preset.depth:
        raise AbawError(
            f"fusion after block {options.after} leaves none of the {preset.depth} blocks",
            where="finetune.emae.after",
            fix=f"use 1 to {preset.depth - 1}, or 0 for half of the blocks",
            code=ExitCode.CONFIG,
        )
    return Emae(
        preset,
        task,
        operator=operator,
        after=options.after,
        pooling=options.pooling,
        drop_path=options.drop_path,
    )


SYSTEMS: dict[str, System] = {
    "static": System(_static),
    "emma": System(_emma, options=("hidden", "va_hidden"), tasks=("mtl",), pooling="cls", encoder="vit."),
    "cotex": System(
        _cotex,
        inputs=("images", "noise"),
        options=("views", "mask_ratio"),
        tasks=("lsd", "expr", "expr7"),
        pooling="cls",
        encoder="vits.0.",
    ),
    "emae": System(
        _emae,
        inputs=("images", "views"),
        scoring=("images", "views"),
        options=("view", "style", "operator", "after"),
        encoder="encoder.",
    ),
}
