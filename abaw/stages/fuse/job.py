"""One fusion run: its inputs, its training, the scores it writes."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from abaw.checkpoint import load_checkpoint, load_weights
from abaw.config import Config, FuseConfig
from abaw.console import Summary, progress
from abaw.data.splits import Fold
from abaw.data.windows import Window, check_cut
from abaw.errors import AbawError, ExitCode
from abaw.models.fusion import DUAL_BRANCH, DualBranch, FusionModel, fusion_from_header
from abaw.models.losses import LossSettings
from abaw.provenance import combine_trained_on
from abaw.stages.fuse.inputs import read_inputs
from abaw.stages.fuse.model import build, first_stage
from abaw.stages.fuse.recipe import loss_settings, schedule
from abaw.stages.fuse.scoring import MODEL_INPUTS, Scorer
from abaw.store import FeatureStore
from abaw.tasks import Task
from abaw.training.batches import SampleOrder
from abaw.training.device import keep_freed_memory, resolve_device, resolve_precision, use_threads
from abaw.training.distributed import from_main, join, main_first, own_part, piece_size
from abaw.training.dual import DualBatches, FirstShare, dual_objective, hard_order, hard_windows
from abaw.training.loop import FitResult, Loss, Validate, describe, fit
from abaw.training.objective import task_objective
from abaw.training.optim import adamw, check_warmup, parameter_groups
from abaw.training.predictions import (
    create_predictions,
    describe_state,
    joined_store,
    refuse_ensemble,
    train_and_score,
)
from abaw.training.run import FOLD_PREFIX, RunFolder, recorded_precision
from abaw.training.steps import BatchSource, loop_settings
from abaw.training.windows import WindowBatches, labelled_windows

logger = logging.getLogger(__name__)

# Not part of what a run is: where things are, how they are read, and keys that only other models read
OUTSIDE = {"name", "task", "visual", "audio", "precision", "split", "in_memory", "dual", "ensemble"}

# What shapes a single model; a second stage takes them from the first one
OF_THE_FIRST = {"dropout", "positions", "padding_mask", "attention", "modality_dropout", "value_heads"}


class FuseJob:
    """A run of one task, on the official split or on one fold; `run` does all of it, or what is left."""

    def __init__(
        self,
        cfg: Config,
        task: Task,
        *,
        settings: FuseConfig | None = None,
        fold: Fold | None = None,
        overwrite: bool,
    ) -> None:
        self.cfg, self.task, self.fold = cfg, task, fold
        self.settings = own = settings or cfg.fuse_for(task.name)
        check_cut({}, window=own.window, strides=own.strides, where="fuse")
        run_dir = cfg.run_dir("fuse", own.run_name, task.name)
        self.path = run_dir if fold is None else run_dir / f"{FOLD_PREFIX}{fold.number}"
        self.predictions = cfg.predictions_store(self.path)
        self.device = resolve_device(cfg.run.device)
        join(self.device)
        self.piece_size = piece_size(own.batch_size, own.accumulate, where="fuse.batch_size")
        recorded = None if overwrite else recorded_precision(self.path)
        self.precision = resolve_precision(own.precision, self.device, key="fuse.precision", recorded=recorded)
        self.threads = use_threads(cfg.run.threads)
        self.inputs = read_inputs(cfg, own, task, fold)
        self.streams = self.inputs.streams
        self.first = first_stage(cfg, own, task, self.streams, fold)
        self.windows = self._windows()
        self.warnings = self.inputs.warnings + check_warmup(own.steps, own.warmup_steps, lr=own.lr, where="fuse")
        refuse_ensemble(self.predictions)
        self.is_out_of_fold = self._check_fold()

    def _windows(self) -> list[Window]:
        """Windows with a label; refuses a batch of a single row, which batch normalisation cannot train on."""
        own = self.settings
        windows = labelled_windows(self.inputs.train, window=own.window, stride=own.stride)
        shortest = min(windows, key=lambda window: window.stop - window.start)
        if self.piece_size == 1 and shortest.stop - shortest.start == 1:
            smallest = 2 * own.batch_size  # two windows a forward pass, into however many the batch is cut
            raise AbawError(
                f"batch_size {own.batch_size} would train on a single row of track {shortest.track_id} at once: "
                "nothing to normalise over",
                where="fuse.batch_size",
                fix=f"set fuse.batch_size to {smallest} or more"
                + (", or fuse.window to 2 or more" if own.window == 1 else ""),
                code=ExitCode.CONFIG,
            )
        return windows

    def _check_fold(self) -> bool:
        """Whether no label of the fold is behind its scores; notes in the warnings what may be."""
        if self.fold is None:
            return False
        count, found = self.fold.split.num_folds, []
        behind = {
            f"the encoder of {one.name}": (
                one.store.header.trained_on,
                f"train it with `abaw finetune --folds {count}`, then `abaw extract-visual --folds {count}`"
                if one.kind == "visual"
                else "say what its weights have seen: encoders.<name>.trained_on",
            )
            for one in self.streams.streams
        }
        if self.first is not None:
            behind["the first stage"] = (
                self.first.header["trained_on"],
                f"train it on this split: `abaw fuse --folds {count}`",
            )
        for what, (records, fix) in behind.items():
            leak = self.fold.leak(records, dataset=self.cfg.data.name, behind=what, fix=fix)
            found += [leak] if leak else []
        for text in found:
            logger.warning(text)
        self.warnings += found
        return not found

    # -- the whole run ---------------------------------------------------------------------------------------------
    def run(self, *, overwrite: bool = False, dry_run: bool = False) -> Summary:
        """Train and score, or what is left of it."""
        if dry_run:
            self.start(overwrite=overwrite, dry_run=True)
            folder, clean = RunFolder(self.path), self.is_out_of_fold
            state = describe_state(self.predictions, folder, self.scored, out_of_fold=clean, overwrite=overwrite)
            return Summary("fuse", [("run", f"{self.path}: {state}"), *self.inputs.lines()], data={"state": state})
        folder, skipped = train_and_score(self, overwrite=overwrite)
        return self._summary(folder, skipped=skipped)

    @property
    def scored(self) -> list[str]:
        """Tracks whose scores the run writes."""
        return self.inputs.scored

    @property
    def outdated(self) -> list[Path]:
        """Scores that go when the run begins anew: its own, and those that are joined of all folds."""
        return [self.predictions] if self.fold is None else [self.predictions, joined_store(self.predictions)]

    @property
    def facts(self) -> dict[str, str]:
        """What the result says besides the training's."""
        return {"device": str(self.device)}

    def start(self, *, overwrite: bool, dry_run: bool = False) -> RunFolder:
        """The run's folder, compared with these settings and inputs."""
        own, first = self.settings, self.first
        outside = OUTSIDE | (OF_THE_FIRST if own.model == DUAL_BRANCH else set())
        settings = own.model_dump(exclude=outside)
        if own.model == DUAL_BRANCH:
            settings["dual"] = own.dual.model_dump(exclude={"first"})
        return RunFolder.start(
            self.path,
            stage="fuse",
            settings={**settings, "task": self.task.name, "seed": self.cfg.run.seed},
            defaults=FuseConfig().model_dump(exclude=outside),
            inputs={
                **self.inputs.described,
                **({"first": first.describe()} if first else {}),
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
        keep_freed_memory()
        torch.manual_seed(seed)
        model = build(self.task, own, self.streams, self.first)
        if not folder.resume_path.exists():  # else the features were read, and the weights hold their statistics
            self._prepare(model)
        if own.checkpointing:
            model.set_grad_checkpointing(True)
        model.to(self.device)
        groups = parameter_groups(model, lr=own.lr, weight_decay=own.weight_decay)
        head = self.task.heads[0]
        metric = f"{head.name}.{head.metric}" if len(self.task.heads) == 1 else "score"
        settings = loss_settings(self.task, own, self.inputs.train)
        return fit(
            model,
            run=folder,
            source=self._batches(model, settings),
            loss=self._loss(settings),
            optimizer=adamw(groups),
            schedule=schedule(own),
            settings=loop_settings(
                own, seed=seed, precision=self.precision, keep=own.select if self.inputs.select else "last"
            ),
            header=self._header(model),
            validate=self._validation(),
            report=lambda done: logger.info(describe(done, metric=metric)),
            watch=lambda steps: progress(steps, desc=f"fuse {self.task.name}", unit="step"),
        )

    def _prepare(self, model: FusionModel | DualBranch) -> None:
        """Read every track once: training tracks for their statistics, the others lest one stops the run at its end."""
        train, select = self.inputs.train, self.inputs.select or {}
        if isinstance(model, FusionModel):
            mean, std = self.streams.statistics(list(train))
            model.scale.mean.copy_(torch.from_numpy(mean))
            model.scale.std.copy_(torch.from_numpy(std))
        self.streams.require_finite(dict.fromkeys([*select, *self.scored]))

    def _batches(self, model: FusionModel | DualBranch, settings: Mapping[str, LossSettings]) -> BatchSource:
        """Windows in random order; for a second stage each with one that the frozen branch may find hard."""
        own, seed, num = self.settings, self.cfg.run.seed, len(self.windows)
        order = SampleOrder(num, own.batch_size, seed=seed)
        batches = WindowBatches(self.streams, self.windows, self.inputs.train, order, own.window)
        if not isinstance(model, DualBranch):
            return batches
        dual = own.dual
        hard = hard_windows(
            model.first,
            batches,
            self.task,
            settings,
            share=dual.hard_share,
            device=self.device,
            precision=self.precision,
        )
        logger.info("%d of %d windows count as hard", len(hard), num)
        drawn = hard_order(num, hard, drawn=dual.hard_drawn, batch_size=own.batch_size, seed=seed + 1)
        share = FirstShare(seed, dual.alpha, dual.beta, tuple(dual.mix))
        return DualBatches(batches, replace(batches, order=drawn), share)

    def _loss(self, settings: Mapping[str, LossSettings]) -> Loss:
        if self.first is not None:
            return dual_objective(self.task, settings, au_scale=self.settings.dual.au_scale)
        return task_objective(self.task, settings, inputs=MODEL_INPUTS)

    def _header(self, model: FusionModel | DualBranch) -> dict[str, Any]:
        own = self.settings
        return {
            "kind": "fusion",
            "architecture": model.describe(),
            "streams": self.streams.describe(),
            "window": own.window,
            "stride": own.stride,
            "gap": own.gap,
            "task": self.task.name,
            "label_order": {head.name: list(head.labels) for head in self.task.heads},
            "recipe": self.streams.streams[0].store.header.recipe,
            "trained_on": self._trained_on(),
        }

    def _trained_on(self) -> list[dict[str, Any]]:
        """Labels behind the scores, as far as is known now: an encoder may be declared after the training."""
        first = self.first.header["trained_on"] if self.first else []
        return combine_trained_on([self.streams.trained_on(), first, [self.inputs.record]])

    # -- scores ----------------------------------------------------------------------------------------------------
    def _scorer(self) -> Scorer:
        return Scorer(self.streams, self.task, self.settings, self.device, self.precision)

    def _validation(self) -> Validate | None:
        """Measures every row of the tracks that the checkpoint is chosen on; None where there are none."""
        select, scorer = self.inputs.select, self._scorer()
        return None if select is None else lambda model: scorer.validate(model, select)

    def predict(self, folder: RunFolder) -> None:
        """Write the best model's scores of tracks that lack them; rows without data in any stream are invalid."""
        weights, header = load_checkpoint(folder.best_path, kind="fusion")
        model = fusion_from_header(header, where=str(folder.best_path))
        load_weights(model, weights, where=str(folder.best_path))
        model.to(self.device)
        with main_first():
            store = self._create_store(folder, header)
        lacking = from_main([track_id for track_id in self.inputs.scored if track_id not in store])
        mine = [lacking[number] for number in own_part(len(lacking))]
        first = self.streams.streams[0].store
        for track_id, scores in progress(
            self._scorer().scores(model, mine), total=len(mine), desc=f"score {self.task.name}", unit="track"
        ):
            valid = np.asarray(self.streams.valid(track_id).any(axis=1))
            blocks = {f"scores/{name}": np.where(valid[:, None], block, 0) for name, block in scores.items()}
            store.write(track_id, {"valid": valid, **blocks}, fps=first.fps(track_id))

    def _create_store(self, folder: RunFolder, header: dict[str, Any]) -> FeatureStore:
        about: dict[str, Any] = {}
        if self.fold is not None:
            kept = {"held_out": self.inputs.held_out, "holdout": self.inputs.holdout}
            about = self.fold.scored(**kept, out_of_fold=self.is_out_of_fold)
        return create_predictions(
            self.predictions,
            folder,
            self.task,
            header={**header, "trained_on": self._trained_on()},
            precision=self.precision,
            about=about,
        )

    # -- what the user reads ---------------------------------------------------------------------------------------
    def _summary(self, folder: RunFolder, *, skipped: bool) -> Summary:
        result, name = folder.result(), self.task.name
        lines = [("run", f"{folder.path}{' (done before)' if skipped else ''}"), *self.inputs.lines()]
        if result["best_score"] is not None:
            best = f"val {name} {result['best_score']:.3f} at step {result['best_step']} of {result['steps']}"
            lines.append(("best", best))
        near = _near(self.predictions, self.cfg.root)
        lines += [
            ("time", f"{result['seconds']:.1f} s on {result['device']}"),
            ("scores", f"{self.predictions}, {result['predicted_tracks']} tracks"),
            ("next", f"abaw evaluate {shlex.quote(str(near))}"),
            ("then", f"abaw submit --task {name}"),
        ]
        return Summary("fuse", lines, data={"run": str(folder.path), "task": name, "skipped": skipped, **result})


def _near(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
