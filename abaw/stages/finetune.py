"""`abaw finetune`: the static model of one task, on single faces.

Reads a faces store, labels and the pretrained weights; writes runs/finetune-<task>-<name> and, at its end, the
scores of validation and test tracks as a predictions store.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from abaw.checkpoint import load_checkpoint, load_weights, read_header
from abaw.config import Config, FinetuneConfig
from abaw.console import Summary, progress
from abaw.data.annotations import LabelReader
from abaw.data.frames import RESIZE, FrameRef, FrameTable, measure_normalisation
from abaw.data.labelled import LabelledFrames, labelled_frames, trainable_task
from abaw.data.manifest import Manifest
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.heads import logits_to_scores
from abaw.models.losses import LossSettings
from abaw.models.mae import encoder_weights
from abaw.models.static import HEAD_PREFIX, StaticModel
from abaw.models.vit import VIT_PRESETS
from abaw.provenance import check_recipe, combine_trained_on, file_sha256, trained_on_record
from abaw.store import FeatureStore
from abaw.tasks import Task, score
from abaw.training.augment import AUGMENTS
from abaw.training.batches import FaceBatches, SampleOrder, to_tensor
from abaw.training.device import autocast, resolve_device, resolve_precision, use_threads
from abaw.training.loop import FitResult, LoopSettings, Loss, describe, fit
from abaw.training.objective import task_objective
from abaw.training.optim import adamw, half_cosine, parameter_groups
from abaw.training.predictions import (
    create_predictions,
    describe_state,
    discard_outdated,
    scored_tracks,
    unscored,
)
from abaw.training.run import RunFolder, recorded_precision
from abaw.training.weights import balanced_weights

logger = logging.getLogger(__name__)

SCORE_BATCH = 256  # one fixed shape for every inference call


def run(cfg: Config, *, task: str | None = None, overwrite: bool = False, dry_run: bool = False) -> Summary:
    """Train the static model of a task, then score validation and test tracks.

    Raises AbawError before any training for missing labels, weights or tracks, and for a run made with other
    settings.
    """
    job = _Finetune(cfg, trainable_task(task or cfg.finetune.task, where="finetune.task"), overwrite=overwrite)
    if dry_run:
        job.start(overwrite=overwrite, dry_run=True)
        return job.describe()
    folder = job.start(overwrite=overwrite)
    discard_outdated(job.predictions, folder)
    skipped = folder.is_done and not unscored(job.predictions, folder, job.scored)
    if not skipped:
        facts = {"device": str(job.device), "precision": job.precision}
        result = folder.result() if folder.is_done else {**job.train(folder).to_dict(), **facts}
        job.predict(folder)
        folder.finish({**result, "predicted_tracks": len(job.scored)})
    return _summary(job, folder, skipped=skipped)


class _Finetune:
    """One run: its inputs and settings."""

    def __init__(self, cfg: Config, task: Task, *, overwrite: bool) -> None:
        self.cfg, self.task = cfg, task
        self.settings: FinetuneConfig = cfg.finetune_for(task.name)
        self.preset = choose(VIT_PRESETS, self.settings.preset, what="preset", where="finetune.preset")
        self.path = cfg.run_dir("finetune", self.settings.name or self.settings.preset, task.name)
        self.predictions = cfg.predictions_store(self.path)
        self.device = resolve_device(cfg.run.device)
        recorded = None if overwrite else recorded_precision(self.path)
        wanted = self.settings.precision
        self.precision = resolve_precision(wanted, self.device, key="finetune.precision", recorded=recorded)
        self.threads = use_threads(cfg.run.threads)
        self.manifest = Manifest.from_config(cfg.data, need_media=False)
        self.store = FeatureStore.open(self.settings.faces or cfg.faces_store, kind="faces")
        self.init_path = _init_path(cfg, self.settings)
        self.warnings = self._check_init()
        reader = LabelReader(cfg.data, task)
        self.train_set = self._frames(reader, "train", self.settings.frames_per_track)
        self.val_set = self._frames(reader, "val", 0)
        self.scored = scored_tracks(self.manifest, task, self.store)
        reader.report_differences()

    def _check_init(self) -> list[str]:
        """Warnings about the faces behind the initial weights; refuses those aligned another way."""
        if self.init_path is None:
            return []
        theirs, ours = read_header(self.init_path)["recipe"], self.store.header.recipe
        what, accept = self.init_path.name, self.cfg.run.accept_recipe_mismatch
        return check_recipe(theirs, ours, what=what, where=f"finetune.init_from: {self.init_path}", accept=accept)

    def _frames(self, reader: LabelReader, split: str, per_track: int) -> LabelledFrames:
        tracks = self.manifest.select(task=reader.task.name, split=split)
        store = FeatureStore.open(self.store.path, kind="faces")  # each split is read by another thread
        return labelled_frames(store, tracks, reader, per_track=per_track, split=split)

    def describe(self) -> Summary:
        """What a run would do."""
        state = describe_state(self.predictions, RunFolder(self.path), self.scored)
        frames = ("faces", f"{len(self.train_set)} train, {len(self.val_set)} val")
        lines = [("run", f"{self.path}: {state}"), frames, ("starts from", str(self.init_path or "random weights"))]
        return Summary("finetune", lines, data={"state": state})

    def start(self, *, overwrite: bool, dry_run: bool = False) -> RunFolder:
        own = self.settings
        return RunFolder.start(
            self.path,
            stage="finetune",
            settings={
                **own.model_dump(exclude={"name", "faces", "init_from", "precision", "task"}),
                "task": self.task.name,
                "seed": self.cfg.run.seed,
            },
            inputs={
                "faces": {"store": self.store.path.name, "fingerprint": self.store.fingerprint},
                "init_from": file_sha256(self.init_path) if self.init_path else "none",
                "train": self.train_set.sha256,
                "val": self.val_set.sha256,
                "precision": self.precision,
            },
            facts={"device": str(self.device), "threads": self.threads, "warnings": self.warnings},
            overwrite=overwrite,
            dry_run=dry_run,
        )

    # -- training --------------------------------------------------------------------------------------------------
    def train(self, folder: RunFolder) -> FitResult:
        own, seed = self.settings, self.cfg.run.seed
        torch.manual_seed(seed)
        model = StaticModel(self.preset, self.task, pooling=own.pooling, drop_path=own.drop_path)
        train_table = FrameTable(self.train_set.refs, self.preset.image_size)
        header = self._header(model, train_table)
        mean, std = header["normalisation"]["mean"], header["normalisation"]["std"]
        source = FaceBatches(
            train_table,
            SampleOrder(len(train_table), own.batch_size, seed=seed),
            mean,
            std,
            choose(AUGMENTS, own.augment, what="augmentation", where="finetune.augment"),
            self.train_set.arrays(),
        )
        groups = parameter_groups(
            model, lr=own.lr, weight_decay=own.weight_decay, layer_decay=own.layer_decay, depth=self.preset.depth
        )
        model.to(self.device)
        self.val_table = FrameTable(self.val_set.refs, self.preset.image_size)
        head = self.task.heads[0]
        return fit(
            model,
            run=folder,
            source=source,
            loss=self._loss(),
            optimizer=adamw(groups),
            schedule=half_cosine(own.steps, warmup=own.warmup_steps),
            settings=LoopSettings(
                steps=own.steps,
                seed=seed,
                clip_norm=own.clip_norm,
                precision=self.precision,
                validate_every=own.validate_every,
                save_every=own.validate_every,
            ),
            header=header,
            validate=lambda model: self._validate(model, mean, std),
            report=lambda done: logger.info(describe(done, metric=f"{head.name}.{head.metric}")),
            watch=lambda steps: progress(steps, desc=f"finetune {self.task.name}", unit="step"),
        )

    def _header(self, model: StaticModel, table: FrameTable) -> dict[str, Any]:
        """Load the initial weights into the model; what the trained weights will say of themselves."""
        recipe, trained_on = self.store.header.recipe, [self._record()]
        if self.init_path:
            before = self._load_encoder(model, self.init_path)
            trained_on = combine_trained_on([trained_on, before["trained_on"]])
            normalisation = before["normalisation"]
        else:
            mean, std = measure_normalisation(table)
            normalisation = {"mean": mean, "std": std}
        return {
            "kind": "static",
            "architecture": {"preset": self.settings.preset, **self.preset.to_dict()},
            "task": self.task.name,
            "label_order": {head.name: list(head.labels) for head in self.task.heads},
            "pooling": self.settings.pooling,
            "normalisation": normalisation,
            "resize": RESIZE,
            "recipe": recipe,
            "trained_on": trained_on,
        }

    def _load_encoder(self, model: StaticModel, path: Path) -> dict[str, Any]:
        weights, before = load_checkpoint(path)
        weights = {name: value for name, value in encoder_weights(weights).items() if not name.startswith(HEAD_PREFIX)}
        fresh = [HEAD_PREFIX]
        if self.settings.pooling == "mean" and "fc_norm.weight" not in weights:
            # The pretrained norm belongs to single tokens; the pooled feature gets its own, trained here.
            weights = {name: value for name, value in weights.items() if not name.startswith("norm.")}
            fresh.append("fc_norm.")
        load_weights(model, weights, where=f"finetune.init_from: {path}", fresh=tuple(fresh))
        return before

    def _record(self) -> dict[str, Any]:
        return trained_on_record(
            dataset=self.cfg.data.name,
            edition=self.cfg.data.edition,
            labels=self.task.name,
            split_file="official",
            track_ids=[ref.track_id for ref in self.train_set.refs],
        )

    def _loss(self) -> Loss:
        own, settings = self.settings, {}
        for head in self.task.heads:
            weights = balanced_weights(head, self.train_set.labels[head.name], own.class_weights, own.weight_kind)
            settings[head.name] = LossSettings(
                **weights, reduce=own.ccc_reduce, mse=own.mse_weight, smoothing=own.label_smoothing
            )
        return task_objective(self.task, settings, inputs=("images",))

    # -- scores ----------------------------------------------------------------------------------------------------
    def _validate(self, model: nn.Module, mean: list[float], std: list[float]) -> dict[str, float]:
        return score(self.task, self._scores(model, self.val_table, mean, std), self.val_set.labels)

    @torch.inference_mode()
    def _scores(self, model: nn.Module, table: FrameTable, mean: list[float], std: list[float]) -> dict[str, Any]:
        """Scores by head, float32 [N, L], of all frames of a table in order."""
        model.eval()
        found = {head.name: [np.zeros((0, head.output_dim), np.float32)] for head in self.task.heads}
        for _, images in table.in_order(SCORE_BATCH):
            with autocast(self.device, self.precision):
                logits = model(to_tensor(images, mean, std).to(self.device))
            for name, values in logits_to_scores(self.task.heads, logits).items():
                found[name].append(values.cpu().numpy())
        return {name: np.concatenate(parts)[: len(table)] for name, parts in found.items()}

    def predict(self, folder: RunFolder) -> None:
        """Write the best weights' scores of tracks that lack them; rows without a face are invalid."""
        weights, header = load_checkpoint(folder.best_path, kind="static")
        model = StaticModel(self.preset, self.task, pooling=self.settings.pooling)
        load_weights(model, weights, where=str(folder.best_path))
        model.to(self.device)
        mean, std = header["normalisation"]["mean"], header["normalisation"]["std"]
        store = create_predictions(self.predictions, folder, self.task, header=header, precision=self.precision)
        lacking = [track_id for track_id in self.scored if track_id not in store]
        for track_id in progress(lacking, desc=f"score {self.task.name}"):
            valid = self.store.valid(track_id)
            rows = np.flatnonzero(valid)
            table = FrameTable([FrameRef(self.store, track_id, rows)], self.preset.image_size, cache_bytes=0)
            scores = self._scores(model, table, mean, std)
            arrays: dict[str, np.ndarray] = {"valid": valid}
            for head in self.task.heads:
                values = arrays[f"scores/{head.name}"] = np.zeros((len(valid), head.output_dim), np.float32)
                values[rows] = scores[head.name]
            store.write(track_id, arrays, fps=self.store.fps(track_id))


def _init_path(cfg: Config, settings: FinetuneConfig) -> Path | None:
    """File of the initial weights; None when random weights are asked for."""
    if settings.init_from == "none":
        return None
    if settings.init_from == "pretrain":
        path = cfg.run_dir("pretrain", cfg.pretrain.name or cfg.pretrain.preset)
    else:
        path = cfg.root / settings.init_from
    path = path / "best.safetensors" if path.is_dir() or settings.init_from == "pretrain" else path
    if not path.is_file():
        raise AbawError(
            f"there are no weights to start from at {path}",
            where="finetune.init_from",
            fix='run `abaw pretrain` first, name a checkpoint, or write init_from = "none" for random weights',
            code=ExitCode.MISSING,
        )
    return path


def _summary(job: _Finetune, folder: RunFolder, *, skipped: bool) -> Summary:
    result, task = folder.result(), job.task.name
    lines = [
        ("run", f"{folder.path}{' (done before)' if skipped else ''}"),
        ("steps", f"{result['steps']} in {result['seconds']:.1f} s on {result['device']}, {result['precision']}"),
        ("loss", f"{result['first_loss']:.4f} -> {result['last_loss']:.4f}"),
        ("best", f"val {task} {result['best_score']:.3f} at step {result['best_step']}"),
        ("scores", f"{job.predictions}, {result['predicted_tracks']} tracks"),
    ]
    return Summary("finetune", lines, data={"run": str(folder.path), "task": task, "skipped": skipped, **result})
