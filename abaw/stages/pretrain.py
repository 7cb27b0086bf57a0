"""`abaw pretrain`: a masked autoencoder on aligned faces.

Reads faces stores and folders of cropped faces; writes runs/pretrain-<name>. Uses no labels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from abaw.config import Config, PretrainConfig
from abaw.console import Summary, progress
from abaw.data.face_sources import FaceSources, face_sources
from abaw.data.frames import RESIZE, FrameTable, measure_normalisation, spread
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.dialects import Pretrained, load_autoencoder, read_pretrained
from abaw.models.mae import MaskedAutoencoder
from abaw.models.pixels import NORMALISATIONS
from abaw.models.vit import VIT_PRESETS, VitPreset
from abaw.provenance import check_recipe, combine_trained_on
from abaw.training.augment import Augment
from abaw.training.batches import FaceBatches, SampleOrder
from abaw.training.device import keep_freed_memory, resolve_device, resolve_precision, use_threads
from abaw.training.distributed import join, piece_size
from abaw.training.loop import FitResult, LoopSettings, Round, describe, fit
from abaw.training.optim import adamw, check_warmup, half_cosine, parameter_groups, scaled_lr
from abaw.training.panel import NUM_FACES, Panels
from abaw.training.resume import describe_unfinished
from abaw.training.run import RunFolder, recorded_precision

logger = logging.getLogger(__name__)

BETAS = (0.9, 0.95)
# Images that published recipes draw: FMAE (its README) 9 million faces x 50 epochs, with ViT-B; MAE (He et al. 2022)
# 1.28 million images x 800 epochs. None is known for the small one: the least of the others stands for it.
FMAE, MAE = (450_000_000, "FMAE: 9 million faces, 50 epochs"), (1_025_000_000, "MAE: 1.28 million images, 800 epochs")
OWN = "the preset's own length"
RECIPES = {
    "vit_tiny_64": (500 * 64, OWN),
    "vit_small_112": (40_000 * 256, OWN),
    "vit_base_224": FMAE,
    "vit_large_224": MAE,
}
FAR_BELOW = 0.05
# Keys that change nothing of the weights.
NOT_COMPARED = {"sources", "init_from", "precision", "name", "panel_every"}


def run(cfg: Config, *, overwrite: bool = False, dry_run: bool = False) -> Summary:
    """Pretrain on the configured sources, or report the run that is done.

    Raises AbawError for missing or empty sources, for fewer faces than a batch takes, for weights that do not fit,
    and for a run made with other settings.
    """
    settings = cfg.pretrain
    preset = choose(VIT_PRESETS, settings.preset, what="preset", where="pretrain.preset")
    _check_given(settings)
    device = resolve_device(cfg.run.device)
    join(device)
    path = cfg.run_dir("pretrain", settings.name or settings.preset)
    recorded = None if overwrite else recorded_precision(path)
    precision = resolve_precision(settings.precision, device, key="pretrain.precision", recorded=recorded)
    threads = use_threads(cfg.run.threads)
    sources = face_sources(cfg)
    _check_batch(settings, len(sources))
    initial = _initial(cfg)
    start = _Start(cfg, preset, sources, initial)
    lr = scaled_lr(settings.base_lr, settings.batch_size)
    warnings = _check_recipes(cfg, sources, initial)
    warnings += check_warmup(settings.steps, settings.warmup_steps, lr=lr, where="pretrain") + start.warnings()
    folder = RunFolder.start(
        path,
        stage="pretrain",
        settings={**settings.model_dump(exclude=NOT_COMPARED), "seed": cfg.run.seed},
        inputs={**sources.inputs(), **({"init_from": initial.sha256} if initial else {}), "precision": precision},
        facts={"device": str(device), "threads": threads, "warnings": warnings},
        defaults=PretrainConfig().model_dump(exclude=NOT_COMPARED),
        overwrite=overwrite,
        dry_run=dry_run,
    )
    if dry_run:
        state = "done" if folder.is_done else describe_unfinished(folder.resume_path)
        state = "to do" if overwrite else state
        return Summary("pretrain", [("run", f"{path}: {state}"), ("faces", str(len(sources)))], data={"state": state})
    if folder.is_done:
        return _summary(folder, folder.result(), skipped=True)
    result = _train(start, folder, device, precision)
    facts = {"images": len(sources), "device": str(device), "precision": precision}
    folder.finish({**result.to_dict(), **facts})
    return _summary(folder, folder.result(), skipped=False)


# -- before training ---------------------------------------------------------------------------------------------------
def _check_given(settings: PretrainConfig) -> None:
    """Raise AbawError unless mean and std are there exactly where they are asked for."""
    given = settings.normalization == "given"
    values = (settings.mean, settings.std)
    if given and (any(len(three) != 3 for three in values) or min(settings.std) <= 0):
        raise AbawError(
            f'normalization = "given" needs three numbers as mean and three above 0 as std, not {values}',
            where="pretrain.mean, pretrain.std",
            fix="write them as shares of 255, red first: mean = [0.5, 0.4, 0.4], std = [0.3, 0.3, 0.3]",
            code=ExitCode.CONFIG,
        )
    if not given and any(values):
        raise AbawError(
            f'mean and std are given and normalization = "{settings.normalization}" does not use them',
            where="pretrain.normalization",
            fix='write normalization = "given", or remove mean and std',
            code=ExitCode.CONFIG,
        )


def _check_batch(settings: PretrainConfig, faces: int) -> None:
    piece_size(settings.batch_size, settings.accumulate, where="pretrain.batch_size")
    if settings.batch_size > faces:
        raise AbawError(
            f"a batch of {settings.batch_size} is larger than the data, {faces} faces",
            where="pretrain.batch_size",
            fix=f"set batch_size to {faces} or less, or name more sources",
        )


def _initial(cfg: Config) -> Pretrained | None:
    """The weights to start from, read and recognised; None for random ones."""
    if cfg.pretrain.init_from == "none":
        return None
    path = cfg.weights_file(cfg.pretrain.init_from)
    if not path.is_file():
        raise AbawError(
            f"there is no weights file {path}",
            where="pretrain.init_from",
            fix='correct the path, or write init_from = "none" to start from random weights',
            code=ExitCode.MISSING,
        )
    return read_pretrained(path, trained_on=cfg.pretrain.init_trained_on)


def _check_recipes(cfg: Config, sources: FaceSources, initial: Pretrained | None) -> list[str]:
    """Warnings about how sources and initial weights were aligned; refuses known alignments that differ."""
    accept = cfg.run.accept_recipe_mismatch
    warnings = sources.check_recipes(accept=accept)
    if initial is not None:
        what, where = initial.path.name, str(initial.path)
        warnings += check_recipe(initial.header["recipe"], sources.recipe(), what=what, where=where, accept=accept)
    return warnings


@dataclass
class _Start:
    """What a training begins with: model, constants and source of batches."""

    cfg: Config
    preset: VitPreset
    sources: FaceSources
    initial: Pretrained | None

    def __post_init__(self) -> None:
        settings = self.cfg.pretrain
        self.table = FrameTable(self.sources.refs, self.preset.image_size)
        keep_freed_memory()
        torch.manual_seed(self.cfg.run.seed)
        self.model = MaskedAutoencoder(
            self.preset, mask_ratio=settings.mask_ratio, norm_pix_loss=settings.norm_pix_loss
        )
        self.model.set_grad_checkpointing(settings.checkpointing)
        self.notes: list[str] = []
        if self.initial is not None:
            self.notes += load_autoencoder(self.model, self.initial, where=str(self.initial.path)).notes

    def warnings(self) -> list[str]:
        """What is unusual about this start, each also logged."""
        found = [*self.notes, *self._about_constants(), *self._about_length()]
        for message in found:
            logger.warning(message)
        return found

    def _theirs(self) -> tuple[list[float], list[float]] | None:
        """The constants that the initial weights were trained with, where these are known."""
        constants = (self.initial.header.get("normalisation") if self.initial else None) or {}
        return (list(constants["mean"]), list(constants["std"])) if {"mean", "std"} <= constants.keys() else None

    def _about_constants(self) -> list[str]:
        theirs, kind = self._theirs(), self.cfg.pretrain.normalization
        if self.initial is None or theirs is None:
            return []
        words = f"mean {theirs[0]}, std {theirs[1]}"
        if kind == "measured":
            return [f"pixels are normalised as the weights of {self.initial.path.name} expect ({words}), not measured"]
        if self.normalisation() != theirs:
            return [f'normalization = "{kind}" replaces what the weights of {self.initial.path.name} expect ({words})']
        return []

    def _about_length(self) -> list[str]:
        settings = self.cfg.pretrain
        drawn = settings.steps * settings.batch_size
        published, name = RECIPES.get(settings.preset, (0, ""))
        if self.initial is not None or drawn >= FAR_BELOW * published:
            return []
        return [
            f"{settings.steps} steps of {settings.batch_size} draw {drawn:,} images, far below the {published:,} of a "
            f"recipe that works ({name}): from random weights {settings.preset} will reconstruct blurs, and its "
            "features will be weak. Train longer, or start from published weights with init_from"
        ]

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and std per channel: given, named, of the initial weights, or measured over the faces."""
        settings = self.cfg.pretrain
        if settings.normalization == "given":
            return list(settings.mean), list(settings.std)
        return NORMALISATIONS.get(settings.normalization) or self._theirs() or measure_normalisation(self.table)

    def batches(self, mean: list[float], std: list[float]) -> FaceBatches:
        settings = self.cfg.pretrain
        order = SampleOrder(
            len(self.table), settings.batch_size, seed=self.cfg.run.seed, weights=self.sources.weights()
        )
        augment = Augment(min_scale=settings.min_crop_scale, aspect=4 / 3 if settings.min_crop_scale < 1 else 1.0)
        return FaceBatches(self.table, order, mean, std, augment, {}, self.preset.num_patches)

    def header(self, mean: list[float], std: list[float]) -> dict[str, Any]:
        before = self.initial.header["trained_on"] if self.initial else []
        return {
            "kind": "mae",
            "architecture": {"preset": self.cfg.pretrain.preset, **self.preset.to_dict()},
            "pooling": "cls",
            "normalisation": {"mean": mean, "std": std},
            "resize": RESIZE,
            "recipe": self.sources.recipe(),
            "trained_on": combine_trained_on([self.sources.record, before]),
        }

    def panel_faces(self) -> np.ndarray:
        """The faces of the panels: of validation tracks where some are held out, else of those trained on."""
        held_out = self.sources.held_out(NUM_FACES)
        if held_out:
            return FrameTable(held_out, self.preset.image_size).images(np.arange(len(held_out)))
        return self.table.images(spread(np.arange(len(self.table)), NUM_FACES))


# -- training ----------------------------------------------------------------------------------------------------------
def _train(start: _Start, folder: RunFolder, device: torch.device, precision: str) -> FitResult:
    settings, seed = start.cfg.pretrain, start.cfg.run.seed
    mean, std = start.normalisation()
    model = start.model.to(device)
    every, faces = (settings.panel_every, settings.checkpoint_every), start.panel_faces()
    panels = Panels(folder.path / "panels", faces, mean, std, seed=seed, steps=settings.steps, every=every)
    lr = scaled_lr(settings.base_lr, settings.batch_size)

    def report(done: Round) -> None:
        panels.keep(done.step)
        logger.info(describe(done))

    return fit(
        model,
        run=folder,
        source=start.batches(mean, std),
        loss=reconstruction_loss,
        optimizer=adamw(parameter_groups(model, lr=lr, weight_decay=settings.weight_decay), betas=BETAS),
        schedule=half_cosine(settings.steps, warmup=settings.warmup_steps, floor=min(1.0, settings.min_lr / lr)),
        settings=LoopSettings(
            steps=settings.steps,
            seed=seed,
            accumulate=settings.accumulate,
            clip_norm=settings.clip_norm,
            precision=precision,
            validate_every=settings.checkpoint_every,
            save_every=settings.checkpoint_every,
            keep="last",
            ema_decay=settings.ema_decay,
            compile=settings.compile,
        ),
        header=start.header(mean, std),
        validate=panels.draw,
        report=report,
        watch=lambda steps: panels.count(progress(steps, desc="pretrain", unit="step")),
    )


def reconstruction_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a masked autoencoder on a batch of images and mask noise."""
    loss, _, _ = model(batch["images"], batch["noise"])
    return loss, {}


def _summary(folder: RunFolder, result: dict[str, Any], *, skipped: bool) -> Summary:
    lines = [
        ("run", f"{folder.path}{' (done before)' if skipped else ''}"),
        ("faces", f"{result['images']}"),
        ("steps", f"{result['steps']} in {result['seconds']:.1f} s on {result['device']}, {result['precision']}"),
        ("loss", f"{result['first_loss']:.4f} -> {result['last_loss']:.4f}"),
    ]
    return Summary("pretrain", lines, data={"run": str(folder.path), "skipped": skipped, **result})
