"""Features of the short-time spectrum, computed and not learned: logarithms of mel bands, and their cosine transform.

Shapes: ``B`` pieces of a batch, ``D`` feature dim.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from abaw.encoders.audio import AudioOptions, Piece
from abaw.errors import AbawError, ExitCode

# Band energies below this are taken as this before the logarithm: ten times the quantisation noise of 16-bit sound.
POWER_FLOOR = 1e-6
BLOCK_TOKENS = 1024
F_MIN = 20.0  # Hz
MEL_SCALE = "htk"
HOP_S = 0.01
WINDOW_S = 0.04


class LogMel:
    """Natural logarithm of mel band energies; tokens lie at 0, hop, 2 hop ... up to the end of the sound.

    Each token is a Hann window centred on its instant, with zeros beyond the ends of the sound, so that it depends on
    its own samples alone. Pieces of ``BLOCK_TOKENS`` tokens overlap by what a window sees and are computed one by one
    in one size, the last one filled up with zeros: where a sound is cut does not show in the numbers.
    """

    name = "logmel"
    offset_s = 0.0
    precision = "fp32"
    parallel = True
    batch_size = 1

    def __init__(self, options: AudioOptions) -> None:
        self.sample_rate = options.sample_rate
        self.dim = options.num_mels
        self._num_mels = options.num_mels
        self._hop = _whole_samples(options.hop_s or HOP_S, options.sample_rate, "hop_s")
        self._window = _whole_samples(options.window_s or WINDOW_S, options.sample_rate, "window_s")
        self.hop_s = self._hop / options.sample_rate
        self.window_s = self._window / options.sample_rate
        self._fft = 2 ** math.ceil(math.log2(self._window))
        self.notes = _notes(num_mels=self._num_mels, fft=self._fft, sample_rate=self.sample_rate)
        self.trained_on: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {
            "encoder": self.name,
            "sample_rate": self.sample_rate,
            "num_mels": self._num_mels,
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
            n_mels=self._num_mels,
            center=False,
        )

    def num_tokens(self, num_samples: int) -> int:
        return num_samples // self._hop + 1 if num_samples else 0

    def pieces(self, num_samples: int) -> list[Piece]:
        count = self.num_tokens(num_samples)
        length = (BLOCK_TOKENS - 1) * self._hop + self._fft
        # torch's window sits in the middle of the transform, so a token's samples begin half a transform early.
        lead = self._fft // 2
        return [
            Piece(token * self._hop - lead, length, token, 0, min(BLOCK_TOKENS, count - token))
            for token in range(0, count, BLOCK_TOKENS)
        ]

    def statistics(self, samples: np.ndarray) -> tuple[float, float]:
        return 0.0, 1.0

    @torch.inference_mode()
    def encode(self, sounds: np.ndarray) -> np.ndarray:
        tokens = (sounds.shape[1] - self._fft) // self._hop + 1
        found = np.empty((len(sounds), tokens, self.dim), dtype=np.float32)
        for row, sound in enumerate(sounds):  # one at a time: how many there are cannot change a number
            found[row] = self._tokens(torch.from_numpy(sound)).numpy()
        return found

    def _tokens(self, sound: Tensor) -> Tensor:
        """Samples ``[S]`` -> ``[tokens, dim]``."""
        power: Tensor = self._mel(sound)  # [mels, tokens]
        return power.clamp(min=POWER_FLOOR).log().T

    def exact(self) -> LogMel:
        return self


class MFCC(LogMel):
    """Mel-frequency cepstral coefficients: the orthonormal type-II cosine transform of `LogMel`'s bands.

    Coefficients 0 to ``num_coefficients`` - 1 are kept, without liftering: coefficient 0 is the sum of the bands over
    the square root of their number. It is torchaudio's MFCC with ``log_mels=True``, ``norm="ortho"``; its default in
    decibels depends on the loudest instant of the whole sound, and so on where a sound is cut.
    """

    name = "mfcc"

    def __init__(self, options: AudioOptions) -> None:
        super().__init__(options)
        if options.num_coefficients > options.num_mels:
            raise AbawError(
                f"num_coefficients = {options.num_coefficients} is more than the {options.num_mels} mel bands",
                where="encoders.<name>.num_coefficients",
                fix=f"give at most {options.num_mels}, or set num_mels = {options.num_coefficients}",
                code=ExitCode.CONFIG,
            )
        self.dim = options.num_coefficients
        self.settings |= {"num_coefficients": self.dim, "transform": "DCT-II, orthonormal"}

    @cached_property
    def _cosines(self) -> Tensor:
        """float32 ``[mels, dim]``: sqrt(2 / M) cos(pi k (m + 1/2) / M), coefficient 0 over sqrt(2)."""
        bands = np.arange(self._num_mels)[:, None] + 0.5
        cosines = np.sqrt(2 / self._num_mels) * np.cos(np.pi / self._num_mels * bands * np.arange(self.dim))
        cosines[:, 0] /= np.sqrt(2)
        return torch.from_numpy(cosines.astype(np.float32))

    def _tokens(self, sound: Tensor) -> Tensor:
        return super()._tokens(sound) @ self._cosines


def _notes(*, num_mels: int, fft: int, sample_rate: int) -> tuple[str, ...]:
    """What to say of bands so narrow that no frequency of the transform lies in them: they are constant."""
    lowest, highest = (2595 * math.log10(1 + edge / 700) for edge in (F_MIN, sample_rate / 2))
    edges = 700 * (10 ** (np.linspace(lowest, highest, num_mels + 2) / 2595) - 1)  # Hz
    frequencies = np.arange(fft // 2 + 1) * (sample_rate / fft)
    first, stop = np.searchsorted(frequencies, edges[:-2], "right"), np.searchsorted(frequencies, edges[2:], "left")
    empty = int(np.count_nonzero(first >= stop))
    if not empty:
        return ()
    return (f"{empty} of {num_mels} mel bands are constant: give fewer num_mels, or a longer window_s",)


def _whole_samples(seconds: float, sample_rate: int, key: str) -> int:
    samples = round(seconds * sample_rate)
    if samples < 1:
        raise AbawError(
            f"{key} = {seconds} is less than one sample at {sample_rate} Hz",
            where=f"encoders.<name>.{key}",
            fix=f"give at least {1 / sample_rate:.6f} seconds",
            code=ExitCode.CONFIG,
        )
    return samples


def _mel_spectrogram(**options: Any) -> torch.nn.Module:
    from abaw._compat import prepare_torchaudio

    prepare_torchaudio()
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(f_min=F_MIN, power=2.0, norm=None, mel_scale=MEL_SCALE, **options).eval()
