"""Which frames a finetuning run is trained, selected and scored on, and what is recorded about them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from abaw.config import Config, FinetuneConfig
from abaw.data.extra import extra_frames
from abaw.data.frames import check_first_faces
from abaw.data.label_sources import LabelSource, label_source
from abaw.data.labelled import LabelledFrames, joined, labelled_frames, unseen_classes
from abaw.data.manifest import Manifest
from abaw.data.splits import Fold
from abaw.errors import AbawError, ExitCode
from abaw.provenance import check_recipe, trained_on_record
from abaw.store import FeatureStore
from abaw.tasks import Task
from abaw.training.sampling import balanced_sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Frames of a run. ``select``: those that progress is measured on; ``weights`` per training frame, for drawing.

    ``scored``: tracks whose scores the run writes, those of its rows that belong to ``splits``; ``held_out`` and
    ``holdout``: those of them that the fold, and all folds of its split, held out.
    """

    source: LabelSource
    train: LabelledFrames
    select: LabelledFrames | None
    scored: list[str]
    held_out: list[str]
    holdout: list[str]
    splits: tuple[str, ...]
    weights: np.ndarray | None
    trained_on: list[dict[str, Any]]
    described: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def scored_rows(self, track_id: str, num_rows: int) -> np.ndarray:
        """bool [num_rows]: rows of a track whose scores the run writes, where they show a face."""
        found = [self.source.rows(track_id, num_rows, split) for split in self.splits]
        return np.asarray(np.any(found, axis=0))


def read_inputs(cfg: Config, settings: FinetuneConfig, task: Task, store: FeatureStore, fold: Fold | None) -> Inputs:
    """The frames of a run. Raises AbawError for labels that are missing, of another task, or of no row at all."""
    source = label_source(cfg.data, task, store, Manifest.from_config(cfg.data, need_media=False))
    own = _of_fold(cfg, settings, source, store, fold) if fold else _official(cfg, settings, source, store)
    described: dict[str, Any] = {"train": own.train.sha256, "val": own.select.sha256 if own.select else "none"}
    if fold is not None:
        described["split"] = fold.describe()
    train, trained_on, weights, warnings = _with_extra(cfg, settings, own, described)
    if settings.sampling == "balanced":
        balanced = balanced_sampling(task.heads, train.labels)
        weights = balanced if weights is None else weights * balanced
    _check_batch(settings, train)
    check_first_faces([*train.refs, *(own.select.refs if own.select else [])])
    warnings += _said(source.notes(), aloud=fold is None or fold.is_first)
    warnings += _said(_unseen(source, train, fold))
    return Inputs(
        source=source,
        train=train,
        select=own.select,
        scored=own.scored,
        held_out=own.held_out,
        holdout=own.holdout,
        splits=own.splits,
        weights=weights,
        trained_on=trained_on,
        described=described,
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Own:
    """What the data set itself gives a run."""

    task: Task
    train: LabelledFrames
    select: LabelledFrames | None
    scored: list[str]
    held_out: list[str]
    holdout: list[str]
    splits: tuple[str, ...]
    record: dict[str, Any]


def _official(cfg: Config, settings: FinetuneConfig, source: LabelSource, store: FeatureStore) -> _Own:
    train = labelled_frames(store, source, "train", per_track=settings.frames_per_track)
    val = labelled_frames(_reopened(store), source, "val")
    names = dict.fromkeys(name for split in ("val", "test") for name in source.track_ids(split))
    scored = [name for name in names if name in store]
    return _Own(source.task, train, val, scored, [], [], ("val", "test"), _record(cfg, source.task, "official", train))


def _of_fold(cfg: Config, settings: FinetuneConfig, source: LabelSource, store: FeatureStore, fold: Fold) -> _Own:
    """Frames by the split file. The fold itself is neither trained on nor asked when a checkpoint is chosen."""
    known = [name for split in ("train", "val") for name in source.track_ids(split)]
    parts = fold.tracks(known, select=settings.select)
    per_track = settings.frames_per_track
    train = labelled_frames(store, source, "train", per_track=per_track, tracks=parts.train)
    select = None
    if parts.select:
        select = labelled_frames(_reopened(store), source, "val", tracks=parts.select)
    held_out, holdout, test = (
        [name for name in names if name in store] for names in (parts.held_out, parts.holdout, source.track_ids("test"))
    )
    record = {**_record(cfg, source.task, fold.split.sha256, train), "fold": fold.number}
    scored = list(dict.fromkeys([*held_out, *holdout, *test]))
    return _Own(source.task, train, select, scored, held_out, holdout, ("train",), record)


def _with_extra(
    cfg: Config, settings: FinetuneConfig, own: _Own, described: dict[str, Any]
) -> tuple[LabelledFrames, list[dict[str, Any]], np.ndarray | None, list[str]]:
    """Training frames with the labelled images from elsewhere; their records, how often each is drawn, warnings.

    Raises AbawError for images that were aligned another way than the frames.
    """
    train, records, shares, warnings = own.train, [own.record], [np.ones(len(own.train))], list[str]()
    for number, extra in enumerate(settings.extra):
        frames, record, told = extra_frames(
            store=extra.store, csv=extra.csv, labels=extra.labels, dataset=extra.dataset, task=own.task
        )
        warnings += told
        warnings += check_recipe(
            frames.refs[0].store.header.recipe,
            own.train.refs[0].store.header.recipe,
            what=f"faces store {extra.store.name} (beside {own.train.refs[0].store.path.name})",
            where=f"finetune.extra: {extra.store}",
            accept=cfg.run.accept_recipe_mismatch,
        )
        described[f"extra_{number}"] = {"frames": frames.sha256, "dataset": extra.dataset, "weight": extra.weight}
        records.append(record)
        shares.append(np.full(len(frames), extra.weight))
        train = joined([train, frames])
    weighted = any(extra.weight != 1 for extra in settings.extra)
    return train, records, np.concatenate(shares) if weighted else None, warnings


def _reopened(store: FeatureStore) -> FeatureStore:
    """The same store with open files of its own: each set of frames is read by another thread."""
    return FeatureStore.open(store.path, kind="faces")


def _record(cfg: Config, task: Task, split_file: str, train: LabelledFrames) -> dict[str, Any]:
    return trained_on_record(
        dataset=cfg.data.name,
        edition=cfg.data.edition,
        labels=task.name,
        split_file=split_file,
        track_ids=[ref.track_id for ref in train.refs],
    )


def _check_batch(settings: FinetuneConfig, train: LabelledFrames) -> None:
    count = sum(-(-length // settings.stride) for length in train.lengths)
    if settings.batch_size > count:
        thinned = f" with stride {settings.stride}" if settings.stride > 1 else ""
        raise AbawError(
            f"a batch of {settings.batch_size} faces is larger than the training set of {count}{thinned}",
            where="finetune.batch_size",
            fix=f"set finetune.batch_size to at most {count}",
            code=ExitCode.CONFIG,
        )


def _unseen(source: LabelSource, train: LabelledFrames, fold: Fold | None) -> list[str]:
    """A warning for each head with classes or units that no training frame shows."""
    found = []
    for head in source.task.heads:
        names = unseen_classes(head, train.labels[head.name])
        if names:
            whose = "no training frame" if fold is None else f"no training frame of {fold}"
            remedy = (
                "" if fold is None else ", or deal the recordings anew: folds.stratify = true, with another split name"
            )
            found.append(
                f"{whose} shows {', '.join(names)}: the model cannot learn it and its F1 will be 0 (labels: "
                f"{source.path}); add frames or [[finetune.{source.task.name}.extra]] images that show it{remedy}"
            )
    return found


def _said(texts: list[str], *, aloud: bool = True) -> list[str]:
    """The same texts, logged as warnings; not ``aloud``: where an earlier fold has said as much."""
    for text in texts if aloud else []:
        logger.warning(text)
    return texts
