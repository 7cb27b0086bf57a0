"""A synthesised voice whose pitch, loudness, rate and brightness follow arousal and valence.

Harmonics of a gliding pitch, shaped by two formants that move from vowel to vowel, cut into syllables and breath
groups. Arousal raises pitch, loudness and rate of syllables; valence, less audibly, pitch, formants and overtones.
Where two people share a video, its sound is the mean of their voices, and the labels of each follow their own.
Knows nothing of pictures.
"""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 16000
_VOWELS = np.array([(700, 1200), (500, 1800), (320, 2250), (480, 900), (350, 750), (600, 1500)], np.float64)
_CONTROL_HZ = 200


def speak(rng: np.random.Generator, va: np.ndarray, fps: float, *, pitch_hz: float) -> np.ndarray:
    """Waveform float32 [samples] in [-1, 1] for valence and arousal ``va`` [T, 2]."""
    duration = len(va) / fps
    clock = np.arange(int(np.ceil(duration * _CONTROL_HZ)) + 1) / _CONTROL_HZ
    frames = (np.arange(len(va)) + 0.5) / fps
    valence, arousal = (np.interp(clock, frames, va[:, k]) for k in (0, 1))
    syllables = np.cumsum(3.0 + 2.2 * arousal) / _CONTROL_HZ + rng.uniform()
    vowels = _VOWELS[rng.integers(len(_VOWELS), size=int(syllables[-1]) + 2)]
    place = syllables % 1.0
    blend = np.clip((place - 0.75) / 0.25, 0, 1)[:, None]
    number = syllables.astype(int)
    formants = (vowels[number] * (1 - blend) + vowels[number + 1] * blend) * (1 + 0.04 * valence)[:, None]
    envelope = 0.12 + 0.88 * np.sin(np.pi * place) ** 0.7
    breath = (clock + rng.uniform(0, 2.2)) % 2.2 < 0.18
    envelope = np.convolve(envelope * ~breath, np.hanning(9) / np.hanning(9).sum(), mode="same")
    loudness = 10 ** ((-24 + 11 * arousal) / 20)
    pitch = pitch_hz * 2 ** (0.5 * arousal + 0.05 * valence + 0.04 * np.sin(2 * np.pi * 4.7 * clock))
    wave = _harmonics(clock, pitch, formants, tilt=1.1 - 0.12 * valence, num_samples=int(duration * SAMPLE_RATE))
    at = np.arange(len(wave)) / SAMPLE_RATE
    wave = wave * np.interp(at, clock, envelope * loudness)
    return (wave + rng.normal(0, 0.0006, len(wave))).astype(np.float32).clip(-1, 1)


def _harmonics(
    clock: np.ndarray, pitch: np.ndarray, formants: np.ndarray, *, tilt: np.ndarray, num_samples: int
) -> np.ndarray:
    """Sum of the harmonics below 3.8 kHz, at unit loudness."""
    at = np.arange(num_samples) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(np.interp(at, clock, pitch)) / SAMPLE_RATE
    turning = np.exp(1j * phase)
    partial = np.ones(num_samples, complex)
    wave, power = np.zeros(num_samples), np.zeros(len(clock))
    for order in range(1, int(3800 / pitch.min()) + 1):
        partial = partial * turning
        frequency = order * pitch
        gain = order**-tilt * (frequency < 3800) * _resonance(frequency, formants)
        power += gain**2
        wave += partial.imag * np.interp(at, clock, gain)
    return wave / np.interp(at, clock, np.sqrt(power / 2 + 1e-9))


def _resonance(frequency: np.ndarray, formants: np.ndarray) -> np.ndarray:
    widths = np.array([110.0, 150.0])
    peaks = 1 / (1 + ((frequency[:, None] - formants) / widths) ** 2)
    return 0.05 + peaks @ np.array([1.0, 0.6])


def mixed(voices: list[np.ndarray]) -> np.ndarray:
    """One sound track of several voices: their mean, as long as the longest."""
    length = max(len(voice) for voice in voices)
    total = np.zeros(length, np.float32)
    for voice in voices:
        total[: len(voice)] += voice / len(voices)
    return total
