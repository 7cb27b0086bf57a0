"""What `extract-visual` is told: the table of an encoder, its weights, device and precision, and the store's header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from abaw.config import AudioEncoderConfig, Config, FinetuneConfig, VisualEncoderConfig
from abaw.config.encoders import AUDIO_NAMES, TAKES_A_NAME
from abaw.data.views import auxiliary_view, views_of
from abaw.encoders.visual import (
    RANDOM,
    VISUAL_ENCODERS,
    Entry,
    VisualEncoder,
    VisualOptions,
    build_visual_encoder,
    entry_of,
)
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.systems import SYSTEMS
from abaw.provenance import check_recipe, combine_trained_on
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.training.device import resolve_precision
from abaw.training.run import FOLD_PREFIX


class Target(NamedTuple):
    """A store to make: ``encoder`` names the table, ``store`` the store; ``weights``: these instead of the table's."""

    encoder: str
    store: str
    weights: str = ""


class Plan(NamedTuple):
    """An extraction that is ready to run: `path` is its store's, `warnings` are for that store's notes."""

    name: str
    encoder: VisualEncoder
    header: StoreHeader
    path: Path
    batch_size: int
    warnings: list[str]


def names_of(cfg: Config, encoder: str | None) -> list[str]:
    """What to extract with. Raises AbawError when that is nothing."""
    names = [encoder] if encoder else list(cfg.extract_visual.encoders)
    if not names:
        raise AbawError(
            "there is nothing to extract: extract_visual.encoders is empty",
            where="extract_visual.encoders",
            fix='name at least one encoder, e.g. encoders = ["mae"], or pass --encoder',
            code=ExitCode.CONFIG,
        )
    return names


def plan(cfg: Config, target: Target, faces: FeatureStore, device: torch.device, *, overwrite: bool = False) -> Plan:
    """Build an encoder and the header of its store.

    Raises AbawError for an unknown encoder, for weights that are missing, do not fit, or were trained on faces
    aligned another way, and for a precision that the encoder does not have.
    """
    table, path = table_of(cfg, target.encoder), cfg.features_store("visual", target.store)
    encoder = _build(cfg, target, table, device, recorded=None if overwrite else _recorded_precision(path))
    warnings = _check_recipe(cfg, target.encoder, encoder, faces)
    header = build_header(target.store, encoder, faces)
    return Plan(target.store, encoder, header, path, table.batch_size, warnings)


def build_header(name: str, encoder: VisualEncoder, faces: FeatureStore) -> StoreHeader:
    """Header of the feature store."""
    return StoreHeader(
        kind="visual",
        name=name,
        arrays={"features": ArraySpec("float16", (encoder.dim,)), "reason": ArraySpec("uint8")},
        settings={**encoder.settings, "faces": faces.fingerprint},
        recipe=faces.header.recipe,
        trained_on=combine_trained_on([encoder.trained_on, faces.header.trained_on]),
    )


# -- the table of an encoder -------------------------------------------------------------------------------------------
def table_of(cfg: Config, name: str) -> VisualEncoderConfig:
    """[encoders.<name>], or the defaults of the registry's encoder of that name."""
    if ":" in name or (name in TAKES_A_NAME and name not in cfg.encoders):
        raise _needs_a_table(name)
    table = cfg.encoders.get(name)
    if table is None and name in AUDIO_NAMES:
        table = AudioEncoderConfig.model_construct(encoder=name)
    if table is None:
        known = {own: entry for own, entry in VISUAL_ENCODERS.items() if not entry.named}
        choose({**known, **_visual_tables(cfg)}, name, what="visual encoder", where="extract_visual.encoders")
        table = VisualEncoderConfig.model_construct(encoder=name)  # known to the registry: not checked again
    if isinstance(table, AudioEncoderConfig):
        raise AbawError(
            f'"{name}" is an encoder of sound ({table.encoder}), not of faces',
            where=f"encoders.{name}.encoder",
            fix=f"run `abaw extract-audio --encoder {name}`, or name a visual encoder",
            code=ExitCode.CONFIG,
        )
    entry_of(table.encoder, where=f"encoders.{name}.encoder")
    return table


def _visual_tables(cfg: Config) -> Mapping[str, VisualEncoderConfig]:
    return {name: table for name, table in cfg.encoders.items() if isinstance(table, VisualEncoderConfig)}


def _needs_a_table(name: str) -> AbawError:
    """What to say of "timm:x": the folder of a store is named after its encoder, and a name there holds no colon."""
    kind, _, named = name.partition(":")
    own = re.sub(r"[^a-zA-Z0-9_-]+", "-", Path(named).stem.partition(".")[0]).strip("-") or "own"
    encoder = name if named else f"{kind}:<name>"
    return AbawError(
        f'"{name}" is to have a table with a name of its own, which its store is called after',
        where="extract_visual.encoders or --encoder",
        fix=f'add the table to the configuration:\n[encoders.{own}]\nencoder = "{encoder}"\nand name that: "{own}"',
        code=ExitCode.CONFIG,
    )


def _build(
    cfg: Config, target: Target, table: VisualEncoderConfig, device: torch.device, *, recorded: str | None
) -> VisualEncoder:
    name = target.encoder
    key = f"encoders.{name}.precision"
    options = VisualOptions(
        weights=target.weights or _weights(cfg, name, table),
        preset=cfg.pretrain.preset,
        pooling=table.pooling,
        scores=table.scores,
        labels=table.labels,
        flip=table.flip,
        mean=tuple(table.mean),
        std=tuple(table.std),
        color=table.color,
        device=str(device),
        precision=resolve_precision(table.precision, device, key=key, recorded=recorded),
        auto_precision=table.precision == "auto",
        trained_on=tuple(table.trained_on),
        make_view=_view,
        weights_dir=cfg.run.weights_dir,
        root=cfg.root,
    )
    try:
        return build_visual_encoder(table.encoder, options)
    except AbawError as error:  # encoders know no names of tables
        error.where = error.where.replace("encoders.<name>", f"encoders.{name}")
        raise


def _view(images: np.ndarray, points: np.ndarray, *, view: str, style: str) -> np.ndarray:
    """The auxiliary views of some faces, for a model that takes them; made in several threads where they are large."""
    return views_of(partial(auxiliary_view, view=view, style=style), images, points)


def _recorded_precision(path: Path) -> str | None:
    """That of a store which is continued."""
    if not (path / "store.json").exists():
        return None
    recorded = FeatureStore.open(path).header.settings.get("precision")
    return None if recorded is None else str(recorded)


# -- weights -----------------------------------------------------------------------------------------------------------
def _weights(cfg: Config, name: str, table: VisualEncoderConfig) -> str:
    """Checkpoint of an encoder of ours, by default of the run that this configuration describes.

    Other encoders look for their own files, in `VisualOptions.weights_dir` unless the table names one.
    """
    entry = entry_of(table.encoder)
    if not entry.stage or table.weights == RANDOM:
        return table.weights
    path = cfg.weights_file(table.weights) if table.weights else run_of(cfg, entry) / "best.safetensors"
    if not path.is_file():
        model = f' with finetune.model = "{entry.model}"' if entry.model else ""
        count = len(list(path.parent.glob(f"{FOLD_PREFIX}*")))
        by_fold = f"; its folds are there: add --folds {count}" if count else ""
        raise AbawError(
            f'encoder "{name}" has no weights: there is no file {path}',
            where=f"encoders.{name}.weights",
            fix=f"run `abaw {entry.stage}`{model} first, or name a run folder or checkpoint there{by_fold}",
            code=ExitCode.MISSING,
        )
    return str(path)


def run_of(cfg: Config, entry: Entry) -> Path:
    """Folder of the run that gives an encoder its weights."""
    if entry.stage == "pretrain":
        return cfg.run_dir("pretrain", cfg.pretrain.name or cfg.pretrain.preset)
    task, settings = finetuning(cfg, entry.model)
    return cfg.run_dir("finetune", settings.run_name, task)


def finetuning(cfg: Config, model: str) -> tuple[str, FinetuneConfig]:
    """Task and settings of the run of a model ("" = any): the default task's where they fit, else the first that do."""
    default = cfg.finetune.task
    tables = {default: cfg.finetune_for(default), **cfg.finetune_tasks}
    if not model:
        return default, tables[default]
    allowed = SYSTEMS[model].tasks
    for task, settings in tables.items():
        if settings.model == model and (not allowed or task in allowed):
            return task, settings
    task = allowed[0] if allowed else default
    return task, cfg.finetune_for(task).model_copy(update={"model": model})


def _check_recipe(cfg: Config, name: str, encoder: VisualEncoder, faces: FeatureStore) -> list[str]:
    """Warnings about the faces behind the weights; refuses those aligned another way."""
    if not encoder.image_size:
        return []
    what, accept = f'the weights of encoder "{name}"', cfg.run.accept_recipe_mismatch
    where = f"encoders.{name}.weights"
    return check_recipe(encoder.recipe, faces.header.recipe, what=what, where=where, accept=accept)
