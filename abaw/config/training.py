"""The tables of the stages that train: `pretrain`, `finetune` and `fuse`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from abaw.config.table import (
    Fraction,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Precision,
    RelativePath,
    Table,
    WeightsByHead,
)

GAPS = ("mask", "hold", "nearest", "linear")  # those of `gaps` (a test compares them)


def _known_gaps(value: str | dict[str, str]) -> str | dict[str, str]:
    for name in [value] if isinstance(value, str) else value.values():
        if name not in GAPS:
            msg = f"is no policy for gaps (one of: {', '.join(GAPS)})"
            raise ValueError(msg)
    return value


Gap = Annotated[str | dict[str, str], AfterValidator(_known_gaps)]


class TrainingTable(Table):
    """What the tables of all trained stages share."""

    accumulate: PositiveInt = Field(1, description="forward passes per step; batch_size is divided by it")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="moving average of the weights, validated and kept instead of them; 0 = off"
    )
    min_lr: NonNegativeFloat = Field(0.0, description="the learning rate does not fall below it")
    checkpointing: bool = Field(False, description="compute activations again in the backward pass: less memory")
    compile: bool = Field(False, description="torch.compile the model")

    @model_validator(mode="after")
    def _rates_fit(self) -> TrainingTable:
        peak = getattr(self, "lr", None)
        if peak is not None and self.min_lr > peak:
            msg = f"min_lr {self.min_lr} is above lr {peak}"
            raise ValueError(msg)
        return self


class PretrainSource(Table):
    """Faces to pretrain on: a faces store, or a folder of images that are cropped already."""

    store: RelativePath | None = Field(None, description="a faces store")
    images: RelativePath | None = Field(None, description="or a folder of cropped faces, searched with its subfolders")
    weight: PositiveFloat = Field(1.0, description="relative share of the samples drawn from it")
    dataset: str = Field("", description="name of its data set, recorded; default that of [data], or the folder's")

    @model_validator(mode="after")
    def _one_of_both(self) -> PretrainSource:
        if (self.store is None) == (self.images is None):
            msg = "name either a store or a folder of images"
            raise ValueError(msg)
        return self


class PretrainConfig(TrainingTable):
    """Masked autoencoder on faces."""

    preset: str = Field("vit_tiny_64", description="vit_tiny_64 | vit_small_112 | vit_base_224 | vit_large_224")
    name: Name = Field("", description="name of the run; default the preset's")
    sources: list[PretrainSource] = Field([], description="stores and folders; default the store of [align]")
    init_from: str = Field("none", description='any recognised weights file, or "none" for random weights')
    init_trained_on: list[str] = Field(
        [], description='data sets whose labels foreign weights have seen; ["none"] = no labels; [] = undeclared'
    )
    normalization: Literal["measured", "imagenet", "mae-face", "given"] = Field(
        "measured", description="pixel mean and std; with init_from and measured: those of the weights"
    )
    mean: list[float] = Field([], description="with normalization = given: red, green, blue in 0..1")
    std: list[float] = Field([], description="with normalization = given: red, green, blue in 0..1")
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
    panel_every: NonNegativeInt = Field(0, description="steps between pictures of reconstructions; 0 = at the end")
    precision: Precision = Field("auto", description="auto = bf16 where the hardware has it")


class ExtraImages(Table):
    """Labelled images from elsewhere that join the training frames of a task."""

    store: RelativePath = Field(description="faces store made by `abaw align` from an image collection")
    csv: RelativePath = Field(description="path,label with a header line; paths are those of the collection")
    labels: str = Field("", description="label space of the csv, e.g. affectnet8; classes are matched by name")
    dataset: str = Field(description="name of the data set, recorded in everything trained on it")
    weight: PositiveFloat = Field(1.0, description="how often one of its images is drawn, relative to a frame")


class EmmaConfig(Table):
    """The multi-task model with a frozen expression classifier beside the encoder."""

    classifier: str = Field("", description="DAN file, run of `finetune --task expr`, timm:<model>:<file>, or .onnx")
    classifier_labels: str = Field("", description="label space of its outputs, where the file does not say")
    hidden: PositiveInt = Field(512, description="width of the hidden layer behind the encoder")
    va_hidden: PositiveInt = Field(256, description="width of the hidden layer of valence and arousal")


class CotexConfig(Table):
    """Parallel encoders that see independent random patches of the same images."""

    views: Annotated[int, Field(ge=1)] = Field(2, description="number of encoders")
    mask_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(0.75, description="share of patches hidden in training")
    consistency: NonNegativeFloat = Field(100.0, description="weight of the Jensen-Shannon divergence")


class EmaeConfig(Table):
    """Face and an auxiliary view of its parts, fused inside the encoder."""

    view: str = Field("eyes+mouth", description="none | eyes | mouth | nose | eyes+mouth")
    operator: str = Field("concat", description="mean | concat | updown")
    style: str = Field("crop", description="crop | dim | blur: how the view shows its parts")
    after: NonNegativeInt = Field(0, description="blocks before the fusion; 0 = half of them")


class FinetuneConfig(TrainingTable):
    """Model of one task on single faces; [finetune.<task>] overrides it for a task."""

    task: str = Field("va", description="au | expr | va | mtl | lsd; the --task flag overrides it")
    model: str = Field("static", description="static | emma | cotex | emae")
    preset: str = Field("vit_tiny_64", description="the pretrained model's preset")
    name: Name = Field("", description="name of the run; default the preset's, with the model unless it is static")
    faces: RelativePath | None = Field(None, description="faces store; default the one of [align]")
    init_from: str = Field("pretrain", description='"pretrain" (the run of [pretrain]), a weights file, or "none"')
    init_trained_on: list[str] = Field(
        [], description='data sets whose labels foreign weights have seen; ["none"] = no labels; [] = undeclared'
    )
    steps: PositiveInt = Field(1000, description="optimiser steps")
    warmup_steps: NonNegativeInt = Field(50, description="steps of linear warm-up")
    batch_size: PositiveInt = Field(64, description="faces a step")
    lr: PositiveFloat = Field(1e-3, description="peak learning rate")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(0.75, description="factor of the rate per layer downwards")
    weight_decay: NonNegativeFloat = Field(0.05, description="of AdamW")
    drop_path: Fraction = Field(0.1, description="stochastic depth of the last block; grows linearly up to it")
    clip_norm: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 = no clipping")
    pooling: Literal["mean", "cls"] = Field("mean", description="tokens -> feature: mean of patches, or class token")
    augment: Literal["none", "light", "strong", "emma", "cotex", "randaugment"] = Field(
        "light", description="changes of the images: none | light | strong | emma | cotex | randaugment"
    )
    mixup: NonNegativeFloat = Field(0.0, description="alpha of mixing two images and their labels; 0 = off")
    cutmix: NonNegativeFloat = Field(0.0, description="alpha of pasting a part of another image; 0 = off")
    weight_kind: Literal["weight", "pos_weight"] = Field(
        "pos_weight", description="au: class_weights multiply a unit's whole loss, or its positive rows"
    )
    au_reduce: Literal["mean", "sum"] = Field("mean", description="au: over the units of a row")
    ccc_reduce: Literal["mean", "sum"] = Field("mean", description="va: over the two dimensions")
    ccc_clamp: bool = Field(True, description="va: outputs are taken into -1..1 before their CCC")
    mse_weight: NonNegativeFloat = Field(0.5, description="va: share of a squared error added to 1 - CCC")
    label_smoothing: Fraction = Field(0.0, description="expr: label smoothing")
    class_weights: WeightsByHead = Field(
        "balanced",
        description="none | balanced (from the training labels) | numbers | a table by head, replacing a preset's",
    )
    frames_per_track: NonNegativeInt = Field(0, description="training frames per track, evenly spread; 0 = all")
    stride: PositiveInt = Field(1, description="an epoch holds one frame out of at most so many neighbours")
    sampling: Literal["uniform", "balanced"] = Field("uniform", description="balanced: every class as often")
    select: Literal["best", "last"] = Field(
        "best", description="weights kept: best on validation frames (of a fold: on the next fold), or the last"
    )
    split: Name = Field("", description="name of splits/<name>.json for --folds; default folds<K>")
    emma: EmmaConfig = EmmaConfig()
    cotex: CotexConfig = CotexConfig()
    emae: EmaeConfig = EmaeConfig()
    extra: list[ExtraImages] = Field([], description="labelled images from elsewhere")
    validate_every: PositiveInt = Field(100, description="steps between validations and resume points")
    precision: Precision = Field("auto", description="auto = bf16 where the hardware has it")

    @property
    def run_name(self) -> str:
        """Name of the run, after its task."""
        return self.name or (self.preset if self.model == "static" else f"{self.model}-{self.preset}")


class DualBranchConfig(Table):
    """The second stage: a frozen fusion, and a copy of it trained on windows that are hard for it."""

    first: str = Field("netease", description="name of the fuse run that is frozen and copied")
    hard_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.25, description="share of the training windows that count as hard: those with the largest loss"
    )
    hard_drawn: Fraction = Field(0.5, description="share of hard windows among those that the copy sees")
    alpha: PositiveFloat = Field(
        5.0, description="share of the frozen branch in training: drawn from Beta(alpha, beta)"
    )
    beta: PositiveFloat = Field(2.0, description="see alpha")
    mix: list[Fraction] = Field([], description="draw the share from these instead")
    test_mix: Fraction = Field(0.8, description="share of the frozen branch in the scores")
    au_scale: PositiveFloat = Field(10.0, description="factor of the loss of action units")


class EnsembleConfig(Table):
    """`abaw fuse --ensemble`: one predictions store from several."""

    members: list[str] = Field([], description="predictions stores; <run>-folds = all its folds; --ensemble overrides")
    name: Name = Field("ensemble", description="the store is predictions/fuse-<task>-<name>")
    combine: Literal["scores", "logits", "votes"] = Field("scores", description="mean of scores | logits | votes")
    weights: Literal["equal", "fitted"] | list[NonNegativeFloat] = Field(
        "equal", description="equal | fitted (on out-of-fold scores) | a number for each member"
    )


class FuseConfig(TrainingTable):
    """Temporal model on cached features; [fuse.<task>] overrides it for a task."""

    task: str = Field("va", description="au | expr | va | mtl; the --task flag overrides it")
    model: str = Field("netease", description="netease | tcn_transformer | gru | static | linear | dual_branch")
    name: Name = Field("", description="name of the run; default the model's")
    visual: list[RelativePath] | None = Field(None, description="visual stores; [] = none; default by [extract_visual]")
    audio: list[RelativePath] | None = Field(None, description="audio stores; [] = none; default by [extract_audio]")
    window: PositiveInt = Field(100, description="frames a window")
    stride: PositiveInt = Field(50, description="frames between window starts; at most the window")
    score_stride: NonNegativeInt = Field(0, description="the same when tracks are scored; 0 = stride")
    stitch: Literal["mean", "centre", "last"] = Field(
        "mean", description="scores of overlapping windows: mean | centre (weighted by distance to the ends) | last"
    )
    steps: PositiveInt = Field(1000, description="optimiser steps")
    warmup_steps: NonNegativeInt = Field(50, description="steps of linear warm-up")
    cycle_steps: NonNegativeInt = Field(
        0, description="the learning rate swings between lr and min_lr, so many steps each way; 0 = it falls once"
    )
    batch_size: PositiveInt = Field(32, description="windows a step")
    lr: PositiveFloat = Field(5e-4, description="peak learning rate")
    weight_decay: NonNegativeFloat = Field(0.05, description="of AdamW")
    clip_norm: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 = no clipping")
    dropout: Fraction = Field(0.3, description="dropout of the temporal model")
    positions: Literal["none", "sincos"] = Field("none", description="what tells a transformer the order of rows")
    padding_mask: bool = Field(True, description="attention leaves out the rows past a track's end")
    attention: Literal["none", "cross"] = Field(
        "none", description="cross: every stream attends to the others before they are joined"
    )
    modality_dropout: Fraction = Field(0.0, description="chance that a window of training lacks a stream")
    value_heads: Literal["joint", "separate"] = Field(
        "joint", description="va: one head of two outputs | separate: a head each for valence and arousal"
    )
    weight_kind: Literal["weight", "pos_weight"] = Field(
        "pos_weight", description="au: class_weights multiply a unit's whole loss, or its positive rows"
    )
    au_reduce: Literal["mean", "sum"] = Field("mean", description="au: over the units of a row")
    ccc_over: Literal["batch", "window"] = Field("batch", description="va: one CCC of all rows, or the windows' mean")
    ccc_reduce: Literal["mean", "sum"] = Field("mean", description="va: over the two dimensions")
    ccc_clamp: bool = Field(True, description="va: outputs are taken into -1..1 before their CCC")
    mse_weight: NonNegativeFloat = Field(0.5, description="va: share of a squared error added to 1 - CCC")
    label_smoothing: Fraction = Field(0.0, description="expr: label smoothing")
    class_weights: WeightsByHead = Field(
        "balanced",
        description="none | balanced (from the training labels) | numbers | a table by head, replacing a preset's",
    )
    validate_every: PositiveInt = Field(50, description="steps between validations and resume points")
    select: Literal["best", "last"] = Field(
        "best", description="weights kept: best on validation tracks (of a fold: on the next fold), or the last"
    )
    split: Name = Field("", description="name of splits/<name>.json for --folds; default folds<K>")
    precision: Precision = Field("fp32", description="auto = bf16 where the hardware has it")
    gap: Gap = Field("hold", description="how rows without data are filled; or a table by store")
    in_memory: bool = Field(False, description="keep all features in memory instead of reading them every epoch")
    dual: DualBranchConfig = DualBranchConfig()
    ensemble: EnsembleConfig = EnsembleConfig()

    @property
    def run_name(self) -> str:
        """Name of the run, after its task."""
        return self.name or self.model

    @property
    def strides(self) -> dict[str, int]:
        """Both strides by key; 0 = as in training."""
        return {"stride": self.stride, "score_stride": self.score_stride}
