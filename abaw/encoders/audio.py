"""Audio encoders: a mono waveform in, one vector per token out, with the tokens' clock stated.

Adding an encoder is adding a builder and a line of AUDIO_ENCODERS. Knows nothing of files, frames or stores: framing
onto video frames is `timeline`'s.

Shapes: ``S`` samples, ``N`` tokens, ``D`` feature dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from abaw.errors import AbawError, ExitCode, choose

# Band energies below this are taken as this before the logarithm: ten times the quantisation noise of 16-bit sound.
POWER_FLOOR = 1e-6
BLOCK_TOKENS = 1024
F_MIN = 20.0  # Hz
MEL_SCALE = "htk"


class AudioOptions(NamedTuple):
    """What an audio encoder may be told: rates in Hz, times in seconds."""

    sample_rate: int = 16000
    hop_s: float = 0.01
    window_s: float = 0.04
    num_mels: int = 64


class AudioEncoder(Protocol):
    """float32 ``[S]`` in [-1, 1] at ``sample_rate`` -> float32 ``[N, dim]``.

    Token k has its centre ``offset_s + k * hop_s`` seconds after the first sample and sees ``window_s`` around it.
    ``settings`` is everything that changes the output.
    """

    name: str
    dim: int
    sample_rate: int
    hop_s: float
    offset_s: float
    window_s: float
    settings: dict[str, Any]

    def encode(self, waveform: np.ndarray) -> np.ndarray: ...


class LogMel:
    """Natural logarithm of mel band energies; tokens lie at 0, hop, 2 hop ... up to the end of the sound.

    Each token is a Hann window centred on its instant, with zeros beyond the ends of the sound, so that it depends on
    its own samples alone: any cutting of the sound with ``window_s`` of context gives the same numbers.
    """

    name = "logmel"
    offset_s = 0.0

    def __init__(self, options: AudioOptions) -> None:
        self.sample_rate = options.sample_rate
        self.dim = options.num_mels
        self._hop = _whole_samples(options.hop_s, options.sample_rate, "hop_s")
        self._window = _whole_samples(options.window_s, options.sample_rate, "window_s")
        self.hop_s = self._hop / options.sample_rate
        self.window_s = self._window / options.sample_rate
        self._fft = 2 ** math.ceil(math.log2(self._window))
        self.settings = {
            "encoder": self.name,
            "sample_rate": self.sample_rate,
            "num_mels": self.dim,
            "fft": self._fft,
            "f_min": F_MIN,
            "mel_scale": MEL_SCALE,
            "power_floor": POWER_FLOOR,
        }

    @cached_property
    def _mel(self) -> torch.nn.Module:
        return _mel_spectrogram(
            sample_rate=self.sample_rate,
            n_fft=self._fft,
            win_length=self._window,
            hop_length=self._hop,
            n_mels=self.dim,
            center=False,
        )

    @torch.inference_mode()
    def encode(self, waveform: np.ndarray) -> np.ndarray:
        num_tokens = len(waveform) // self._hop + 1 if len(waveform) else 0
        tokens = np.empty((num_tokens, self.dim), dtype=np.float32)
        # torch's window sits in the middle of the transform, so a token's samples begin half a transform early.
        lead = self._fft // 2
        span = (BLOCK_TOKENS - 1) * self._hop + self._fft
        for start in range(0, num_tokens, BLOCK_TOKENS):
            # Every block has one size, the last one filled up with zeros: a token's numbers never depend on it.
            block = _cut(waveform, start * self._hop - lead, span)
            power = self._mel(torch.from_numpy(block))  # [D, BLOCK_TOKENS]
            part = power.clamp(min=POWER_FLOOR).log().T.numpy()
            tokens[start : start + BLOCK_TOKENS] = part[: num_tokens - start]
        return tokens


def _whole_samples(seconds: float, sample_rate: int, key: str) -> int:
    samples = round(seconds * sample_rate)
    if samples < 1:
        raise AbawError(
            f"{key} = {seconds} is less than one sample at {sample_rate} Hz",
            where=f"[encoders] {key}",
            fix=f"give at least {1 / sample_rate:.6f} seconds",
            code=ExitCode.CONFIG,
        )
    return samples


def _mel_spectrogram(**options: Any) -> torch.nn.Module:
    from abaw._compat import prepare_torchaudio

    prepare_torchaudio()
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(f_min=F_MIN, power=2.0, norm=None, mel_scale=MEL_SCALE, **options).eval()


def _cut(waveform: np.ndarray, start: int, length: int) -> np.ndarray:
    """Samples ``[start, start + length)``, zeros where there are none."""
    block = np.zeros(length, dtype=np.float32)
    low, high = max(start, 0), min(start + length, len(waveform))
    if high > low:
        block[low - start : high - start] = waveform[low:high]
    return block


AUDIO_ENCODERS: Mapping[str, Callable[[AudioOptions], AudioEncoder]] = {
    "logmel": LogMel,
}


def build_audio_encoder(name: str, options: AudioOptions) -> AudioEncoder:
    """Encoder ``name`` ready to use; AbawError (configuration) for an unknown name."""
    return choose(AUDIO_ENCODERS, name, what="audio encoder", where="[encoders] encoder")(options)
