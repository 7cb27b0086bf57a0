"""A tiny training run with dropout, for tests of the loop; `python -m tests.unit.training.tiny_run FOLDER` runs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from abaw.training.batches import SampleOrder
from abaw.training.loop import FitResult, LoopSettings, Round, fit
from abaw.training.optim import adamw, half_cosine, parameter_groups
from abaw.training.run import RunFolder

STEPS = 12
SETTINGS = LoopSettings(steps=STEPS, seed=5, clip_norm=1.0, validate_every=4, save_every=3)


class Points:
    """Sixty points of a line with noise; `poison`: the step from which a NaN appears; `calls` counts batches."""

    def __init__(self, *, poison: int = STEPS + 1) -> None:
        self.order, self.poison = SampleOrder(60, 8, seed=5), poison
        self.x = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        rows = np.array_split(self.order.at(step), parts)[part]
        x = torch.from_numpy(self.x[rows])
        return {"x": x, "target": x.sum(1, keepdim=True) * (np.nan if step >= self.poison else 1.0)}

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        return [f"point{row}" for row in np.array_split(self.order.at(step), parts)[part]]


def squared(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    loss = ((model(batch["x"]) - batch["target"]) ** 2).mean()
    return loss, {"half": loss.detach() / 2}


def train(
    folder: Path,
    *,
    source: Points | None = None,
    settings: LoopSettings = SETTINGS,
    on_step: Callable[[int], None] = lambda _: None,
    report: Callable[[Round], None] = lambda _: None,
) -> tuple[nn.Module, FitResult]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 1))
    source = source or Points()

    def watch(steps):
        for step in steps:
            on_step(step)
            yield step

    result = fit(
        model,
        run=RunFolder.start(folder, stage="test", settings={"steps": settings.steps}, inputs={}),
        source=source,
        loss=squared,
        optimizer=adamw(parameter_groups(model, lr=1e-2, weight_decay=0.01)),
        schedule=half_cosine(settings.steps, warmup=2),
        settings=settings,
        header={"kind": "test"},
        validate=lambda m: {"score": -float(squared(m, source.batch(0, 0, 1))[0])},
        report=report,
        watch=watch,
    )
    return model, result


def kill_at(step: int) -> Callable[[int], None]:
    def kill(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def half_batches(settings: LoopSettings = SETTINGS) -> LoopSettings:
    return replace(settings, accumulate=2)


if __name__ == "__main__":
    train(Path(sys.argv[1]), on_step=kill_at(int(sys.argv[2])))
