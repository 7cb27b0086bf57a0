"""`abaw fuse`: a temporal model of one task on cached visual and audio features.

Reads feature stores and labels; writes runs/fuse-<task>-<name> and the scores of validation and test tracks.
"""

from __future__ import annotations

import hashlib
import logging
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
from abaw.data.manifest import Manifest, Track
from abaw.data.windows import FeatureStreams, cut
from abaw.errors import AbawError, ExitCode, choose
from abaw.models.fusion import FUSION_BODIES, FusionModel
from abaw.models.heads import logits_to_scores
from abaw.models.losses import LossSettings, task_loss
from abaw.provenance import combine_trained_on, trained_on_record
from abaw.tasks import TASKS, Task, score
from abaw.training.batches import SampleOrder
from abaw.training.device import autocast, resolve_device, resolve_precision, use_threads
from abaw.training.loop import FitResult, LoopSettings, describe, fit
from abaw.training.optim import adamw, half_cosine, parameter_groups
from abaw.training.predictions import create_predictions, scored_tracks
from abaw.training.run import RunFolder
from abaw.training.weights import balanced_weights
from abaw.training.windows import WindowBatches, score_tracks

logger = logging.getLogger(__name__)

OUTSIDE = {"name", "task", "visual", "audio", "precision"}  # recorded elsewhere, or without effect on the weights


def run(cfg: Config, *, task: str | None = None, overwrite: bool = False, dry_run: bool = False) -> Summary:
    """Train the fusion of a task, then score validation and test tracks.

    Raises AbawError before any training for missing stores, tracks or labels, for streams whose rows or recipes
    differ, and for a run made with other settings.
    """
    name = task or cfg.fuse.task
    job = _Fuse(cfg, choose(TASKS, name, what="task", where="fuse.task"))
    path = cfg.run_dir("fuse", job.settings.name or job.settings.model, job.task.name)
    if dry_run:
        state = "done" if (path / "done").is_file() else "to do"
        return Summary("fuse", [("run", f"{path}: {state}"), *job.describe_inputs()], data={"state": state})
    folder = job.start(path, overwrite=overwrite)
    skipped = folder.is_done and job.predictions_path(folder).is_dir()
    if not skipped:
        result = job.train(folder)
        num_tracks = job.predict(folder)
        folder.finish({**result.to_dict(), "predicted_tracks": num_tracks, "device": str(job.device)})
    return _summary(job, folder, skipped=skipped)


class _Fuse:
    """One run: its inputs, model and settings."""

    def __init__(self, cfg: Config, task: Task) -> None:
        self.cfg, self.task = cfg, task
        self.settings: FuseConfig = cfg.fuse_for(task.name)
        choose(FUSION_BODIES, self.settings.model, what="fusion model", where="fuse.model")
        if self.settings.stride > self.settings.window:
            raise AbawError(
                f"stride {self.settings.stride} is larger than window {self.settings.window}: rows would be skipped",
                where="fuse.stride",
                fix=f"set it to at most {self.settings.window}",
                code=ExitCode.CONFIG,
            )
        self.device = resolve_device(cfg.run.device)
        self.precision = resolve_precision(self.settings.precision, self.device, key="fuse.precision")
        self.threads = use_threads(cfg.run.threads)
        self.manifest = Manifest.from_config(cfg.data)
        inputs = _inputs(cfg, self.settings)
        self.streams = FeatureStreams(*inputs, gap=self.settings.gap)
        # Batches are read ahead in a thread of their own, which must not share open files with the scoring.
        self.batch_streams = FeatureStreams(*inputs, gap=self.settings.gap)
        reader = LabelReader(cfg.data, task)
        self.train_tracks, self.val_tracks = (self._tracks(reader, split) for split in ("train", "val"))
        self.scored = self.val_tracks + self._test_tracks()
        accept = cfg.run.accept_recipe_mismatch
        self.streams.check([t.track_id for t in self.train_tracks + self.scored], accept_recipe_mismatch=accept)
        self.labels = {
            track.track_id: reader.labels(track, self.streams.num_rows(track.track_id))
            for track in self.train_tracks + self.val_tracks
        }
        reader.report_differences()
        self._require_labels()

    def _tracks(self, reader: LabelReader, split: str) -> list[Track]:
        tracks = self.manifest.select(task=reader.task.name, split=split)
        if not tracks:
            raise AbawError(
                f"task {self.task.name} has no tracks in the {split} split",
                where=f"data.annotations.{reader.task.name} = {reader.path}",
                fix="check that the folder holds Train_Set and Validation_Set with a file per track",
            )
        return tracks

    def _test_tracks(self) -> list[Track]:
        return self.manifest.select(task=self.task.train_on or self.task.name, split="test")

    def _require_labels(self) -> None:
        for split, tracks in (("train", self.train_tracks), ("val", self.val_tracks)):
            for head in self.task.heads:
                if not any(self.labels[track.track_id][head.name].mask.any() for track in tracks):
                    raise AbawError(
                        f"no row of the {split} split has a label of {head.name}",
                        where="data.annotations",
                        fix="check the label files: every row is marked as not annotated",
                    )

    def describe_inputs(self) -> list[tuple[str, str]]:
        """Lines about what goes in."""
        streams = ", ".join(f"{stream.name} ({stream.dim})" for stream in self.streams.streams)
        tracks = f"{len(self.train_tracks)} train, {len(self.val_tracks)} val, {len(self._test_tracks())} test"
        return [("features", streams), ("tracks", tracks)]

    def predictions_path(self, folder: RunFolder) -> Path:
        """Where the scores go."""
        return self.cfg.predictions_store(folder.path)

    def start(self, path: Path, *, overwrite: bool) -> RunFolder:
        own = self.settings
        return RunFolder.start(
            path,
            stage="fuse",
            settings={**own.model_dump(exclude=OUTSIDE), "task": self.task.name, "seed": self.cfg.run.seed},
            inputs={
                "streams": {stream.name: stream.store.fingerprint for stream in self.streams.streams},
                "train": self._digest(self.train_tracks),
                "val": self._digest(self.val_tracks),
            },
            facts={"device": str(self.device), "precision": self.precision, "threads": self.threads},
            overwrite=overwrite,
        )

    def _digest(self, tracks: list[Track]) -> str:
        """Hash of tracks and labels: a run is not continued on others."""
        digest = hashlib.sha256()
        for track in tracks:
            for name, own in sorted(self.labels[track.track_id].items()):
                digest.update(f"{track.track_id}/{name}:{own.num_rows}\n".encode())
                digest.update(np.where(own.mask, own.values, 0).astype("<f4").tobytes() + own.mask.tobytes())
        return digest.hexdigest()

    # -- training --------------------------------------------------------------------------------------------------
    def train(self, folder: RunFolder) -> FitResult:
        """Fit the model in the run's folder; continues by itself."""
        own, seed = self.settings, self.cfg.run.seed
        torch.manual_seed(seed)
        self.model = FusionModel(self.task, body=own.model, dims=self.streams.dims, dropout=own.dropout)
        mean, std = self.streams.statistics([track.track_id for track in self.train_tracks])
        self.model.scale.mean.copy_(torch.from_numpy(mean))
        self.model.scale.std.copy_(torch.from_numpy(std))
        self.model.to(self.device)
        windows = [
            window
            for track in self.train_tracks
            for window in cut(
                track.track_id, self.streams.num_rows(track.track_id), window=own.window, stride=own.stride
            )
            if any(part.mask[window.start : window.stop].any() for part in self.labels[track.track_id].values())
        ]
        order = SampleOrder(len(windows), own.batch_size, seed=seed)
        groups = parameter_groups(self.model, lr=own.lr, weight_decay=own.weight_decay)
        head = self.task.heads[0]
        return fit(
            self.model,
            run=folder,
            source=WindowBatches(self.batch_streams, windows, self.labels, order, own.window),
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
            labels=self.task.train_on or self.task.name,
            split_file="official",
            track_ids=[track.track_id for track in self.train_tracks],
        )
        first = self.streams.streams[0].store.header
        return {
            "kind": "fusion",
            "architecture": {"model": own.model, "dims": self.streams.dims, "dropout": own.dropout},
            "streams": [
                {"name": s.name, "kind": s.kind, "fingerprint": s.store.fingerprint} for s in self.streams.streams
            ],
            "window": own.window,
            "stride": own.stride,
            "gap": own.gap,
            "task": self.task.name,
            "label_order": {head.name: list(head.labels) for head in self.task.heads},
            "recipe": first.recipe,
            "trained_on": combine_trained_on([self.streams.trained_on(), [record]]),
        }

    def _loss(self) -> Any:
        own = self.settings
        pooled = {head.name: self._pooled(self.train_tracks, head.name) for head in self.task.heads}
        settings = {}
        for head in self.task.heads:
            weights: dict[str, Any] = dict(balanced_weights(head, pooled[head.name], own.class_weights))
            settings[head.name] = LossSettings(mse=own.mse_weight, **weights)

        def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            logits = model(batch["features"], batch["present"], batch["rows"])
            targets = {head.name: batch[f"{head.name}.values"] for head in self.task.heads}
            masks = {head.name: batch[f"{head.name}.mask"] for head in self.task.heads}
            total, parts = task_loss(self.task.heads, logits, targets, masks, settings)
            return total, parts if len(parts) > 1 else {}

        return loss

    def _pooled(self, tracks: list[Track], head: str) -> Labels:
        return concatenate([self.labels[track.track_id][head] for track in tracks])

    # -- scores ----------------------------------------------------------------------------------------------------
    def _validate(self, _: nn.Module) -> dict[str, float]:
        track_ids = [track.track_id for track in self.val_tracks]
        scores = self._scores(track_ids)
        heads = [head.name for head in self.task.heads]
        pooled = {name: np.concatenate([scores[track_id][name] for track_id in track_ids]) for name in heads}
        return score(self.task, pooled, {name: self._pooled(self.val_tracks, name) for name in heads})

    @torch.inference_mode()
    def _scores(self, track_ids: list[str]) -> dict[str, dict[str, np.ndarray]]:
        self.model.eval()

        def scorer(batch: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
            moved = [batch[name].to(self.device) for name in ("features", "present", "rows")]
            with autocast(self.device, self.precision):
                logits = self.model(*moved)
            return {name: value.cpu().numpy() for name, value in logits_to_scores(self.task.heads, logits).items()}

        own = self.settings
        return score_tracks(
            self.streams, track_ids, scorer, length=own.window, stride=own.stride, batch_size=own.batch_size
        )

    def predict(self, folder: RunFolder) -> int:
        """Write the best model's scores; rows without data in any stream are invalid. Returns the tracks written."""
        weights, header = load_checkpoint(folder.best_path, kind="fusion")
        load_weights(self.model, weights, where=str(folder.best_path))
        store = create_predictions(
            self.predictions_path(folder), folder, self.task, header=header, precision=self.precision
        )
        track_ids = scored_tracks(self.manifest, self.task, [track.track_id for track in self.scored])
        for track_id in progress(track_ids, desc=f"score {self.task.name}"):
            valid = np.asarray(self.streams.valid(track_id).any(axis=1))
            scores = self._scores([track_id])[track_id]
            blocks = {f"scores/{name}": np.where(valid[:, None], block, 0) for name, block in scores.items()}
            store.write(track_id, {"valid": valid, **blocks}, fps=self.streams.streams[0].store.fps(track_id))
        return len(track_ids)


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
    result, name = folder.result(), job.task.name
    lines = [
        ("run", f"{folder.path}{' (done before)' if skipped else ''}"),
        *job.describe_inputs(),
        ("best", f"val {name} {result['best_score']:.3f} at step {result['best_step']} of {result['steps']}"),
        ("time", f"{result['seconds']:.1f} s on {result['device']}"),
        ("scores", f"{job.predictions_path(folder)}, {result['predicted_tracks']} tracks"),
        ("next", f"abaw evaluate {job.predictions_path(folder).name}, abaw submit --task {name}"),
    ]
    return Summary("fuse", lines, data={"run": str(folder.path), "task": name, "skipped": skipped, **result})
