"""[encoders.<name>]: one extraction under a name of the user's, with the keys that its kind of encoder has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from abaw.config.table import NonNegativeFloat, PositiveFloat, PositiveInt, Precision, Table
from abaw.errors import closest

# The registries' own names (a test compares them); they are here because reading the configuration needs no torch.
VISUAL_NAMES = ("mae", "finetuned", "emma", "emae", "dan", "iresnet", "hsemotion", "landmarks", "timm", "onnx")
AUDIO_NAMES = ("wav2vec2", "hubert", "wavlm", "vggish", "logmel", "mfcc")
TAKES_A_NAME = ("timm", "onnx")  # written "timm:<model>", "onnx:<file>"


def registry_name(encoder: str) -> str:
    """The registry's name in what a table calls its encoder: "timm" of "timm:resnet18"."""
    name = encoder.partition(":")[0]
    return name if name in TAKES_A_NAME else encoder


def _known_encoder(value: Any) -> Any:
    names = (*VISUAL_NAMES, *AUDIO_NAMES)
    if isinstance(value, str) and registry_name(value) not in names:
        match = closest(value, names)
        msg = "is no encoder " + (f'(did you mean "{match}"?)' if match else f"(one of: {', '.join(names)})")
        raise ValueError(msg)
    if value in TAKES_A_NAME:
        msg = 'write "timm:<model>"' if value == "timm" else 'write "onnx:<file>"'
        raise ValueError(msg)
    return value


def _layer(value: Any) -> Any:
    if value != "mean" and (isinstance(value, bool) or not isinstance(value, int) or value == 0):
        msg = 'give a layer from 1, one from the end such as -1, or "mean"'
        raise ValueError(msg)
    return value


EncoderName = Annotated[str, BeforeValidator(_known_encoder)]


def _three_or_none(values: list[float]) -> list[float]:
    if len(values) not in (0, 3):
        msg = "give three numbers, for red, green and blue, or none"
        raise ValueError(msg)
    return values


PixelMean = Annotated[list[NonNegativeFloat], AfterValidator(_three_or_none)]
PixelDeviation = Annotated[list[PositiveFloat], AfterValidator(_three_or_none)]


class VisualEncoderConfig(Table):
    """Faces -> features: an encoder of the registry with its settings."""

    encoder: EncoderName = Field(
        description="mae | finetuned | emma | emae | dan | iresnet | hsemotion | timm:<model> | onnx:<file> | landmarks"
    )
    weights: str = Field("", description='weights file or run folder; "random" only for tests of speed')
    trained_on: list[str] = Field([], description='data sets whose labels foreign weights have seen; ["none"] = none')
    pooling: Literal["auto", "mean", "cls"] = Field("auto", description="tokens -> feature; auto = as trained")
    scores: bool = Field(False, description="class scores as further columns, where the encoder has some")
    labels: str = Field("", description="label space of the scores, for files that do not say: affectnet8, ...")
    flip: bool = Field(False, description="mean of the feature of the face and of its mirror image")
    mean: PixelMean = Field([], description="timm, onnx: pixel mean in 0..1 by channel; [] = the encoder's own")
    std: PixelDeviation = Field([], description="timm, onnx: pixel deviation in 0..1; [] = the encoder's own")
    color: Literal["rgb", "bgr"] = Field("rgb", description="onnx: order of the channels that the graph wants")
    batch_size: PositiveInt = Field(64, description="faces per forward pass")
    precision: Precision = Field("auto", description="auto = bf16 where the hardware has it")


class AudioEncoderConfig(Table):
    """Sound -> features: an encoder of the registry with its settings."""

    encoder: EncoderName = Field(description="wav2vec2 | hubert | wavlm | vggish | logmel | mfcc")
    weights: str = Field("", description='weights file or Hugging Face folder; "random" only for tests of speed')
    trained_on: list[str] = Field([], description='data sets whose labels foreign weights have seen; ["none"] = none')
    model: str = Field("base", description="wav2vec2, hubert, wavlm: which published model: base, large, ...")
    layer: Annotated[int | str, BeforeValidator(_layer)] = Field(
        -1, description="transformer layer from 1, or from the end; mean of all"
    )
    piece_s: PositiveFloat = Field(10.0, description="wav2vec2, hubert, wavlm: seconds of sound encoded at once")
    context_s: NonNegativeFloat = Field(1.0, description="seconds on each side that such a piece also sees")
    sample_rate: PositiveInt = Field(16000, description="Hz the sound is resampled to; others than 16000: logmel, mfcc")
    hop_s: NonNegativeFloat = Field(0.0, description="seconds between tokens; 0 = 0.01, vggish 0.1")
    window_s: NonNegativeFloat = Field(0.0, description="logmel, mfcc: seconds a token sees; 0 = 0.04")
    num_mels: PositiveInt = Field(64, description="logmel, mfcc: mel bands")
    num_coefficients: PositiveInt = Field(40, description="mfcc: coefficients kept, from the first")
    pca: str = Field("", description="vggish: file of the PCA parameters; features are then quantised as published")
    batch_size: PositiveInt = Field(4, description="pieces per forward pass")
    precision: Precision = Field("auto", description="auto = bf16 where the hardware has it")


def is_audio(value: Any) -> bool:
    """Whether a table of [encoders], as read or built, is of a sound encoder."""
    name = value.get("encoder") if isinstance(value, Mapping) else getattr(value, "encoder", None)
    return name in AUDIO_NAMES


EncoderConfig = Annotated[
    Annotated[VisualEncoderConfig, Tag("visual-encoder")] | Annotated[AudioEncoderConfig, Tag("audio-encoder")],
    Discriminator(lambda value: "audio-encoder" if is_audio(value) else "visual-encoder"),
]
