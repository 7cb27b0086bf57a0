"""The whole configuration: one TOML file, typed, validated at once, with overrides.

Owns the schema (one model per table) and precedence: defaults < preset < table < task table < ``--set`` < flag. Knows
nothing of what the stages do with the values. data.example.toml documents every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from abaw.config.encoders import AudioEncoderConfig, EncoderConfig, VisualEncoderConfig
from abaw.config.table import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    RelativePath,
    Table,
)
from abaw.config.training import (
    CotexConfig,
    DualBranchConfig,
    EmaeConfig,
    EmmaConfig,
    EnsembleConfig,
    ExtraImages,
    FinetuneConfig,
    FuseConfig,
    PretrainConfig,
    PretrainSource,
)

__all__ = [
    "AlignConfig",
    "AudioEncoderConfig",
    "Config",
    "CotexConfig",
    "DataConfig",
    "DualBranchConfig",
    "EmaeConfig",
    "EmmaConfig",
    "EncoderConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "ExtraImages",
    "ExtractAudioConfig",
    "ExtractVisualConfig",
    "FinetuneConfig",
    "FoldsConfig",
    "FuseConfig",
    "PretrainConfig",
    "PretrainSource",
    "RunConfig",
    "SubmitConfig",
    "Table",
    "TuneConfig",
    "VisualEncoderConfig",
]


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
    executor: Literal["local", "ray"] = Field("local", description="local processes, or tasks of a Ray cluster: ray")
    ray_address: str = Field("", description="HOST:PORT of the cluster; default RAY_ADDRESS, else one is started here")
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


class ExtractVisualConfig(Table):
    """Faces -> one feature vector per frame."""

    encoders: list[str] = Field(["mae"], description="names of [encoders] or of the registry; --encoder overrides")
    faces: RelativePath | None = Field(None, description="faces store; default the one of [align]")


class ExtractAudioConfig(Table):
    """Sound -> one feature vector per frame."""

    encoders: list[str] = Field(["logmel"], description="names of [encoders] or of the registry; --encoder overrides")
    faces: RelativePath | None = Field(None, description="faces store that gives the clock; default the one of [align]")
    silence_db: float = Field(-80.0, description="rows quieter than this (dB of full scale) are invalid: silent")


class FoldsConfig(Table):
    """How `--folds K` deals recordings, where the split file is not there yet; shared by finetune and fuse."""

    holdout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the recordings that no fold trains, chooses or tunes on"
    )
    stratify: bool = Field(False, description="spread each expression over all folds, by the labels of task expr")


class TuneConfig(Table):
    """Post-processing searched by `abaw tune`."""

    filters: list[Literal["box", "gaussian", "median", "savgol"]] = Field(
        ["box", "gaussian", "median", "savgol"], description="smoothing of scores that is tried"
    )
    half_widths: list[PositiveInt] = Field(
        [2, 5, 10, 20, 35, 50, 75], description="half-widths that are tried, in frames; none is always tried"
    )
    min_runs: list[PositiveInt] = Field(
        [5, 10, 20, 40], description="expr: runs shorter than this take the class of their neighbourhood"
    )
    folds: Annotated[int, Field(ge=2)] = Field(5, description="parts of the recordings that the gain is measured by")
    resamples: PositiveInt = Field(1000, description="of the recordings, for the interval of the gain")


class EvaluateConfig(Table):
    """Official metrics of a predictions store."""

    predictions: list[RelativePath] = Field([], description="predictions stores; default all of predictions/")
    au_mask: Literal["row", "element"] = Field("row", description="row: any -1 drops the row; element: only that unit")
    resamples: NonNegativeInt = Field(1000, description="of whole recordings, for intervals and comparisons; 0 = none")


class ReportConfig(Table):
    """The page that `report` writes."""

    output: RelativePath | None = Field(None, description="folder for <predictions>.html; default reports")
    videos: NonNegativeInt = Field(12, description="timelines drawn, the worst videos first; 0 = of all videos")
    face_crops: PositiveInt = Field(8, description="faces shown of each drawn video, with --with-faces")


class SubmitConfig(Table):
    """The challenge's files; [submit.<task>] overrides it for a task."""

    edition: str = Field("10", description="edition whose format is written")
    task: str = Field("va", description="au | expr | va | mtl | lsd | ce; the --task flag overrides it")
    sample: RelativePath | None = Field(None, description="the organisers' sample file: authority for rows and order")
    predictions: RelativePath | None = Field(None, description="predictions store; default that of `fuse`")
    output: RelativePath | None = Field(
        None, description="folder for <edition>-<task>/submission-<N>/; default submissions"
    )
    gap: Literal["hold", "nearest", "linear"] = Field(
        "hold", description="scores of rows without a prediction: the last one's, the nearest one's, or between both"
    )


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
    folds: FoldsConfig = FoldsConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    submit: SubmitConfig = SubmitConfig()
    report: ReportConfig = ReportConfig()
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
        """predictions/<run>: scores that a run wrote; of a fold predictions/<run>-fold-<k>."""
        folded = run_dir.parent.name != "runs"
        return self.run.output / "predictions" / (f"{run_dir.parent.name}-{run_dir.name}" if folded else run_dir.name)

    def weights_file(self, named: str) -> Path:
        """A weights file as the configuration names it: from its folder on, ``~`` allowed; of a run folder its best."""
        path = self.root / Path(named).expanduser()
        return path / "best.safetensors" if path.is_dir() else path

    def splits_file(self, name: str) -> Path:
        """splits/<name>.json: which fold each video belongs to."""
        return self.run.output / "splits" / f"{name}.json"
