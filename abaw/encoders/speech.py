"""Speech transformers over sound of any length: wav2vec 2.0, HuBERT and WavLM in windows with context.

A recording runs in windows of one fixed length that start on multiples of the hop. Each token is taken from the window
in which it has the most context. A recording that fits into one window runs whole, at its own length.

Shapes: ``S`` samples, ``N`` tokens of a recording, ``n`` tokens of a window, ``D`` feature dim.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from abaw.encoders.audio import AUDIO_ENCODERS, RANDOM, AudioOptions, Piece, find_weights
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.huggingface_speech import folder_of, folder_shape, read_folder, weights_in
from abaw.models.speech import (
    SpeechShape,
    build_speech,
    layer_outputs,
    published_shape,
    random_speech,
    read_torchaudio_file,
)
from abaw.provenance import undeclared_record
from abaw.weights import known_sha256

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
BLOCK = 1 << 20


class _Source(NamedTuple):
    """Where the weights of an encoder come from: a file of torchaudio or one in a folder, None for random ones."""

    shape: SpeechShape
    path: Path | None
    is_folder: bool = False
    is_published: bool = False


class Speech:
    """A speech transformer as an `AudioEncoder`; features are the outputs of one layer, or the mean of all."""

    sample_rate = SAMPLE_RATE
    parallel = False

    def __init__(self, name: str, options: AudioOptions, source: _Source) -> None:
        shape = source.shape
        self.name, self.dim, self._shape, self._source, self._options = name, shape.width, shape, source, options
        self.hop_s, self.window_s = shape.hop / SAMPLE_RATE, shape.samples(1) / SAMPLE_RATE
        self.offset_s = self.window_s / 2
        self.batch_size, self.precision = options.batch_size, options.precision
        self._core = max(1, round(options.piece_s / self.hop_s))
        self._context = round(options.context_s / self.hop_s)
        self._layer = _layer(options.layer, shape.num_layers, name)
        sha256 = known_sha256(source.path) if source.path else RANDOM
        model, left_out = _load(source, name)
        self.notes = tuple(_notes(source, left_out, sha256))
        self.trained_on = [undeclared_record(sha256, options.trained_on)] if source.path else []
        self.settings = self._settings(sha256)
        self._device = torch.device(options.device)
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._model: nn.Module = model.to(self._device, self._dtype)

    def _settings(self, sha256: str) -> dict[str, Any]:
        shape = self._shape
        return {
            "encoder": self.name,
            "weights": sha256,
            "architecture": {
                "width": shape.width,
                "layers": shape.num_layers,
                "heads": shape.heads,
                "norm_first": shape.parameters["encoder_layer_norm_first"],
                "norm_eps": shape.norm_eps,
                "max_distance": shape.parameters.get("encoder_max_distance", 0),
            },
            "layer": self._layer,
            "sample_rate": SAMPLE_RATE,
            "normalisation": "none" if shape.input_eps is None else f"whole sound, eps {shape.input_eps:g}",
            "piece_tokens": self._core,
            "context_tokens": self._context,
            "precision": self.precision,
        }

    def num_tokens(self, num_samples: int) -> int:
        """One for every 20 ms of which 25 ms are there, with the published convolutions."""
        return self._shape.num_tokens(num_samples)

    def pieces(self, num_samples: int) -> Sequence[Piece]:
        """Windows of piece + 2 context; the first starts with the sound, the last is moved back to full length."""
        num_tokens, in_window = self.num_tokens(num_samples), self._core + 2 * self._context
        if num_tokens == 0:
            return []
        if num_tokens <= in_window:
            return [Piece(start=0, length=num_samples, token=0, first=0, count=num_tokens)]
        last = num_tokens - in_window
        starts = [*range(0, last, self._core), last]
        # Of two windows the one whose middle is nearer has more context on its shorter side; the earlier one of equals.
        borders = [(a + b + in_window - 1) // 2 + 1 for a, b in zip(starts, starts[1:], strict=False)]
        length, hop = self._shape.samples(in_window), self._shape.hop
        return [
            Piece(start * hop, length, token, token - start, stop - token)
            for start, token, stop in zip(starts, [0, *borders], [*borders, num_tokens], strict=True)
        ]

    def statistics(self, samples: np.ndarray) -> tuple[float, float]:
        """Mean and deviation of the whole sound, as layer normalisation has them, where the model asks for it."""
        if self._shape.input_eps is None or len(samples) == 0:
            return 0.0, 1.0
        blocks = [samples[start : start + BLOCK] for start in range(0, len(samples), BLOCK)]
        mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / len(samples)
        power = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in blocks) / len(samples)
        return mean, math.sqrt(power + self._shape.input_eps)

    @torch.inference_mode()
    def encode(self, sounds: np.ndarray) -> np.ndarray:
        """float32 ``[B, S]`` -> float32 ``[B, n, D]``."""
        given = torch.from_numpy(sounds).to(self._device, self._dtype)
        tokens: Tensor = layer_outputs(self._model, given, layer=self._layer)
        return tokens.cpu().numpy()

    def exact(self) -> Speech:
        """The same in fp32, read anew."""
        if self.precision == "fp32":
            return self
        return Speech(self.name, replace(self._options, precision="fp32"), self._source)


def _layer(wanted: int | str, num_layers: int, name: str) -> int | str:
    if wanted == "mean":
        return wanted
    number = int(wanted)
    layer = number + num_layers + 1 if number < 0 else number
    if not 1 <= layer <= num_layers:
        raise AbawError(
            f"there is no layer {wanted}: this model has {num_layers}",
            where="encoders.<name>.layer",
            fix=f'give 1 to {num_layers}, -1 (the last) to -{num_layers}, or "mean"',
            code=ExitCode.CONFIG,
        )
    return layer


def _load(source: _Source, name: str) -> tuple[nn.Module, list[str]]:
    """The model, and the names in its file that are not used."""
    if source.path is None:
        return random_speech(source.shape), []
    if source.is_folder:
        weights, left_out = read_folder(source.path.parent, source.shape)
        return build_speech(source.shape, weights, where=source.path, fix="give the folder as it was saved"), left_out
    weights, left_out = read_torchaudio_file(source.path)
    return build_speech(source.shape, weights, where=source.path, fix=_other_model(name, weights)), left_out


def _other_model(name: str, weights: dict[str, Tensor]) -> str:
    """What to write for weights that are of another model than was said."""
    for encoder in ("wav2vec2", "hubert", "wavlm"):
        for model, published in AUDIO_ENCODERS[encoder].weights.items():
            shape = published_shape(published.file)
            layers = {key.split(".")[3] for key in weights if key.startswith("encoder.transformer.layers.")}
            norm = weights.get("encoder.transformer.layer_norm.weight")
            is_wavlm = any(key.endswith("rel_attn_embed.weight") for key in weights)
            fits = norm is not None and len(norm) == shape.width and len(layers) == shape.num_layers
            if fits and is_wavlm == (shape.kind == "WavLM") and (encoder == name or is_wavlm != (name == "wavlm")):
                return f'by its size write encoder = "{encoder}" and model = "{model}" in the table [encoders.<name>]'
    return 'say with model = "..." which published model it is, or give a Hugging Face folder with config.json'


def _notes(source: _Source, left_out: Sequence[str], sha256: str) -> list[str]:
    notes = []
    if source.path is None:
        notes.append("the weights are random: of use for tests of speed only")
    elif source.is_published:
        notes.append(f"weights of {source.path}, sha256 {sha256}")
    if left_out and source.path is not None:
        parts = sorted({name.partition(".")[0] for name in left_out})
        notes.append(f"not part of the features and left out of {source.path.name}: {', '.join(parts)}")
    return notes


def _source(name: str, options: AudioOptions) -> _Source:
    """What the options name: a published file in its usual places, a file, or a Hugging Face folder."""
    path = options.path(options.weights) if options.weights not in ("", RANDOM) else None
    folder = folder_of(path) if path else None
    if folder is not None:
        return _Source(folder_shape(folder, name), weights_in(folder), is_folder=True)
    published = choose(AUDIO_ENCODERS[name].weights, options.model, what="model", where="encoders.<name>.model")
    shape = published_shape(published.file)
    if options.weights == RANDOM:
        return _Source(shape, None)
    if path is not None and not path.exists():
        raise AbawError(
            f"there is no weights file or folder {path}",
            where="encoders.<name>.weights",
            fix=f"put {published.file} there, from {published.url}\nor a Hugging Face folder of the model",
            code=ExitCode.MISSING,
        )
    if path is not None:
        return _Source(shape, path)
    return _Source(shape, find_weights(options, published, encoder=name), is_published=True)


def _build(name: str, options: AudioOptions) -> Speech:
    if options.sample_rate != SAMPLE_RATE:
        raise AbawError(
            f'encoder "{name}" takes sound at {SAMPLE_RATE} Hz, not {options.sample_rate}',
            where="encoders.<name>.sample_rate",
            fix="leave the key out: sound of any rate is resampled",
            code=ExitCode.CONFIG,
        )
    return Speech(name, options, _source(name, options))


wav2vec2 = partial(_build, "wav2vec2")
hubert = partial(_build, "hubert")
wavlm = partial(_build, "wavlm")
