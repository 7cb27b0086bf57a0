"""The model of a finetuning run: which system with which options, and the weights it starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from abaw.config import Config, FinetuneConfig
from abaw.data.faces import crop_geometry
from abaw.data.frames import RESIZE, FrameRef, FrameTable, measure_normalisation
from abaw.data.views import STYLES, VIEWS, auxiliary_view
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.classifier import FrozenClassifier, load_classifier
from abaw.models.dialects import Pretrained, load_encoder, read_pretrained
from abaw.models.systems import FaceModel, ModelOptions, System, architecture, system_for
from abaw.models.vit import VitPreset
from abaw.tasks import Task

View = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Start:
    """What a run starts from: pixel constants, provenance, and the weights (None = random ones)."""

    source: Pretrained | None
    mean: list[float]
    std: list[float]
    trained_on: list[dict[str, Any]]
    resize: str = RESIZE

    @classmethod
    def of(cls, source: Pretrained | None, table: FrameTable) -> Start:
        """The constants that weights were trained with; without weights, those measured on the frames."""
        if source is None:
            return cls(None, *measure_normalisation(table), [])
        constants = source.header["normalisation"]
        return cls(source, constants["mean"], constants["std"], source.header["trained_on"])

    def load_into(self, model: FaceModel, *, where: str) -> list[str]:
        """Load every encoder of a model; sentences for the log. Raises AbawError where the weights do not fit."""
        notes: list[str] = []
        for encoder in model.encoders() if self.source else []:
            assert self.source is not None
            notes += load_encoder(encoder, self.source, where=f"{where}: {self.source.path}").notes
        return list(dict.fromkeys(notes))


def read_start(cfg: Config, settings: FinetuneConfig) -> Pretrained | None:
    """The weights named by init_from; None when random weights are asked for."""
    if settings.init_from == "none":
        return None
    if settings.init_from == "pretrain":
        path = cfg.run_dir("pretrain", cfg.pretrain.name or cfg.pretrain.preset) / "best.safetensors"
    else:
        path = cfg.weights_file(settings.init_from)
    if not path.is_file():
        raise AbawError(
            f"there are no weights to start from at {path}",
            where="finetune.init_from",
            fix='run `abaw pretrain` first, name a checkpoint, or write init_from = "none" for random weights',
            code=ExitCode.MISSING,
        )
    return read_pretrained(path, trained_on=settings.init_trained_on)


@dataclass(frozen=True)
class Built:
    """A system with its options, before any weight is made.

    ``settings``, ``inputs``: what belongs into the record of the run; ``view`` makes the auxiliary view of images.
    """

    system: System
    preset: VitPreset
    task: Task
    options: ModelOptions
    architecture: dict[str, Any]
    settings: dict[str, Any]
    view: View | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    trained_on: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Kind of the checkpoint, which is the model's name."""
        return str(self.architecture["model"])

    @property
    def training_inputs(self) -> tuple[str, ...]:
        """Tensors of a batch that a training pass takes."""
        return self.system.taken(self.options, training=True)

    @property
    def scoring_inputs(self) -> tuple[str, ...]:
        """Tensors of a batch that a scoring pass takes."""
        return self.system.taken(self.options, training=False)

    def model(self, start: Start) -> FaceModel:
        """The model with fresh weights; torch's generator is seeded by the caller."""
        options = replace(self.options, mean=tuple(start.mean), std=tuple(start.std))
        return self.system.build(self.preset, self.task, options)


def build(cfg: Config, settings: FinetuneConfig, task: Task, preset: VitPreset) -> Built:
    """The system that the settings name. Raises AbawError for a task it cannot learn or options that do not fit."""
    system = system_for(settings.model, task)
    pooling = system.pooling or settings.pooling
    classifier = _classifier(cfg, settings)
    options = ModelOptions(
        pooling=pooling,
        drop_path=settings.drop_path,
        classifier=classifier,
        hidden=settings.emma.hidden,
        va_hidden=settings.emma.va_hidden,
        views=settings.cotex.views,
        mask_ratio=settings.cotex.mask_ratio,
        **settings.emae.model_dump(),
    )
    recorded: dict[str, Any] = {"model": settings.model}
    if settings.model != "static":
        recorded[settings.model] = getattr(settings, settings.model).model_dump(exclude={"classifier"})
    return Built(
        system=system,
        preset=preset,
        task=task,
        options=options,
        architecture={"preset": settings.preset, **architecture(settings.model, preset, options)},
        settings=recorded,
        view=_view(settings),
        inputs={"classifier": _without_place(classifier)} if classifier else {},
        trained_on=classifier.trained_on if classifier else [],
    )


def _classifier(cfg: Config, settings: FinetuneConfig) -> FrozenClassifier | None:
    if settings.model != "emma" or not settings.emma.classifier:
        return None
    return load_classifier(settings.emma.classifier, settings.emma.classifier_labels, root=cfg.root)


def _without_place(classifier: FrozenClassifier) -> dict[str, Any]:
    """What a classifier is, wherever its file lies."""
    return {key: value for key, value in classifier.describe().items() if key != "spec"}


def _view(settings: FinetuneConfig) -> View | None:
    if settings.model != "emae" or settings.emae.view == "none":
        return None
    view, style = settings.emae.view, settings.emae.style
    choose(VIEWS, view, what="view", where="finetune.emae.view")
    choose(STYLES, style, what="style", where="finetune.emae.style")
    return partial(auxiliary_view, view=view, style=style)


# -- batches -----------------------------------------------------------------------------------------------------------
def crop_points(refs: Sequence[FrameRef]) -> np.ndarray:
    """Landmarks of all frames, float32 [N, 5, 2] in units of the crop's side."""
    parts = [crop_geometry(ref.store, ref.track_id)[0][ref.rows] for ref in refs]
    return np.concatenate([np.zeros((0, 5, 2), np.float32), *parts])
