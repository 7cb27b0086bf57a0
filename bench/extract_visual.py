"""How much of a model's own speed `extract-visual` keeps on the CPU, and what an hour of faces takes in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from abaw.config_file import load_config
from abaw.stages import extract_visual
from abaw.training.device import use_threads
from bench.extract_arms import Arm
from bench.faces_store import FPS, make_faces_store
from bench.record import make_record

BATCH = 64
# preset -> side of the stored crops in pixels, tracks, rows of each, turns, least share
ARMS = {
    "vit_base_224": (224, 2, 160, 3, 0.92),
    "vit_tiny_64": (112, 4, 2560, 5, 0.9),
}
HOUR = 3600 * FPS
MAX_MB = 1200
TOML = """
[run]
output = "out"
device = "cpu"
[pretrain]
preset = "vit_tiny_64"
[extract_visual]
faces = "faces"
encoders = ["vit"]
[encoders.vit]
encoder = "mae"
weights = "random"
"""


def run(work: Path | None) -> list[dict[str, Any]]:
    """Records of ViT-B beside the bare model, of the small model beside its parts, and of an hour's memory."""
    threads = use_threads(0)
    records = []
    for preset, (side, tracks, rows, turns, limit) in ARMS.items():
        with tempfile.TemporaryDirectory(dir=work) as name:
            faces = make_faces_store(Path(name) / "faces", side, tracks=tracks, rows=rows)
            arm = Arm(preset, faces, torch.device("cpu"), Path(name), batch_size=BATCH)
            records.append(rate_record(preset, arm, turns, limit, f"crops of {side} px, {threads} threads"))
    return [*records, *(memory_record(side, HOUR, work) for side in (112, 224))]


def rate_record(preset: str, arm: Arm, turns: int, limit: float, words: str) -> dict[str, Any]:
    """Images a second of the stage: over the bare model's for ViT-B, over those of model and decoder for small ones."""
    with_decoding = preset != "vit_base_224"
    cores = len(os.sched_getaffinity(0))
    shares, ours, bare, decoding = [], [], [], []
    arm.stage()  # the first turn sets things up
    for _ in range(turns):
        model_s, decode_s, stage_s = arm.bare(), arm.decode(), arm.stage()
        least_s = model_s + (decode_s / cores if with_decoding else 0)
        shares.append(least_s / stage_s)
        ours.append(1 / stage_s)
        bare.append(1 / model_s)
        decoding.append(1e6 * decode_s)
    what = "1 / (model time + decoding time / cores)" if with_decoding else "the bare model's"
    note = f"images/s of extract-visual over {what}, turn by turn; {preset}, {arm.precision}, batch {arm.batch_size}, "
    note += f"{arm.rows} faces, {words}; decoding = reading, JPEG and resizing on one thread"
    return make_record(
        f"extract-visual.{preset.replace('_', '-')}",
        shares,
        "ratio",
        limit=limit,
        higher_is_better=True,
        note=note,
        images_per_s=ours,
        bare_images_per_s=bare,
        decoding_us=decoding,
    )


# -- memory ------------------------------------------------------------------------------------------------------------
def memory_record(side: int, rows: int, work: Path | None) -> dict[str, Any]:
    """Peak memory of the command's process over one track of so many faces."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        make_faces_store(folder / "faces", side, tracks=1, rows=rows)
        (folder / "data.toml").write_text(TOML)
        code = "import sys; from bench.extract_visual import extract_alone; extract_alone(sys.argv[1])"
        found = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    measured = json.loads(found.stdout.splitlines()[-1])
    return make_record(
        f"extract-visual.hour-{side}",
        [measured["peak_mb"]],
        "MB",
        limit=MAX_MB,
        higher_is_better=False,
        note=f"peak memory of extract-visual, {rows} faces of {side} px in one track, vit_tiny_64, batch {BATCH}",
        seconds=measured["seconds"],
    )


def extract_alone(folder: str) -> None:
    """Run the stage in a prepared folder; print seconds and this process's peak memory as JSON."""
    start = time.perf_counter()
    summary = extract_visual.run(load_config(Path(folder) / "data.toml"))
    if summary.failed:
        raise RuntimeError(summary.failed)
    # Unlike getrusage's, this peak leaves out the process that started this one.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak}))
