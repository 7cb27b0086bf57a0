"""How much of a model's own speed `pretrain` keeps: the real loop and sources beside a bare loop fed from memory.

Every image is read from a faces store and decoded in every step, as with sets that do not fit into memory. Both loops
take turns in one process.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from abaw.data.frames import FrameRef, FrameTable, resize
from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import VIT_PRESETS
from abaw.provenance import unknown_recipe
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.training.augment import Augment
from abaw.training.batches import FaceBatches, SampleOrder
from abaw.training.device import keep_freed_memory, resolve_precision, use_threads
from abaw.training.optim import adamw, parameter_groups
from bench.record import make_record
from bench.training_arms import LR, reconstruction_loss, timed_bare, timed_fit

MEAN, STD = [0.5, 0.4, 0.4], [0.3, 0.3, 0.3]
TRACKS, ROWS = 8, 250
JPEG_QUALITY = 95
SAVE_EVERY = 100
# preset -> side of the stored crops in pixels, batch, steps of a turn, of these uncounted, turns, least share
ARMS = {
    "vit_base_224": (224, 8, 10, 3, 3, 0.95),
    "vit_tiny_64": (112, 64, 60, 10, 5, 0.9),
}


def run(work: Path | None) -> list[dict[str, Any]]:
    """Records of ViT-B beside the bare loop, and of the small model beside its own and the decoder's time."""
    keep_freed_memory()  # as `pretrain` does, for both loops
    threads = use_threads(0)
    precision = resolve_precision("auto", torch.device("cpu"))
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        return [_against_bare(folder, threads, precision), _against_parts(folder, threads, precision)]


def _against_bare(folder: Path, threads: int, precision: str) -> dict[str, Any]:
    arm = _Arm("vit_base_224", folder, precision)
    shares, ours, bare, saves = [], [], [], []
    for _ in range(arm.turns):
        fit_s, save_s = arm.fit()
        bare_s = arm.bare()
        shares.append(bare_s / fit_s)
        ours.append(arm.batch_size / fit_s)
        bare.append(arm.batch_size / bare_s)
        saves.append(save_s)
    note = "images/s of `fit` over those of forward, backward, clipping and update from memory, turn by turn; "
    note += f"{arm.words}, {precision}, {threads} threads; resume points are not counted (saving_s, every "
    note += f"{SAVE_EVERY} steps)"
    return make_record(
        "pretrain.vit-base-224",
        shares,
        "ratio",
        limit=arm.limit,
        higher_is_better=True,
        note=note,
        images_per_s=ours,
        bare_images_per_s=bare,
        saving_s=saves,
    )


def _against_parts(folder: Path, threads: int, precision: str) -> dict[str, Any]:
    arm = _Arm("vit_tiny_64", folder, precision)
    shares, ours, models, decoding = [], [], [], []
    for _ in range(arm.turns):
        model_s = arm.bare() / arm.batch_size
        decode_s = arm.decode()
        fit_s, _ = arm.fit()
        least_s = model_s + decode_s / threads
        shares.append(least_s * arm.batch_size / fit_s)
        ours.append(arm.batch_size / fit_s)
        models.append(1e6 * model_s)
        decoding.append(1e6 * decode_s)
    note = "images/s of `fit` times (model time + decoding time / threads) of an image, turn by turn; decoding = "
    note += f"reading, JPEG and resizing on one thread; {arm.words}, {precision}, {threads} threads"
    return make_record(
        "pretrain.vit-tiny-64",
        shares,
        "ratio",
        limit=arm.limit,
        higher_is_better=True,
        note=note,
        images_per_s=ours,
        model_us=models,
        decoding_us=decoding,
    )


class _Arm:
    """A preset's model, optimizer and sources; each method takes one turn and gives seconds."""

    def __init__(self, name: str, folder: Path, precision: str) -> None:
        side, self.batch_size, self.steps, self.warm, self.turns, self.limit = ARMS[name]
        preset = VIT_PRESETS[name]
        self.precision, self.work = precision, folder
        store = make_faces(folder / name, side)
        self.refs = [FrameRef(store, track, np.arange(ROWS)) for track in store.track_ids()]
        self.table = FrameTable(self.refs, preset.image_size, cache_bytes=0)
        order = SampleOrder(len(self.table), self.batch_size, seed=0)
        augment = Augment(min_scale=0.6, aspect=4 / 3)
        self.source = FaceBatches(self.table, order, MEAN, STD, augment, {}, preset.num_patches)
        torch.manual_seed(0)
        self.model = MaskedAutoencoder(preset)
        self.optimizer = adamw(parameter_groups(self.model, lr=LR, weight_decay=0.05), betas=(0.9, 0.95))
        self.batches = [self.source.batch(step, 0, 1) for step in range(4)]
        size = sum(store.track_path(track).stat().st_size for track in store.track_ids()) / len(self.table)
        self.words = f"{name}, batch {self.batch_size}, {side}-pixel crops of {size / 1000:.0f} kB, none kept in memory"

    def fit(self) -> tuple[float, float]:
        return timed_fit(
            self.model,
            self.source,
            reconstruction_loss,
            self.optimizer,
            steps=self.steps,
            warm=self.warm,
            precision=self.precision,
            work=self.work,
        )

    def bare(self) -> float:
        settings = {"steps": self.steps, "warm": self.warm, "precision": self.precision}
        return timed_bare(self.model, self.batches, reconstruction_loss, self.optimizer, **settings)

    def decode(self) -> float:
        """Seconds to read, decode and resize one image, on one thread."""
        rng, count = np.random.default_rng(0), 64
        start = time.perf_counter()
        for ref in self.refs:
            decoders = ref.decoders(np.sort(rng.permutation(ROWS)[:count]))
            resize([decode() for decode in decoders], self.table.size)
        return (time.perf_counter() - start) / (count * len(self.refs))


def make_faces(path: Path, side: int) -> FeatureStore:
    """A faces store of a portrait under changing light, place and grain; only the arrays that training reads."""
    from skimage import data

    portrait = cv2.cvtColor(data.astronaut()[:260, 100:360], cv2.COLOR_RGB2BGR)
    arrays = {"jpeg": ArraySpec("uint8", (), "ragged"), "offsets": ArraySpec("int64", (), "T+1")}
    store = FeatureStore.create(path, StoreHeader("faces", "faces", arrays, {}, unknown_recipe()))
    for track in range(TRACKS):
        rng = np.random.default_rng(track)
        files = []
        for _ in range(ROWS):
            top, left = rng.integers(0, 30, 2)
            face = cv2.resize(portrait[top : top + 230, left : left + 230], (side, side), interpolation=cv2.INTER_AREA)
            lit = face * rng.uniform(0.6, 1.2) + rng.normal(0, 3, face.shape)
            ok, data_ = cv2.imencode(
                ".jpg", lit.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            )
            files.append(data_)
        offsets = np.concatenate([[0], np.cumsum([len(file) for file in files])]).astype(np.int64)
        content = {"valid": np.ones(ROWS, bool), "jpeg": np.concatenate(files), "offsets": offsets}
        store.write(f"t{track}", content, fps=25)
    return store
