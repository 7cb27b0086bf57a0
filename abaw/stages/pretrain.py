"""`abaw pretrain`: a masked autoencoder on aligned faces.

Reads faces stores; writes runs/pretrain-<name>. Uses no labels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from abaw.checkpoint import load_checkpoint, load_weights, read_header
from abaw.config import Config, PretrainSource
from abaw.console import Summary, progress
from abaw.data.frames import RESIZE, FrameRef, FrameTable, measure_normalisation
from abaw.data.manifest import Manifest, split_person, split_side
from abaw.errors import AbawError, choose
from abaw.models.mae import DECODER_PREFIXES, MaskedAutoencoder
from abaw.models.vit import VIT_PRESETS, VitPreset
from abaw.provenance import check_recipe, combine_trained_on, file_sha256, trained_on_record, unknown_recipe
from abaw.store import FeatureStore
from abaw.training.augment import Augment
from abaw.training.batches import FaceBatches, SampleOrder
from abaw.training.device import resolve_device, resolve_precision, use_threads
from abaw.training.loop import FitResult, LoopSettings, describe, fit
from abaw.training.optim import adamw, half_cosine, parameter_groups, scaled_lr
from abaw.training.run import RunFolder, recorded_precision

logger = logging.getLogger(__name__)

# ImageNet's usual constants; MAE-Face's as its users publish them (systems A, ABAW5 and ABAW7 code)
NORMALISATIONS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "mae-face": ([0.49895, 0.41044, 0.36561], [0.29708, 0.26990, 0.26526]),
}
BETAS = (0.9, 0.95)
RECIPE_IMAGES = 100_000  # far below this many drawn images a masked autoencoder learns little


def run(cfg: Config, *, overwrite: bool = False, dry_run: bool = False) -> Summary:
    """Pretrain on the configured sources, or report the run that is done.

    Raises AbawError for missing or empty stores and for a run made with other settings.
    """
    settings = cfg.pretrain
    preset = choose(VIT_PRESETS, settings.preset, what="preset", where="pretrain.preset")
    device = resolve_device(cfg.run.device)
    path = cfg.run_dir("pretrain", settings.name or settings.preset)
    recorded = None if overwrite else recorded_precision(path)
    precision = resolve_precision(settings.precision, device, key="pretrain.precision", recorded=recorded)
    threads = use_threads(cfg.run.threads)
    refs, weights, stores = _frames(cfg)
    folder = RunFolder.start(
        path,
        stage="pretrain",
        settings={**settings.model_dump(exclude={"sources", "init_from", "precision", "name"}), "seed": cfg.run.seed},
        inputs={**_inputs(cfg, refs, stores), "precision": precision},
        facts={"device": str(device), "threads": threads, "warnings": _check_recipes(cfg, stores)},
        overwrite=overwrite,
        dry_run=dry_run,
    )
    if dry_run:
        state = "done" if (path / "done").is_file() else "to do"
        count = str(sum(len(ref) for ref in refs))
        return Summary("pretrain", [("run", f"{path}: {state}"), ("faces", count)], data={"state": state})
    if folder.is_done:
        return _summary(folder, folder.result(), skipped=True)
    model, source, header = _set_up(cfg, preset, refs, weights, stores)
    result = _train(cfg, model.to(device), source, header, folder, precision)
    folder.finish({**result.to_dict(), "images": len(source.table), "device": str(device), "precision": precision})
    return _summary(folder, folder.result(), skipped=False)


# -- inputs ------------------------------------------------------------------------------------------------------------
def _frames(cfg: Config) -> tuple[list[FrameRef], np.ndarray | None, list[FeatureStore]]:
    """Frames of all sources; a weight per frame where there are several sources; their stores."""
    sources = _sources(cfg)
    held_out = _held_out(cfg)
    refs: list[FrameRef] = []
    weights: list[np.ndarray] = []
    stores = []
    for source in sources:
        store = FeatureStore.open(source.store, kind="faces")
        own = [
            FrameRef(store, track_id, np.flatnonzero(store.valid(track_id)))
            for track_id in [name for name in store.track_ids() if not _is_held_out(name, held_out)]
        ]
        count = sum(len(ref) for ref in own)
        if count == 0:
            raise AbawError(
                f"faces store {source.store} holds no face to pretrain on",
                where=f"pretrain.sources, {len(store)} tracks, {len(held_out)} of them held out",
                fix='run `abaw align` first, or set pretrain.tracks = "all" to use validation and test faces too',
            )
        refs += own
        weights.append(np.full(count, source.weight / count))
        stores.append(store)
    return refs, np.concatenate(weights) if len(sources) > 1 else None, stores


def _sources(cfg: Config) -> list[PretrainSource]:
    return cfg.pretrain.sources or [PretrainSource(store=cfg.faces_store)]


def _held_out(cfg: Config) -> set[str]:
    """Tracks of any task's validation or test split, whose faces pretraining leaves alone."""
    if cfg.pretrain.tracks == "all" or not (cfg.data.annotations or cfg.data.test):
        return set()
    return {
        track.track_id
        for track in Manifest.from_config(cfg.data, need_media=False)
        if {"val", "test"} & set(track.splits.values())
    }


def _is_held_out(track_id: str, held_out: set[str]) -> bool:
    """Whether a track, or the video that a person's track comes from, is held out."""
    video, person = split_person(track_id)
    return track_id in held_out or (person is not None and video in {split_side(name)[0] for name in held_out})


def _inputs(cfg: Config, refs: list[FrameRef], stores: list[FeatureStore]) -> dict[str, Any]:
    inputs: dict[str, Any] = {"tracks": _record(cfg, refs)["tracks_sha256"], "frames": sum(map(len, refs))}
    for number, (source, store) in enumerate(zip(_sources(cfg), stores, strict=True)):
        described = {"store": store.path.name, "fingerprint": store.fingerprint, "weight": source.weight}
        inputs[f"source_{number}"] = described
    if cfg.pretrain.init_from != "none":
        inputs["init_from"] = file_sha256(_init_path(cfg))
    return inputs


def _record(cfg: Config, refs: list[FrameRef]) -> dict[str, Any]:
    return trained_on_record(
        dataset=cfg.data.name,
        edition=cfg.data.edition,
        labels="none",
        split_file="official",
        track_ids=[ref.track_id for ref in refs],
    )


def _init_path(cfg: Config) -> Path:
    path = cfg.root / cfg.pretrain.init_from
    path = path / "best.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise AbawError(
            f"there is no weights file {path}",
            where="pretrain.init_from",
            fix='correct the path, or write init_from = "none" to start from random weights',
        )
    return path


def _check_recipes(cfg: Config, stores: list[FeatureStore]) -> list[str]:
    """Warnings about how sources and initial weights were aligned; refuses known alignments that differ."""
    accept, first = cfg.run.accept_recipe_mismatch, stores[0]
    warnings = []
    for store in stores[1:]:
        what = f"faces store {store.path.name} (beside {first.path.name})"
        theirs, ours = store.header.recipe, first.header.recipe
        warnings += check_recipe(theirs, ours, what=what, where="pretrain.sources", accept=accept)
    if cfg.pretrain.init_from != "none":
        path = _init_path(cfg)
        recipe = read_header(path)["recipe"]
        warnings += check_recipe(recipe, _recipe(stores), what=path.name, where=str(path), accept=accept)
    return warnings


def _recipe(stores: list[FeatureStore]) -> dict[str, Any]:
    """The alignment of all sources; unknown where they differ."""
    recipes = {store.header.recipe.get("fingerprint"): store.header.recipe for store in stores}
    return next(iter(recipes.values())) if len(recipes) == 1 else unknown_recipe()


# -- training ----------------------------------------------------------------------------------------------------------
def _set_up(
    cfg: Config, preset: VitPreset, refs: list[FrameRef], weights: np.ndarray | None, stores: list[FeatureStore]
) -> tuple[MaskedAutoencoder, FaceBatches, dict[str, Any]]:
    settings, seed = cfg.pretrain, cfg.run.seed
    table = FrameTable(refs, preset.image_size)
    torch.manual_seed(seed)
    model = MaskedAutoencoder(preset, mask_ratio=settings.mask_ratio, norm_pix_loss=settings.norm_pix_loss)
    trained_on, recipe = [_record(cfg, refs)], _recipe(stores)
    if settings.init_from != "none":
        path = _init_path(cfg)
        loaded, before = load_checkpoint(path, kind="mae")
        fresh = load_weights(model, loaded, where=str(path), fresh=DECODER_PREFIXES)
        if fresh:
            logger.info("%s has no decoder: starting with a new one", path)
        trained_on = combine_trained_on([trained_on, before["trained_on"]])
    mean, std = NORMALISATIONS.get(settings.normalization) or measure_normalisation(table)
    header = {
        "kind": "mae",
        "architecture": {"preset": settings.preset, **preset.to_dict()},
        "pooling": "cls",
        "normalisation": {"mean": mean, "std": std},
        "resize": RESIZE,
        "recipe": recipe,
        "trained_on": trained_on,
    }
    order = SampleOrder(len(table), settings.batch_size, seed=seed, weights=weights)
    augment = Augment(min_scale=settings.min_crop_scale, aspect=4 / 3 if settings.min_crop_scale < 1 else 1.0)
    return model, FaceBatches(table, order, mean, std, augment, {}, preset.num_patches), header


def _train(
    cfg: Config, model: nn.Module, source: FaceBatches, header: dict[str, Any], folder: RunFolder, precision: str
) -> FitResult:
    settings = cfg.pretrain
    drawn = settings.steps * settings.batch_size
    if drawn < RECIPE_IMAGES and settings.preset != "vit_tiny_64":
        logger.warning("%d steps of %d images are far below what this model needs", settings.steps, settings.batch_size)
    lr = scaled_lr(settings.base_lr, settings.batch_size)
    return fit(
        model,
        run=folder,
        source=source,
        loss=reconstruction_loss,
        optimizer=adamw(parameter_groups(model, lr=lr, weight_decay=settings.weight_decay), betas=BETAS),
        schedule=half_cosine(settings.steps, warmup=settings.warmup_steps),
        settings=LoopSettings(
            steps=settings.steps,
            seed=cfg.run.seed,
            clip_norm=settings.clip_norm,
            precision=precision,
            validate_every=settings.checkpoint_every,
            save_every=settings.checkpoint_every,
            keep="last",
        ),
        header=header,
        report=lambda done: logger.info(describe(done)),
        watch=lambda steps: progress(steps, desc="pretrain", unit="step"),
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
