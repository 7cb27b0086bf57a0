"""Weights of any known origin, under our names: recognise a file, work out its shape, put it into a model.

The published MAE names are timm's and ours, so that most layouts need their wrapping taken off and no more. A model
never starts with an encoder that did not match whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from abaw.checkpoint import load_weights
from abaw.errors import AbawError, ExitCode
from abaw.models.face_model import preset_of
from abaw.models.huggingface import settings_beside, translate
from abaw.models.layouts import DIALECTS, Contents, name_dialect, split, unwrap
from abaw.models.mae import DECODER_PREFIXES, MaskedAutoencoder
from abaw.models.pixels import BICUBIC, normalisation_of, target_of
from abaw.models.shapes import preset_name, preset_of_tensors, resize_positions
from abaw.models.systems import SYSTEMS
from abaw.models.vit import NORM_EPS, FaceEncoder, VitPreset, build_vit
from abaw.models.weight_files import read_weight_file
from abaw.provenance import file_sha256, undeclared_record, unknown_recipe

__all__ = [
    "DIALECTS",
    "Loaded",
    "OtherNetwork",
    "Pretrained",
    "frozen_encoder",
    "load_autoencoder",
    "load_encoder",
    "read_any",
    "read_pretrained",
]

FRESH_HEADS = ("heads.", "head.")


@dataclass(frozen=True)
class Pretrained:
    """What a weights file holds, under our names.

    `dialect`: key of DIALECTS; `unwrapped`: top-level keys and prefixes taken off; `encoder`: with `norm.*` or
    `fc_norm.*`; `decoder`: `decoder_*` and `mask_token`; `head`: output layers; `ignored`: name -> why; `preset`: the
    shape; `header`: as in our checkpoints; `notes`: what was taken from elsewhere than the tensors, as sentences;
    `heads_recorded`: False where the numbers of attention heads are assumed.
    """

    path: Path
    sha256: str
    dialect: str
    unwrapped: tuple[str, ...]
    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    head: dict[str, Tensor]
    ignored: dict[str, str]
    preset: VitPreset
    header: dict[str, Any]
    notes: tuple[str, ...] = ()
    heads_recorded: bool = True


@dataclass(frozen=True)
class Loaded:
    """What loading left as it was (`fresh`), and what a record of the run should say."""

    fresh: list[str]
    resized: bool
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class OtherNetwork:
    """Weights of a known layout that hold no encoder of ours."""

    path: Path
    dialect: str
    unwrapped: tuple[str, ...]
    tensors: dict[str, Tensor]
    ignored: dict[str, str]


def read_pretrained(path: Path, *, trained_on: Sequence[str] = ()) -> Pretrained:
    """Read a file of any known layout; `trained_on` as in `provenance.undeclared_record`, for foreign files alone.

    Raises AbawError for a file that is unsafe, damaged or of no known layout, and for one without an encoder of ours.
    """
    found = read_any(path, trained_on=trained_on)
    if isinstance(found, Pretrained):
        return found
    dialect = DIALECTS[found.dialect]
    raise AbawError(
        f"{path.name} is {dialect.title}: it holds no encoder of faces that this program could use",
        where=str(path),
        fix=f"give the weights of a ViT; this file can be used {dialect.use}",
    )


def read_any(path: Path, *, trained_on: Sequence[str] = ()) -> Pretrained | OtherNetwork:
    """As `read_pretrained`, with networks that are known but no encoders of ours handed back as such."""
    file = read_weight_file(path)
    if file.header is not None:
        return _own(path, file.content, file.header)
    contents = unwrap(file.content, path=path)
    dialect = name_dialect(contents, path=path)
    if DIALECTS[dialect].use:
        return OtherNetwork(path, dialect, contents.unwrapped, contents.tensors, contents.ignored)
    return _foreign(path, contents, dialect, trained_on)


def _own(path: Path, weights: dict[str, Tensor], header: dict[str, Any]) -> Pretrained:
    shape = header.get("architecture", {})
    system = SYSTEMS.get(shape.get("model", "static"))
    prefix = system.encoder if system else ""
    if f"{prefix}cls_token" not in weights:
        raise AbawError(
            f'{path.name} holds a model of kind "{header.get("kind")}", which has no image encoder',
            where=str(path),
            fix=f"give weights of `abaw pretrain` or `abaw finetune`; `abaw inspect {path}` shows what a file holds",
        )
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    rest = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    encoder, decoder, head, _ = split("abaw", own)
    head |= split("abaw", rest)[2]
    others = dict.fromkeys((name for name in rest if name not in head), "another part of the model")
    count = sum(name.endswith("cls_token") for name in weights)
    return Pretrained(
        path=path,
        sha256=file_sha256(path),
        dialect="abaw",
        unwrapped=(prefix,) if prefix else (),
        encoder=encoder,
        decoder=decoder,
        head=head,
        ignored=others,
        preset=preset_of(header),
        header=dict(header),
        notes=(f"{path.name} holds {count} encoders: the first is taken",) if count > 1 else (),
    )


def _foreign(path: Path, contents: Contents, dialect: str, trained_on: Sequence[str]) -> Pretrained:
    tensors = translate(contents.tensors) if dialect.startswith("hf-") else contents.tensors
    encoder, decoder, head, others = split(dialect, tensors)
    ignored = {**contents.ignored, **dict.fromkeys(others, "part of another network")}
    if "norm.weight" in encoder and not _is_trained(encoder, "fc_norm"):
        ignored |= {name: "never trained" for name in encoder if name.startswith("fc_norm.")}
        encoder = {name: value for name, value in encoder.items() if not name.startswith("fc_norm.")}
    beside = settings_beside(path) if dialect.startswith("hf-") or dialect == "timm" else {}
    preset, notes = preset_of_tensors(path, encoder, decoder, beside)
    sha256 = file_sha256(path)
    normalisation, told = normalisation_of(dialect, path, beside)
    norm_pix_loss = beside.get("norm_pix_loss", contents.norm_pix_loss)
    target, aimed = target_of(dialect, path, norm_pix_loss) if decoder else ("", [])
    header = {
        "kind": "mae",
        "architecture": {"preset": preset_name(preset), **preset.to_dict()},
        "pooling": "mean" if "fc_norm.weight" in encoder else "cls",
        "normalisation": normalisation,
        "resize": BICUBIC,
        "recipe": unknown_recipe(),
        "trained_on": [undeclared_record(sha256, trained_on)],
        "dialect": dialect,
        "target": target,
        "source": {"file": path.name, "sha256": sha256},
    }
    return Pretrained(
        path=path,
        sha256=sha256,
        dialect=dialect,
        unwrapped=contents.unwrapped,
        encoder=encoder,
        decoder=decoder,
        head=head,
        ignored=ignored,
        preset=preset,
        header=header,
        notes=(*notes, told, *aimed, *_eps(path, beside)),
        heads_recorded="heads" in beside,
    )


def _is_trained(weights: dict[str, Tensor], norm: str) -> bool:
    """Whether a norm left its starting point, all ones and zeros."""
    weight, bias = weights.get(f"{norm}.weight"), weights.get(f"{norm}.bias")
    return weight is not None and bias is not None and bool((weight != 1).any() or (bias != 0).any())


def _eps(path: Path, beside: dict[str, Any]) -> list[str]:
    """That a configuration tells another constant of the layer norms than ours, which is never read from files.

    Converted MAE and ViT weights are published with 1e-12, though they were trained with 1e-6.
    """
    told = beside.get("norm_eps", NORM_EPS)
    return [] if told == NORM_EPS else [f"layer norms run with eps {NORM_EPS:g}; beside {path.name} stands {told:g}"]


# -- into a model ------------------------------------------------------------------------------------------------------
def load_encoder(model: FaceEncoder, source: Pretrained, *, where: str) -> Loaded:
    """Put the encoder into a model, whose heads stay as they are.

    A model that normalises its pooled feature by `fc_norm` takes the file's, or starts with a new one: the tokens'
    `norm` belongs to single tokens. Raises AbawError unless every other tensor matches.
    """
    _check_heads(model.preset.heads, source.preset.heads, source, where)
    own = model.state_dict()
    weights, resized = _fitted(source.encoder, own, source, ("pos_embed",))
    fresh, notes = list(FRESH_HEADS), list(source.notes)
    if "fc_norm.weight" in own:
        weights = {name: value for name, value in weights.items() if not name.startswith("norm.")}
        if "fc_norm.weight" not in weights:
            fresh.append("fc_norm.")
    elif "norm.weight" in weights:
        weights = {name: value for name, value in weights.items() if not name.startswith("fc_norm.")}
    left = load_weights(model, weights, where=where, fresh=tuple(fresh))
    return Loaded(left, bool(resized), notes + resized)


def load_autoencoder(model: MaskedAutoencoder, source: Pretrained, *, where: str) -> Loaded:
    """Put encoder and decoder into a masked autoencoder. What a file lacks by its kind starts new, and is noted.

    That is the decoder of an encoder-only file, and the tokens' `norm` of one finetuned with `fc_norm`. Raises
    AbawError unless every other tensor matches.
    """
    _check_heads(model.preset.heads, source.preset.heads, source, where)
    if source.decoder:
        _check_heads(model.preset.decoder_heads, source.preset.decoder_heads, source, where)
    own = model.state_dict()
    weights, resized = _fitted({**source.encoder, **source.decoder}, own, source, ("pos_embed", "decoder_pos_embed"))
    fresh: list[str] = []
    notes = [*source.notes, *resized]
    if not source.decoder:
        fresh += DECODER_PREFIXES
        notes.append(f"{source.path.name} has no decoder: starting with a new one")
    elif source.header.get("target") == ("pixels" if model.norm_pix_loss else "normalised pixels"):
        notes.append(f"the decoder of {source.path.name} was trained to predict {source.header['target']}")
    if "fc_norm.weight" in weights:
        weights = {name: value for name, value in weights.items() if not name.startswith("fc_norm.")}
        if "norm.weight" not in weights:
            fresh.append("norm.")
            notes.append(f"{source.path.name} was finetuned without the tokens' norm: starting with a new one")
    return Loaded(load_weights(model, weights, where=where, fresh=tuple(fresh)), bool(resized), notes)


def _check_heads(ours: int, theirs: int, source: Pretrained, where: str) -> None:
    """Refuse another number of attention heads than a recorded one: no tensor's shape would show it."""
    if source.heads_recorded and ours != theirs:
        raise AbawError(
            f"weights do not fit the model ({theirs} attention heads in {source.path.name}, {ours} in the model)",
            where=where,
            fix="use the preset the weights were made with; `abaw inspect` on the file names it",
        )


def _fitted(
    weights: dict[str, Tensor], own: dict[str, Tensor], source: Pretrained, names: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights with positions resized to the model's grid, and a sentence for each that was."""
    fitted, notes = dict(weights), []
    for name in names:
        if name not in weights or name not in own or weights[name].ndim != 3:
            continue
        here, there = own[name].shape[1], weights[name].shape[1]
        if here != there and weights[name].shape[2] == own[name].shape[2]:
            fitted[name] = resize_positions(weights[name], int((here - 1) ** 0.5 + 0.5))
            notes.append(f"{name} of {source.path.name} resized from {there - 1} to {here - 1} patches")
    return fitted, notes


def frozen_encoder(source: Pretrained, pooling: str = "auto") -> tuple[FaceEncoder, str]:
    """Encoder of frozen features and its pooling, "cls" or "mean", which "auto" takes from the kind of checkpoint.

    A feature passes through a norm that was trained: tokens through `norm`; a mean through `fc_norm` where the file
    has one. Raises AbawError where the file lacks the norm that `pooling` needs, and unless everything matches.
    """
    where, encoder = str(source.path), source.encoder
    pooling = source.header["pooling"] if pooling == "auto" else pooling
    if pooling == "cls" and "norm.weight" not in encoder and "fc_norm.weight" in encoder:
        raise AbawError(
            f'pooling = "cls" needs a norm of the class token, and {source.path.name} was finetuned without one',
            where=where,
            fix='use pooling = "mean" or "auto": its fc_norm belongs to the mean of the patch tokens',
            code=ExitCode.CONFIG,
        )
    by_mean = pooling == "mean" and "fc_norm.weight" in encoder
    model = (
        FaceEncoder(source.preset, pool="avg", fc_norm=True) if by_mean else build_vit(source.preset, pooling=pooling)
    )
    unused = "norm." if by_mean else "fc_norm."
    load_weights(model, {k: v for k, v in encoder.items() if not k.startswith(unused)}, where=where)
    return model, pooling
