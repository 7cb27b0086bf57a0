"""Tiny training runs, for tests of the loop.

`python -m tests.unit.training.tiny_run FOLDER NAME:STEP ...` starts the named runs and kills each at its step.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from abaw.models.fusion import DualBranch
from abaw.models.losses import LossSettings
from abaw.models.vit import VisionTransformer
from abaw.tasks import TASKS, Problem
from abaw.training.batches import SampleOrder
from abaw.training.distributed import gather_rows
from abaw.training.dual import DualBatches, FirstShare, dual_objective
from abaw.training.loop import FitResult, LoopSettings, Loss, Round, fit
from abaw.training.objective import task_objective
from abaw.training.optim import adamw, half_cosine, parameter_groups
from abaw.training.run import RunFolder

STEPS = 12
SETTINGS = LoopSettings(steps=STEPS, seed=5, clip_norm=1.0, validate_every=4, save_every=3)


class Points:
    """Sixty points of a line; `poison`: the step from which a NaN appears; `shape`: that of one input."""

    def __init__(self, *, poison: int = STEPS + 1, shape: tuple[int, ...] = (4,)) -> None:
        self.order, self.poison = SampleOrder(60, 12, seed=5), poison
        self.x = np.random.default_rng(1).normal(size=(60, *shape)).astype(np.float32)

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        rows = np.array_split(self.order.at(step), parts)[part]
        x = torch.from_numpy(self.x[rows])
        target = x.flatten(1)[:, :4].sum(1, keepdim=True)
        return {"x": x, "target": target * (np.nan if step >= self.poison else 1.0)}

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        return [f"point{row}" for row in np.array_split(self.order.at(step), parts)[part]]


class Rows(Points):
    """The points with sparse labels of every head of the multi-task problem, as `task_objective` wants them."""

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        batch = super().batch(step, part, parts)
        for number, head in enumerate(TASKS["mtl"].heads):
            values = (batch["x"].repeat(1, 3)[:, : head.target_dim] + number).sin()
            batch[f"{head.name}.values"] = {
                Problem.MULTICLASS: (values * 3).abs().floor(),
                Problem.MULTILABEL: (values > 0).float(),
                Problem.REGRESSION: values,
            }[head.problem]
            batch[f"{head.name}.mask"] = (values * 7).sin() > -0.2 * number
        return batch


class Pairs(Rows):
    """The same rows as windows of one row, each paired with another one for a second branch."""

    def __init__(self, *, shape: tuple[int, ...] = (4,)) -> None:
        super().__init__(shape=shape)
        full, hard = OneRow(), OneRow()
        hard.order = SampleOrder(60, 12, seed=9)
        self.pairs = DualBatches(full, hard, FirstShare(5))

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        return {**super().batch(step, part, parts), **self.pairs.batch(step, part, parts)}


class OneRow(Rows):
    """Windows of a single row."""

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        found = super().batch(step, part, parts)
        real = torch.ones(len(found["x"]), 1, dtype=torch.bool)
        labels = {name: value[:, None] for name, value in found.items() if "." in name}
        return {"features": found["x"][:, None], "present": real[..., None], "rows": real, **labels}


def squared(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    loss = ((model(batch["x"]) - batch["target"]) ** 2).mean()
    return loss, {"half": loss.detach() / 2}


def agreement(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """1 - CCC, which is not a mean over samples: it needs the rows of all processes."""
    found, wanted = gather_rows(model(batch["x"])), gather_rows(batch["target"])
    both = ((found - found.mean()) * (wanted - wanted.mean())).mean()
    spread = found.var(correction=0) + wanted.var(correction=0) + (found.mean() - wanted.mean()) ** 2
    return 1 - 2 * both / spread, {}


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 1))


class Heads(nn.Module):
    """Logits of every head of the multi-task problem."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({head.name: nn.Linear(4, head.output_dim) for head in TASKS["mtl"].heads})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: head(x) for name, head in self.heads.items()}


class Branch(Heads):
    """The same for windows."""

    def forward(self, features: Tensor, present: Tensor | None, rows: Tensor | None) -> dict[str, Tensor]:
        return super().forward(features)


class TwoBranches(DualBranch):
    """A frozen and a trained branch without batch normalisation, whose statistics would be those of a piece."""

    def __init__(self) -> None:
        super().__init__(Branch(), Branch(), test_mix=0.8)

    def forward(self, features: Tensor, present: Tensor | None = None, rows: Tensor | None = None, *hard: Tensor):
        return super().forward(features, present, rows, *hard)


def line() -> nn.Module:
    return nn.Linear(4, 1)


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))


class Partial(nn.Module):
    """A model with a frozen layer and one that no pass uses."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.frozen, self.unused = plain(), nn.Linear(4, 4), nn.Linear(3, 3)
        self.frozen.requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(self.frozen(x))


def transformer() -> nn.Module:
    shape = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 1}
    return VisionTransformer(**shape, drop_rate=0.1, proj_drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.3)


@dataclass(frozen=True)
class Case:
    """What to train, and how."""

    net: Callable[[], nn.Module] = normed
    settings: LoopSettings = SETTINGS
    shape: tuple[int, ...] = (4,)
    loss: Loss = squared
    source: type[Points] = Points


WEIGHTS = {"expr": LossSettings(weight=(1.0, 2.0, 3.0, 0.5, 1.0, 1.0, 1.0, 1.0)), "va": LossSettings(mse=0.1)}
OBJECTIVE = task_objective(TASKS["mtl"], WEIGHTS, inputs=("x",))
DUAL = dual_objective(TASKS["mtl"], WEIGHTS, au_scale=10.0)
HALVES = replace(SETTINGS, accumulate=2)
CASES = {
    "normed": Case(),
    "halves": Case(settings=HALVES),
    "averaged": Case(settings=replace(SETTINGS, ema_decay=0.9)),
    "transformer": Case(transformer, shape=(3, 16, 16)),
    "bf16": Case(transformer, replace(HALVES, precision="bf16", ema_decay=0.9, keep="last"), (3, 16, 16)),
    "plain": Case(plain),
    "plain halves": Case(plain, HALVES),
    "plain averaged": Case(plain, replace(SETTINGS, ema_decay=0.9)),
    "agreement": Case(plain, loss=agreement),
    "agreement halves": Case(plain, HALVES, loss=agreement),
    "partial": Case(Partial),
    "objective": Case(Heads, loss=OBJECTIVE, source=Rows),
    "objective halves": Case(Heads, HALVES, loss=OBJECTIVE, source=Rows),
    "dual": Case(TwoBranches, loss=DUAL, source=Pairs),
    "dual halves": Case(TwoBranches, HALVES, loss=DUAL, source=Pairs),
    "line": Case(line),
    "compiled": Case(line, replace(SETTINGS, compile=True)),
}


def train(
    folder: Path,
    case: Case = Case(),
    *,
    source: Points | None = None,
    on_step: Callable[[int], None] = lambda _: None,
    on_validate: Callable[[], None] = lambda: None,
    report: Callable[[Round], None] = lambda _: None,
) -> tuple[nn.Module, FitResult]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, settings = case.net(), case.settings
    source = source or case.source(shape=case.shape)

    def watch(steps):
        for step in steps:
            on_step(step)
            yield step

    def validate(model: nn.Module) -> dict[str, float]:
        on_validate()
        batch = source.batch(0, 0, 1)
        found = model(batch["x"])
        values = found if isinstance(found, Tensor) else torch.cat(list(found.values()), 1)
        return {"score": -float(((values.mean(1, keepdim=True) - batch["target"]) ** 2).mean())}

    result = fit(
        model,
        run=RunFolder.start(folder, stage="test", settings={"steps": settings.steps}, inputs={}),
        source=source,
        loss=case.loss,
        optimizer=adamw(parameter_groups(model, lr=1e-2, weight_decay=0.01)),
        schedule=half_cosine(settings.steps, warmup=2),
        settings=settings,
        header={"kind": "test"},
        validate=validate,
        report=report,
        watch=watch,
    )
    return model, result


def at_step(step: int, number: int = signal.SIGKILL) -> Callable[[int], None]:
    """Send this process a signal at a step."""

    def kill(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), number)

    return kill


def main() -> None:
    for word in sys.argv[2:]:
        name, _, step = word.rpartition(":")
        child = os.fork()
        if child == 0:
            train(Path(sys.argv[1]) / f"{name}-{step}", CASES[name], on_step=at_step(int(step)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


if __name__ == "__main__":
    main()
