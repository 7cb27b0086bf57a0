"""Folders that transformers saves give, through our reader, the layers' outputs that transformers gives."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from abaw._compat import prepare_timm, prepare_torchaudio
from abaw.encoders.audio import AudioOptions, build_audio_encoder, encode_whole

if importlib.util.find_spec("transformers") is None:
    pytest.skip('transformers is missing: pip install -e ".[parity]"', allow_module_level=True)

SHAPE = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 4, 3),
    "conv_stride": (5, 4, 2),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 3,
    "hidden_dropout": 0.0,
    "layer_norm_eps": 1e-4,
    "vocab_size": 7,
}
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
MODELS = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
# Far from mean 0 and deviation 1, so that a normalisation that is left out shows.
SOUND = (0.03 * np.random.default_rng(0).standard_normal(4000) + 0.01).astype(np.float32)


@torch.no_grad()
def saved(folder: Path, encoder: str, kind: str = "Model", *, normalise: bool = False, **settings: Any) -> Any:
    """A model with random weights, and the folder that it and its feature extractor save."""
    prepare_timm()
    prepare_torchaudio()
    import transformers

    config = getattr(transformers, f"{MODELS[encoder]}Config")(**{**SHAPE, **settings})
    model = getattr(transformers, f"{MODELS[encoder]}{'For' * (kind != 'Model')}{kind}")(config)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.eval().save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return model


def outputs(model: Any, sound: np.ndarray) -> list[torch.Tensor]:
    """Output of every layer as transformers gives it; of the large type the last one is after the final norm."""
    with torch.inference_mode():
        found = model(torch.from_numpy(sound)[None], output_hidden_states=True)
    last = getattr(found, "last_hidden_state", found.hidden_states[-1])
    return [*found.hidden_states[1:-1], last]


def ours(folder: Path, encoder: str, layer: int | str) -> np.ndarray:
    return encode_whole(build_audio_encoder(encoder, AudioOptions(weights=str(folder), layer=layer)), SOUND)


@pytest.mark.parametrize("encoder", MODELS)
def test_layers_of_the_base_type_are_those_of_transformers(tmp_path, encoder):
    expected = outputs(saved(tmp_path, encoder, **BASE), SOUND)
    for layer in (1, 2, 3):
        assert ours(tmp_path, encoder, layer) == pytest.approx(expected[layer - 1][0].numpy(), abs=2e-5)
    mean = torch.stack(expected).mean(dim=0)[0].numpy()
    assert ours(tmp_path, encoder, "mean") == pytest.approx(mean, abs=2e-5)


@pytest.mark.parametrize("encoder", MODELS)
def test_layers_of_the_large_type_are_those_of_transformers_before_the_final_norm(tmp_path, encoder):
    model = saved(tmp_path, encoder, normalise=True, **LARGE)
    normalised = ((SOUND - SOUND.mean()) / np.sqrt(SOUND.var() + 1e-7)).astype(np.float32)
    expected = outputs(model, normalised)
    for layer in (1, 2):
        assert ours(tmp_path, encoder, layer) == pytest.approx(expected[layer - 1][0].numpy(), abs=2e-5)
    with torch.inference_mode():
        last = model.encoder.layer_norm(torch.from_numpy(ours(tmp_path, encoder, 3))).numpy()
    assert last == pytest.approx(expected[2][0].numpy(), abs=2e-5)


def test_the_normalisation_is_that_of_the_feature_extractor(tmp_path):
    import transformers

    model = saved(tmp_path, "wav2vec2", normalise=True, **BASE)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    given = extractor(SOUND, sampling_rate=16000, return_tensors="np").input_values[0]
    expected = outputs(model, given.astype(np.float32))[-1][0].numpy()
    assert ours(tmp_path, "wav2vec2", -1) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(("encoder", "kind"), [("wav2vec2", "CTC"), ("hubert", "CTC"), ("wavlm", "CTC")])
def test_the_head_of_a_finetuned_model_is_left_out_and_said(tmp_path, encoder, kind):
    expected = outputs(saved(tmp_path, encoder, kind, **BASE), SOUND)
    assert ours(tmp_path, encoder, 3) == pytest.approx(expected[-1][0].numpy(), abs=2e-5)
    built = build_audio_encoder(encoder, AudioOptions(weights=str(tmp_path)))
    assert any(note.endswith("left out of model.safetensors: lm_head") for note in built.notes)


def test_the_older_spelling_of_weight_norm_and_pytorch_model_bin_are_read(tmp_path):
    saved(tmp_path, "wav2vec2", "PreTraining", **BASE, num_codevector_groups=2, codevector_dim=8, proj_codevector_dim=8)
    expected = ours(tmp_path, "wav2vec2", 3)
    weights = load_file(tmp_path / "model.safetensors")
    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in weights.items()
    }
    newer = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for name, value in weights.items()
    }
    assert older.keys() != newer.keys()
    (tmp_path / "model.safetensors").unlink()
    for spelling in (older, newer):
        torch.save(spelling, tmp_path / "pytorch_model.bin")
        assert np.array_equal(ours(tmp_path, "wav2vec2", 3), expected)
        save_file(spelling, tmp_path / "model.safetensors")
        assert np.array_equal(ours(tmp_path / "model.safetensors", "wav2vec2", 3), expected)
        (tmp_path / "model.safetensors").unlink()


def test_half_precision_files_are_computed_in_fp32(tmp_path):
    saved(tmp_path, "wavlm", **BASE)
    weights = {name: value.half() for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors")
    half = ours(tmp_path, "wavlm", 3)
    save_file({name: value.float() for name, value in weights.items()}, tmp_path / "model.safetensors")
    assert np.array_equal(half, ours(tmp_path, "wavlm", 3))


def test_without_a_word_of_normalisation_the_type_of_the_model_decides(tmp_path):
    saved(tmp_path, "wav2vec2", **BASE)
    (tmp_path / "preprocessor_config.json").unlink()
    options = AudioOptions(weights=str(tmp_path))
    assert build_audio_encoder("wav2vec2", options).settings["normalisation"] == "none"
    saved(tmp_path, "wav2vec2", **LARGE)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({}))
    assert build_audio_encoder("wav2vec2", options).settings["normalisation"] == "whole sound, eps 1e-07"
