"""What a foreign weights file is, told from its top level and its parameter names.

DIALECTS names every layout that is known. Adding one is an entry there and a rule in `name_dialect`, or, for a network
without an encoder of ours, its marks in the entry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from abaw.errors import AbawError
from abaw.models.huggingface import is_huggingface
from abaw.models.mae import DECODER_PREFIXES


@dataclass(frozen=True)
class Dialect:
    """A layout. ``use``: what a network that is no encoder of ours is good for; ``marks``: names that it alone has."""

    title: str
    use: str = ""
    marks: tuple[str, ...] = ()


_CLASSIFIER = 'as the frozen classifier of model "emma" (finetune.emma.classifier)'
DIALECTS: dict[str, Dialect] = {
    "abaw": Dialect("a checkpoint of this program"),
    "mae-encoder": Dialect("MAE, encoder only"),
    "mae-full": Dialect("MAE, encoder and decoder"),
    "mae-visualize": Dialect("MAE, encoder and decoder trained on plain pixels (for pictures)"),
    "mae-finetuned": Dialect("MAE, finetuned classifier"),
    "mae-training": Dialect("MAE, a save of its training code"),
    "mae-face": Dialect("MAE-Face"),
    "fmae": Dialect("FMAE"),
    "emma": Dialect("EMMA, its ViT"),
    "timm": Dialect("timm's VisionTransformer"),
    "hf-vitmae": Dialect("Hugging Face ViTMAE"),
    "hf-vit": Dialect("Hugging Face ViT or ViTMAE, encoder only"),
    "dan": Dialect(
        "DAN, an expression classifier on ResNet-18",
        use=f"by `abaw extract-visual`, encoder dan, or {_CLASSIFIER}",
        marks=("features.0.weight", "cat_head0.sa.conv1x1.0.weight", "fc.weight", "bn.weight"),
    ),
    "iresnet": Dialect(
        "IResNet, a face recognition network of arcface_torch",
        use="by `abaw extract-visual`, encoder iresnet",
        marks=("conv1.weight", "prelu.weight", "layer1.0.prelu.weight", "features.weight"),
    ),
    "vggish": Dialect(
        "VGGish, a sound network",
        use="by `abaw extract-audio`, encoder vggish",
        marks=("features.0.weight", "embeddings.0.weight", "embeddings.4.weight"),
    ),
    "vggish-pca": Dialect(
        "the PCA of VGGish's post-processing",
        use='by `abaw extract-audio`, encoder vggish: pca = "FILE"',
        marks=("pca_eigen_vectors", "pca_means"),
    ),
    "hsemotion": Dialect(
        "EfficientNet, as HSEmotion's plain state dictionaries",
        use=f"by `abaw extract-visual`, encoder timm:<model>, or {_CLASSIFIER}: timm:<model>:<file>",
        marks=("conv_stem.weight", "conv_head.weight", "blocks.0.0.conv_dw.weight"),
    ),
}

WRAPPERS = ("model", "state_dict", "model_state_dict", "module")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
ENCODER_MARK = "patch_embed.proj.weight"
_EMMA_PREFIX = "vit."
_HEAD = re.compile(r"head|classifier|^fc$|^pooler$")
_IDENTITY = re.compile(r"^ID_head")  # of FMAE's identity-adversarial training


@dataclass
class Contents:
    """Named tensors of a file after everything around them was taken off, and what was left aside."""

    tensors: dict[str, Tensor]
    unwrapped: tuple[str, ...]
    ignored: dict[str, str] = field(default_factory=dict)
    norm_pix_loss: bool | None = None  # recorded by MAE's training code


def unwrap(content: Any, *, path: Path) -> Contents:
    """Take off known top-level keys, then known prefixes that all names share, one after the other.

    Raises AbawError when no named tensors are found.
    """
    found = Contents({}, ())
    while isinstance(content, Mapping) and (key := _wrapper(content)):
        for name, value in content.items():
            if name == "args":
                recorded = getattr(value, "norm_pix_loss", None)
                found.norm_pix_loss = recorded if isinstance(recorded, bool) else None
            if name != key:
                found.ignored[str(name)] = "beside the weights"
        found.unwrapped += (key,)
        content = content[key]
    if not isinstance(content, Mapping):
        raise _no_weights(path, f"{type(content).__name__} without names")
    for name, value in content.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, Tensor):
            found.tensors[str(name)] = value.detach()
        else:
            found.ignored[str(name)] = f"{type(value).__name__}, no tensor"
    if not found.tensors:
        raise _no_weights(path, f"keys {', '.join(map(str, list(content)[:5])) or 'none'}")
    while prefix := _shared_prefix(found.tensors):
        found.tensors = {name.removeprefix(prefix): value for name, value in found.tensors.items()}
        found.unwrapped += (prefix,)
    return found


def _wrapper(content: Mapping[Any, Any]) -> str | None:
    """The known top-level key with tensors behind it, if need be inside another one."""
    return next((key for key in WRAPPERS if isinstance(content.get(key), Mapping) and _has_tensors(content[key])), None)


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, (Tensor, np.ndarray)) for value in content.values()) or _wrapper(content) is not None


def _shared_prefix(names: Mapping[str, Tensor]) -> str | None:
    """A known prefix that every name has. `vit.` is one where a whole encoder stands behind it."""
    known = (*PREFIXES, _EMMA_PREFIX) if f"{_EMMA_PREFIX}{ENCODER_MARK}" in names else PREFIXES
    return next((prefix for prefix in known if all(name.startswith(prefix) for name in names)), None)


def name_dialect(contents: Contents, *, path: Path) -> str:
    """Key of DIALECTS. Raises AbawError for a layout that is not known, naming its first keys."""
    names = set(contents.tensors)
    file = path.name.lower().replace("-", "_")
    for key, dialect in DIALECTS.items():
        if dialect.marks and names.issuperset(dialect.marks):
            return key
    if is_huggingface(names):
        return "hf-vitmae" if any(name.startswith("decoder.") for name in names) else "hf-vit"
    if f"{_EMMA_PREFIX}{ENCODER_MARK}" in names:
        return "emma"
    if ENCODER_MARK in names:
        return _name_vit(contents, names, file)
    firsts = ", ".join(list(contents.tensors)[:5])
    raise AbawError(
        f"{path.name} holds weights of a layout that is not known ({len(names)} tensors: {firsts}, ...)",
        where=str(path),
        fix=f"known layouts: {', '.join(DIALECTS)}; a known prefix is taken off only where all names have it",
    )


def _name_vit(contents: Contents, names: set[str], file: str) -> str:
    """Which of the layouts with timm's names; what the names leave open, the file's name may say."""
    if "fmae" in file or any(_IDENTITY.match(name) for name in names):
        return "fmae"
    if "mae_face" in file or "maeface" in file:
        return "mae-face"
    has_decoder = any(name.startswith(DECODER_PREFIXES) for name in names)
    if "optimizer" in contents.ignored and "model" in contents.unwrapped and has_decoder:
        return "mae-training"
    if has_decoder:
        return "mae-visualize" if "visualize" in file or "ganloss" in file else "mae-full"
    if "model" not in contents.unwrapped:
        return "timm"
    return "mae-finetuned" if "fc_norm.weight" in names else "mae-encoder"


def split(dialect: str, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
    """(encoder, decoder, head, other networks) under the published names."""
    parts: tuple[dict[str, Tensor], ...] = ({}, {}, {}, {})
    encoder, decoder, head, others = parts
    for full, value in tensors.items():
        if dialect == "emma" and not full.startswith(_EMMA_PREFIX):
            (head if _HEAD.search(full.partition(".")[0]) else others)[full] = value
            continue
        name = full.removeprefix(_EMMA_PREFIX) if dialect == "emma" else full
        if name.startswith(DECODER_PREFIXES):
            decoder[name] = value
        elif _HEAD.search(name.partition(".")[0]):
            head[name] = value
        else:
            encoder[name] = value
    return parts


def _no_weights(path: Path, found: str) -> AbawError:
    return AbawError(
        f"{path.name} holds no named weights ({found})",
        where=str(path),
        fix="give a file with a state dictionary: parameter names and their tensors",
    )
