"""`abaw fuse`: a temporal model of one task on cached visual and audio features.

Reads feature stores and labels; writes runs/fuse-<task>-<name> and the scores of validation and test tracks.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from abaw.checkpoint import load_checkpoint, load_weights
from abaw.config import Config, FuseConfig
from abaw.console import Summary, progress
from abaw.data.annotations import LabelReader, Labels, concatenate
from abaw.data.labelled import labels_sha256, require_labels, trainable_task
from abaw.data.manifest import Manifest, Track
from abaw.data.windows import FeatureStreams, Window
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.fusion import FUSION_BODIES, FusionModel
from abaw.models.heads import logits_to_scores
from abaw.models.losses import LossSettings
from abaw.provenance import combine_trained_on, trained_on_record
from abaw.tasks import Task, score
from abaw.training.batches import SampleOrder
from abaw.training.device import autocast, resolve_device, resolve_precision, use_threads
from abaw.training.distributed import from_main, gather_scores, join, main_first, own_part, piece_size
from abaw.training.loop import FitResult, Loss, describe, fit
from abaw.training.objective import task_objective
from abaw.training.optim import adamw, check_warmup, half_cosine, parameter_groups
from abaw.training.predictions import (
    create_predictions,
    describe_state,
    discard_outdated,
    scored_tracks,
    unscored,
)
from abaw.training.run import RunFolder, recorded_precision
from abaw.training.steps import loop_settings
from abaw.training.weights import balanced_weights
from abaw.training.windows import WindowBatches, labelled_windows, score_tracks

logger = logging.getLogger(__name__)

OUTSIDE = {"name", "task", "visual", "audio", "precision"}  # recorded as names or inputs


def run(cfg: Config, *, task: str | None = None, overwrite: bool = False, dry_run: bool = False) -> Summary:
    """Train the fusion of a task, then score validation and test tracks.

    Raises AbawError before any training for missing stores, tracks or labels, for streams whose rows or recipes
    differ, and for a run made with other settings.
    """
    job = _Fuse(cfg, trainable_task(task or cfg.fuse.task, where="fuse.task"), overwrite=overwrite)
    if dry_run:
        job.start(overwrite=overwrite, dry_run=True)
        state = describe_state(job.predictions, RunFolder(job.path), job.scored)
        return Summary("fuse", [("run", f"{job.path}: {state}"), *job.describe_inputs()], data={"state": state})
    with main_first():
        folder = job.start(overwrite=overwrite)
        discard_outdated(job.predictions, folder)
    skipped = folder.is_done and not unscored(job.predictions, folder, job.scored)
    if not skipped:
        result = folder.result() if folder.is_done else {**job.train(folder).to_dict(), "device": str(job.device)}
        job.predict(folder)
        folder.finish({**result, "predicted_tracks": len(job.scored)})
    return _summary(job, folder, skipped=skipped)


class _Fuse:
    """One run: its inputs and settings."""

    def __init__(self, cfg: Config, task: Task, *, overwrite: bool) -> None:
        self.cfg, self.task = cfg, task
        self.settings: FuseConfig = cfg.fuse_for(task.name)
        _check_settings(self.settings)
        self.path = cfg.run_dir("fuse", self.settings.name or self.settings.model, task.name)
        self.predictions = cfg.predictions_store(self.path)
        self.device = resolve_device(cfg.run.device)
        join(self.device)
        piece_size(self.settings.batch_size, self.settings.accumulate, where="fuse.batch_size")
        recorded = None if overwrite else recorded_precision(self.path)
        wanted = self.settings.precision
        self.precision = resolve_precision(wanted, self.device, key="fuse.precision", recorded=recorded)
        self.threads = use_threads(cfg.run.threads)
        self.manifest = Manifest.from_config(cfg.data, need_media=False)
        inputs = _inputs(cfg, self.settings)
        self.streams = FeatureStreams(*inputs, gap=self.settings.gap)
        # Batches are read ahead in a thread of their own, which must not share open files with the scoring.
        self.batch_streams = FeatureStreams(*inputs, gap=self.settings.gap)
        reader = LabelReader(cfg.data, task)
        self.train_tracks, self.val_tracks = (self._tracks(reader, split) for split in ("train", "val"))
        self.test_tracks = self.manifest.select(task=task.name, split="test")
        known = {track.track_id for track in self.train_tracks + self.val_tracks + self.test_tracks}
        self.warnings = self.streams.check(sorted(known), accept_recipe_mismatch=cfg.run.accept_recipe_mismatch)
        own = self.settings
        self.warnings += check_warmup(own.steps, own.warmup_steps, lr=own.lr, where="fuse")
        self.scored = scored_tracks(self.manifest, task, known)
        self.train_labels = self._labels(reader, self.train_tracks, "train")
        self.val_labels = self._labels(reader, self.val_tracks, "val")
        reader.report_differences()
        self.windows = self._windows()

    def _tracks(self, reader: LabelReader, split: str) -> list[Track]:
        tracks = self.manifest.select(task=reader.task.name, split=split)
        if not tracks:
            raise AbawError(
                f"task {self.task.name} has no tracks in the {split} split",
                where=f"data.annotations.{reader.task.name} = {reader.path}",
                fix="check that the folder holds Train_Set and Validation_Set with a file per track",
            )
        return tracks

    def _labels(self, reader: LabelReader, tracks: list[Track], split: str) -> dict[str, dict[str, Labels]]:
        """Labels by track and head; refuses a split in which a head has none."""
        rows = {track.track_id: self.streams.num_rows(track.track_id) for track in tracks}
        labels = {track.track_id: reader.labels(track, rows[track.track_id]) for track in tracks}
        require_labels(labels, self.task, split=split)
        return labels

    def describe_inputs(self) -> list[tuple[str, str]]:
        """Lines about what goes in."""
        streams = ", ".join(f"{stream.name} ({stream.dim})" for stream in self.streams.streams)
        tracks = f"{len(self.train_tracks)} train, {len(self.val_tracks)} val, {len(self.test_tracks)} test"
        return [("features", streams), ("tracks", tracks)]

    def _windows(self) -> list[Window]:
        """Windows with a label; refuses a batch of a single row, which batch normalisation cannot train on."""
        own = self.settings
        windows = labelled_windows(self.train_labels, window=own.window, stride=own.stride)
        shortest = min(windows, key=lambda window: window.stop - window.start)
        if own.batch_size == 1 and shortest.stop - shortest.start == 1:
            raise AbawError(
                f"batch_size 1 would train on a single row of track {shortest.track_id}: nothing to normalise over",
                where="fuse.batch_size",
                fix="set fuse.batch_size to 2 or more" + (", or fuse.window to 2 or more" if own.window == 1 else ""),
                code=ExitCode.CONFIG,
            )
        return windows

    def start(self, *, overwrite: bool, dry_run: bool = False) -> RunFolder:
        own = self.settings
        return RunFolder.start(
            self.path,
            stage="fuse",
            settings={**own.model_dump(exclude=OUTSIDE), "task": self.task.name, "seed": self.cfg.run.seed},
            defaults=FuseConfig().model_dump(exclude=OUTSIDE),
            inputs={
                "streams": self.streams.describe(),
                "train": labels_sha256(self.train_labels),
                "val": labels_sha256(self.val_labels),
                "precision": self.precision,
            },
            facts={"device": str(self.device), "threads": self.threads, "warnings": self.warnings},
            overwrite=overwrite,
            dry_run=dry_run,
        )

    # -- training --------------------------------------------------------------------------------------------------
    def train(self, folder: RunFolder) -> FitResult:
        """Fit the model in the run's folder; continues by itself."""
        own, seed = self.settings, self.cfg.run.seed
        torch.manual_seed(seed)
        model = FusionModel(self.task, body=own.model, dims=self.streams.dims, dropout=own.dropout)
        mean, std = self.streams.statistics([track.track_id for track in self.train_tracks])
        model.scale.mean.copy_(torch.from_numpy(mean))
        model.scale.std.copy_(torch.from_numpy(std))
        if own.checkpointing:
            model.set_grad_checkpointing(True)
        model.to(self.device)
        order = SampleOrder(len(self.windows), own.batch_size, seed=seed)
        groups = parameter_groups(model, lr=own.lr, weight_decay=own.weight_decay)
        head = self.task.heads[0]
        return fit(
            model,
            run=folder,
            source=WindowBatches(self.batch_streams, self.windows, self.train_labels, order, own.window),
            loss=self._loss(),
            optimizer=adamw(groups),
            schedule=half_cosine(own.steps, warmup=own.warmup_steps, floor=own.min_lr / own.lr),
            settings=loop_settings(own, seed=seed, precision=self.precision),
            header=self._header(),
            validate=self._validate,
            report=lambda done: logger.info(describe(done, metric=f"{head.name}.{head.metric}")),
            watch=lambda steps: progress(steps, desc=f"fuse {self.task.name}", unit="step"),
        )

    def _header(self) -> dict[str, Any]:
        own = self.settings
        record = trained_on_record(
            dataset=self.cfg.data.name,
            edition=self.cfg.data.edition,
            labels=self.task.name,
            split_file="official",
            track_ids=[track.track_id for track in self.train_tracks],
        )
        return {
            "kind": "fusion",
            "architecture": {"model": own.model, "dims": self.streams.dims, "dropout": own.dropout},
            "streams": self.streams.describe(),
            "window": own.window,
            "stride": own.stride,
            "gap": own.gap,
            "task": self.task.name,
            "label_order": {head.name: list(head.labels) for head in self.task.heads},
            "recipe": self.streams.streams[0].store.header.recipe,
            "trained_on": combine_trained_on([self.streams.trained_on(), [record]]),
        }

    def _loss(self) -> Loss:
        own, settings = self.settings, {}
        for head in self.task.heads:
            labels = concatenate([heads[head.name] for heads in self.train_labels.values()])
            weights: dict[str, Any] = dict(balanced_weights(head, labels, own.class_weights))
            settings[head.name] = LossSettings(mse=own.mse_weight, **weights)
        return task_objective(self.task, settings, inputs=("features", "present", "rows"))

    # -- scores ----------------------------------------------------------------------------------------------------
    def _validate(self, model: nn.Module) -> dict[str, float]:
        """Metrics of all rows of the validation tracks, whichever process scored them."""
        track_ids = list(self.val_labels)
        counts = [self.streams.num_rows(track_id) for track_id in track_ids]
        rows = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
        mine = own_part(len(track_ids))
        scores = self._scores(model, [track_ids[number] for number in mine])
        own_rows = np.concatenate([np.zeros(0, np.int64), *(rows[number] for number in mine)])
        pooled = {
            head.name: np.concatenate(
                [np.zeros((0, head.output_dim), np.float32), *(own[head.name] for own in scores.values())]
            )
            for head in self.task.heads
        }
        labels = {name: concatenate([own[name] for own in self.val_labels.values()]) for name in pooled}
        return score(self.task, gather_scores(own_rows, pooled, sum(counts)), labels)

    @torch.inference_mode()
    def _scores(self, model: nn.Module, track_ids: list[str]) -> dict[str, dict[str, np.ndarray]]:
        model.eval()

        def scorer(batch: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
            moved = [batch[name].to(self.device) for name in ("features", "present", "rows")]
            with autocast(self.device, self.precision):
                logits = model(*moved)
            return {name: value.cpu().numpy() for name, value in logits_to_scores(self.task.heads, logits).items()}

        own = self.settings
        return score_tracks(
            self.streams, track_ids, scorer, length=own.window, stride=own.stride, batch_size=own.batch_size
        )

    def predict(self, folder: RunFolder) -> None:
        """Write the best model's scores of tracks that lack them; rows without data in any stream are invalid."""
        weights, header = load_checkpoint(folder.best_path, kind="fusion")
        shape = header["architecture"]
        model = FusionModel(self.task, body=shape["model"], dims=shape["dims"], dropout=shape["dropout"])
        load_weights(model, weights, where=str(folder.best_path))
        model.to(self.device)
        with main_first():
            store = create_predictions(self.predictions, folder, self.task, header=header, precision=self.precision)
        lacking = from_main([track_id for track_id in self.scored if track_id not in store])
        for track_id in progress([lacking[n] for n in own_part(len(lacking))], desc=f"score {self.task.name}"):
            valid = np.asarray(self.streams.valid(track_id).any(axis=1))
            scores = self._scores(model, [track_id])[track_id]
            blocks = {f"scores/{name}": np.where(valid[:, None], block, 0) for name, block in scores.items()}
            store.write(track_id, {"valid": valid, **blocks}, fps=self.streams.streams[0].store.fps(track_id))


def _check_settings(settings: FuseConfig) -> None:
    choose(FUSION_BODIES, settings.model, what="fusion model", where="fuse.model")
    if settings.stride > settings.window:
        raise AbawError(
            f"stride {settings.stride} is larger than window {settings.window}: rows would be skipped",
            where="fuse.stride",
            fix=f"set it to at most {settings.window}",
            code=ExitCode.CONFIG,
        )


def _inputs(cfg: Config, settings: FuseConfig) -> tuple[list[Path], list[Path]]:
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


def _summary(job: _Fuse, folder: RunFolder, *, skipped: bool) -> Summary:
    result, name, path = folder.result(), job.task.name, job.predictions
    near = path.relative_to(job.cfg.root) if path.is_relative_to(job.cfg.root) else path
    lines = [
        ("run", f"{folder.path}{' (done before)' if skipped else ''}"),
        *job.describe_inputs(),
        ("best", f"val {name} {result['best_score']:.3f} at step {result['best_step']} of {result['steps']}"),
        ("time", f"{result['seconds']:.1f} s on {result['device']}"),
        ("scores", f"{path}, {result['predicted_tracks']} tracks"),
        ("next", f"abaw evaluate {shlex.quote(str(near))}"),
        ("then", f"abaw submit --task {name}"),
    ]
    return Summary("fuse", lines, data={"run": str(folder.path), "task": name, "skipped": skipped, **result})
