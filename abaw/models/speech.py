"""Speech transformers as torchaudio builds them: wav2vec 2.0, HuBERT and WavLM, from published or given weights.

Weights are in torchaudio's names here; `huggingface_speech` translates the other layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from abaw.errors import AbawError, ExitCode
from abaw.models.weight_files import read_weight_file

# What is not part of the features: torchaudio's linear layer of finetuned models.
HEADS = ("aux.",)
_CONV = "encoder.transformer.pos_conv_embed.conv"
# The two spellings of a weight-normalised layer: torch before 2.0 wrote `weight_g` and `weight_v`.
_SPELLINGS = {
    f"{_CONV}.weight_g": f"{_CONV}.parametrizations.weight.original0",
    f"{_CONV}.weight_v": f"{_CONV}.parametrizations.weight.original1",
}
_FILE_FIX = "give torchaudio's file of this model, or a Hugging Face folder with config.json"


@dataclass(frozen=True)
class SpeechShape:
    """What a model is made of: ``kind`` "Wav2Vec2" or "WavLM" and torchaudio's parameters of it.

    ``input_eps``: the sound is brought to mean 0 and variance 1 as a whole, with this added to the variance; None where
    the model takes it as it is. ``norm_eps``: of the transformer's norms.
    """

    kind: str
    parameters: Mapping[str, Any]
    input_eps: float | None = None
    norm_eps: float = 1e-5

    @property
    def convolutions(self) -> list[tuple[int, int]]:
        """(kernel, stride) of each layer between sound and tokens."""
        return [(kernel, stride) for _, kernel, stride in self.parameters["extractor_conv_layer_config"]]

    @property
    def hop(self) -> int:
        """Samples from token to token."""
        return self.samples(2) - self.samples(1)

    @property
    def width(self) -> int:
        """Dim of a token."""
        return int(self.parameters["encoder_embed_dim"])

    @property
    def num_layers(self) -> int:
        """Layers of the transformer."""
        return int(self.parameters["encoder_num_layers"])

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return int(self.parameters["encoder_num_heads"])

    def samples(self, num_tokens: int) -> int:
        """Samples that so many tokens see: the shortest sound that has them. 400 for one token of published models."""
        length = num_tokens
        for kernel, stride in reversed(self.convolutions):
            length = (length - 1) * stride + kernel
        return length

    def num_tokens(self, num_samples: int) -> int:
        """Tokens of a sound."""
        length = num_samples
        for kernel, stride in self.convolutions:
            length = max(length - kernel, -stride) // stride + 1
        return length


def published_shape(file: str) -> SpeechShape:
    """Shape of one of torchaudio's published files, by the name that its bundle gives it."""
    pipelines = _torchaudio().pipelines
    for name in pipelines.__all__:
        bundle = getattr(pipelines, name)
        if getattr(bundle, "_path", None) == file:
            # torchaudio.pipelines adds layer_norm, whose eps is 1e-5, in front of these.
            eps = 1e-5 if bundle._normalize_waveform else None
            return SpeechShape(bundle._model_type, {**bundle._params, "aux_num_out": None}, eps)
    message = f"torchaudio has no bundle of {file}"
    raise ValueError(message)


def _torchaudio() -> Any:
    from abaw._compat import prepare_torchaudio

    prepare_torchaudio()
    import torchaudio.pipelines

    return torchaudio


def read_torchaudio_file(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a file that torchaudio publishes, and the names that were left out because they are a head.

    Raises AbawError for a file that is no such thing.
    """
    content = read_weight_file(path).content
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise not_speech(path, "it holds more than named weights")
    if any("self_attn" in name for name in content):
        raise not_speech(path, "its names are fairseq's")
    weights: dict[str, Tensor] = dict(content)
    kept = {_SPELLINGS.get(name, name): value for name, value in weights.items() if not name.startswith(HEADS)}
    return kept, sorted(name for name in weights if name.startswith(HEADS))


def not_speech(path: Path, why: str, *, fix: str = _FILE_FIX) -> AbawError:
    """The error for a file or folder that holds no speech model that can be read."""
    return AbawError(f"{path.name} is no speech model known here: {why}", where=str(path), fix=fix)


def build_speech(shape: SpeechShape, weights: Mapping[str, Tensor], *, where: Path, fix: str = _FILE_FIX) -> nn.Module:
    """torchaudio's model with these weights, in evaluation, in fp32 on the CPU.

    Raises AbawError, naming the first differences, where the weights are those of another model.
    """
    with torch.device("meta"):  # shapes only: nothing is drawn or held that the weights replace
        model = _empty(shape)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    differences = [f"{name} is missing" for name in wanted if name not in found]
    differences += [f"{name} is unknown" for name in found if name not in wanted]
    differences += [
        f"{name} is {_times(found[name])} instead of {_times(wanted[name])}"
        for name in wanted
        if name in found and wanted[name] != found[name]
    ]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise AbawError(
            f"{where.name} does not hold this model: {'; '.join(differences[:3])}{more}",
            where=str(where),
            fix=fix,
            code=ExitCode.CONFIG,
        )
    model.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return _finished(model, shape)


def random_speech(shape: SpeechShape, *, seed: int = 0) -> nn.Module:
    """The same with random weights, always the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _finished(_empty(shape), shape)


def _empty(shape: SpeechShape) -> nn.Module:
    models = _torchaudio().models
    make = models.wavlm_model if shape.kind == "WavLM" else models.wav2vec2_model
    model: nn.Module = make(**{**shape.parameters, "aux_num_out": None})
    return model


def _finished(model: nn.Module, shape: SpeechShape) -> nn.Module:
    transformer: Any = model.encoder
    for module in transformer.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = shape.norm_eps
    # The norm of the positional convolution's weight is a constant from here on.
    nn.utils.parametrize.remove_parametrizations(transformer.transformer.pos_conv_embed.conv, "weight")
    return model.eval().requires_grad_(requires_grad=False)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def layer_outputs(model: nn.Module, sounds: Tensor, *, layer: int | str) -> Tensor:
    """Output of a transformer layer (from 1), or with "mean" the mean of all of them; ``[B, S]`` -> ``[B, N, D]``.

    As torchaudio's `extract_features`: of models that normalise in front of their layers the last output is the one
    before the final norm.
    """
    model_: Any = model
    # One sound at a time: the first convolution makes 100 numbers of every sample, which is most of the memory.
    parts = [model_.feature_extractor(sound[None], None)[0] for sound in sounds]
    features = torch.cat(parts).to(next(model_.encoder.parameters()).dtype)
    outputs = model_.encoder.extract_features(features, None, None if layer == "mean" else layer)
    if layer != "mean":
        last: Tensor = outputs[-1]
        return last.float()
    return torch.stack(outputs).float().mean(dim=0)
