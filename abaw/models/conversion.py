"""What a recognised weights file is good for, and writing it as a checkpoint of this program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from abaw.checkpoint import save_checkpoint
from abaw.errors import AbawError
from abaw.models.dialects import DIALECTS, OtherNetwork, Pretrained, read_any
from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import FaceEncoder

Lines = list[tuple[str, str]]
FIRST_KEYS = 5


@dataclass(frozen=True)
class Match:
    """A file's parameters beside those of the model of its shape."""

    matched: int
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    def to_dict(self) -> dict[str, object]:
        return {
            "matched": self.matched,
            "missing": self.missing,
            "unexpected": self.unexpected,
            "wrong_shape": self.misshapen,
        }


def compare_encoder(source: Pretrained) -> Match:
    """The encoder beside one of its shape, with the norm that its kind has: `norm`, `fc_norm` or both."""
    with torch.device("meta"):
        expected = dict(FaceEncoder(source.preset).state_dict())
    norms = ("norm.", "fc_norm.") if "fc_norm.weight" in source.encoder else ("norm.",)
    if norms[1:] and "norm.weight" not in source.encoder:
        norms = ("fc_norm.",)
    like = {"weight": expected.pop("norm.weight"), "bias": expected.pop("norm.bias")}
    expected |= {f"{norm}{kind}": value for norm in norms for kind, value in like.items()}
    return _compare(source.encoder, expected)


def compare_decoder(source: Pretrained) -> Match:
    """The decoder beside one of its shape; an empty match where there is none."""
    if not source.decoder:
        return Match(0, [], [], [])
    with torch.device("meta"):
        expected = MaskedAutoencoder(source.preset).state_dict()
        encoder = FaceEncoder(source.preset).state_dict()
    return _compare(source.decoder, {name: value for name, value in expected.items() if name not in encoder})


def _compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> Match:
    misshapen = [
        f"{name} {list(found[name].shape)} for {list(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    return Match(
        matched=sum(name in found for name in expected) - len(misshapen),
        missing=[name for name in expected if name not in found],
        unexpected=[name for name in found if name not in expected],
        misshapen=misshapen,
    )


def uses(source: Pretrained) -> dict[str, str]:
    """What the weights can be used for: use -> "yes" or "no", each with the reason or condition."""
    encoder, decoder = compare_encoder(source), compare_decoder(source)
    names = ("class-token features", "mean features", "finetuning", "continued pretraining", "reconstructions")
    if not encoder.is_whole:
        return dict.fromkeys(names, "no: the encoder does not match whole")
    has_norm, has_own = "norm.weight" in source.encoder, "fc_norm.weight" in source.encoder
    own = "yes, through its own fc_norm"
    return {
        names[0]: "yes, through the pretrained norm" if has_norm else "no: it has no norm for the class token",
        names[1]: own if has_own else "yes, the mean of the tokens after the pretrained norm",
        names[2]: "yes" if has_own or not has_norm else "yes; pooling by mean starts with a new fc_norm",
        names[3]: _continued(source, decoder, has_norm=has_norm),
        names[4]: _reconstructions(source, decoder),
    }


def _continued(source: Pretrained, decoder: Match, *, has_norm: bool) -> str:
    new = [] if has_norm else ["norm"]
    if source.decoder and not decoder.is_whole:
        return "no: the decoder does not match whole"
    if not source.decoder:
        new.append("decoder")
    return f"yes, with a new {' and a new '.join(new)}" if new else "yes, with its decoder"


def _reconstructions(source: Pretrained, decoder: Match) -> str:
    if not source.decoder:
        return "no: it has no decoder"
    if not decoder.is_whole:
        return "no: the decoder does not match whole"
    target = source.header.get("target", "")
    if target == "pixels":
        return "yes, its decoder predicts pixels"
    if target == "normalised pixels":
        return "only with each patch's own mean and deviation put back: its decoder predicts normalised pixels"
    return "yes, where it is known whether its decoder predicts plain or normalised pixels"


# -- in words ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Survey:
    """A weights file in lines for a person and values for a machine; ``source``: None where it is no encoder."""

    lines: Lines
    data: dict[str, object]
    source: Pretrained | None
    is_whole: bool


def survey(path: Path, *, trained_on: Iterable[str] = ()) -> Survey:
    """Read a weights file and say what it is. Raises AbawError for one that is unsafe, damaged or not known."""
    found = read_any(path, trained_on=tuple(trained_on))
    dialect = DIALECTS[found.dialect]
    lines: Lines = [
        ("weights", str(path)),
        ("dialect", f"{found.dialect}: {dialect.title}"),
        ("unwrapped", ", ".join(found.unwrapped) or "nothing"),
    ]
    data: dict[str, object] = {"path": str(path), "dialect": found.dialect, "unwrapped": list(found.unwrapped)}
    if isinstance(found, OtherNetwork):
        lines += [("tensors", _first(found.tensors)), ("usable", dialect.use), *_ignored(found.ignored)]
        return Survey(lines, {**data, "use": dialect.use}, None, is_whole=True)
    encoder, decoder, use = compare_encoder(found), compare_decoder(found), uses(found)
    lines += [("shape", _shape(found)), *_table("encoder", encoder)]
    lines += _table("decoder", decoder) if found.decoder else [("decoder", "none")]
    lines += [("head", _first(found.head)), *_ignored(found.ignored)]
    lines += [(name, text) for name, text in use.items()]
    lines += [("note", note) for note in found.notes]
    data |= {
        "sha256": found.sha256,
        "architecture": found.preset.to_dict(),
        "encoder": encoder.to_dict(),
        "decoder": decoder.to_dict() if found.decoder else None,
        "head": sorted(found.head),
        "ignored": found.ignored,
        "uses": use,
        "notes": list(found.notes),
        "header": found.header,
    }
    return Survey(lines, data, found, is_whole=encoder.is_whole and decoder.is_whole)


def _shape(source: Pretrained) -> str:
    one = source.preset
    text = (
        f"width {one.width}, {one.depth} blocks, {one.heads} heads, "
        f"patches of {one.patch_size} in {one.image_size} pixels"
    )
    if not source.decoder:
        return text
    target = source.header.get("target") or "as configured"
    decoder = f"decoder {one.decoder_width} wide, {one.decoder_depth} blocks, {one.decoder_heads} heads"
    return f"{text}; {decoder}, target {target}"


def _table(name: str, match: Match) -> Lines:
    counts = (
        f"{match.matched} matched, {len(match.missing)} missing, {len(match.unexpected)} unexpected, "
        f"{len(match.misshapen)} of wrong shape"
    )
    lines = [(name, counts)]
    for what, names in (
        ("missing", match.missing),
        ("unexpected", match.unexpected),
        ("wrong shape", match.misshapen),
    ):
        if names:
            lines.append((what, _first(names)))
    return lines


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{', '.join(listed[:FIRST_KEYS])}{', ...' if len(listed) > FIRST_KEYS else ''}" or "none"


def _ignored(ignored: dict[str, str]) -> Lines:
    reasons: dict[str, list[str]] = {}
    for name, why in ignored.items():
        reasons.setdefault(why, []).append(name)
    return [("left aside", f"{_first(names)} ({why})") for why, names in reasons.items()]


# -- conversion --------------------------------------------------------------------------------------------------------
def convert(found: Survey, out: Path) -> None:
    """Write encoder and decoder as a checkpoint of ours, in float32; heads stay behind.

    Raises AbawError for a file that is ours already or cannot be used, and where something is at ``out``.
    """
    source = found.source
    path = str(found.data["path"])
    if source is None or not found.is_whole:
        reason = (
            "it holds no encoder of ours" if source is None else "its tensors do not all match a model of its shape"
        )
        raise AbawError(
            f"{Path(path).name} cannot be converted: {reason}",
            where=path,
            fix=f"`abaw inspect {path}` lists what it holds; give a whole encoder",
        )
    if source.dialect == "abaw":
        raise AbawError(
            f"{source.path.name} is a checkpoint of this program already",
            where=path,
            fix="use it as it is; copy it if it should have another name",
        )
    if out.suffix != ".safetensors":
        raise AbawError(f'"{out.name}" is no name for a checkpoint', where=str(out), fix="end it in .safetensors")
    if out.exists():
        raise AbawError(f"{out} exists", where=str(out), fix="delete it first, or give another name")
    weights = {**source.encoder, **source.decoder}
    save_checkpoint(out, {name: value.float() for name, value in weights.items()}, source.header)
