"""What the benchmarks of training share: `fit` timed by its steps, and a bare loop that feeds a model from memory."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from abaw.models.vit import FaceEncoder, VitPreset
from abaw.training.device import autocast
from abaw.training.loop import LoopSettings, Loss, fit
from abaw.training.run import RunFolder
from abaw.training.steps import BatchSource

CLIP_NORM = 1.0
LR = 1e-4


def synchronise(device: torch.device) -> None:
    """Wait for a GPU to finish what it was given, so that a clock says something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Seconds of the steps of a loop, without the first `warm` ones and without what follows the last."""

    def __init__(self, device: torch.device, *, warm: int) -> None:
        self.device, self.warm, self.times = device, warm, list[float]()

    def __call__(self, steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            self._read()
            yield step

    def _read(self) -> None:
        synchronise(self.device)
        self.times.append(time.perf_counter())

    @property
    def step_s(self) -> float:
        """Mean seconds of a step, between the start of the first counted and the start of the last."""
        counted = self.times[self.warm :]
        return (counted[-1] - counted[0]) / (len(counted) - 1)


def timed_fit(
    model: nn.Module,
    source: BatchSource,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    warm: int,
    precision: str,
    work: Path | None,
) -> tuple[float, float]:
    """Seconds of a step of `fit`, and of writing a resume point and the weights, which are not among them."""
    clock = Clock(next(model.parameters()).device, warm=warm)
    settings = LoopSettings(steps=steps, clip_norm=CLIP_NORM, precision=precision, validate_every=steps, keep="last")
    with tempfile.TemporaryDirectory(dir=work) as name:
        run = RunFolder.start(Path(name) / "run", stage="bench", settings={}, inputs={})
        fit(
            model,
            run=run,
            source=source,
            loss=loss,
            optimizer=optimizer,
            schedule=lambda _: 1.0,
            settings=settings,
            header={},
            watch=clock,
        )
        saving = time.perf_counter() - clock.times[-1] - clock.step_s
    return clock.step_s, saving


def timed_bare(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    loss: Callable[[nn.Module, Mapping[str, Tensor]], tuple[Tensor, object]],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    warm: int,
    precision: str,
) -> float:
    """Seconds of a step of forward, backward, clipping and update over batches that lie ready on the device."""
    device = next(model.parameters()).device
    clock = Clock(device, warm=warm)
    model.train()
    for _, batch in zip(clock(range(steps)), itertools.cycle(batches), strict=False):
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            value, _ = loss(model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
    return clock.step_s


def unit_classifier(preset: VitPreset) -> nn.Module:
    """The static model of action units: mean-pooled encoder and a linear head, without what tasks need to import."""
    return nn.Sequential(FaceEncoder(preset, pool="avg", drop_path=0.1), nn.Linear(preset.width, 12))


def label_batches(size: int, device: torch.device, *, count: int) -> list[dict[str, Tensor]]:
    """Batches of noise at 224 pixels with random action units, on the device."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(size, 3, 224, 224, generator=generator) for _ in range(count)]
    units = [torch.rand(size, 12, generator=generator).round() for _ in range(count)]
    return [{"images": x.to(device), "units": y.to(device)} for x, y in zip(images, units, strict=True)]


def label_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross entropy of twelve action units."""
    return nn.functional.binary_cross_entropy_with_logits(model(batch["images"]).float(), batch["units"]), {}


def mask_batches(size: int, device: torch.device, *, count: int) -> list[dict[str, Tensor]]:
    """Batches of noise at 224 pixels with mask noise of 196 patches, on the device."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(size, 3, 224, 224, generator=generator) for _ in range(count)]
    noise = [torch.rand(size, 196, generator=generator) for _ in range(count)]
    return [{"images": x.to(device), "noise": y.to(device)} for x, y in zip(images, noise, strict=True)]


def reconstruction_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of a masked autoencoder, as `pretrain` computes it."""
    loss, _, _ = model(batch["images"], batch["noise"])
    return loss, {}


class FromMemory:
    """Source of `fit` over batches that lie ready on the device."""

    def __init__(self, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self.batches = batches

    def batch(self, step: int, part: int, parts: int) -> Mapping[str, Tensor]:
        return self.batches[step % len(self.batches)]

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        return [f"batch {step % len(self.batches)}"]
