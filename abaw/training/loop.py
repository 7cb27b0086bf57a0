"""`fit`: the one training loop, of `pretrain`, `finetune` and `fuse`.

All randomness is a function of (seed, step, sample or rank), so a run that is killed at any step and started again
ends with the same weights, bit for bit, on the same device with the same number of threads.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from abaw.checkpoint import save_checkpoint
from abaw.errors import AbawError
from abaw.training.device import rank_and_world
from abaw.training.distributed import fails_with_others, from_main, is_main, main_first
from abaw.training.ema import WeightAverage
from abaw.training.events import Events
from abaw.training.interrupt import StopRequest
from abaw.training.nonfinite import NotFinite, discard_report
from abaw.training.optim import Schedule
from abaw.training.replicas import share_buffers
from abaw.training.resume import State, publish_state, read_state
from abaw.training.run import RunFolder
from abaw.training.steps import Batch, BatchSource, LoopSettings, Loss, Steps, step_seed

__all__ = ["Batch", "BatchSource", "FitResult", "LoopSettings", "Loss", "Round", "describe", "fit", "step_seed"]
logger = logging.getLogger(__name__)

Validate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class Round:
    """What happened since the last validation round; `seconds` counts from the start of training."""

    step: int
    steps: int
    loss: float
    parts: dict[str, float]
    metrics: dict[str, float]
    best_score: float | None
    best_step: int
    lr: float
    seconds: float


def describe(done: Round, *, metric: str = "") -> str:
    """A round as one line in a fixed order; `metric` names the key of `metrics` that stands for the score."""
    words = [f"step {done.step}/{done.steps}", f"loss {done.loss:.4f}"]
    if metric in done.metrics and done.best_score is not None:
        best = f"(best {done.best_score:.3f} @ {done.best_step})"
        words.append(f"val {metric} {done.metrics[metric]:.3f} {best}")
    return "  ".join([*words, f"lr {done.lr:.1e}", f"{done.seconds:.1f} s"])


@dataclass(frozen=True)
class FitResult:
    """The end of a training: `best_score` None when nothing was scored; `first_loss`, `last_loss` per round."""

    steps: int
    best_score: float | None
    best_step: int
    first_loss: float
    last_loss: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def fit(
    model: nn.Module,
    *,
    run: RunFolder,
    source: BatchSource,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    settings: LoopSettings,
    header: Mapping[str, Any],
    validate: Validate | None = None,
    report: Callable[[Round], None] = lambda _: None,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> FitResult:
    """Train a model in a run folder, continuing from its resume point where there is one.

    `loss(model, batch)` gives the loss of a piece of a batch and named parts of it for the log. `schedule(step)`
    multiplies the learning rate each parameter group started with. `validate(model)` runs in eval mode and gives
    metrics with the key `score` (higher is better). `header` goes with the weights (see `checkpoint`). `report` gets
    every round, `watch` wraps the sequence of remaining steps (a progress bar). The caller calls `run.finish`.

    Under `torchrun` (after `distributed.join`) every process calls this: the steps' batches are divided, and only the
    first process writes. SIGTERM and SIGINT finish the running step, write resume.pt and raise KeyboardInterrupt.

    Raises AbawError naming step and samples when loss or gradient is not finite (see `nonfinite`).
    """
    steps = Steps(model, source, loss, optimizer, schedule, settings)
    return _Loop(model, run, steps, optimizer, settings, header, validate, report).train(watch)


@dataclass
class _Loop:
    model: nn.Module
    run: RunFolder
    steps: Steps
    optimizer: torch.optim.Optimizer
    settings: LoopSettings
    header: Mapping[str, Any]
    validate: Validate | None
    show: Callable[[Round], None]

    def __post_init__(self) -> None:
        self.state = State()
        self.losses: list[dict[str, float]] = []
        self.average: WeightAverage | None = None
        self.signals = StopRequest(impatient=rank_and_world()[1] == 1)

    def train(self, watch: Callable[[Sequence[int]], Iterable[int]]) -> FitResult:
        with fails_with_others():
            self.run.add_provenance(self.header)
            self._resume()
            try:
                with self.signals, Events(self.run.path / "tensorboard", step=self._next_line()) as self.events:
                    self._run(watch)
            except NotFinite as found:
                with main_first():  # which lets the others fail with the first one
                    self._write_state()
                    raise self.steps.report(found, self.run) from None
        state = vars(self.state)
        return FitResult(self.state.step, **{k: state[k] for k in FitResult.__dataclass_fields__ if k != "steps"})

    def _run(self, watch: Callable[[Sequence[int]], Iterable[int]]) -> None:
        began, settings = time.monotonic() - self.state.seconds, self.settings
        if self.state.round_due:
            self._round()
            self._save()
        steps = range(self.state.step, settings.steps)
        with ThreadPoolExecutor(1) as reader, closing(self.steps):
            self.steps.begin(steps, reader)
            for step in watch(steps):
                losses, stop = self.steps.take(step, stop=self.signals.asked)
                self.losses.append(losses)
                if self.average is not None:
                    self.average.update(step)
                self.state.step, self.state.seconds = step + 1, time.monotonic() - began
                is_last = step + 1 == settings.steps
                self.state.round_due = (step + 1) % settings.validate_every == 0 or is_last
                if stop:
                    self._save()
                    raise KeyboardInterrupt
                if self.state.round_due:
                    self._round()
                    self.state.seconds = time.monotonic() - began
                if (step + 1) % settings.save_every == 0 or is_last:
                    self._save()
        if self.signals.asked:
            raise KeyboardInterrupt

    # -- rounds ----------------------------------------------------------------------------------------------------
    def _round(self) -> None:
        state, metrics = self.state, self._validated()
        names = self.losses[0] if self.losses else {}
        means = {name: float(np.mean([entry[name] for entry in self.losses])) for name in names}
        self.losses, state.round_due = [], False
        state.last_loss = means.pop("loss", math.nan)
        if math.isnan(state.first_loss):
            state.first_loss = state.last_loss
        self._keep_best(metrics.get("score"))
        lr = self.steps.lr
        line = {"step": state.step, "loss": state.last_loss, **means, **{f"val {k}": v for k, v in metrics.items()}}
        line["lr"] = lr
        if is_main():
            state.metrics_bytes = self.run.append_metrics({**line, "seconds": round(state.seconds, 3)})
        self.events.write(state.step, {name: value for name, value in line.items() if name != "step"})
        best = (state.best_score, state.best_step)
        self.show(Round(state.step, self.settings.steps, state.last_loss, means, metrics, *best, lr, state.seconds))

    def _validated(self) -> dict[str, float]:
        """Metrics, equal on all processes; a signal meanwhile leaves a resume point with the round still to come."""
        if self.validate is None:
            return {}
        share_buffers(self.model)
        self.model.eval()
        try:
            with self._averaged(), self.signals.breakable(), torch.inference_mode():
                found = {name: float(value) for name, value in self.validate(self.model).items()}
        except (KeyboardInterrupt, AbawError):  # a face that cannot be read must not cost the training until here
            self._write_state()
            raise
        return from_main(found)

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.applied()

    def _keep_best(self, score: float | None) -> None:
        state, keep = self.state, self.settings.keep
        if keep == "best":
            wanted = score is not None and (state.best_score is None or score > state.best_score)
        else:
            wanted = keep == "last" and state.step == self.settings.steps
        if not wanted:
            return
        state.best_score, state.best_step = score, state.step
        with main_first():
            if is_main():
                with self._averaged():
                    save_checkpoint(self.run.best_path, self.model.state_dict(), {**self.header, "step": state.step})

    # -- the resume point ------------------------------------------------------------------------------------------
    def _save(self) -> None:
        with main_first():
            self._write_state()

    def _write_state(self) -> None:
        if not is_main():
            return
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": dict(vars(self.state)),
            "losses": self.losses,
        }
        if self.average is not None:
            content["average"] = self.average.state_dict()
        publish_state(self.run.resume_path, content)

    def _resume(self) -> None:
        content: dict[str, Any] = {}
        if self.run.resume_path.exists():
            device = next(self.model.parameters()).device
            content = read_state(self.run.resume_path, device, run=self.run.path.name)
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.state, self.losses = State(**content["state"]), list(content["losses"])
            logger.info("continuing %s at step %d of %d", self.run.path, self.state.step, self.settings.steps)
        if self.settings.ema_decay:
            self.average = WeightAverage(self.model, self.settings.ema_decay)
            self.average.load_state_dict(content.get("average", self.average.state_dict()))
        if is_main():
            self.run.cut_metrics(self.state.metrics_bytes)
            discard_report(self.run.path)

    def _next_line(self) -> int:
        """Step of the first validation round to come, at the earliest."""
        return self.state.step + (not self.state.round_due)
