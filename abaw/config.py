"""The whole configuration: one TOML file, typed, validated at once, with overrides.

Owns the schema (one model per table) and precedence: defaults < preset < table < task table < ``--set`` < flag. Knows
nothing of what the stages do with the values. data.example.toml documents every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "fp32", "bf16"]
Weights = Literal["none", "balanced"] | list[float]


def _resolve(value: Any, info: ValidationInfo) -> Any:
    """Paths are relative to the TOML file's folder, which the loader passes as context."""
    root = (info.context or {}).get("root")
    if value == "":
        msg = "a path may not be empty"
        raise ValueError(msg)
    return (root or Path()) / Path(value).expanduser() if isinstance(value, str) else value


RelativePath = Annotated[Path, BeforeValidator(_resolve)]


class Table(BaseModel):
    """A table of the file: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Table):
    """Where the recordings and their labels are."""

    name: str = Field("aff-wild2", description="name of the data set, recorded in everything trained on it")
    kind: Literal["videos", "crops", "images"] = Field("videos", description="videos | crops | images (a collection)")
    videos: RelativePath | None = Field(None, description="folder of video files")
    crops: RelativePath | None = Field(None, description="folder of the organisers' crops, <track>/00001.jpg")
    images: RelativePath | None = Field(None, description="folder of single images, with kind = images")
    annotations: dict[str, RelativePath] = Field({}, description="task -> folder with Train_Set and Validation_Set")
    test: dict[str, RelativePath] = Field({}, description="task -> list file of test tracks, one name a line")
    edition: str = Field("10", description="edition of the challenge the labels come from")
    max_row_difference: NonNegativeInt = Field(1, description="label rows a track may have more or less than frames")


class RunConfig(Table):
    """What all stages share."""

    output: RelativePath = Field(Path(), description="folder that features/, predictions/ and runs/ go into")
    seed: NonNegativeInt = Field(0, description="seed of everything random")
    device: str = Field("auto", description="auto | cuda | cpu, also cuda:1")
    workers: NonNegativeInt = Field(0, description="processes that align or extract tracks; 0 = one per core")
    executor: Literal["local"] = Field("local", description="how tracks are spread over processes")
    threads: NonNegativeInt = Field(0, description="threads of torch; 0 = one per core")
    accept_recipe_mismatch: bool = Field(False, description="go on where inputs were aligned another way")
    weights_dir: RelativePath | None = Field(None, description="where downloaded weights are; default ~/.cache/abaw")
    offline: bool = Field(False, description="never download weights; --offline sets it")


class AlignConfig(Table):
    """Videos or crops -> the faces store."""

    store: RelativePath | None = Field(None, description="where to; default features/faces")
    detector: str = Field("mtcnn", description="mtcnn | yunet | insightface | center")
    weights: RelativePath | None = Field(None, description="file of the yunet detector; default downloaded once")
    pack: RelativePath | None = Field(
        None, description="folder of an insightface model pack: its detector, and ArcFace to tell people apart"
    )
    all_faces: bool = Field(False, description="one track per person of a video; --all-faces sets it")
    crop_landmarks: Literal["detect", "template"] = Field(
        "detect", description="of crops: found by the detector, else the template's; or always the template's"
    )
    warp: Literal["arcface", "box"] = Field("arcface", description="five-point warp to a template, or the box")
    size_px: PositiveInt = Field(112, description="side of the square crop, pixels")
    margin: NonNegativeFloat = Field(0.0, description="extra room around the face, as a share of the crop's side")
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = Field(95, description="JPEG quality of the stored crops")
    min_score: Fraction = Field(0.0, description="people below this score are no faces; 0 = the detector's own")
    follow_score: Fraction = Field(0.7, description="a followed face below this score is looked for again")
    short_side_px: NonNegativeInt = Field(
        0, description="detection runs on the picture reduced to this short side; 0 = the detector's own"
    )
    min_face_px: PositiveInt = Field(30, description="smallest face looked for, in pixels of the reduced picture")
    redetect: PositiveInt = Field(25, description="frames between full detections while a face is followed")


class PretrainSource(Table):
    """One faces store to pretrain on."""

    store: RelativePath = Field(description="a faces store")
    weight: PositiveFloat = Field(1.0, description="relative share of the samples drawn from it")


class PretrainConfig(Table):
    """Masked autoencoder on faces."""

    preset: str = Field("vit_tiny_64", description="vit_tiny_64 | vit_small_112 | vit_base_224 | vit_large_224")
    name: str = Field("", description="name of the run; default the preset's")
    sources: list[PretrainSource] = Field([], description="faces stores; default the one of [align]")
    init_from: str = Field("none", description='checkpoint to start from, or "none" for random weights')
    normalization: Literal["measured", "imagenet", "mae-face"] = Field("measured", description="pixel mean and std")
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(0.75, description="share of patches hidden")
    norm_pix_loss: bool = Field(True, description="targets are pixels normalised within each patch")
    steps: PositiveInt = Field(1000, description="optimiser steps")
    warmup_steps: NonNegativeInt = Field(50, description="steps of linear warm-up")
    batch_size: PositiveInt = Field(64, description="images a step")
    base_lr: PositiveFloat = Field(1.5e-4, description="learning rate at batch 256; scaled linearly with the batch")
    weight_decay: NonNegativeFloat = Field(0.05, description="of AdamW")
    clip_norm: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 = no clipping")
    min_crop_scale: Annotated[float, Field(gt=0, le=1)] = Field(0.6, description="smallest area of the random crop")
    tracks: Literal["train", "all"] = Field(
        "train", description="train = leave out the faces of every validation and test track"
    )
    checkpoint_every: PositiveInt = Field(100, description="steps between resume points and report lines")
    precision: Precision = Field("auto", description="auto = bf16 where the hardware has it")


class FinetuneConfig(Table):
    """Static model of one task on single faces; [finetune.<task>] overrides it for a task."""

    task: str = Field("va", description="au | expr | va; the --task flag overrides it")
    preset: str = Field("vit_tiny_64", description="the pretrained model's preset")
    name: str = Field("", description="name of the run; default the preset's")
    faces: RelativePath | None = Field(None, description="faces store; default the one of [align]")
    init_from: str = Field("pretrain", description='"pretrain" (the run of [pretrain]), a checkpoint, or "none"')
    steps: PositiveInt = Field(1000, description="optimiser steps")
    warmup_steps: NonNegativeInt = Field(50, description="steps of linear warm-up")
    batch_size: PositiveInt = Field(64, description="faces a step")
    lr: PositiveFloat = Field(1e-3, description="peak learning rate")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(0.75, description="factor of the rate per layer downwards")
    weight_decay: NonNegativeFloat = Field(0.05, description="of AdamW")
    drop_path: Fraction = Field(0.1, description="stochastic depth of the last block; grows linearly up to it")
    clip_norm: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 = no clipping")
    pooling: Literal["mean", "cls"] = Field("mean", description="tokens -> feature: mean of patches, or class token")
    augment: Literal["none", "light", "strong"] = Field("light", description="flip, crop, rotation, colour changes")
    weight_kind: Literal["weight", "pos_weight"] = Field(
        "pos_weight", description="au: class_weights multiply a unit's whole loss, or its positive rows"
    )
    ccc_reduce: Literal["mean", "sum"] = Field("mean", description="va: over the two dimensions")
    mse_weight: NonNegativeFloat = Field(0.5, description="va: share of a squared error added to 1 - CCC")
    label_smoothing: Fraction = Field(0.0, description="expr: label smoothing")
    class_weights: Weights = Field("balanced", description="none | balanced (from the training labels) | numbers")
    frames_per_track: NonNegativeInt = Field(0, description="training frames per track, evenly spread; 0 = all")
    validate_every: PositiveInt = Field(100, description="steps between validations and resume points")
    precision: Precision = Field("auto", description="auto = bf16 where the hardware has it")


class EncoderConfig(Table):
    """One extraction: an encoder of the registry with its settings, under a name of the user's."""

    encoder: str = Field(description="an entry of the visual or audio encoders")
    weights: str = Field("", description='checkpoint file or run folder; "random" only for tests of speed')
    pooling: Literal["auto", "mean", "cls"] = Field("auto", description="visual: tokens -> feature")
    batch_size: PositiveInt = Field(64, description="visual: faces per forward pass")
    precision: Precision = Field("auto", description="visual: auto = bf16 where the hardware has it")
    sample_rate: PositiveInt = Field(16000, description="audio: Hz the sound is resampled to")
    hop_s: PositiveFloat = Field(0.01, description="audio: seconds between tokens")
    window_s: PositiveFloat = Field(0.04, description="audio: seconds a token sees")
    num_mels: PositiveInt = Field(64, description="audio: mel bands")


class ExtractVisualConfig(Table):
    """Faces -> one feature vector per frame."""

    encoders: list[str] = Field(["mae"], description="names of [encoders] or of the registry; --encoder overrides")
    faces: RelativePath | None = Field(None, description="faces store; default the one of [align]")


class ExtractAudioConfig(Table):
    """Sound -> one feature vector per frame."""

    encoders: list[str] = Field(["logmel"], description="names of [encoders] or of the registry; --encoder overrides")
    faces: RelativePath | None = Field(None, description="faces store that gives the clock; default the one of [align]")
    silence_db: float = Field(-80.0, description="rows quieter than this (dB of full scale) are invalid: silent")


class FuseConfig(Table):
    """Temporal model on cached features; [fuse.<task>] overrides it for a task."""

    task: str = Field("va", description="au | expr | va; the --task flag overrides it")
    model: str = Field("netease", description="netease | static | linear")
    name: str = Field("", description="name of the run; default the model's")
    visual: list[RelativePath] | None = Field(None, description="visual stores; [] = none; default by [extract_visual]")
    audio: list[RelativePath] | None = Field(None, description="audio stores; [] = none; default by [extract_audio]")
    window: PositiveInt = Field(100, description="frames a window")
    stride: PositiveInt = Field(50, description="frames between window starts; at most the window")
    steps: PositiveInt = Field(1000, description="optimiser steps")
    warmup_steps: NonNegativeInt = Field(50, description="steps of linear warm-up")
    batch_size: PositiveInt = Field(32, description="windows a step")
    lr: PositiveFloat = Field(5e-4, description="peak learning rate")
    weight_decay: NonNegativeFloat = Field(0.05, description="of AdamW")
    clip_norm: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 = no clipping")
    dropout: Fraction = Field(0.3, description="dropout of the temporal model")
    mse_weight: NonNegativeFloat = Field(0.5, description="va: share of a squared error added to 1 - CCC")
    class_weights: Weights = Field("balanced", description="none | balanced (from the training labels) | numbers")
    validate_every: PositiveInt = Field(50, description="steps between validations and resume points")
    precision: Precision = Field("fp32", description="auto = bf16 where the hardware has it")
    gap: Literal["mask", "hold", "nearest", "linear"] = Field("hold", description="how rows without data are filled")


class EvaluateConfig(Table):
    """Official metrics of a predictions store."""

    predictions: list[RelativePath] = Field([], description="predictions stores; default all of predictions/")
    au_mask: Literal["row", "element"] = Field("row", description="row: any -1 drops the row; element: only that unit")


class SubmitConfig(Table):
    """The challenge's files; [submit.<task>] overrides it for a task."""

    edition: str = Field("10", description="edition whose format is written")
    task: str = Field("va", description="au | expr | va; the --task flag overrides it")
    sample: RelativePath | None = Field(None, description="the organisers' sample file: authority for rows and order")
    predictions: RelativePath | None = Field(None, description="predictions store; default that of `fuse`")
    output: RelativePath | None = Field(None, description="folder for <edition>-<task>/; default submissions")
    gap: Literal["hold", "nearest"] = Field("hold", description="rows without a prediction take this neighbour's score")


class Config(Table):
    """The parsed file. ``root`` is its folder; every path inside is absolute."""

    root: Path = Field(exclude=True)
    data: DataConfig = DataConfig()
    run: RunConfig = RunConfig()
    align: AlignConfig = AlignConfig()
    pretrain: PretrainConfig = PretrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    extract_visual: ExtractVisualConfig = ExtractVisualConfig()
    extract_audio: ExtractAudioConfig = ExtractAudioConfig()
    fuse: FuseConfig = FuseConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    submit: SubmitConfig = SubmitConfig()
    encoders: dict[str, EncoderConfig] = Field({}, description="named extractions")
    finetune_tasks: dict[str, FinetuneConfig] = Field({}, description="[finetune.<task>] merged over [finetune]")
    fuse_tasks: dict[str, FuseConfig] = Field({}, description="[fuse.<task>] merged over [fuse]")
    submit_tasks: dict[str, SubmitConfig] = Field({}, description="[submit.<task>] merged over [submit]")

    def finetune_for(self, task: str) -> FinetuneConfig:
        """[finetune] with [finetune.<task>] over it."""
        return self.finetune_tasks.get(task, self.finetune)

    def fuse_for(self, task: str) -> FuseConfig:
        """[fuse] with [fuse.<task>] over it."""
        return self.fuse_tasks.get(task, self.fuse)

    def submit_for(self, task: str) -> SubmitConfig:
        """[submit] with [submit.<task>] over it."""
        return self.submit_tasks.get(task, self.submit)

    # -- derived paths ---------------------------------------------------------------------------------------------
    @property
    def faces_store(self) -> Path:
        """Where `align` writes and the others read, unless told otherwise."""
        return self.align.store or self.run.output / "features" / "faces"

    def features_store(self, kind: str, name: str) -> Path:
        """features/<kind>-<name>; kind is "visual" or "audio"."""
        return self.run.output / "features" / f"{kind}-{name}"

    def run_dir(self, stage: str, name: str, task: str | None = None) -> Path:
        """runs/<stage>-<task>-<name>, without the task for `pretrain`."""
        return self.run.output / "runs" / "-".join(part for part in (stage, task, name) if part)

    def predictions_store(self, run_dir: Path) -> Path:
        """predictions/<run>: scores that a run wrote for validation and test tracks."""
        return self.run.output / "predictions" / run_dir.name
