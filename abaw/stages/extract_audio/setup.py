"""What `extract-audio` is told: the table of an encoder, its device and precision, and the store's header."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from abaw.config import AudioEncoderConfig, Config, VisualEncoderConfig
from abaw.config.encoders import VISUAL_NAMES
from abaw.encoders.audio import AUDIO_ENCODERS, AudioEncoder, AudioOptions, build_audio_encoder
from abaw.errors import AbawError, ExitCode, choose
from abaw.provenance import combine_trained_on
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.training.device import resolve_device, resolve_precision

# Keys of a table that are handed over as they are.
_KEYS = (
    *("weights", "model", "layer", "piece_s", "context_s", "sample_rate", "hop_s", "window_s"),
    *("num_mels", "num_coefficients", "pca", "batch_size"),
)


@dataclass(frozen=True)
class Plan:
    """Everything a worker needs; small and picklable. ``nominal`` when frame times only count frames."""

    name: str
    faces: Path
    store: Path
    encoder: str
    options: AudioOptions
    silence_db: float
    nominal: bool = False

    def build(self) -> AudioEncoder:
        """The encoder; one is kept in memory."""
        try:
            return _built(self.encoder, self.options)
        except AbawError as error:  # encoders know no names of tables
            error.where, error.fix = (text.replace("<name>", self.name) for text in (error.where, error.fix))
            raise


@lru_cache(maxsize=1)
def _built(name: str, options: AudioOptions) -> AudioEncoder:
    return build_audio_encoder(name, options)


def names_of(cfg: Config, encoder: str | None) -> list[str]:
    """What to extract with. Raises AbawError when that is nothing."""
    names = [encoder] if encoder else list(cfg.extract_audio.encoders)
    if not names:
        raise AbawError(
            "no audio encoder is chosen",
            where="extract_audio.encoders",
            fix='set encoders = ["logmel"], or give --encoder',
            code=ExitCode.CONFIG,
        )
    return names


def make_plans(cfg: Config, names: list[str], faces: FeatureStore, *, overwrite: bool = False) -> list[Plan]:
    """One plan for each name.

    Raises AbawError for an unknown encoder, a device that is not there, and a precision that an encoder does not have.
    """
    tables = {name: _table(cfg, name) for name in names}
    # Encoders without a model of their own run on the CPU; of the others "auto" is settled, and said, once.
    device = "cpu"
    if cfg.run.device != "auto" or any(AUDIO_ENCODERS[table.encoder].on_device for table in tables.values()):
        device = str(resolve_device(cfg.run.device))
    nominal = faces.header.settings.get("time") == "nominal" and cfg.data.videos is not None
    plans = []
    for name, table in tables.items():
        store = cfg.features_store("audio", name)
        recorded = None if overwrite else _recorded_precision(store)
        options = _options(cfg, name, table, device=device, recorded=recorded)
        plans.append(Plan(name, faces.path, store, table.encoder, options, cfg.extract_audio.silence_db, nominal))
    return plans


def _table(cfg: Config, name: str) -> AudioEncoderConfig:
    """[encoders.<name>], or the defaults of the registry's encoder of that name."""
    table = cfg.encoders.get(name)
    if table is None and name in VISUAL_NAMES:
        table = VisualEncoderConfig.model_construct(encoder=name)
    if table is None:
        tables = {key: table for key, table in cfg.encoders.items() if isinstance(table, AudioEncoderConfig)}
        choose({**AUDIO_ENCODERS, **tables}, name, what="audio encoder", where="extract_audio.encoders")
        return AudioEncoderConfig(encoder=name)
    if not isinstance(table, AudioEncoderConfig):
        raise AbawError(
            f'"{name}" is an encoder of faces ({table.encoder}), not of sound',
            where=f"encoders.{name}.encoder",
            fix=f"run `abaw extract-visual --encoder {name}`, or name an audio encoder",
            code=ExitCode.CONFIG,
        )
    return table


def _options(cfg: Config, name: str, table: AudioEncoderConfig, *, device: str, recorded: str | None) -> AudioOptions:
    import torch

    on_device = AUDIO_ENCODERS[table.encoder].on_device
    if table.precision == "bf16" and not on_device:
        raise AbawError(
            f'encoder "{table.encoder}" computes in fp32 only',
            where=f"encoders.{name}.precision",
            fix="leave the key out",
            code=ExitCode.CONFIG,
        )
    key = f"encoders.{name}.precision"
    precision = resolve_precision(table.precision, torch.device(device), key=key, recorded=recorded)
    return AudioOptions(
        **{key: getattr(table, key) for key in _KEYS},
        trained_on=tuple(table.trained_on),
        precision=precision if on_device else "fp32",
        device=device if on_device else "cpu",
        root=cfg.root,
        weights_dir=cfg.run.weights_dir,
    )


def _recorded_precision(store: Path) -> str | None:
    """That of a store which is continued."""
    if not (store / "store.json").exists():
        return None
    recorded = FeatureStore.open(store).header.settings.get("precision")
    return None if recorded is None else str(recorded)


def build_header(plan: Plan, faces: StoreHeader) -> StoreHeader:
    """The store's header; the recipe is that of the faces whose clock it uses."""
    encoder = plan.build()
    settings: dict[str, Any] = {
        **encoder.settings,
        "hop_s": encoder.hop_s,
        "offset_s": encoder.offset_s,
        "window_s": encoder.window_s,
        "silence_db": plan.silence_db,
        "pooling": "mean of the tokens whose centre lies in the frame, else the nearest",
    }
    if plan.nominal:
        settings["time"] = "nominal, on the clock of the video's header"
    arrays = {"features": ArraySpec("float16", (encoder.dim,)), "reason": ArraySpec("uint8")}
    trained_on = combine_trained_on([encoder.trained_on, faces.trained_on])
    return StoreHeader("audio", plan.name, arrays, settings, recipe=faces.recipe, trained_on=trained_on)
