"""The configuration that makes of new videos what the runs were trained on: alignment, encoders, and their settings.

What comes out is compared with the recorded settings before any work: other features under the same name would give
wrong scores without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from abaw.config import (
    AlignConfig,
    AudioEncoderConfig,
    Config,
    DataConfig,
    ExtractAudioConfig,
    ExtractVisualConfig,
    RunConfig,
    VisualEncoderConfig,
)
from abaw.config.encoders import AUDIO_NAMES, VISUAL_NAMES, EncoderConfig, registry_name
from abaw.encoders.visual import RANDOM, entry_of
from abaw.errors import AbawError, ExitCode
from abaw.predicting.behind import Behind, Features
from abaw.predicting.trained import BEST, hash_of
from abaw.provenance import UNKNOWN, differences
from abaw.stages.align.plan import build_header, make_plan
from abaw.stages.extract_audio import setup as audio_setup
from abaw.stages.extract_visual import setup as visual_setup
from abaw.store import FeatureStore, StoreHeader
from abaw.training.device import resolve_precision

logger = logging.getLogger(__name__)

GEOMETRY = ("detector", "warp", "template", "margin", "size_px", "min_score", "jpeg_quality", "detection")
OF_THE_VIDEOS = ("faces", "time", "precision")  # settings of features that say nothing of how they are computed


def derived_config(cfg: Config, behind: Behind, folder: Path, *, all_faces: bool, device: torch.device) -> Config:
    """What the stages are called with: videos in ``folder``/videos, everything they write below ``folder``.

    Raises AbawError for encoders whose weights are not here.
    """
    tables: dict[str, EncoderConfig] = {}
    for one in behind.features.values():
        tables[one.key] = _visual(cfg, one, device) if one.kind == "visual" else _audio(cfg, one, device)
    visual, audio = ([one.key for one in behind.of_kind(kind)] for kind in ("visual", "audio"))
    silence = {one.header.settings.get("silence_db", cfg.extract_audio.silence_db) for one in behind.of_kind("audio")}
    silence_db = float(next(iter(silence), cfg.extract_audio.silence_db))
    run: dict[str, Any] = {"output": folder, "executor": "local"}
    return Config(
        root=cfg.root,
        data=DataConfig(name="videos", kind="videos", videos=folder / "videos"),
        run=RunConfig.model_validate({**cfg.run.model_dump(), **run}),
        align=_align(cfg.align, behind, all_faces=all_faces),
        pretrain=cfg.pretrain,
        extract_visual=ExtractVisualConfig(encoders=visual),
        extract_audio=ExtractAudioConfig(encoders=audio, silence_db=silence_db),
        encoders=tables,
    )


# -- faces -------------------------------------------------------------------------------------------------------------
def _align(own: AlignConfig, behind: Behind, *, all_faces: bool) -> AlignConfig:
    """[align] as the faces of the training were made, as far as that is recorded."""
    told: dict[str, Any] = {}
    if behind.recipe.get("fingerprint", UNKNOWN) != UNKNOWN:
        told = {key: behind.recipe["settings"][key] for key in ("detector", "warp", "margin")}
    if behind.faces is not None and "detection" in behind.faces.settings:
        settings, detection = behind.faces.settings, behind.faces.settings["detection"]
        told |= {key: settings[key] for key in ("size_px", "min_score", "jpeg_quality") if key in settings}
        told |= {key: detection[key] for key in ("short_side_px", "min_face_px", "follow_score") if key in detection}
        told |= {key: settings[key] for key in ("redetect",) if key in settings}
    return own.model_copy(update={**told, "store": None, "all_faces": all_faces})


def faces_header(derived: Config, behind: Behind) -> StoreHeader:
    """Header of the faces to come. Raises AbawError where faces would be found or cut in another way."""
    header = build_header(make_plan(derived, min_rows={}))
    if behind.faces is None or "detection" not in behind.faces.settings:
        return header
    theirs, ours = ({key: own.settings.get(key) for key in GEOMETRY} for own in (behind.faces, header))
    changed = differences(theirs, ours, ("in training", "here"))
    if changed and not derived.run.accept_recipe_mismatch:
        raise AbawError(
            f"faces would be found in another way than those that the run was trained on: {'; '.join(changed)}",
            where="[align]",
            fix="give the detector's file as in training (align.weights, align.pack), or go on all the same: "
            "--set run.accept_recipe_mismatch=true",
        )
    return header


# -- encoders ----------------------------------------------------------------------------------------------------------
def _visual(cfg: Config, one: Features, device: torch.device) -> VisualEncoderConfig:
    """The table that makes these features: that of the configuration with the recorded weights and precision."""
    settings = one.header.settings
    name = str(settings["encoder"])
    own = cfg.encoders.get(one.table)
    if not isinstance(own, VisualEncoderConfig) or registry_name(own.encoder) != registry_name(name):
        if registry_name(name) not in VISUAL_NAMES or name == "onnx":
            raise _no_table(one, name)
        own = VisualEncoderConfig(encoder=name, scores="scores" in settings, flip=bool(settings.get("flip")))
    changed: dict[str, Any] = {"precision": _precision(settings, device, one)}
    weights = str(settings.get("weights", ""))
    if entry_of(own.encoder).stage and not weights.startswith(RANDOM):
        changed["weights"] = str(_weights(cfg, one, own.weights, weights))
    return own.model_copy(update=changed)


def _weights(cfg: Config, one: Features, named: str, sha256: str) -> Path:
    """The file with this hash: as the configuration names it, or the weights of a run beside."""
    configured = [cfg.weights_file(named)] if named else []
    for path in dict.fromkeys((*configured, *_runs(one.output), *_runs(cfg.run.output))):
        if path.is_file() and hash_of(path.resolve()) == sha256:
            return path.resolve()
    raise AbawError(
        f"the weights that made the features {one.name} are not here (sha256 {sha256[:16]}...)",
        where=f"encoders.{one.table}.weights and {one.output / 'runs'}",
        fix="bring the file or run back, or name it: "
        f'--set encoders.{one.table}.encoder="{one.header.settings["encoder"]}" '
        f'--set encoders.{one.table}.weights="FILE"',
        code=ExitCode.MISSING,
    )


def _runs(output: Path) -> Iterator[Path]:
    """Weights of all runs and folds of a project that images are encoded with."""
    for stage in ("finetune", "pretrain"):
        yield from sorted((output / "runs").glob(f"{stage}-*/{BEST}"))
        yield from sorted((output / "runs").glob(f"{stage}-*/fold-*/{BEST}"))


def _audio(cfg: Config, one: Features, device: torch.device) -> AudioEncoderConfig:
    settings = one.header.settings
    name = str(settings["encoder"])
    own = cfg.encoders.get(one.table)
    if not isinstance(own, AudioEncoderConfig) or own.encoder != name:
        if name not in AUDIO_NAMES:
            raise _no_table(one, name)
        own = AudioEncoderConfig(encoder=name)
        if "num_mels" in settings:  # a spectrum: its settings are all there is to know
            keys = ("sample_rate", "hop_s", "window_s", "num_mels", "num_coefficients")
            own = own.model_copy(update={key: settings[key] for key in keys if key in settings})
    changed = {"precision": _precision(settings, device, one)} if "precision" in settings else {}
    return own.model_copy(update=changed)


def _precision(settings: Mapping[str, Any], device: torch.device, one: Features) -> str:
    """The recorded precision, unless this device would only imitate it."""
    recorded = str(settings.get("precision", "auto"))
    if recorded == "bf16" and resolve_precision("auto", device) != "bf16":
        logger.info("%s: fp32 here, bf16 in training", one.name)
        return "auto"
    return recorded


def _no_table(one: Features, encoder: str) -> AbawError:
    return AbawError(
        f'the configuration has no table of the encoder "{encoder}" that made {one.name}',
        where=f"[encoders.{one.table}]",
        fix="use the configuration that the run was trained with: -c FILE",
        code=ExitCode.CONFIG,
    )


def check_features(derived: Config, behind: Behind, faces: FeatureStore, device: torch.device) -> None:
    """Raise AbawError for features that would be computed in another way than those of the training."""
    for one in behind.features.values():
        path = derived.features_store(one.kind, one.key)
        if (path / "store.json").is_file():
            header = FeatureStore.open(path, kind=one.kind).header
        elif one.kind == "visual":
            header = visual_setup.plan(derived, visual_setup.Target(one.key, one.key), faces, device).header
        else:
            (plan,) = audio_setup.make_plans(derived, [one.key], faces)
            header = audio_setup.build_header(plan, faces.header)
        theirs, ours = (_computed(own.settings) for own in (one.header, header))
        changed = differences(theirs, ours, ("in training", "here"))
        if changed:
            raise AbawError(
                f"{one.name} would be made in another way than in training: {'; '.join(changed)}",
                where=f"[encoders.{one.table}]",
                fix="use the configuration and the weights that the run was trained with: -c FILE",
            )


def _computed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in OF_THE_VIDEOS}
