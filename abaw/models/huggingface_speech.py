"""Hugging Face folders of wav2vec 2.0, HuBERT and WavLM, as the models that torchaudio builds.

A folder holds config.json, model.safetensors or pytorch_model.bin, and perhaps preprocessor_config.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abaw.errors import AbawError, ExitCode
from abaw.models.speech import SpeechShape, not_speech
from abaw.models.weight_files import read_weight_file

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
KINDS = {"wav2vec2": "Wav2Vec2", "hubert": "Wav2Vec2", "wavlm": "WavLM"}
# transformers' feature extractor adds this to the variance before it divides.
INPUT_EPS = 1e-7

_PARAMETERS = {
    "encoder_embed_dim": "hidden_size",
    "encoder_pos_conv_kernel": "num_conv_pos_embeddings",
    "encoder_pos_conv_groups": "num_conv_pos_embedding_groups",
    "encoder_num_layers": "num_hidden_layers",
    "encoder_num_heads": "num_attention_heads",
    "encoder_ff_interm_features": "intermediate_size",
    "encoder_layer_norm_first": "do_stable_layer_norm",
    "extractor_conv_bias": "conv_bias",
}
_OF_WAVLM = {"encoder_num_buckets": "num_buckets", "encoder_max_distance": "max_bucket_distance"}
_UNUSED = (
    "encoder_projection_dropout",
    "encoder_attention_dropout",
    "encoder_ff_interm_dropout",
    "encoder_dropout",
    "encoder_layer_drop",
)
# key -> the only value that torchaudio's models can take, and transformers' where the key is absent
_FIXED: Mapping[str, tuple[Any, Any]] = {
    "hidden_act": ("gelu", "gelu"),
    "feat_extract_activation": ("gelu", "gelu"),
    "feat_proj_layer_norm": (True, True),
    "conv_pos_batch_norm": (False, False),
    "adapter_attn_dim": (None, None),
}
_PREFIX = re.compile(r"^(wav2vec2|hubert|wavlm)\.")
_PARTS = ("feature_extractor.", "feature_projection.", "encoder.")
_SPELLINGS = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}
_PROJECTION = re.compile(r"^(encoder\.transformer\.layers\.\d+\.attention)\.(q|k|v|out)_proj\.(weight|bias)$")


def folder_of(path: Path) -> Path | None:
    """The Hugging Face folder that is meant by a folder, or by the weights file in it; None for other files."""
    if path.is_dir():
        return path
    named_so = path.name in WEIGHT_FILES and (path.parent / CONFIG).is_file()
    return path.parent if named_so else None


def weights_in(folder: Path) -> Path:
    """The weights file of a folder. Raises AbawError (missing) where there is none, or only a part."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    split = next(iter(sorted(folder.glob("*.index.json"))), None)
    why = f"{split.name} says they are in several files" if split else "there is none of them"
    raise AbawError(
        f"{folder.name} holds neither {' nor '.join(WEIGHT_FILES)}: {why}",
        where=str(folder),
        fix="save the model there in one file (save_pretrained with a large max_shard_size)"
        if split
        else f"put {WEIGHT_FILES[0]} and {CONFIG} of the model into {folder}",
        code=ExitCode.MISSING,
    )


def folder_shape(folder: Path, encoder: str) -> SpeechShape:
    """What config.json and preprocessor_config.json say.

    Raises AbawError for a folder without config.json, one of another encoder (configuration), and a variant that
    torchaudio's models cannot be.
    """
    config, path = _json(folder / CONFIG), folder / CONFIG
    if config is None:
        raise not_speech(folder, f"it has no readable {CONFIG}", fix=f"put the model's {CONFIG} into {folder}")
    kind = str(config.get("model_type"))
    if kind != encoder:
        other = f'write encoder = "{kind}"' if kind in KINDS else f"give a folder of one of: {', '.join(KINDS)}"
        raise AbawError(
            f'{folder.name} holds a model of type "{kind}", not "{encoder}"',
            where=str(path),
            fix=other,
            code=ExitCode.CONFIG,
        )
    for key, (only, default) in _FIXED.items():
        if config.get(key, default) != only:
            raise not_speech(folder, f"{key} is {json.dumps(config[key])}", fix="give a model without this variant")
    try:
        parameters = _parameters(config, kind)
    except (KeyError, TypeError) as error:
        raise not_speech(folder, f"{CONFIG} lacks {error}") from error
    is_normalised = _is_normalised(folder, config)
    eps = float(config.get("layer_norm_eps", 1e-5))
    return SpeechShape(KINDS[kind], parameters, INPUT_EPS if is_normalised else None, eps)


def _parameters(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    names = _PARAMETERS | (_OF_WAVLM if kind == "wavlm" else {})
    layers = list(zip(config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True))
    parameters = {ours: config[theirs] for ours, theirs in names.items()}
    parameters["extractor_mode"] = f"{config['feat_extract_norm']}_norm"
    return parameters | {"extractor_conv_layer_config": layers, "aux_num_out": None} | dict.fromkeys(_UNUSED, 0.0)


def _is_normalised(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the sound is normalised first; without a word of it as the models were trained: those of large type."""
    said = (_json(folder / PREPROCESSOR) or {}).get("do_normalize")
    return bool(said) if isinstance(said, bool) else config["feat_extract_norm"] == "layer"


def read_folder(folder: Path, shape: SpeechShape) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a folder in torchaudio's names, and the names that were left out because they are no feature's."""
    path = weights_in(folder)
    content = read_weight_file(path).content
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise not_speech(path, "it holds more than named weights")
    plain = {_PREFIX.sub("", name): value for name, value in content.items()}
    # The embedding of masked places is used in training only, and by every model.
    left_out = sorted(name for name in plain if not name.startswith((*_PARTS, "masked_spec_embed")))
    kept = {_renamed(name): value for name, value in plain.items() if name.startswith(_PARTS)}
    return _joined(kept) if shape.kind == "WavLM" else kept, left_out


def _renamed(name: str) -> str:
    for old, new in _SPELLINGS.items():
        name = name.replace(old, new) if name.endswith(old) else name
    if name.startswith("encoder."):
        return f"encoder.transformer.{name.removeprefix('encoder.')}"
    return f"encoder.{name}" if name.startswith("feature_projection.") else name


def _joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of WavLM's layers in one matrix, as torch's own attention has them."""
    joined: dict[str, Tensor] = {}
    thirds: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, value in weights.items():
        found = _PROJECTION.match(name)
        if found is None:
            joined[name] = value
        elif found[2] == "out":
            joined[f"{found[1]}.attention.out_proj.{found[3]}"] = value
        else:
            thirds.setdefault((found[1], found[3]), {})[found[2]] = value
    for (layer, kind), parts in thirds.items():
        if set(parts) == {"q", "k", "v"}:
            joined[f"{layer}.attention.in_proj_{kind}"] = torch.cat([parts[which] for which in "qkv"])
    return joined


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
