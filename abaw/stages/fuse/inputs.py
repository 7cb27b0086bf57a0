"""Which features and labels a fusion is trained, selected and scored on, and what is recorded about them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abaw.config import Config, FuseConfig
from abaw.data.annotations import LabelReader, Labels, concatenate
from abaw.data.label_sources import TrackLabels
from abaw.data.labelled import labels_sha256, require_labels, unseen_classes
from abaw.data.manifest import Manifest
from abaw.data.splits import Fold, FoldTracks
from abaw.data.windows import FeatureStreams, check_cut
from abaw.errors import AbawError, ExitCode
from abaw.provenance import trained_on_record
from abaw.tasks import Task

logger = logging.getLogger(__name__)

STORE_SUFFIX = "-fold-"
LabelsByTrack = dict[str, dict[str, Labels]]


@dataclass(frozen=True)
class Inputs:
    """What goes into a run. ``select``: labels that progress is measured on; None where nothing chooses.

    ``scored``: tracks whose scores the run writes; ``held_out`` and ``holdout``: those of them that the fold, and the
    whole split, kept back. ``described`` is what a run is compared by.
    """

    streams: FeatureStreams
    train: LabelsByTrack
    select: LabelsByTrack | None
    scored: list[str]
    held_out: list[str]
    holdout: list[str]
    num_test: int
    record: dict[str, Any]
    described: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[tuple[str, str]]:
        """For a person: what goes in."""
        features = ", ".join(f"{stream.name} ({stream.dim})" for stream in self.streams.streams)
        counts = [(len(self.train), "train"), (len(self.select or {}), "val"), (len(self.held_out), "held out")]
        counts += [(len(self.holdout), "hold-out"), (self.num_test, "test")]
        tracks = ", ".join(f"{count} {what}" for count, what in counts if count or what in ("train", "test"))
        return [("features", features), ("tracks", tracks)]


def read_inputs(cfg: Config, settings: FuseConfig, task: Task, fold: Fold | None) -> Inputs:
    """Streams and labels of a run, checked against each other.

    Raises AbawError before any training for missing stores, tracks or labels, for streams whose rows or recipes
    differ, and for a split in which a head has no label.
    """
    streams = _streams(cfg, settings, fold)
    source = TrackLabels(Manifest.from_config(cfg.data, need_media=False), LabelReader(cfg.data, task))
    parts, test = _parts(source, settings, task, fold), source.track_ids("test")
    known = sorted({*parts.train, *parts.select, *parts.held_out, *parts.holdout, *test})
    warnings = streams.check(known, accept_recipe_mismatch=cfg.run.accept_recipe_mismatch)
    train = _labels(source, streams, parts.train, split="train")
    select = _labels(source, streams, parts.select, split="val") if parts.select else None
    lengths = {name: next(iter(heads.values())).num_rows for name, heads in train.items()}
    of_all = [*source.notes(), *check_cut(lengths, window=settings.window, strides=settings.strides, where="fuse")]
    noted = [*of_all, *_unseen(source, train, fold, is_stratified=cfg.folds.stratify)]
    for text in noted if fold is None or fold.is_first else noted[len(of_all) :]:
        logger.warning(text)
    described: dict[str, Any] = {
        "streams": streams.describe(),
        "train": labels_sha256(train),
        "val": labels_sha256(select) if select else "none",
    }
    if fold is not None:
        described["split"] = fold.describe()
    scored = [*(parts.held_out if fold else parts.select), *parts.holdout, *test]
    return Inputs(
        streams=streams,
        train=train,
        select=select,
        scored=list(dict.fromkeys(scored)),
        held_out=parts.held_out,
        holdout=parts.holdout,
        num_test=len(test),
        record=_record(cfg, task, fold, list(train)),
        described=described,
        warnings=[*warnings, *noted],
    )


def _parts(source: TrackLabels, settings: FuseConfig, task: Task, fold: Fold | None) -> FoldTracks:
    """Labelled tracks by what they are to the run."""
    labelled = {split: source.track_ids(split) for split in ("train", "val")}
    if fold is not None:
        return fold.tracks(labelled["train"] + labelled["val"], select=settings.select)
    for split, names in labelled.items():
        if not names:
            raise AbawError(
                f"task {task.name} has no tracks in the {split} split",
                where=f"data.annotations.{task.name} = {source.path}",
                fix="check that the folder holds Train_Set and Validation_Set with a file per track",
            )
    return FoldTracks(train=labelled["train"], select=labelled["val"], held_out=[], holdout=[])


def _labels(source: TrackLabels, streams: FeatureStreams, track_ids: list[str], *, split: str) -> LabelsByTrack:
    """Labels by track and head; refuses a split in which a head has none."""
    labels = {name: source.labels(name, streams.num_rows(name), split) for name in track_ids}
    require_labels(labels, source.task, split=split)
    return labels


def _unseen(source: TrackLabels, train: LabelsByTrack, fold: Fold | None, *, is_stratified: bool) -> list[str]:
    """A warning for each head with classes or units that no training row shows."""
    found = []
    fix = "check the labels"
    if fold is not None:
        fix = "deal recordings by class: folds.stratify = true, with another split name"
        if is_stratified:
            fix = "too few recordings show it for every fold to train on one; with more folds each is trained on more"
    for head in source.task.heads:
        names = unseen_classes(head, concatenate([heads[head.name] for heads in train.values()]))
        if names:
            found.append(
                f"no training row{f' of {fold}' if fold else ''} shows {', '.join(names)}: the model cannot learn it "
                f"and its F1 will be 0 (labels: {source.path}); {fix}"
            )
    return found


def _record(cfg: Config, task: Task, fold: Fold | None, track_ids: list[str]) -> dict[str, Any]:
    record = trained_on_record(
        dataset=cfg.data.name,
        edition=cfg.data.edition,
        labels=task.name,
        split_file=fold.split.sha256 if fold else "official",
        track_ids=track_ids,
    )
    return {**record, "fold": fold.number} if fold else record


# -- stores ------------------------------------------------------------------------------------------------------------
def _streams(cfg: Config, settings: FuseConfig, fold: Fold | None) -> FeatureStreams:
    visual, audio = stores_of_fold(cfg, settings, fold)
    gap = settings.gap
    if isinstance(gap, Mapping):  # named after the store, whichever fold's it is
        named = [path.name for paths in stores(cfg, settings) for path in paths]
        own = dict(zip(named, [path.name for path in (*visual, *audio)], strict=True))
        gap = {own.get(name, name): policy for name, policy in gap.items()}
    return FeatureStreams(visual, audio, gap=gap, in_memory=settings.in_memory)


def stores_of_fold(cfg: Config, settings: FuseConfig, fold: Fold | None) -> tuple[list[Path], list[Path]]:
    """Visual and audio stores that a fold reads. Raises AbawError as `stores` and `of_fold` do."""
    visual, audio = stores(cfg, settings)
    return [of_fold(path, fold) for path in visual], [of_fold(path, fold) for path in audio]


def stores(cfg: Config, settings: FuseConfig) -> tuple[list[Path], list[Path]]:
    """Visual and audio stores: those of the table, else the default ones. Raises AbawError when there is none."""
    visual, audio = settings.visual, settings.audio
    if visual is None:
        visual = [cfg.features_store("visual", name) for name in cfg.extract_visual.encoders]
    if audio is None:
        audio = [cfg.features_store("audio", name) for name in cfg.extract_audio.encoders]
    if not visual and not audio:
        raise AbawError(
            "there is nothing to fuse: fuse.visual and fuse.audio are both empty",
            where="[fuse]",
            fix='name at least one store, e.g. visual = ["features/visual-mae"]',
            code=ExitCode.CONFIG,
        )
    return list(visual), list(audio)


def of_fold(path: Path, fold: Fold | None) -> Path:
    """The store that `extract-visual --folds` made for a fold, where there are such stores; else the store itself.

    Raises AbawError where other folds have theirs and this one, or without a fold the store itself, is not there.
    """
    own = path if fold is None else path.with_name(f"{path.name}{STORE_SUFFIX}{fold.number}")
    if (own / "store.json").is_file():
        return own
    others = [other for other in path.parent.glob(f"{path.name}{STORE_SUFFIX}*") if (other / "store.json").is_file()]
    encoder = path.name.removeprefix("visual-")
    if fold is None and others:
        raise AbawError(
            f"there are features of folds alone, and none of {path.name} by one encoder",
            where=str(path),
            fix=f"run `abaw extract-visual --encoder {encoder}` for the official split, "
            f"or use the folds: `abaw fuse --folds {len(others)}`",
            code=ExitCode.MISSING,
        )
    if fold is not None and others:
        raise AbawError(
            f"there are features of other folds, and none of fold {fold.number}",
            where=str(own),
            fix=f"run `abaw extract-visual --encoder {encoder} --folds {fold.split.num_folds} --fold {fold.number}`",
            code=ExitCode.MISSING,
        )
    return path
