"""Audio encoders: a mono waveform in, one vector per token out, with the tokens' clock stated.

Adding an encoder is adding a builder and an entry of AUDIO_ENCODERS. Knows nothing of files of sound, frames or
stores: framing onto video frames is `timeline`'s.

Shapes: ``S`` samples, ``N`` tokens of a recording, ``B`` pieces of a batch, ``D`` feature dim.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from abaw.errors import AbawError, ExitCode, choose
from abaw.weights import DEFAULT_FOLDER

RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class AudioOptions:
    """What an audio encoder may be told: rates in Hz, times in seconds; 0 stands for the encoder's own.

    The fields of `config.AudioEncoderConfig`, with ``device`` and ``precision`` resolved ("fp32" or "bf16");
    ``root``: folder that paths start from; ``weights_dir``: where published files are looked for, None = the default.
    """

    weights: str = ""
    trained_on: tuple[str, ...] = ()
    model: str = "base"
    layer: int | str = -1
    piece_s: float = 10.0
    context_s: float = 1.0
    sample_rate: int = 16000
    hop_s: float = 0.0
    window_s: float = 0.0
    num_mels: int = 64
    num_coefficients: int = 40
    pca: str = ""
    batch_size: int = 4
    precision: str = "fp32"
    device: str = "cpu"
    root: Path = Path()
    weights_dir: Path | None = None

    def path(self, named: str) -> Path:
        """A file or folder as the configuration names it."""
        return self.root / Path(named).expanduser()


@dataclass(frozen=True, slots=True)
class Piece:
    """One forward pass's worth of one recording.

    Samples ``start`` to ``start + length``, zeros where they lie before the sound or beyond it. Of the tokens that
    come out, ``first`` to ``first + count`` are kept; they are the recording's from ``token`` on.
    """

    start: int
    length: int
    token: int
    first: int
    count: int


class AudioEncoder(Protocol):
    """float32 ``[B, length]`` at ``sample_rate`` -> float32 ``[B, tokens, dim]``; a row depends on its own sound alone.

    Token k has its centre ``offset_s + k * hop_s`` seconds after the first sample and sees ``window_s`` around it.
    ``settings`` is everything that changes the output, ``notes`` are sentences for the log and the store's notes.
    ``parallel``: light enough for one recording per process; otherwise one process runs batches of ``batch_size``
    pieces across recordings.
    """

    name: str
    dim: int
    sample_rate: int
    hop_s: float
    offset_s: float
    window_s: float
    settings: dict[str, Any]
    trained_on: list[dict[str, Any]]
    precision: str
    notes: tuple[str, ...]
    parallel: bool
    batch_size: int

    def num_tokens(self, num_samples: int) -> int:
        """Tokens of a recording."""
        ...

    def pieces(self, num_samples: int) -> Sequence[Piece]:
        """What to run; keeps every token once, in order. All of one length where there are several."""
        ...

    def statistics(self, samples: np.ndarray) -> tuple[float, float]:
        """(mean, scale) of a recording that is normalised as a whole, (0.0, 1.0) for other encoders."""
        ...

    def encode(self, sounds: np.ndarray) -> np.ndarray:
        """Tokens of some pieces of one length, from `cut_piece`."""
        ...

    def exact(self) -> AudioEncoder:
        """The same in fp32; itself where it is fp32 already."""
        ...


def cut_piece(samples: np.ndarray, piece: Piece, statistics: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """Samples of a piece, float32 ``[length]``: (sample - mean) / scale, zeros where there is no sound."""
    cut = np.zeros(piece.length, dtype=np.float32)
    low, high = max(piece.start, 0), min(piece.start + piece.length, len(samples))
    if high > low:
        part = samples[low:high]
        mean, scale = statistics
        normalised = part if statistics == (0.0, 1.0) else (part - np.float32(mean)) / np.float32(scale)
        cut[low - piece.start : high - piece.start] = normalised
    return cut


def encode_recording(encoder: AudioEncoder, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first token, tokens ``[n, D]``) of one recording, piece by piece; see `encode_batch` for the shapes."""
    pieces, statistics = encoder.pieces(len(samples)), encoder.statistics(samples)
    size = encoder.batch_size if len(pieces) > 1 else 1
    for start in range(0, len(pieces), size):
        group = pieces[start : start + size]
        tokens = encode_batch(encoder, [cut_piece(samples, piece, statistics) for piece in group], size)
        for piece, part in zip(group, tokens, strict=False):
            yield piece.token, part[piece.first : piece.first + piece.count]


def encode_batch(encoder: AudioEncoder, sounds: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Tokens of some pieces of one length, in a batch of ``size``: one that is not full is padded with zeros.

    A recording of a single piece runs alone, at its own length. So the shape that a piece runs in never depends on
    other recordings.
    """
    batch = np.zeros((size, len(sounds[0])), dtype=np.float32)
    batch[: len(sounds)] = sounds
    return encoder.encode(batch)[: len(sounds)]


def encode_whole(encoder: AudioEncoder, samples: np.ndarray) -> np.ndarray:
    """All tokens of a recording, float32 ``[N, D]``, in memory."""
    tokens = np.zeros((encoder.num_tokens(len(samples)), encoder.dim), dtype=np.float32)
    for first, part in encode_recording(encoder, samples):
        tokens[first : first + len(part)] = part
    return tokens


class PublishedWeights(NamedTuple):
    """A published file: its name, where its authors give it, its sha256 or the first digits of it where known."""

    file: str
    url: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Entry:
    """An encoder: how it is built, its licence and origin, the published files by ``model`` ("" where one only).

    ``takes``: the options that change its features; `AudioOptions.sample_rate` is everybody's. ``on_device``: it runs
    on ``run.device``, in bf16 where the hardware has it; others on the CPU in fp32.
    """

    build: Callable[[AudioOptions], AudioEncoder]
    takes: tuple[str, ...]
    licence: str = ""
    origin: str = ""
    weights: Mapping[str, PublishedWeights] = field(default_factory=dict)
    on_device: bool = False


def find_weights(options: AudioOptions, published: PublishedWeights, *, encoder: str) -> Path:
    """The published file, from ``weights_dir`` or torch hub's cache. AbawError (missing) says where to put it."""
    import torch

    folder = (options.weights_dir or DEFAULT_FOLDER).expanduser()
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    for place in (folder, hub):
        if (place / published.file).is_file():
            return place / published.file
    digits = f", sha256 {published.sha256}{'' if len(published.sha256) == 64 else '...'}" if published.sha256 else ""
    source = f"\nfrom {published.url}" if published.url else ""
    raise AbawError(
        f'encoder "{encoder}" has no weights: {published.file}{digits} is not there',
        where=f"{folder} and {hub}",
        fix=f"put the file there by hand: {folder / published.file}{source}\n"
        'or name it: weights = "FILE" in the table [encoders.<name>]',
        code=ExitCode.MISSING,
    )


def _later(module: str, name: str) -> Callable[[AudioOptions], AudioEncoder]:
    """A builder whose module is imported when it is called."""

    def build(options: AudioOptions) -> AudioEncoder:
        return cast("AudioEncoder", getattr(importlib.import_module(f"abaw.encoders.{module}"), name)(options))

    return build


_TORCHVGGISH = "https://github.com/harritaylor/torchvggish/releases/download/v0.1"
VGGISH_FILES = {
    "": PublishedWeights(
        "vggish-10086976.pth",
        f"{_TORCHVGGISH}/vggish-10086976.pth",
        "10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
    ),
    "pca": PublishedWeights(
        "vggish_pca_params-970ea276.pth", f"{_TORCHVGGISH}/vggish_pca_params-970ea276.pth", "970ea276"
    ),
}


def _torchaudio(**files: str) -> dict[str, PublishedWeights]:
    """Files of torchaudio.pipelines by model; their sha256 is not published."""
    folder = "https://download.pytorch.org/torchaudio/models"
    return {
        model.replace("_", "-"): PublishedWeights(f"{file}.pth", f"{folder}/{file}.pth")
        for model, file in files.items()
    }


_OF_SPEECH = ("weights", "trained_on", "model", "layer", "piece_s", "context_s")
_OF_SPECTRA = ("hop_s", "window_s", "num_mels")

AUDIO_ENCODERS: Mapping[str, Entry] = {
    "wav2vec2": Entry(
        _later("speech", "wav2vec2"),
        _OF_SPEECH,
        licence="MIT",
        origin="torchaudio.pipelines, or a Hugging Face folder",
        weights=_torchaudio(
            base="wav2vec2_fairseq_base_ls960",
            large="wav2vec2_fairseq_large_ls960",
            large_lv60k="wav2vec2_fairseq_large_lv60k",
            xlsr53="wav2vec2_fairseq_large_xlsr53",
            xlsr_300m="wav2vec2_xlsr_300m",
            xlsr_1b="wav2vec2_xlsr_1b",
            xlsr_2b="wav2vec2_xlsr_2b",
            base_960h="wav2vec2_fairseq_base_ls960_asr_ls960",
            large_960h="wav2vec2_fairseq_large_ls960_asr_ls960",
            large_lv60k_960h="wav2vec2_fairseq_large_lv60k_asr_ls960",
        ),
        on_device=True,
    ),
    "hubert": Entry(
        _later("speech", "hubert"),
        _OF_SPEECH,
        licence="MIT",
        origin="torchaudio.pipelines, or a Hugging Face folder",
        weights=_torchaudio(
            base="hubert_fairseq_base_ls960",
            large="hubert_fairseq_large_ll60k",
            xlarge="hubert_fairseq_xlarge_ll60k",
            large_960h="hubert_fairseq_large_ll60k_asr_ls960",
            xlarge_960h="hubert_fairseq_xlarge_ll60k_asr_ls960",
        ),
        on_device=True,
    ),
    "wavlm": Entry(
        _later("speech", "wavlm"),
        _OF_SPEECH,
        licence="MIT",
        origin="torchaudio.pipelines, or a Hugging Face folder",
        weights=_torchaudio(base="wavlm_base", base_plus="wavlm_base_plus", large="wavlm_large"),
        on_device=True,
    ),
    "vggish": Entry(
        _later("vggish", "VGGish"),
        ("weights", "trained_on", "hop_s", "window_s", "pca"),  # it refuses a window itself, and says which it has
        licence="Apache-2.0",
        origin="harritaylor/torchvggish, release v0.1",
        weights=VGGISH_FILES,
        on_device=True,
    ),
    "logmel": Entry(_later("spectral", "LogMel"), _OF_SPECTRA),
    "mfcc": Entry(_later("spectral", "MFCC"), (*_OF_SPECTRA, "num_coefficients")),
}


def build_audio_encoder(name: str, options: AudioOptions) -> AudioEncoder:
    """Encoder ``name`` ready to use.

    Raises AbawError for an unknown name, for options that it does not have, and for weights that are missing or do not
    fit. "encoders.<name>" stands in it for the table, whose name is not known here.
    """
    entry = choose(AUDIO_ENCODERS, name, what="audio encoder", where="encoders.<name>.encoder")
    _require_taken(name, entry, options)
    return entry.build(options)


def _require_taken(name: str, entry: Entry, options: AudioOptions) -> None:
    """Refuse options that change nothing in this encoder, before anybody takes its features for what they are not."""
    others = {key for one in AUDIO_ENCODERS.values() for key in one.takes} - set(entry.takes)
    for default in fields(AudioOptions):
        key, value = default.name, getattr(options, default.name)
        if key in others and value != default.default:
            has = ", ".join(other for other, one in AUDIO_ENCODERS.items() if key in one.takes)
            raise AbawError(
                f'{key} changes nothing in encoder "{name}"',
                where=f"encoders.<name>.{key}",
                fix=f"leave it out; encoders that have it: {has}",
                code=ExitCode.CONFIG,
            )
