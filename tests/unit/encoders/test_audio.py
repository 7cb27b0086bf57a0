from __future__ import annotations

import numpy as np
import pytest

from abaw.encoders.audio import AUDIO_ENCODERS, POWER_FLOOR, AudioOptions, build_audio_encoder
from abaw.errors import AbawError, ExitCode

RATE = 16000


@pytest.fixture(params=AUDIO_ENCODERS)
def encoder(request):
    return build_audio_encoder(request.param, AudioOptions())


def noise(count: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 159, 160, 161, 16000])
def test_every_encoder_gives_tokens_of_its_width(encoder, count):
    tokens = encoder.encode(noise(count))
    assert tokens.dtype == np.float32
    assert tokens.shape[1] == encoder.dim
    assert np.isfinite(tokens).all()
    assert np.isfinite(tokens.astype(np.float16)).all()


def test_every_encoder_is_deterministic(encoder):
    assert np.array_equal(encoder.encode(noise(5000)), encoder.encode(noise(5000)))


def test_logmel_has_one_token_per_hop():
    assert len(build_audio_encoder("logmel", AudioOptions()).encode(noise(RATE))) == 101


def test_a_click_is_loudest_in_the_token_centred_on_it():
    wave = np.zeros(RATE, np.float32)
    wave[160 * 37] = 1
    loudness = build_audio_encoder("logmel", AudioOptions()).encode(wave).sum(axis=1)
    assert loudness.argmax() == 37
    assert loudness[36] == pytest.approx(loudness[38], rel=1e-3)  # the window is symmetric about the centre


def test_a_token_sees_its_window_and_nothing_else():
    options = AudioOptions(window_s=0.04)
    wave = np.zeros(RATE, np.float32)
    wave[8000 + 330] = 1  # 20.6 ms after the centre of token 50
    tokens = build_audio_encoder("logmel", options).encode(wave)
    assert tokens[50] == pytest.approx(np.full(64, np.log(POWER_FLOOR)))


def test_logmel_of_a_tone_matches_the_definition():
    """One token of a 1 kHz tone against a direct sum: Hann window, DFT, HTK mel triangles, natural logarithm."""
    wave = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32)
    tokens = build_audio_encoder("logmel", AudioOptions()).encode(wave)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(640) / 640)
    power = np.abs(np.fft.rfft(wave[8000 - 320 : 8000 + 320] * window, 1024)) ** 2
    mel = 2595 * np.log10(1 + np.array([20, 8000]) / 700)
    corners = 700 * (10 ** (np.linspace(*mel, 66) / 2595) - 1)
    bins = np.arange(513) * RATE / 1024
    expected = []
    for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
        triangle = np.clip(np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)), 0, None)
        expected.append(np.log(max(float(triangle @ power), POWER_FLOOR)))
    assert tokens[50] == pytest.approx(np.array(expected), abs=0.02)


def test_cutting_the_sound_with_context_gives_the_same_tokens():
    encoder = build_audio_encoder("logmel", AudioOptions())
    wave = noise(10 * RATE)
    whole = encoder.encode(wave)
    context = 512  # half a transform, and a multiple of no hop is needed: cut at token 400
    part = encoder.encode(wave[160 * 400 - 160 * 4 : 160 * 500 + context])
    assert np.allclose(part[4:100], whole[400:496], atol=1e-4)


def test_silence_is_the_floor():
    tokens = build_audio_encoder("logmel", AudioOptions()).encode(np.zeros(RATE, np.float32))
    assert tokens == pytest.approx(np.full((101, 64), np.log(1e-6)))


def test_twice_the_amplitude_adds_the_logarithm_of_four():
    encoder = build_audio_encoder("logmel", AudioOptions())
    difference = encoder.encode(2 * noise(RATE)) - encoder.encode(noise(RATE))
    assert difference == pytest.approx(np.full_like(difference, np.log(4)), abs=1e-3)


def test_hop_and_window_are_whole_samples():
    encoder = build_audio_encoder("logmel", AudioOptions(hop_s=0.0125001))
    assert encoder.hop_s == 200 / RATE
    with pytest.raises(AbawError, match="less than one sample"):
        build_audio_encoder("logmel", AudioOptions(hop_s=1e-6))


def test_an_unknown_encoder_is_refused():
    with pytest.raises(AbawError) as caught:
        build_audio_encoder("logmell", AudioOptions())
    assert caught.value.code == ExitCode.CONFIG
