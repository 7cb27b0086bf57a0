"""Small speech models with random weights: as a Hugging Face folder, and as a file in torchaudio's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abaw.models.huggingface_speech import CONFIG, KINDS, PREPROCESSOR, folder_shape
from abaw.models.speech import SpeechShape, random_speech

# The published convolutions, so that the clock is theirs, with few channels.
CONVOLUTIONS = [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2]
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [width for width, _, _ in CONVOLUTIONS],
    "conv_kernel": [kernel for _, kernel, _ in CONVOLUTIONS],
    "conv_stride": [stride for _, _, stride in CONVOLUTIONS],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "conv_bias": False,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
    "num_buckets": 32,
    "max_bucket_distance": 64,
}


def save_folder(folder: Path, encoder: str = "hubert", *, normalise: bool = False, seed: int = 0, **other: Any) -> Path:
    """A folder as transformers saves it, with its names of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({"model_type": encoder, **SHAPE, **other}))
    (folder / PREPROCESSOR).write_text(json.dumps({"do_normalize": normalise}))
    torch.save(huggingface_names(folder_shape(folder, encoder), seed), folder / "pytorch_model.bin")
    return folder


def huggingface_names(shape: SpeechShape, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a random model, renamed back by rules of their own."""
    named: dict[str, Tensor] = {}
    for name, value in torchaudio_weights(shape, seed).items():
        name = name.replace("encoder.feature_projection.", "feature_projection.").replace(
            "encoder.transformer.", "encoder."
        )
        if ".attention.attention.in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                kind = name.rpartition("_")[2]
                named[name.replace(f"attention.attention.in_proj_{kind}", f"attention.{letter}_proj.{kind}")] = (
                    part.clone()
                )
        else:
            named[name.replace(".attention.attention.out_proj", ".attention.out_proj")] = value
    return named


def torchaudio_weights(shape: SpeechShape, seed: int = 0) -> dict[str, Tensor]:
    """State dict as torchaudio publishes it, with `weight_g` and `weight_v` of the positional convolution."""
    weights = dict(random_speech(shape, seed=seed).state_dict())
    stem = "encoder.transformer.pos_conv_embed.conv"
    weight = weights.pop(f"{stem}.weight")
    norm = weight.norm(dim=(0, 1), keepdim=True)
    return {**weights, f"{stem}.weight_g": norm, f"{stem}.weight_v": 2 * weight}


def small_shape(kind: str = "Wav2Vec2", *, input_eps: float | None = None, large: bool = False) -> SpeechShape:
    """A shape for `build_speech`: three layers of width 16; ``large``: norms in front, as in the large models."""
    parameters = {
        "extractor_mode": "layer_norm" if large else "group_norm",
        "extractor_conv_layer_config": CONVOLUTIONS,
        "extractor_conv_bias": large,
        "encoder_embed_dim": 16,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 4,
        "encoder_num_layers": 3,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 24,
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": large,
        "encoder_layer_drop": 0.1,
        "aux_num_out": None,
    }
    if kind == "WavLM":
        parameters |= {"encoder_num_buckets": 32, "encoder_max_distance": 64}
    assert kind in KINDS.values()
    return SpeechShape(kind, parameters, input_eps)
