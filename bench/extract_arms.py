"""What the benchmarks of `extract-visual` share: the stage, the bare model and the decoder, each timed by the image.

Weights are random: that changes no speed. Imports no media packages.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from abaw.data.frames import READ_ROWS, FrameRef, resize
from abaw.encoders.visual import VisualOptions, build_visual_encoder
from abaw.models.tokens import feature
from abaw.models.vit import VIT_PRESETS, build_vit
from abaw.stages.extract_visual.setup import build_header
from abaw.stages.extract_visual.work import Item, extract_unit
from abaw.store import FeatureStore
from abaw.training.device import keep_freed_memory, resolve_precision
from bench.training_arms import synchronise

DECODED = 512  # images that the decoder is timed on


class Arm:
    """A preset on one device in the precision that the stage takes there; each method takes a turn."""

    def __init__(
        self, preset: str, faces: FeatureStore, device: torch.device, folder: Path, *, batch_size: int
    ) -> None:
        self.faces, self.folder, self.batch_size, self.device = faces, folder, batch_size, device
        keep_freed_memory()  # as the stage does
        self.precision = resolve_precision("auto", device)
        options = VisualOptions(weights="random", preset=preset, device=str(device), precision=self.precision)
        self.encoder = build_visual_encoder("mae", options)
        self.items = [Item(track_id) for track_id in faces.track_ids()]
        self.rows = sum(faces.num_rows(item.track_id) for item in self.items)
        self._turn = 0
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        side = VIT_PRESETS[preset].image_size
        torch.manual_seed(0)
        self._model = build_vit(VIT_PRESETS[preset], pooling="cls").to(device, dtype).eval()
        self._images = torch.randn(batch_size, 3, side, side).to(device, dtype)

    def stage(self) -> float:
        """Seconds an image of `extract-visual`, from the faces store to published track files, without its set-up."""
        self._turn += 1
        store = FeatureStore.create(self.folder / f"turn-{self._turn}", build_header("mae", self.encoder, self.faces))
        start = time.perf_counter()
        work = extract_unit(
            self.items,
            faces=self.faces,
            store=store,
            encoder=self.encoder,
            batch_size=self.batch_size,
            on_cpu=self.device.type == "cpu",
        )
        results = list(work)
        seconds = time.perf_counter() - start
        if any(result.status != "done" for result in results):
            raise RuntimeError(results)
        return seconds / self.rows

    @torch.inference_mode()
    def bare(self) -> float:
        """Seconds an image of the model alone: one normalised batch that lies ready on the device, again and again."""
        self._pass()
        synchronise(self.device)
        start, passes = time.perf_counter(), -(-self.rows // self.batch_size)
        for _ in range(passes):
            self._pass()
        synchronise(self.device)
        return (time.perf_counter() - start) / (passes * self.batch_size)

    def _pass(self) -> Tensor:
        return feature(self._model, self._images)

    def decode(self) -> float:
        """Seconds to read, decode and resize one image on one thread."""
        ref = FrameRef(self.faces, self.items[0].track_id, np.arange(min(DECODED, READ_ROWS, self.rows)))
        count = min(len(ref), self.faces.num_rows(ref.track_id))
        start = time.perf_counter()
        for first in range(0, count, self.batch_size):
            places = np.arange(first, min(first + self.batch_size, count))
            resize([one() for one in ref.decoders(places)], self.encoder.image_size)
        return (time.perf_counter() - start) / count
