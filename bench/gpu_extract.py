"""`extract-visual` on a GPU: images a second with ViT-B/16 in bf16, beside the bare model and beside the decoder.

Needs a faces store and no media packages: `--work FOLDER` with stores faces-112 or faces-224 in it uses those, else
stores of grainy pictures are made.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from abaw.store import FeatureStore
from bench.extract_arms import Arm
from bench.faces_store import make_faces_store
from bench.record import make_record

PRESET = "vit_base_224"
SIDES, BATCHES = (112, 224), (64, 256)
TRACKS, ROWS, TURNS = 8, 2560, 3


def run(work: Path | None) -> list[dict[str, Any]]:
    """A record for each side of crops and batch size; a line and no record without a GPU."""
    if not torch.cuda.is_available():
        print("no GPU at hand")
        return []
    records = []
    for side in SIDES:
        with tempfile.TemporaryDirectory() as name:
            faces = faces_of(side, work, Path(name))
            records += [measure(faces, side, Path(name) / str(batch), batch) for batch in BATCHES]
    return records


def faces_of(side: int, work: Path | None, folder: Path) -> FeatureStore:
    """The store made beforehand, or one made now."""
    if work is not None and (work / f"faces-{side}").is_dir():
        return FeatureStore.open(work / f"faces-{side}", kind="faces")
    return make_faces_store(folder / "faces", side, tracks=TRACKS, rows=ROWS)


def measure(faces: FeatureStore, side: int, folder: Path, batch: int) -> dict[str, Any]:
    """Record of the stage's images a second, with those of its parts."""
    arm = Arm(PRESET, faces, torch.device("cuda", 0), folder, batch_size=batch)
    ours, bare, decoding, shares = [], [], [], []
    cores = len(os.sched_getaffinity(0))
    arm.stage()  # the first turn sets things up
    for _ in range(TURNS):
        bare_s, decode_s, stage_s = arm.bare(), arm.decode(), arm.stage()
        ours.append(1 / stage_s)
        bare.append(1 / bare_s)
        decoding.append(cores / decode_s)
        shares.append(max(bare_s, decode_s / cores) / stage_s)
    note = f"extract-visual, {PRESET}, {arm.precision}, batch {batch}, {arm.rows} faces of {side} px, on "
    note += f"{torch.cuda.get_device_name(0)} with {cores} cores; shares: of the slower of model and decoder"
    return make_record(
        f"gpu-extract.crops-{side}-batch-{batch}",
        ours,
        "images/s",
        higher_is_better=True,
        note=note,
        bare_images_per_s=bare,
        decoded_images_per_s=decoding,
        shares=shares,
    )
