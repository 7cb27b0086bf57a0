"""Speech transformers: weights of every origin, and windows over long sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from abaw._compat import prepare_torchaudio
from abaw.encoders.audio import AudioOptions, build_audio_encoder, cut_piece, encode_batch, encode_whole
from abaw.encoders.speech import Speech
from abaw.errors import AbawError, ExitCode
from abaw.models.huggingface_speech import folder_shape, read_folder
from abaw.models.speech import (
    build_speech,
    layer_outputs,
    published_shape,
    random_speech,
    read_torchaudio_file,
)
from tests.unit.encoders.speech_models import save_folder, small_shape, torchaudio_weights

RATE, HOP = 16000, 320
WINDOW = 20 + 2 * 5  # tokens of the small windows below


def noise(count: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def encoder(folder: Path, name: str = "hubert", **options: Any) -> Speech:
    """A small model in windows of 20 tokens (0.4 s) and 5 of context."""
    given = {"weights": str(folder), "piece_s": 0.4, "context_s": 0.1, **options}
    return build_audio_encoder(name, AudioOptions(**given))  # type: ignore[return-value]


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_folder(tmp_path_factory.mktemp("hubert"))


def test_the_clock_is_that_of_the_published_convolutions():
    """Token k sees samples 320 k to 320 k + 400: multiply the strides; add each kernel's reach."""
    shape = published_shape("hubert_fairseq_base_ls960.pth")
    assert (shape.hop, shape.samples(1), shape.samples(600)) == (320, 400, 192080)
    assert [shape.num_tokens(count) for count in (0, 1, 160, 399, 400, 719, 720, 192080)] == [0, 0, 0, 0, 1, 1, 2, 600]


def test_times_are_in_seconds_of_the_first_sample(folder):
    found = encoder(folder)
    assert (found.hop_s, found.offset_s, found.window_s) == (0.02, 0.0125, 0.025)


@pytest.mark.parametrize("change", [{"layer_norm_eps": 1e-3}, {"do_stable_layer_norm": True}])
def test_a_configuration_that_changes_the_output_is_in_the_settings(folder, tmp_path, change):
    other = shutil.copytree(folder, tmp_path / "other")
    change_config(other, **change)
    assert encoder(other).settings != encoder(folder).settings


def test_a_token_of_the_convolutions_sees_its_400_samples_alone():
    model: Any = random_speech(small_shape(large=True))
    sound = torch.from_numpy(noise(8000))
    changed = sound.clone()
    changed[10 * HOP + 400 :] = 1  # the first sample behind token 10
    changed[: 10 * HOP] = -1
    before, after = (model.feature_extractor(one[None], None)[0][0] for one in (sound, changed))
    assert torch.equal(before[10], after[10])
    assert not torch.equal(before[9], after[9])
    assert not torch.equal(before[11], after[11])


# -- weights -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def base_file(tmp_path_factory) -> Path:
    """The published base model with random weights, where torch hub would have it."""
    home = tmp_path_factory.mktemp("home")
    path = home / "hub" / "checkpoints" / "wav2vec2_fairseq_base_ls960.pth"
    path.parent.mkdir(parents=True)
    torch.save(torchaudio_weights(published_shape(path.name)), path)
    return path


def test_tokens_of_a_short_sound_are_those_of_torchaudios_bundle(base_file, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(base_file.parent.parent.parent))
    prepare_torchaudio()
    from torchaudio.pipelines import WAV2VEC2_BASE

    sound = noise(8000)
    found = build_audio_encoder("wav2vec2", AudioOptions(weights_dir=base_file.parent / "none", layer=3))
    with torch.inference_mode():
        expected = WAV2VEC2_BASE.get_model().extract_features(torch.from_numpy(sound)[None], None, 3)[0][-1][0]
    assert np.array_equal(encode_whole(found, sound), expected.numpy())
    assert found.notes[0].startswith(f"weights of {base_file}, sha256 {found.settings['weights']}")


@pytest.mark.parametrize("kind", ["Wav2Vec2", "WavLM"])
@pytest.mark.parametrize("large", [False, True])
def test_weights_in_torchaudios_names_give_the_model_they_were_taken_from(kind, large):
    shape = small_shape(kind, large=large)
    prepare_torchaudio()
    from torchaudio import models

    theirs = (models.wavlm_model if kind == "WavLM" else models.wav2vec2_model)(**shape.parameters).eval()
    sound = torch.from_numpy(noise(4000))[None]
    ours = build_speech(shape, theirs.state_dict(), where=Path("given"))
    with torch.inference_mode():
        expected = theirs.extract_features(sound)[0]
        assert torch.equal(layer_outputs(ours, sound, layer=2), expected[1])
        assert torch.equal(layer_outputs(ours, sound, layer=3), expected[2])
        assert torch.allclose(layer_outputs(ours, sound, layer="mean"), torch.stack(expected).mean(dim=0))


def test_the_older_spelling_of_a_file_gives_the_same_model(tmp_path):
    shape = small_shape()
    torch.save(torchaudio_weights(shape), tmp_path / "older.pth")
    weights, left_out = read_torchaudio_file(tmp_path / "older.pth")
    assert left_out == []
    built, drawn = build_speech(shape, weights, where=tmp_path), random_speech(shape)
    for name, value in drawn.state_dict().items():
        assert torch.allclose(built.state_dict()[name], value, atol=1e-6), name


def test_the_head_of_a_finetuned_file_is_left_out_and_said(base_file, tmp_path):
    weights = torch.load(base_file, weights_only=True)
    path = tmp_path / "asr.pth"
    torch.save({**weights, "aux.weight": torch.zeros(29, 768), "aux.bias": torch.zeros(29)}, path)
    found = build_audio_encoder("wav2vec2", AudioOptions(weights=str(path)))
    assert found.notes == ("not part of the features and left out of asr.pth: aux",)


def test_a_missing_file_is_named_with_its_places_and_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(AbawError) as caught:
        build_audio_encoder("wavlm", AudioOptions(model="base-plus", weights_dir=tmp_path / "w"))
    text = str(caught.value)
    assert caught.value.code == ExitCode.MISSING
    for part in ("wavlm_base_plus.pth", str(tmp_path / "w"), str(tmp_path / "torch"), "weights = ", "https://"):
        assert part in text


def test_a_named_file_that_is_not_there_is_told_with_what_belongs_there(tmp_path):
    with pytest.raises(AbawError, match="no weights file or folder") as caught:
        build_audio_encoder("hubert", AudioOptions(weights="none/here.pth", root=tmp_path))
    assert caught.value.code == ExitCode.MISSING
    assert str(tmp_path / "none" / "here.pth") in caught.value.what
    assert "hubert_fairseq_base_ls960.pth" in caught.value.fix


def test_weights_are_random_only_when_that_is_written(folder):
    found = build_audio_encoder("wav2vec2", AudioOptions(weights="random"))
    assert found.settings["weights"] == "random"
    assert "random" in found.notes[0]
    assert found.trained_on == []


def test_a_file_of_another_size_is_told_from_the_model_that_was_named(base_file):
    with pytest.raises(AbawError, match="does not hold this model") as caught:
        build_audio_encoder("wav2vec2", AudioOptions(weights=str(base_file), model="large"))
    assert caught.value.code == ExitCode.CONFIG
    assert 'model = "base"' in caught.value.fix


def test_a_file_of_another_kind_of_model_is_told_from_it(tmp_path):
    torch.save(torchaudio_weights(small_shape("WavLM")), tmp_path / "wavlm.pth")
    with pytest.raises(AbawError, match="does not hold this model"):
        build_audio_encoder("hubert", AudioOptions(weights=str(tmp_path / "wavlm.pth")))


def test_a_training_save_of_fairseq_is_refused_with_what_to_give(tmp_path):
    torch.save({"encoder.layers.0.self_attn.k_proj.weight": torch.zeros(2, 2)}, tmp_path / "hubert_base.pt")
    with pytest.raises(AbawError, match="fairseq") as caught:
        build_audio_encoder("hubert", AudioOptions(weights=str(tmp_path / "hubert_base.pt")))
    assert "torchaudio" in caught.value.fix


def test_an_unknown_model_is_refused_with_the_names():
    with pytest.raises(AbawError, match='unknown model "bse"') as caught:
        build_audio_encoder("hubert", AudioOptions(model="bse"))
    assert "base" in str(caught.value)


def test_another_sample_rate_is_refused(folder):
    with pytest.raises(AbawError, match="16000 Hz, not 8000"):
        encoder(folder, sample_rate=8000)


# -- Hugging Face folders ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm"])
def test_a_folder_gives_the_model_it_was_saved_from(tmp_path, name):
    shape = folder_shape(save_folder(tmp_path, name), name)
    weights, left_out = read_folder(tmp_path, shape)
    built, drawn = build_speech(shape, weights, where=tmp_path), random_speech(shape)
    assert left_out == []
    for key, value in drawn.state_dict().items():
        assert torch.allclose(built.state_dict()[key], value, atol=1e-6), key


def test_the_weights_file_of_a_folder_may_be_named_too(folder):
    by_file = encoder(folder / "pytorch_model.bin")
    assert np.array_equal(encode_whole(by_file, noise(5000)), encode_whole(encoder(folder), noise(5000)))


def test_a_folder_of_another_model_is_refused_with_its_encoder(folder):
    with pytest.raises(AbawError, match='of type "hubert", not "wavlm"') as caught:
        encoder(folder, "wavlm")
    assert 'encoder = "hubert"' in caught.value.fix


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_act", "relu"), ("feat_proj_layer_norm", False), ("adapter_attn_dim", 16)]
)
def test_a_variant_that_cannot_be_built_is_refused(tmp_path, key, value):
    change_config(save_folder(tmp_path), **{key: value})
    with pytest.raises(AbawError, match=key):
        encoder(tmp_path)


def test_a_folder_without_config_or_without_weights_is_refused(tmp_path):
    with pytest.raises(AbawError, match=r"no readable config\.json"):
        encoder(tmp_path)
    (save_folder(tmp_path) / "pytorch_model.bin").unlink()
    with pytest.raises(AbawError, match="holds neither") as caught:
        encoder(tmp_path)
    assert caught.value.code == ExitCode.MISSING


def test_a_config_that_does_not_fit_the_weights_is_refused(tmp_path):
    change_config(save_folder(tmp_path), num_hidden_layers=4)
    with pytest.raises(AbawError, match=r"layers\.3\..* is missing"):
        encoder(tmp_path)


# -- layers and normalisation ------------------------------------------------------------------------------------------
def test_layers_count_from_one_and_from_the_end(folder):
    sound = noise(5000)
    layers = [encode_whole(encoder(folder, layer=layer), sound) for layer in (1, 2, 3)]
    assert np.array_equal(encode_whole(encoder(folder, layer=-1), sound), layers[2])
    assert np.array_equal(encode_whole(encoder(folder, layer=-3), sound), layers[0])
    assert encode_whole(encoder(folder, layer="mean"), sound) == pytest.approx(np.mean(layers, axis=0), abs=1e-6)
    assert encoder(folder, layer=-3).settings == encoder(folder, layer=1).settings


@pytest.mark.parametrize("layer", [4, -4, 0])
def test_a_layer_that_is_not_there_is_refused(folder, layer):
    with pytest.raises(AbawError, match="this model has 3"):
        encoder(folder, layer=layer)


def test_the_sound_is_normalised_as_a_whole_where_the_model_asks_for_it(tmp_path):
    asked = encoder(save_folder(tmp_path / "asked", normalise=True))
    plain = encoder(save_folder(tmp_path / "plain", normalise=False))
    sound = noise(30000) * np.linspace(0.1, 1, 30000, dtype=np.float32) + np.float32(0.05)
    mean, scale = asked.statistics(sound)
    assert mean == pytest.approx(sound.astype(np.float64).mean())
    assert scale == pytest.approx(np.sqrt(sound.astype(np.float64).var() + 1e-7))
    assert len(asked.pieces(30000)) > 1
    normalised = ((sound - np.float32(mean)) / np.float32(scale)).astype(np.float32)
    assert np.array_equal(encode_whole(asked, sound), encode_whole(plain, normalised))
    assert plain.statistics(sound) == (0.0, 1.0)


def test_torchaudios_bundles_of_large_type_normalise_with_their_eps():
    assert published_shape("hubert_fairseq_large_ll60k.pth").input_eps == 1e-5
    assert published_shape("hubert_fairseq_base_ls960.pth").input_eps is None


# -- windows -----------------------------------------------------------------------------------------------------------
def test_a_sound_of_one_window_runs_whole(folder):
    found = encoder(folder)
    for tokens in (1, 2, WINDOW):
        (piece,) = found.pieces(400 + HOP * (tokens - 1) + 7)
        assert (piece.start, piece.length, piece.count) == (0, 400 + HOP * (tokens - 1) + 7, tokens)


def test_windows_start_on_multiples_of_the_hop_and_the_last_is_moved_back(folder):
    """50 tokens in windows of 30, 20 apart: starts 0 and 20. Of 64 tokens: 0, 20 and, moved back, 34."""
    found = encoder(folder)
    assert [piece.start // HOP for piece in found.pieces(400 + HOP * 49)] == [0, 20]
    pieces = found.pieces(400 + HOP * 63 + 100)
    assert [piece.start for piece in pieces] == [0, 20 * HOP, 34 * HOP]
    assert {piece.length for piece in pieces} == {400 + HOP * (WINDOW - 1)}
    # Between windows 0-29 and 20-49 tokens up to 24 have more room in the first; between 20-49 and 34-63 up to 41.
    assert [(piece.token, piece.count) for piece in pieces] == [(0, 25), (25, 17), (42, 22)]


def test_a_token_comes_from_the_window_in_which_it_has_the_most_context(folder):
    found = encoder(folder, piece_s=0.1, context_s=0.1)  # windows of 15 tokens, 5 apart: three hold a token
    num_tokens = 58
    pieces = found.pieces(400 + HOP * (num_tokens - 1))
    starts = [piece.start // HOP for piece in pieces]

    def context(token: int, start: int) -> float:
        before = token - start if start else np.inf
        after = start + 14 - token if start + 15 < num_tokens else np.inf
        return min(before, after)

    for piece in pieces:
        for token in range(piece.token, piece.token + piece.count):
            best = max(context(token, start) for start in starts)
            assert context(token, piece.start // HOP) == best


def test_tokens_of_windows_are_those_of_the_model_on_the_cut_sound(folder):
    found, sound = encoder(folder), noise(400 + HOP * 63)
    tokens = encode_whole(found, sound)
    second = sound[20 * HOP : 20 * HOP + 400 + HOP * 29]
    assert np.array_equal(tokens[25:42], found.encode(second[None])[0, 5:22])


def test_the_size_of_a_batch_changes_nothing(folder):
    sound = noise(400 + HOP * 163)
    tokens = [encode_whole(encoder(folder, batch_size=size), sound) for size in (1, 3, 8)]
    assert np.array_equal(tokens[0], tokens[1])
    assert np.array_equal(tokens[0], tokens[2])


def test_beyond_one_window_the_length_of_the_sound_changes_nothing_before_the_last_window(folder):
    found, sound = encoder(folder), noise(400 + HOP * 203)
    short, long = encode_whole(found, sound[: 400 + HOP * 109]), encode_whole(found, sound)
    assert np.array_equal(short[:85], long[:85])  # windows at 0, 20, 40, 60, 80: the last one's tokens begin at 85


def test_windows_without_context_share_no_sound(folder):
    found = encoder(folder, context_s=0.0)
    pieces = found.pieces(400 + HOP * 59)
    assert [(piece.start // HOP, piece.count) for piece in pieces] == [(0, 20), (20, 20), (40, 20)]


# -- precision ---------------------------------------------------------------------------------------------------------
def test_bf16_comes_close_to_fp32_and_exact_gives_it_back(folder):
    fast, slow = encoder(folder, precision="bf16"), encoder(folder)
    sound = cut_piece(noise(12000), slow.pieces(12000)[0])
    quick, exact = (encode_batch(one, [sound], 1)[0] for one in (fast, fast.exact()))
    assert np.array_equal(exact, encode_batch(slow, [sound], 1)[0])
    assert quick.dtype == np.float32
    cosines = (quick * exact).sum(axis=1) / np.linalg.norm(quick, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0.99 < cosines.min() < 1
    assert fast.settings["precision"] == "bf16"
