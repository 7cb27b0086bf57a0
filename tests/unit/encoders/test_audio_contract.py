"""What every audio encoder keeps, whatever it computes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from abaw._compat import prepare_torchaudio
from abaw.encoders.audio import (
    AUDIO_ENCODERS,
    AudioEncoder,
    AudioOptions,
    Piece,
    build_audio_encoder,
    cut_piece,
    encode_batch,
    encode_whole,
    find_weights,
)
from abaw.errors import AbawError, ExitCode
from abaw.models.speech import published_shape
from tests.unit.encoders.speech_models import save_folder

RATE = 16000
SPEECH = ("wav2vec2", "hubert", "wavlm")


@pytest.fixture(scope="module", params=AUDIO_ENCODERS)
def encoder(request, tmp_path_factory) -> AudioEncoder:
    """Every encoder, with random weights; speech models small, in windows of half a second."""
    if request.param not in SPEECH:
        return build_audio_encoder(request.param, AudioOptions(weights="random" if request.param == "vggish" else ""))
    folder = save_folder(tmp_path_factory.mktemp(request.param), request.param)
    options = AudioOptions(weights=str(folder), piece_s=0.4, context_s=0.05, batch_size=3)
    return build_audio_encoder(request.param, options)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def shortest(encoder: AudioEncoder, tokens: int) -> int:
    """The fewest samples that give so many tokens."""
    return next(count for count in range(10 * RATE) if encoder.num_tokens(count) >= tokens)


@pytest.mark.parametrize("count", [0, 1, 2, 159, 160, 16000, 50001])
def test_tokens_are_finite_float32_of_the_width(encoder, count):
    tokens = encode_whole(encoder, noise(count))
    assert tokens.shape == (encoder.num_tokens(count), encoder.dim)
    assert tokens.dtype == np.float32
    assert np.isfinite(tokens.astype(np.float16)).all()


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_shortest_sounds_that_have_tokens(encoder, tokens):
    count = shortest(encoder, tokens)
    assert encode_whole(encoder, noise(count)).shape == (encoder.num_tokens(count), encoder.dim)


def test_no_sound_has_no_token(encoder):
    assert encoder.num_tokens(0) == 0
    assert len(encoder.pieces(0)) == 0


def test_the_same_sound_gives_the_same_bits(encoder):
    assert np.array_equal(encode_whole(encoder, noise(20000)), encode_whole(encoder, noise(20000)))


@pytest.mark.parametrize("count", [1, 2000, 16000, 50001, 123456])
def test_pieces_keep_every_token_once_in_order_and_have_one_length(encoder, count):
    pieces = encoder.pieces(count)
    kept = [token for piece in pieces for token in range(piece.token, piece.token + piece.count)]
    assert kept == list(range(encoder.num_tokens(count)))
    assert len({piece.length for piece in pieces}) <= 1
    assert all(piece.first >= 0 and piece.count > 0 for piece in pieces)


def test_a_piece_does_not_depend_on_what_else_is_in_its_batch(encoder):
    pieces = encoder.pieces(50001)
    own = cut_piece(noise(50001), pieces[0])
    size = max(encoder.batch_size, 2)
    alone = encode_batch(encoder, [own], size)[0]
    for place in (0, size - 1):
        sounds = [noise(len(own), seed) for seed in range(1, size)]
        sounds.insert(place, own)
        assert np.array_equal(encode_batch(encoder, sounds, size)[place], alone)


def test_a_sound_in_several_pieces_begins_as_a_longer_one_does(encoder):
    """Up to the last piece of the shorter one, and where nothing is normalised by the whole sound."""
    pieces = encoder.pieces(60000)
    if len(pieces) == 1:  # all of the sound is one block of the spectral encoders
        pieces = encoder.pieces(600000)
    whole = noise(700000)[: 2 * (pieces[-1].start + pieces[-1].length)]
    part = whole[: pieces[-1].start + pieces[-1].length]
    stop = pieces[-2].token + pieces[-2].count if len(pieces) > 2 else pieces[0].count
    stop -= pieces[0].count // 2  # the window before the last one ends where the last one begins to
    assert np.array_equal(encode_whole(encoder, part)[:stop], encode_whole(encoder, whole)[:stop])


def test_tokens_lie_within_the_sound(encoder):
    count = 50001
    last = encoder.offset_s + (encoder.num_tokens(count) - 1) * encoder.hop_s
    assert encoder.hop_s > 0
    assert abs(encoder.offset_s) <= encoder.window_s / 2 + 1e-9
    assert last <= count / encoder.sample_rate + encoder.window_s / 2


def test_the_exact_encoder_of_fp32_is_itself(encoder):
    assert encoder.precision == "fp32"
    assert encoder.exact() is encoder


def test_settings_are_plain_json_values_and_provenance_a_list(encoder):
    import json

    assert json.loads(json.dumps(encoder.settings)) == encoder.settings
    assert encoder.settings["encoder"] in AUDIO_ENCODERS
    assert isinstance(encoder.trained_on, list)
    assert all(isinstance(note, str) for note in encoder.notes)


def test_options_survive_pickling_and_can_be_looked_up():
    options = AudioOptions(layer="mean", trained_on=("a",))
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options) == hash(AudioOptions(layer="mean", trained_on=("a",)))


def test_a_piece_reaching_out_of_the_sound_is_filled_with_zeros():
    sound = np.arange(1, 6, dtype=np.float32)
    assert cut_piece(sound, Piece(-2, 4, 0, 0, 1)).tolist() == [0, 0, 1, 2]
    assert cut_piece(sound, Piece(3, 4, 0, 0, 1)).tolist() == [4, 5, 0, 0]
    assert cut_piece(sound, Piece(9, 2, 0, 0, 1)).tolist() == [0, 0]
    assert cut_piece(sound, Piece(3, 3, 0, 0, 1), (3.0, 2.0)).tolist() == [0.5, 1, 0]


@pytest.mark.parametrize("name", SPEECH)
def test_the_published_files_are_those_of_torchaudio(name):
    prepare_torchaudio()
    for published in AUDIO_ENCODERS[name].weights.values():
        assert published_shape(published.file).hop == 320
        assert published.url.endswith(published.file)


@pytest.mark.parametrize("name", [name for name, entry in AUDIO_ENCODERS.items() if entry.weights])
def test_every_encoder_with_weights_says_licence_and_origin(name):
    assert AUDIO_ENCODERS[name].licence
    assert AUDIO_ENCODERS[name].origin


def test_a_published_file_is_looked_for_in_the_weights_folder_and_in_torch_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    options = AudioOptions(weights_dir=tmp_path / "weights")
    published = AUDIO_ENCODERS["hubert"].weights["base"]
    with pytest.raises(AbawError) as caught:
        find_weights(options, published, encoder="hubert")
    assert caught.value.code == ExitCode.MISSING
    assert "hubert_fairseq_base_ls960.pth" in caught.value.what
    for place in (tmp_path / "weights", tmp_path / "torch" / "hub" / "checkpoints"):
        assert str(place) in caught.value.where
    hub = tmp_path / "torch" / "hub" / "checkpoints" / published.file
    own = tmp_path / "weights" / published.file
    for path in (hub, own):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        assert find_weights(options, published, encoder="hubert") == path


def test_an_unknown_encoder_is_refused():
    with pytest.raises(AbawError, match="unknown audio encoder") as caught:
        build_audio_encoder("logmell", AudioOptions())
    assert caught.value.code == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("name", "option", "has"),
    [
        ("hubert", {"hop_s": 0.05}, "vggish, logmel, mfcc"),
        ("wavlm", {"num_mels": 32}, "logmel, mfcc"),
        ("vggish", {"layer": 6}, "wav2vec2, hubert, wavlm"),
        ("logmel", {"num_coefficients": 13}, "mfcc"),
        ("mfcc", {"weights": "random"}, "wav2vec2, hubert, wavlm, vggish"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(name, option, has):
    with pytest.raises(AbawError, match="changes nothing") as caught:
        build_audio_encoder(name, AudioOptions(**option))
    assert caught.value.where == f"encoders.<name>.{next(iter(option))}"
    assert caught.value.fix == f"leave it out; encoders that have it: {has}"
