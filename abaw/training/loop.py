"""`fit`: the one training loop, of `pretrain`, `finetune` and `fuse`.

All randomness is a function of (seed, step, sample or rank), so a run that is killed at any step and started again
ends with the same weights, bit for bit, on the same device with the same number of threads.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from abaw.checkpoint import save_checkpoint
from abaw.errors import AbawError
from abaw.publish import publish
from abaw.training.device import autocast, rank_and_world
from abaw.training.optim import Schedule
from abaw.training.run import RunFolder

logger = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Mapping[str, Tensor]]]
Validate = Callable[[nn.Module], Mapping[str, float]]
# What torch's file writer says when a write fails (a full disk, a quota, a folder that went away).
WRITE_FAILURES = ("inline_container", "failed writing", "No space", "Parent directory")


class BatchSource(Protocol):
    """Where batches come from. A step's samples are cut into `parts` equal pieces; `part` counts them from 0."""

    def batch(self, step: int, part: int, parts: int) -> Batch:
        """Tensors of one piece: a function of its arguments alone."""

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        """Names of the samples of one piece, for messages."""


@dataclass(frozen=True)
class LoopSettings:
    """How long and how to train. Steps are optimizer steps.

    `accumulate`: forward passes per step; `clip_norm`: largest gradient norm (0 = no clipping); `validate_every`,
    `save_every`: steps between validation rounds (and log lines) and between resume points; `keep`: which weights
    become best.safetensors, those with the highest `score` of `validate` ("best") or the final ones ("last").
    """

    steps: int
    seed: int = 0
    accumulate: int = 1
    clip_norm: float = 0.0
    precision: str = "fp32"
    validate_every: int = 100
    save_every: int = 100
    keep: str = "best"


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


@dataclass
class _State:
    """All of a training that is neither weights nor optimizer; plain values, saved in resume.pt."""

    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    first_loss: float = math.nan
    last_loss: float = math.nan
    seconds: float = 0.0
    metrics_bytes: int = 0


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

    Raises AbawError naming step and samples when loss or gradient is not finite.
    """
    return _Loop(model, run, source, loss, optimizer, schedule, settings, header, validate, report).train(watch)


@dataclass
class _Loop:
    model: nn.Module
    run: RunFolder
    source: BatchSource
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    settings: LoopSettings
    header: Mapping[str, Any]
    validate: Validate | None
    report: Callable[[Round], None]

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.rank, self.world = rank_and_world()
        self.state = _State()
        self.losses: list[dict[str, float]] = []
        self.base_lr = [group["lr"] for group in self.optimizer.param_groups]

    def train(self, watch: Callable[[Sequence[int]], Iterable[int]]) -> FitResult:
        self.run.add_provenance(self.header)
        self._resume()
        began = time.monotonic() - self.state.seconds
        steps = range(self.state.step, self.settings.steps)
        with ThreadPoolExecutor(1) as reader:
            drawn = self._drawn(steps, reader)
            for step in watch(steps):
                self._step(step, drawn)
                self.state.step, self.state.seconds = step + 1, time.monotonic() - began
                is_last = step + 1 == self.settings.steps
                if (step + 1) % self.settings.validate_every == 0 or is_last:
                    self._round()
                    self.state.seconds = time.monotonic() - began
                if (step + 1) % self.settings.save_every == 0 or is_last:
                    self._save()
        state = vars(self.state)
        return FitResult(self.state.step, **{k: state[k] for k in FitResult.__dataclass_fields__ if k != "steps"})

    def _drawn(self, steps: range, reader: ThreadPoolExecutor) -> Iterator[Batch]:
        """Batches in order; the next one is read while the model works on the last."""
        parts = self.settings.accumulate * self.world
        places = [(s, micro * self.world + self.rank) for s in steps for micro in range(self.settings.accumulate)]
        following: Future[Batch] | None = None
        for number, place in enumerate(places):
            current = following or reader.submit(self.source.batch, *place, parts)
            batch = current.result()
            coming = places[number + 1] if number + 1 < len(places) else None
            following = reader.submit(self.source.batch, *coming, parts) if coming else None
            yield batch

    def _step(self, step: int, drawn: Iterator[Batch]) -> None:
        self.model.train()
        torch.manual_seed(step_seed(self.settings.seed, step, self.rank))
        factor = self.schedule(step)
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        logged: dict[str, float] = {}
        for _ in range(self.settings.accumulate):
            batch = {name: value.to(self.device, non_blocking=True) for name, value in next(drawn).items()}
            with autocast(self.device, self.settings.precision):
                value, parts = self.loss(self.model, batch)
            (value / self.settings.accumulate).backward()
            for name, part in {"loss": value.detach(), **parts}.items():
                logged[name] = logged.get(name, 0.0) + float(part) / self.settings.accumulate
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm or math.inf)
        if not (math.isfinite(logged["loss"]) and math.isfinite(float(norm))):
            self._stop(step, logged, float(norm))
        self.optimizer.step()
        self.losses.append(logged)

    def _stop(self, step: int, logged: dict[str, float], norm: float) -> None:
        parts = self.settings.accumulate * self.world
        pieces = [micro * self.world + self.rank for micro in range(self.settings.accumulate)]
        names = [name for piece in pieces for name in self.source.sample_ids(step, piece, parts)]
        shown = ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
        values = ", ".join(f"{name} {value:.4g}" for name, value in logged.items())
        raise AbawError(
            f"training stopped at step {step}: {values}, gradient norm {norm:.4g}",
            where=f"{self.run.path}, samples {shown}",
            fix='lower the learning rate, set clip_norm = 1.0, or use precision = "fp32"; then run again: it '
            "continues before this step",
        )

    def _round(self) -> None:
        state, settings = self.state, self.settings
        names = self.losses[0] if self.losses else {}
        means = {name: float(np.mean([entry[name] for entry in self.losses])) for name in names}
        self.losses = []
        state.last_loss = means.pop("loss", math.nan)
        if math.isnan(state.first_loss):
            state.first_loss = state.last_loss
        metrics = self._validated()
        score = metrics.get("score")
        if settings.keep == "best" and score is not None:
            if state.best_score is None or score > state.best_score:
                state.best_score, state.best_step = score, state.step
                self._publish_weights()
        elif settings.keep == "last" and state.step == settings.steps:
            state.best_score, state.best_step = score, state.step
            self._publish_weights()
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        line = {"step": state.step, "loss": state.last_loss, **means, **{f"val {k}": v for k, v in metrics.items()}}
        state.metrics_bytes = self.run.append_metrics({**line, "lr": lr, "seconds": round(state.seconds, 3)})
        best = (state.best_score, state.best_step)
        self.report(Round(state.step, settings.steps, state.last_loss, means, metrics, *best, lr, state.seconds))

    def _validated(self) -> dict[str, float]:
        if self.validate is None:
            return {}
        self.model.eval()
        with torch.inference_mode():
            return {name: float(value) for name, value in self.validate(self.model).items()}

    def _publish_weights(self) -> None:
        if self.rank == 0:
            header = {**self.header, "step": self.state.step}
            save_checkpoint(self.run.best_path, self.model.state_dict(), header)

    def _save(self) -> None:
        if self.rank != 0:
            return
        content = {
            "model": _on_cpu(self.model.state_dict()),
            "optimizer": _on_cpu(self.optimizer.state_dict()),
            "state": dict(vars(self.state)),
            "losses": self.losses,
            "threads": torch.get_num_threads(),
        }
        publish(self.run.resume_path, partial(write_state, content))

    def _resume(self) -> None:
        path = self.run.resume_path
        if not path.exists():
            self.run.cut_metrics(0)
            return
        try:
            content = torch.load(path, map_location=self.device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
            raise AbawError(
                f"resume point of run {self.run.path.name} cannot be read ({str(error).splitlines()[0]})",
                where=str(path),
                fix=f"delete {path}: the run then starts from its beginning",
            ) from error
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.state, self.losses = _State(**content["state"]), list(content["losses"])
        self.run.cut_metrics(self.state.metrics_bytes)
        logger.info("continuing %s at step %d of %d", self.run.path, self.state.step, self.settings.steps)
        if content["threads"] != torch.get_num_threads():
            logger.warning(
                "this run used %d torch threads before and uses %d now: the last bits of its weights will differ",
                content["threads"],
                torch.get_num_threads(),
            )


def write_state(content: Mapping[str, Any], path: Path) -> None:
    """Save a resume point. Raises OSError when the file cannot be written, which torch words as a RuntimeError."""
    try:
        torch.save(content, path)
    except RuntimeError as error:
        if not any(words in str(error) for words in WRITE_FAILURES):
            raise
        raise OSError(str(error).splitlines()[0]) from error


def _on_cpu(value: Any) -> Any:
    """The same nested state with its tensors in main memory, so that a failing device is not taken for a full disk."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(part) for part in value)
    return value


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of dropout and drop path for a step on one process."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
