from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw._compat import prepare_torchaudio
from abaw.encoders.audio import AudioEncoder, AudioOptions, build_audio_encoder, encode_whole
from abaw.encoders.spectral import BLOCK_TOKENS, POWER_FLOOR
from abaw.errors import AbawError, ExitCode

RATE = 16000
HOP = 160


def build(name: str = "logmel", **options: object) -> AudioEncoder:
    return build_audio_encoder(name, AudioOptions(**options))  # type: ignore[arg-type]


def noise(count: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


@pytest.mark.parametrize(("samples", "tokens"), [(0, 0), (1, 1), (159, 1), (160, 2), (RATE, 101)])
def test_tokens_lie_at_every_hop_up_to_the_end_of_the_sound(samples, tokens):
    assert encode_whole(build(), noise(samples)).shape == (tokens, 64)


def test_a_click_is_loudest_in_the_token_centred_on_it():
    wave = np.zeros(RATE, np.float32)
    wave[HOP * 37] = 1
    loudness = encode_whole(build(), wave).sum(axis=1)
    assert loudness.argmax() == 37
    assert loudness[36] == pytest.approx(loudness[38], rel=1e-3)  # the window is symmetric about the centre


def test_a_token_sees_its_window_and_nothing_else():
    wave = np.zeros(RATE, np.float32)
    wave[8000 + 330] = 1  # 20.6 ms after the centre of token 50
    tokens = encode_whole(build(window_s=0.04), wave)
    assert tokens[50] == pytest.approx(np.full(64, np.log(POWER_FLOOR)))


def log_mel_of_token_50(wave: np.ndarray) -> np.ndarray:
    """By a direct sum: Hann window, DFT, HTK mel triangles, natural logarithm."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(640) / 640)
    power = np.abs(np.fft.rfft(wave[8000 - 320 : 8000 + 320] * window, 1024)) ** 2
    mel = 2595 * np.log10(1 + np.array([20, 8000]) / 700)
    corners = 700 * (10 ** (np.linspace(*mel, 66) / 2595) - 1)
    bins = np.arange(513) * RATE / 1024
    expected = []
    for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
        triangle = np.clip(np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)), 0, None)
        expected.append(np.log(max(float(triangle @ power), POWER_FLOOR)))
    return np.array(expected)


def test_logmel_of_a_tone_matches_the_definition():
    wave = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32)
    assert encode_whole(build(), wave)[50] == pytest.approx(log_mel_of_token_50(wave), abs=0.02)


def test_mfcc_is_the_cosine_transform_of_logmel_and_scipys():
    bands = encode_whole(build("logmel"), noise(RATE)).astype(np.float64)
    expected = scipy.fft.dct(bands, type=2, norm="ortho", axis=1)[:, :40]
    assert encode_whole(build("mfcc"), noise(RATE)) == pytest.approx(expected, abs=2e-5)


def test_mfcc_of_noise_matches_the_definition():
    """From samples to coefficients without a line of ours; noise keeps every band far from the floor."""
    expected = scipy.fft.dct(log_mel_of_token_50(noise(RATE)), type=2, norm="ortho")[:40]
    assert encode_whole(build("mfcc"), noise(RATE))[50] == pytest.approx(expected, abs=0.01)


def test_mfcc_is_torchaudios_in_logarithms():
    """But for the floor: torchaudio adds 1e-6 to every band, ours takes it as the least."""
    prepare_torchaudio()
    from torchaudio.transforms import MFCC

    bands = {"n_fft": 1024, "win_length": 640, "hop_length": HOP, "n_mels": 64, "f_min": 20.0, "center": False}
    theirs = MFCC(RATE, n_mfcc=13, log_mels=True, melkwargs=bands)(torch.from_numpy(noise(RATE))).T.numpy()
    # Their first window is centred on sample 512; 128 samples later that is 640, where our token 4 lies.
    later = np.concatenate([np.zeros(128, np.float32), noise(RATE)])
    ours = encode_whole(build("mfcc", num_coefficients=13), later)
    assert ours[4 : 4 + len(theirs)] == pytest.approx(theirs, abs=1e-3)


def test_coefficient_0_is_the_sum_of_the_bands_over_the_root_of_their_number():
    bands = encode_whole(build("logmel", num_mels=25), noise(800))
    coefficients = encode_whole(build("mfcc", num_mels=25, num_coefficients=1), noise(800))
    assert coefficients[:, 0] == pytest.approx(bands.sum(axis=1) / 5, rel=1e-5)


def test_more_coefficients_than_bands_are_refused():
    with pytest.raises(AbawError, match="more than the 20 mel bands") as caught:
        build("mfcc", num_mels=20)
    assert caught.value.code == ExitCode.CONFIG


LONG = noise(3 * BLOCK_TOKENS * HOP)


@cache
def tokens_of_long_noise(name: str) -> np.ndarray:
    return encode_whole(build(name), LONG)


@settings(max_examples=10, deadline=None)
@given(start=st.integers(0, 2 * BLOCK_TOKENS), tokens=st.integers(1, BLOCK_TOKENS + 50))
@pytest.mark.parametrize("name", ["logmel", "mfcc"])
def test_any_cutting_of_the_sound_gives_the_same_tokens(name, start, tokens):
    """Cut before token ``start``: all but those that hear the cut are the whole's, in pieces that begin elsewhere."""
    whole = tokens_of_long_noise(name)
    part = encode_whole(build(name), LONG[start * HOP : (start + tokens) * HOP])
    inside = slice(3, -3)  # half a window is 320 samples, two hops
    assert np.allclose(part[inside], whole[start : start + tokens + 1][inside], rtol=0, atol=1e-5)


def test_a_token_does_not_depend_on_the_other_sounds_of_its_batch():
    encoder = build("mfcc")
    sounds = noise(3 * 1024).reshape(3, 1024)
    together = encoder.encode(sounds)
    assert together.shape == (3, 1, 40)
    for row in range(3):
        assert np.array_equal(encoder.encode(sounds[row : row + 1]), together[row : row + 1])


def test_silence_is_the_floor():
    tokens = encode_whole(build(), np.zeros(RATE, np.float32))
    assert tokens == pytest.approx(np.full((101, 64), np.log(1e-6)))


def test_twice_the_amplitude_adds_the_logarithm_of_four():
    difference = encode_whole(build(), 2 * noise(RATE)) - encode_whole(build(), noise(RATE))
    assert difference == pytest.approx(np.full_like(difference, np.log(4)), abs=1e-3)


def test_hop_and_window_are_whole_samples():
    assert build(hop_s=0.0125001).hop_s == 200 / RATE
    with pytest.raises(AbawError, match="less than one sample"):
        build(hop_s=1e-6)


def test_the_settings_of_logmel_are_those_of_stores_made_before():
    """A further key would be another fingerprint: stores that exist could not be continued."""
    assert sorted(build().settings) == [
        "encoder",
        "f_min",
        "fft",
        "mel_scale",
        "num_mels",
        "power_floor",
        "sample_rate",
    ]
    assert (build().hop_s, build().window_s, build().offset_s) == (0.01, 0.04, 0.0)


@pytest.mark.parametrize(
    "options", [{}, {"num_mels": 128}, {"num_mels": 16, "window_s": 0.002}, {"num_mels": 600}, {"sample_rate": 8000}]
)
def test_bands_without_a_frequency_are_counted_and_are_those_that_do_not_move(options):
    found = build(**options)
    still = np.count_nonzero(np.ptp(encode_whole(found, noise(RATE)), axis=0) == 0)
    assert found.notes == (() if still == 0 else (found.notes[0],))
    assert still == 0 or found.notes[0].startswith(f"{still} of {found.dim} mel bands are constant")
