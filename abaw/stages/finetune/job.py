"""One finetuning run: its inputs, its training, the scores it writes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from abaw.checkpoint import load_checkpoint, load_weights
from abaw.config import Config, FinetuneConfig
from abaw.console import Summary, progress
from abaw.data.frames import FrameRef, FrameTable
from abaw.data.splits import Fold
from abaw.errors import choose
from abaw.models.losses import LossSettings
from abaw.models.systems import FaceModel, model_from_header
from abaw.models.vit import VIT_PRESETS
from abaw.provenance import check_recipe, combine_trained_on
from abaw.stages.finetune.inputs import read_inputs
from abaw.stages.finetune.model import Start, build, crop_points, read_start
from abaw.stages.finetune.scoring import Scorer
from abaw.store import FeatureStore
from abaw.tasks import Problem, Task, score
from abaw.training.augment import AUGMENTS
from abaw.training.batches import FaceBatches, SampleOrder
from abaw.training.device import keep_freed_memory, resolve_device, resolve_precision, use_threads
from abaw.training.distributed import from_main, join, main_first, own_part, piece_size
from abaw.training.loop import FitResult, Loss, Validate, describe, fit
from abaw.training.mixing import Mixing
from abaw.training.objective import consistency_objective, task_objective
from abaw.training.optim import adamw, check_warmup, half_cosine, parameter_groups
from abaw.training.predictions import create_predictions, describe_state, joined_store, train_and_score
from abaw.training.run import FOLD_PREFIX, RunFolder, recorded_precision
from abaw.training.steps import loop_settings
from abaw.training.weights import class_weights

logger = logging.getLogger(__name__)

# Not part of what a run is: where things are, and keys that only other models read
OUTSIDE = {"name", "faces", "init_from", "precision", "task", "model", "split", "extra", "emma", "cotex", "emae"}


class FinetuneJob:
    """A run of one task, on the official split or on one fold; `run` does all of it, or what is left."""

    def __init__(
        self,
        cfg: Config,
        task: Task,
        *,
        settings: FinetuneConfig | None = None,
        fold: Fold | None = None,
        overwrite: bool,
    ) -> None:
        self.cfg, self.task, self.fold = cfg, task, fold
        self.settings = settings or cfg.finetune_for(task.name)
        self.preset = choose(VIT_PRESETS, self.settings.preset, what="preset", where="finetune.preset")
        run_dir = cfg.run_dir("finetune", self.settings.run_name, task.name)
        self.path = run_dir if fold is None else run_dir / f"{FOLD_PREFIX}{fold.number}"
        self.predictions = cfg.predictions_store(self.path)
        self.device = resolve_device(cfg.run.device)
        join(self.device)
        piece_size(self.settings.batch_size, self.settings.accumulate, where="finetune.batch_size")
        recorded = None if overwrite else recorded_precision(self.path)
        wanted = self.settings.precision
        self.precision = resolve_precision(wanted, self.device, key="finetune.precision", recorded=recorded)
        self.threads = use_threads(cfg.run.threads)
        self.store = FeatureStore.open(self.settings.faces or cfg.faces_store, kind="faces")
        self.start_from = read_start(cfg, self.settings)
        self.built = build(cfg, self.settings, self.task, self.preset)
        own = self.settings
        self.warnings = self._check_recipe() + check_warmup(own.steps, own.warmup_steps, lr=own.lr, where="finetune")
        self.inputs = read_inputs(cfg, self.settings, task, self.store, fold)
        self.warnings += self.inputs.warnings
        self.is_out_of_fold = self._check_fold()

    def _check_recipe(self) -> list[str]:
        """Warnings about the faces behind initial weights and classifier; refuses those aligned another way."""
        ours, accept = self.store.header.recipe, self.cfg.run.accept_recipe_mismatch
        found = []
        if self.start_from is not None:
            path, theirs = self.start_from.path, self.start_from.header["recipe"]
            found += check_recipe(theirs, ours, what=path.name, where=f"finetune.init_from: {path}", accept=accept)
        classifier = self.built.options.classifier
        if classifier is not None:
            what, where = f"classifier {classifier.describe()['spec']}", "finetune.emma.classifier"
            found += check_recipe(classifier.recipe, ours, what=what, where=where, accept=accept)
        return found

    def _check_model(self) -> None:
        """Make the model, its weights and its loss once, so that what does not fit is said before a run begins."""
        begun = Start(self.start_from, mean=[0.0] * 3, std=[1.0] * 3, trained_on=[])
        begun.load_into(self.built.model(begun), where="finetune.init_from")
        self._loss()

    def _check_fold(self) -> bool:
        """Whether no label of the fold is behind its scores; notes in the warnings what may be."""
        if self.fold is None:
            return False
        before = [*(self.start_from.header["trained_on"] if self.start_from else []), *self.built.trained_on]
        before += self.inputs.trained_on[1:]  # of images from elsewhere; the first is the fold's own
        found = self.fold.leak(
            before,
            dataset=self.cfg.data.name,
            behind="the weights it starts from, its classifier or its extra images",
            fix="say what foreign weights have seen: finetune.init_trained_on",
        )
        if found:
            self.warnings.append(found)
            logger.warning(found)
        return not found

    # -- the whole run ---------------------------------------------------------------------------------------------
    def run(self, *, overwrite: bool = False, dry_run: bool = False) -> Summary:
        """Train and score, or what is left of it."""
        self.start(overwrite=overwrite, dry_run=True)  # another run's settings are the first thing to be told
        if overwrite or not RunFolder(self.path).is_done:
            self._check_model()
        if dry_run:
            return self._plan(overwrite=overwrite)
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
        return {"device": str(self.device), "precision": self.precision}

    def start(self, *, overwrite: bool, dry_run: bool = False) -> RunFolder:
        """The run's folder, compared with these settings and inputs."""
        own, weights = self.settings, self.start_from
        settings = {**own.model_dump(exclude=OUTSIDE), **self.built.settings}
        return RunFolder.start(
            self.path,
            stage="finetune",
            settings={**settings, "task": self.task.name, "seed": self.cfg.run.seed},
            defaults={**FinetuneConfig().model_dump(exclude=OUTSIDE), "model": "static"},
            inputs={
                "faces": {"store": self.store.path.name, "fingerprint": self.store.fingerprint},
                "init_from": weights.sha256 if weights else "none",
                **self.built.inputs,
                **self.inputs.described,
                "precision": self.precision,
            },
            facts={"device": str(self.device), "threads": self.threads, "warnings": self.warnings},
            overwrite=overwrite,
            dry_run=dry_run,
        )

    # -- training --------------------------------------------------------------------------------------------------
    def train(self, folder: RunFolder) -> FitResult:
        """Fit the model in the run's folder; continues by itself."""
        own, seed, inputs = self.settings, self.cfg.run.seed, self.inputs
        keep_freed_memory()
        torch.manual_seed(seed)
        table = FrameTable(inputs.train.refs, self.preset.image_size)
        begun = Start.of(self.start_from, table)
        model = self.built.model(begun)
        for note in begun.load_into(model, where="finetune.init_from"):
            logger.info(note)
        if own.checkpointing:
            model.set_grad_checkpointing(True)
        groups = parameter_groups(
            model, lr=own.lr, weight_decay=own.weight_decay, layer_decay=own.layer_decay, depth=self.preset.depth
        )
        model.to(self.device)
        head = self.task.heads[0]
        metric = f"{head.name}.{head.metric}" if len(self.task.heads) == 1 else "score"
        return fit(
            model,
            run=folder,
            source=self._batches(table, begun),
            loss=self._loss(),
            optimizer=adamw(groups),
            schedule=half_cosine(own.steps, warmup=own.warmup_steps, floor=own.min_lr / own.lr),
            settings=loop_settings(
                own, seed=seed, precision=self.precision, keep=own.select if inputs.select else "last"
            ),
            header=self._header(begun),
            validate=self._validation(begun),
            report=lambda done: logger.info(describe(done, metric=metric)),
            watch=lambda steps: progress(steps, desc=f"finetune {self.task.name}", unit="step"),
        )

    def _batches(self, table: FrameTable, begun: Start) -> FaceBatches:
        own, seed = self.settings, self.cfg.run.seed
        lengths = self.inputs.train.lengths
        order = SampleOrder(
            len(table), own.batch_size, seed=seed, weights=self.inputs.weights, stride=own.stride, lengths=lengths
        )
        return FaceBatches(
            table,
            order,
            begun.mean,
            begun.std,
            choose(AUGMENTS, own.augment, what="augmentation", where="finetune.augment"),
            self.inputs.train.arrays(),
            mask_patches=self.preset.num_patches if "noise" in self.built.training_inputs else 0,
            mask_views=own.cotex.views if "noise" in self.built.training_inputs else 0,
            points=crop_points(self.inputs.train.refs) if self.built.view else None,
            make_view=self.built.view,
            mixing=Mixing(own.mixup, own.cutmix, self.task.heads) if own.mixup or own.cutmix else None,
        )

    def _loss(self) -> Loss:
        own, settings = self.settings, {}
        for head in self.task.heads:
            labels = self.inputs.train.labels[head.name]
            weights: dict[str, Any] = dict(
                class_weights(head, labels, own.class_weights, own.weight_kind, drawn=self.inputs.weights)
            )
            reduce = own.au_reduce if head.problem is Problem.MULTILABEL else own.ccc_reduce
            settings[head.name] = LossSettings(
                **weights,
                reduce=reduce,
                clamp=own.ccc_clamp,
                mse=own.mse_weight,
                smoothing=own.label_smoothing,
            )
        inputs = self.built.training_inputs
        if self.settings.model == "cotex":
            return consistency_objective(self.task, settings, inputs=inputs, weight=own.cotex.consistency)
        return task_objective(self.task, settings, inputs=inputs)

    def _header(self, begun: Start) -> dict[str, Any]:
        """What the trained weights will say of themselves."""
        return {
            "kind": self.built.kind,
            "architecture": self.built.architecture,
            "task": self.task.name,
            "label_order": {head.name: list(head.labels) for head in self.task.heads},
            "pooling": self.built.options.pooling,
            "normalisation": {"mean": begun.mean, "std": begun.std},
            "resize": begun.resize,
            "recipe": self.store.header.recipe,
            "trained_on": combine_trained_on([self.inputs.trained_on, begun.trained_on, self.built.trained_on]),
        }

    # -- scores ----------------------------------------------------------------------------------------------------
    def _scorer(self, mean: list[float], std: list[float]) -> Scorer:
        return Scorer(self.built, mean, std, device=self.device, precision=self.precision)

    def _validation(self, begun: Start) -> Validate | None:
        """Scores every frame that the checkpoint is chosen on, and measures them; None where there is none."""
        frames = self.inputs.select
        if frames is None:
            return None
        scorer = self._scorer(begun.mean, begun.std)
        faces, labels = scorer.faces(frames.refs), frames.labels
        return lambda model: score(self.task, scorer.scores(model, faces), labels)

    def predict(self, folder: RunFolder) -> None:
        """Write the best weights' scores of tracks that lack them; other rows are invalid."""
        weights, header = load_checkpoint(folder.best_path)
        model = model_from_header(header, where=str(folder.best_path), classifier=self.built.options.classifier)
        load_weights(model, weights, where=str(folder.best_path))
        model.to(self.device)
        scorer = self._scorer(header["normalisation"]["mean"], header["normalisation"]["std"])
        with main_first():
            store = self._create_store(folder, header)
        lacking = from_main([track_id for track_id in self.inputs.scored if track_id not in store])
        mine = [lacking[number] for number in own_part(len(lacking))]
        for track_id in progress(mine, desc=f"score {self.task.name}"):
            self._predict_track(scorer, model, store, track_id)

    def _create_store(self, folder: RunFolder, header: dict[str, Any]) -> FeatureStore:
        about: dict[str, Any] = {}
        if self.fold is not None:
            own = self.inputs
            about = self.fold.scored(held_out=own.held_out, holdout=own.holdout, out_of_fold=self.is_out_of_fold)
        return create_predictions(
            self.predictions, folder, self.task, header=header, precision=self.precision, about=about
        )

    def _predict_track(self, scorer: Scorer, model: FaceModel, store: FeatureStore, track_id: str) -> None:
        valid = self.store.valid(track_id)
        valid &= self.inputs.scored_rows(track_id, len(valid))
        rows = np.flatnonzero(valid)
        scores = scorer.scores(model, scorer.faces([FrameRef(self.store, track_id, rows)], cached=False), shared=False)
        arrays: dict[str, np.ndarray] = {"valid": valid}
        for head in self.task.heads:
            values = arrays[f"scores/{head.name}"] = np.zeros((len(valid), head.output_dim), np.float32)
            values[rows] = scores[head.name]
        store.write(track_id, arrays, fps=self.store.fps(track_id))

    # -- what the user reads ---------------------------------------------------------------------------------------
    def _plan(self, *, overwrite: bool) -> Summary:
        """What a run would do."""
        inputs, folder, clean = self.inputs, RunFolder(self.path), self.is_out_of_fold
        state = describe_state(self.predictions, folder, inputs.scored, out_of_fold=clean, overwrite=overwrite)
        chosen = f", {len(inputs.select)} val" if inputs.select else ""
        start = str(self.start_from.path) if self.start_from else "random weights"
        frames = ("faces", f"{len(inputs.train)} train{chosen}")
        lines = [("run", f"{self.path}: {state}"), frames, ("starts from", start)]
        return Summary("finetune", lines, data={"state": state})

    def _summary(self, folder: RunFolder, *, skipped: bool) -> Summary:
        result, task = folder.result(), self.task.name
        lines = [
            ("run", f"{folder.path}{' (done before)' if skipped else ''}"),
            ("steps", f"{result['steps']} in {result['seconds']:.1f} s on {result['device']}, {result['precision']}"),
            ("loss", f"{result['first_loss']:.4f} -> {result['last_loss']:.4f}"),
        ]
        if result["best_score"] is not None:
            lines.append(("best", f"val {task} {result['best_score']:.3f} at step {result['best_step']}"))
        lines.append(("scores", f"{self.predictions}, {result['predicted_tracks']} tracks"))
        return Summary("finetune", lines, data={"run": str(folder.path), "task": task, "skipped": skipped, **result})
