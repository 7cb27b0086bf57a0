"""VGGish embeddings: one of 128 numbers for about a second of sound, by the published weights of torchvggish.

Shapes: ``B`` pieces of a batch, ``F`` frames of 10 ms, ``N`` tokens.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from abaw.encoders.audio import AUDIO_ENCODERS, RANDOM, AudioOptions, Piece, PublishedWeights, find_weights
from abaw.errors import AbawError, ExitCode
from abaw.models import vggish
from abaw.provenance import undeclared_record
from abaw.weights import known_sha256

HOP_S = 0.1
FRAMES_PER_S = vggish.SAMPLE_RATE // vggish.HOP
EXAMPLE = (vggish.NUM_FRAMES - 1) * vggish.HOP + vggish.WINDOW  # samples an example sees: 0.975 s
PIECE_TOKENS = 16
WHERE = "encoders.<name>"


class VGGish:
    """Embeddings of examples: 96 frames of 10 ms (0.96 s; with the last frame's window 0.975 s).

    One example begins with the sound, as published, and others lie every ``hop_s`` after it and before it, with zeros
    beyond the ends of the sound, until each of its instants is within half a hop of an example's centre. So at a hop of
    0.96 s tokens 1, 2 ... are the published examples; ``offset_s`` says where the centre of token 0 lies.

    The tokens of a piece are computed from frames that are computed once, always 16 tokens together: where a sound is
    cut and what else is in a batch does not show in the numbers.
    """

    name = "vggish"
    dim = vggish.WIDTH
    sample_rate = vggish.SAMPLE_RATE
    window_s = EXAMPLE / vggish.SAMPLE_RATE
    parallel = False
    batch_size = 1  # a piece is a batch of examples already

    def __init__(self, options: AudioOptions) -> None:
        frames = _whole_frames(options)
        self._frames, self._hop = frames, frames * vggish.HOP
        self._before = _ceil(EXAMPLE - self._hop, 2 * self._hop)  # tokens that begin before the sound
        self.hop_s = frames / FRAMES_PER_S
        self.offset_s = (EXAMPLE / 2 - self._before * self._hop) / self.sample_rate
        self.precision = options.precision
        self._options = options
        self._device = torch.device(options.device)
        self._dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        model, sha256, self.notes = _network(options)
        self._model = model.to(self._device, self._dtype)
        self.trained_on = [] if sha256 == RANDOM else [undeclared_record(sha256, options.trained_on)]
        self.settings: dict[str, Any] = {
            "encoder": self.name,
            "weights": sha256,
            "precision": self.precision,
            "sample_rate": self.sample_rate,
            "values": "raw embeddings",
        }
        self._pca: tuple[Tensor, ...] = ()
        if options.pca:
            path, notes = _pca_file(options)
            self._pca = tuple(part.to(self._device) for part in vggish.read_pca(path))
            self.notes += notes
            self.settings |= {"values": "PCA, clipped to [-2, 2], 8 bits (0 to 255)", "pca": known_sha256(path)}

    def num_tokens(self, num_samples: int) -> int:
        if num_samples == 0:
            return 0
        return self._before + 1 + _ceil(2 * num_samples - EXAMPLE - self._hop, 2 * self._hop)

    def pieces(self, num_samples: int) -> list[Piece]:
        count = self.num_tokens(num_samples)
        length = (PIECE_TOKENS - 1) * self._hop + EXAMPLE
        return [
            Piece((token - self._before) * self._hop, length, token, 0, min(PIECE_TOKENS, count - token))
            for token in range(0, count, PIECE_TOKENS)
        ]

    def statistics(self, samples: np.ndarray) -> tuple[float, float]:
        return 0.0, 1.0

    @torch.inference_mode()
    def encode(self, sounds: np.ndarray) -> np.ndarray:
        tokens = (sounds.shape[1] - EXAMPLE) // self._hop + 1
        found = np.empty((len(sounds), tokens, self.dim), dtype=np.float32)
        for row, sound in enumerate(sounds):
            frames = vggish.log_mel(torch.from_numpy(sound))  # [F, 64]
            examples = frames.unfold(0, vggish.NUM_FRAMES, self._frames).transpose(1, 2)  # [N, 96, 64]
            embeddings = self._model(examples.to(self._device, self._dtype)).float()
            found[row] = (vggish.quantise(embeddings, *self._pca) if self._pca else embeddings).cpu().numpy()
        return found

    def exact(self) -> VGGish:
        return self if self.precision == "fp32" else VGGish(replace(self._options, precision="fp32"))


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _whole_frames(options: AudioOptions) -> int:
    """Frames of 10 ms from one token to the next; AbawError for what VGGish cannot do."""
    if options.sample_rate != vggish.SAMPLE_RATE:
        what, key, fix = f"sample_rate = {options.sample_rate}: VGGish hears 16000 Hz", "sample_rate", "leave it out"
        raise AbawError(what, where=f"{WHERE}.{key}", fix=fix, code=ExitCode.CONFIG)
    if options.window_s:
        what, key, fix = f"window_s = {options.window_s}: VGGish's window is fixed, 0.975 s", "window_s", "leave it out"
        raise AbawError(what, where=f"{WHERE}.{key}", fix=fix, code=ExitCode.CONFIG)
    hop_s = options.hop_s or HOP_S
    frames = round(hop_s * FRAMES_PER_S)
    if frames < 1 or abs(hop_s * FRAMES_PER_S - frames) > 1e-6:
        what = f"hop_s = {hop_s} is not a multiple of VGGish's 0.01 s"
        fix = f"set hop_s = {max(frames, 1) / FRAMES_PER_S}"
        raise AbawError(what, where=f"{WHERE}.hop_s", fix=fix, code=ExitCode.CONFIG)
    return frames


def _network(options: AudioOptions) -> tuple[vggish.Vggish, str, tuple[str, ...]]:
    """The network, its weights' sha256 and notes about them."""
    if options.weights == RANDOM:
        return vggish.random_vggish(), RANDOM, ("random weights: features are fit for tests of speed only",)
    path, notes = _file(options, options.weights, published("")) if options.weights else (_usual(options, ""), ())
    return vggish.read_vggish(path), known_sha256(path), notes


def _pca_file(options: AudioOptions) -> tuple[Path, tuple[str, ...]]:
    if options.pca == published("pca").file and not options.path(options.pca).exists():
        return _usual(options, "pca"), ()
    return _file(options, options.pca, published("pca"))


def published(key: str) -> PublishedWeights:
    """The published network (""), or the parameters of its PCA ("pca")."""
    return AUDIO_ENCODERS["vggish"].weights[key]


def _usual(options: AudioOptions, key: str) -> Path:
    """The published file of the usual folders. AbawError (missing) where it is absent, or not the published one."""
    wanted = published(key)
    path = find_weights(options, wanted, encoder="vggish")
    if not known_sha256(path).startswith(wanted.sha256):
        raise AbawError(
            f"{path.name} is not the published file (its sha256 does not begin with {wanted.sha256})",
            where=str(path),
            fix=f"download it again from {wanted.url}",
            code=ExitCode.MISSING,
        )
    return path


def _file(options: AudioOptions, named: str, wanted: PublishedWeights) -> tuple[Path, tuple[str, ...]]:
    """A file that the configuration names, and a note where it is not the published one."""
    path = options.path(named)
    if not path.is_file():
        raise AbawError(
            f"there is no weights file {path}",
            where=f"{WHERE}.{'pca' if wanted is published('pca') else 'weights'}",
            fix=f"put {wanted.file} (sha256 {wanted.sha256[:8]}...) there, from {wanted.url}",
            code=ExitCode.MISSING,
        )
    if known_sha256(path).startswith(wanted.sha256):
        return path, ()
    return path, (f"{path.name} is not the published {wanted.file}: its sha256 does not begin with {wanted.sha256}",)
