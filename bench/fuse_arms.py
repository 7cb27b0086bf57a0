"""What the benchmarks of `fuse` share: opening stores, windows a second, training steps and scoring, each timed.

Every function runs in a process of its own where its memory or its first opening is what is measured.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from abaw.data.windows import FeatureStreams, cut
from abaw.models.fusion import FusionModel, FusionOptions
from abaw.models.heads import logits_to_scores
from abaw.models.losses import LossSettings
from abaw.tasks import TASKS
from abaw.training.batches import SampleOrder
from abaw.training.device import autocast, keep_freed_memory
from abaw.training.objective import task_objective
from abaw.training.optim import adamw, parameter_groups
from abaw.training.windows import WindowBatches, labelled_windows, score_tracks
from bench.fuse_store import DIMS, Stores, random_labels
from bench.training_arms import FromMemory, synchronise, timed_fit

WINDOW, BATCH = 100, 32
CORES = 2
INPUTS = ("features", "present", "rows")
MB = 2**20


def peak_mb() -> float:
    """Largest resident memory of this process so far. Not ru_maxrss, which a process inherits from its parent."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def use_two_cores() -> None:
    """What the limits are for; for a process of its own, before it starts any thread of torch."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)


def read_pages(stores: Stores) -> None:
    """Read every file once, so that the system has its pages: some give back what lay idle for a minute."""
    for folder in (stores.visual, stores.audio):
        for name in stores.lengths:
            with (folder / f"{name}.h5").open("rb") as file:
                while file.read(1 << 22):
                    pass


def opening_seconds(stores: Stores) -> float:
    """Open both stores, check that they have all tracks with the same rows, read which rows hold data."""
    logging.disable(logging.WARNING)  # random features have no alignment
    read_pages(stores)
    start = time.perf_counter()
    streams = FeatureStreams(*stores.paths, gap="hold")
    streams.check(list(stores.lengths))
    for track_id in stores.lengths:
        streams.valid(track_id)
    return time.perf_counter() - start


def window_rates(stores: Stores, steps: int, passes: int, *, cached: bool) -> list[float]:
    """Windows of both streams a second, as one reader makes batches of them; fresh random windows in every pass.

    ``cached``: with every file open and its pages in memory; else the first pass finds neither.
    """
    logging.disable(logging.WARNING)
    keep_freed_memory()
    streams = FeatureStreams(*stores.paths, gap="hold")
    source = window_source(stores, streams)
    if cached:
        for track_id in stores.lengths:
            streams.valid(track_id)
        read_pages(stores)
    return [_rate(source, range(number * steps, (number + 1) * steps)) for number in range(passes)]


def window_source(stores: Stores, streams: FeatureStreams, tracks: Sequence[str] = ()) -> WindowBatches:
    """Batches of training windows of all tracks, or of these, in random order."""
    labels = random_labels({name: stores.lengths[name] for name in tracks or stores.lengths})
    windows = labelled_windows(labels, window=WINDOW, stride=WINDOW)
    return WindowBatches(streams, windows, labels, SampleOrder(len(windows), BATCH, seed=0), WINDOW)


def _rate(source: WindowBatches, steps: range) -> float:
    start = time.perf_counter()
    for step in steps:
        source.batch(step, 0, 1)
    return len(steps) * BATCH / (time.perf_counter() - start)


class TimedSource:
    """A source of `fit` that notes how long each batch took to make."""

    def __init__(self, source: WindowBatches) -> None:
        self.source, self.seconds = source, list[float]()

    def batch(self, step: int, part: int, parts: int) -> Mapping[str, Tensor]:
        start = time.perf_counter()
        batch = self.source.batch(step, part, parts)
        self.seconds.append(time.perf_counter() - start)
        return batch

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        return self.source.sample_ids(step, part, parts)


class FuseArm:
    """The preset `netease` for valence and arousal on one device; each method takes a turn."""

    def __init__(self, device: torch.device, *, precision: str, work: Path | None) -> None:
        logging.disable(logging.WARNING)
        keep_freed_memory()
        torch.manual_seed(0)
        self.device, self.precision, self.work = device, precision, work
        self.task = TASKS["va"]
        self.model = FusionModel(self.task, FusionOptions("netease", tuple(DIMS.values()), dropout=0.3)).to(device)
        self.optimizer = adamw(parameter_groups(self.model, lr=5e-5, weight_decay=0.05))
        self.loss = task_objective(self.task, {"va": LossSettings(reduce="sum")}, inputs=INPUTS)

    def step_seconds(self, source: Any, *, steps: int, warm: int) -> float:
        """Seconds of a step of `fit`."""
        parts = (self.model, source, self.loss, self.optimizer)
        return timed_fit(*parts, steps=steps, warm=warm, precision=self.precision, work=self.work)[0]

    def random_batches(self, count: int) -> FromMemory:
        """Batches that lie ready on the device, labels included."""
        shape = (BATCH, WINDOW)
        batches = [
            {
                "features": torch.randn(*shape, sum(DIMS.values())).half(),
                "present": torch.ones(*shape, len(DIMS), dtype=torch.bool),
                "rows": torch.ones(shape, dtype=torch.bool),
                "va.values": torch.rand(*shape, 2) * 2 - 1,
                "va.mask": torch.ones(*shape, 2, dtype=torch.bool),
            }
            for _ in range(count)
        ]
        return FromMemory([{name: value.to(self.device) for name, value in batch.items()} for batch in batches])

    @torch.inference_mode()
    def bare_scoring_seconds(self, batches: Sequence[Mapping[str, Tensor]]) -> float:
        """Forward passes over batches that lie ready on the device."""
        self.model.eval()
        synchronise(self.device)
        start = time.perf_counter()
        for batch in batches:
            with autocast(self.device, self.precision):
                self.model(*(batch[name] for name in INPUTS))
        synchronise(self.device)
        return time.perf_counter() - start

    def scoring_seconds(self, streams: FeatureStreams, track_ids: Sequence[str]) -> float:
        """`score_tracks` from the stores to scores of rows."""
        self.model.eval()
        start = time.perf_counter()
        shape = {"length": WINDOW, "stride": WINDOW, "batch_size": BATCH}
        for _ in score_tracks(streams, track_ids, self._score, **shape, ahead=self.device.type != "cpu"):
            pass
        return time.perf_counter() - start

    def scored_batches(self, streams: FeatureStreams, track_ids: Sequence[str]) -> list[dict[str, Tensor]]:
        """The batches that `scoring_seconds` scores, on the device."""
        batches: list[dict[str, Tensor]] = []

        def keep(batch: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
            batches.append({name: value.to(self.device) for name, value in batch.items()})
            return {"va": np.zeros((BATCH, WINDOW, 2), np.float32)}

        for _ in score_tracks(streams, track_ids, keep, length=WINDOW, stride=WINDOW, batch_size=BATCH):
            pass
        return batches

    @torch.inference_mode()
    def _score(self, batch: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        moved = [batch[name].to(self.device) for name in INPUTS]
        with autocast(self.device, self.precision):
            logits = self.model(*moved)
        return {name: value.cpu().numpy() for name, value in logits_to_scores(self.task.heads, logits).items()}


def training(stores: Stores, steps: int, warm: int, turns: int, work: Path | None) -> dict[str, Any]:
    """Steps of a quarter of the tracks and of all in turn, share of them spent on batches, memory above the model's."""
    use_two_cores()
    arm = FuseArm(torch.device("cpu"), precision="fp32", work=work)
    arm.step_seconds(arm.random_batches(2), steps=4, warm=1)
    gc.collect()
    model_mb = peak_mb()
    streams = FeatureStreams(*stores.paths, gap="hold")
    streams.check(list(stores.lengths))
    names = list(stores.lengths)
    start = time.perf_counter()
    streams.statistics(names)
    found: dict[str, Any] = {"statistics_s": time.perf_counter() - start, "quarter_s": [], "whole_s": [], "share": []}
    sources = {"quarter": window_source(stores, streams, names[::4]), "whole": window_source(stores, streams)}
    for _ in range(turns):
        for name, source in sources.items():
            read_pages(stores)
            timed = TimedSource(source)
            step_s = arm.step_seconds(timed, steps=steps, warm=warm)
            found[f"{name}_s"].append(step_s)
            if name == "whole":
                found["share"].append(float(np.mean(timed.seconds[warm:-1])) / step_s)
    longest = max(names, key=lambda name: stores.lengths[name])
    arm.scoring_seconds(streams, [longest])
    rows = {name: sum(stores.lengths[track] for track in source.labels) for name, source in sources.items()}
    windows = {name: len(source.windows) for name, source in sources.items()}
    return {**found, "model_mb": model_mb, "peak_mb": peak_mb(), "rows": rows, "windows": windows}


def predicting(stores: Stores, batches: int, turns: int, work: Path | None) -> dict[str, list[float]]:
    """Rows a second of `score_tracks` and of the bare model on the same batches, in turn."""
    use_two_cores()
    arm = FuseArm(torch.device("cpu"), precision="fp32", work=work)
    return scoring_rates(arm, stores, FeatureStreams(*stores.paths, gap="hold"), batches, turns)


def scoring_rates(
    arm: FuseArm, stores: Stores, streams: FeatureStreams, batches: int, turns: int
) -> dict[str, list[float]]:
    """The same on any device, for tracks that fill so many batches."""
    names: list[str] = []
    count = 0
    for name, rows in stores.lengths.items():
        if count < batches * BATCH:
            names.append(name)
            count += len(cut(name, rows, window=WINDOW, stride=WINDOW))
    ready = arm.scored_batches(streams, names)
    total = sum(stores.lengths[name] for name in names)
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    arm.bare_scoring_seconds(ready)
    for _ in range(turns):
        found["bare"].append(total / arm.bare_scoring_seconds(ready))
        found["ours"].append(total / arm.scoring_seconds(streams, names))
    return found
