"""Optimizer steps: batches drawn ahead, forward and backward passes, one agreement of all processes, the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from abaw.config import FinetuneConfig, FuseConfig
from abaw.training.device import autocast, rank_and_world
from abaw.training.distributed import piece_size, sums
from abaw.training.nonfinite import NotFinite, report
from abaw.training.optim import Schedule
from abaw.training.replicas import replicate
from abaw.training.run import RunFolder

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Mapping[str, Tensor]]]


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
    `ema_decay`: validate and keep a running average of the weights with this decay (0 = the weights themselves);
    `compile`: run the training passes through torch.compile.
    """

    steps: int
    seed: int = 0
    accumulate: int = 1
    clip_norm: float = 0.0
    precision: str = "fp32"
    validate_every: int = 100
    save_every: int = 100
    keep: str = "best"
    ema_decay: float = 0.0
    compile: bool = False


def loop_settings(table: FinetuneConfig | FuseConfig, *, seed: int, precision: str, keep: str = "best") -> LoopSettings:
    """The settings of a stage's table that are the loop's; resume points are written with the rounds."""
    return LoopSettings(
        steps=table.steps,
        seed=seed,
        accumulate=table.accumulate,
        clip_norm=table.clip_norm,
        precision=precision,
        validate_every=table.validate_every,
        save_every=table.validate_every,
        keep=keep,
        ema_decay=table.ema_decay,
        compile=table.compile,
    )


class Steps:
    """The steps of a training, each a function of its number and of the state of model and optimizer."""

    def __init__(
        self,
        model: nn.Module,
        source: BatchSource,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        settings: LoopSettings,
    ) -> None:
        self._model, self._source, self._loss = model, source, loss
        self._optimizer, self._schedule, self._settings = optimizer, schedule, settings
        self._device = next(model.parameters()).device
        self._rank, self._world = rank_and_world()
        self._parts = settings.accumulate * self._world
        self._drawn: Generator[Batch, None, None] | None = None
        self._base_lr = [group["lr"] for group in optimizer.param_groups]
        self._trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]

    @property
    def lr(self) -> float:
        """The highest learning rate of the last step."""
        return max(group["lr"] for group in self._optimizer.param_groups)

    def begin(self, steps: range, reader: ThreadPoolExecutor) -> None:
        """Get ready for these steps: compile and replicate the model, and draw batches in the reader's thread.

        Raises AbawError when a batch cannot be cut into equal pieces.
        """
        if steps and self._parts > 1:
            counts = [len(self._source.sample_ids(steps[0], part, self._parts)) for part in range(self._parts)]
            piece_size(sum(counts), self._settings.accumulate, where="batch_size and accumulate of the stage")
        self._forward = self._wrapped(steps)
        self._drawn = self._draw(steps, reader)

    def close(self) -> None:
        """Let go of what draws the batches: a generator that is not closed keeps this object, and files, open."""
        if self._drawn is not None:
            self._drawn.close()

    def _wrapped(self, steps: range) -> nn.Module:
        """The model as the loss calls it, which shares its weights with the one that is saved."""
        model = cast(nn.Module, torch.compile(self._model)) if self._settings.compile else self._model
        if self._world == 1 or not steps:
            return model
        self._model.train()
        batch = self._moved(self._source.batch(steps[0], self._rank, self._parts))

        def trial(module: nn.Module) -> Tensor:
            with autocast(self._device, self._settings.precision):
                return self._loss(module, batch)[0]

        return replicate(model, trial)

    def _draw(self, steps: range, reader: ThreadPoolExecutor) -> Generator[Batch, None, None]:
        """Batches in order; for a GPU the next one is read while the model works on the last.

        On a CPU the model wants every core: measured with two, a reader beside it costs more than it gains.
        """
        passes = range(self._settings.accumulate)
        places = [(step, micro * self._world + self._rank) for step in steps for micro in passes]
        ahead = self._device.type != "cpu"
        following: Future[Batch] | None = None
        for number, place in enumerate(places):
            batch = following.result() if following else self._source.batch(*place, self._parts)
            coming = places[number + 1] if ahead and number + 1 < len(places) else None
            following = reader.submit(self._source.batch, *coming, self._parts) if coming else None
            yield batch

    def _moved(self, batch: Batch) -> Batch:
        return {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}

    def take(self, step: int, *, stop: bool) -> tuple[dict[str, float], bool]:
        """Take the next step; returns the losses of the whole batch, and whether any process wants to `stop`.

        Raises NotFinite, with the gradients in place and the weights as they were.
        """
        self._model.train()
        torch.manual_seed(step_seed(self._settings.seed, step, self._rank))
        factor = self._schedule(step)
        for group, lr in zip(self._optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = lr * factor
        self._optimizer.zero_grad(set_to_none=True)
        buffers = [value.clone() for value in self._model.buffers()]
        own = self._passes()
        total = sums({"": float(stop), **own})
        wanted = total.pop("") > 0
        losses = {name: value / self._world for name, value in total.items()}
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._trainable if p.grad is not None])
        if not (math.isfinite(losses["loss"]) and math.isfinite(float(norm))):
            for value, before in zip(self._model.buffers(), buffers, strict=True):
                value.copy_(before)  # running statistics have seen the bad batch
            raise NotFinite(step, losses, float(norm))
        if self._settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self._trainable, self._settings.clip_norm, norm)
        self._optimizer.step()
        return losses, wanted

    def _passes(self) -> dict[str, float]:
        """Leave the step's gradient in the parameters; returns the loss and its parts on this process."""
        accumulate, losses = self._settings.accumulate, dict[str, float]()
        assert self._drawn is not None, "begin comes first"
        for micro in range(accumulate):
            batch = self._moved(next(self._drawn))
            with self._exchange(last=micro + 1 == accumulate):
                with autocast(self._device, self._settings.precision):
                    value, parts = self._loss(self._forward, batch)
                (value / accumulate).backward()
            for name, part in {"loss": value.detach(), **parts}.items():
                losses[name] = losses.get(name, 0.0) + float(part) / accumulate
        return losses

    def _exchange(self, *, last: bool) -> AbstractContextManager[None]:
        """Context of a pass; the processes exchange gradients in the last one of a step."""
        if last or not isinstance(self._forward, DistributedDataParallel):
            return nullcontext()
        return self._forward.no_sync()

    def report(self, found: NotFinite, run: RunFolder) -> Exception:
        """Write what a step that could not be taken was made of; returns the error to raise."""
        parts = range(self._parts)
        pieces = [self._source.batch(found.step, part, self._parts) for part in parts]
        names = [name for part in parts for name in self._source.sample_ids(found.step, part, self._parts)]
        return report(run.path, found, self._model, pieces, names)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of dropout and drop path for a step on one process."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
