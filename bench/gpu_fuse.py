"""`fuse` on a GPU at the real size: seconds of an epoch from disk and from memory, waiting for data, scoring.

The stores are made on the spot (5.3 GB, or as much as the disk has room for) and deleted. Needs no media packages.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from abaw.data.windows import FeatureStreams
from bench.fuse_arms import BATCH, WINDOW, FuseArm, scoring_rates, window_source
from bench.fuse_store import Stores, make_stores, share_with_room
from bench.record import make_record

TURNS, READY, WARM = 3, 8, 10
SCORED_BATCHES = 200
PRECISIONS = ("fp32", "bf16")


def run(work: Path | None, *, share: float | None = None) -> list[dict[str, Any]]:
    """Records of epochs, waiting and scoring in each precision; a line and no record without a GPU."""
    if not torch.cuda.is_available():
        print("no GPU at hand")
        return []
    device = torch.device("cuda", 0)
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        stores = make_stores(folder, share_with_room(folder) if share is None else share)
        return [record for precision in PRECISIONS for record in measure(stores, device, precision, work)]
    finally:
        shutil.rmtree(folder)


def measure(stores: Stores, device: torch.device, precision: str, work: Path | None) -> list[dict[str, Any]]:
    """Records of one precision."""
    arm = FuseArm(device, precision=precision, work=work)
    note = f"netease, windows of {WINDOW}, batch {BATCH}, {precision}, {stores.rows} rows on {name_of(device)}"
    if stores.factor > 1.01:
        note += f"; epochs extrapolated {stores.factor:.3g} times to 1.6 million rows"
    found: dict[str, list[float]] = {"ready": [], "disk": [], "memory": []}
    kept = {name: FeatureStreams(*stores.paths, gap="hold", in_memory=name == "memory") for name in ("disk", "memory")}
    start = time.perf_counter()
    kept["disk"].statistics(stores.lengths)
    statistics_s = (time.perf_counter() - start) * stores.factor
    kept["memory"].statistics(stores.lengths)  # which brings every track into memory
    sources = {name: window_source(stores, streams) for name, streams in kept.items()}
    steps = len(sources["disk"].windows) // BATCH
    ready = arm.random_batches(READY)
    for _ in range(TURNS):
        found["ready"].append(arm.step_seconds(ready, steps=WARM + steps + 1, warm=WARM))
        for name, source in sources.items():
            found[name].append(arm.step_seconds(source, steps=WARM + steps + 1, warm=WARM))
    rates = scoring_rates(arm, stores, kept["disk"], SCORED_BATCHES, TURNS)
    return [
        *_epochs(found, steps * stores.factor, precision, note),
        make_record(
            f"gpu-fuse.scoring-{precision}",
            [ours / bare for ours, bare in zip(rates["ours"], rates["bare"], strict=True)],
            "ratio",
            higher_is_better=True,
            note=f"rows a second of `score_tracks` over those of forward passes on batches on the GPU; {note}",
            rows_per_s=rates["ours"],
            bare_rows_per_s=rates["bare"],
            statistics_s=statistics_s,
        ),
    ]


def _epochs(found: dict[str, list[float]], steps: float, precision: str, note: str) -> list[dict[str, Any]]:
    """Seconds of an epoch by where the features come from, and the share of a step that is not the model's."""
    records = []
    for name, where in (
        ("disk", "read from disk, pages cached"),
        ("memory", "in_memory = true, all tracks read before"),
    ):
        seconds = [step_s * steps for step_s in found[name]]
        waiting = [1 - own / step_s for own, step_s in zip(found["ready"], found[name], strict=True)]
        records.append(
            make_record(
                f"gpu-fuse.epoch-{name}-{precision}",
                seconds,
                "s",
                higher_is_better=False,
                note=f"an epoch of `fit`, features {where}; {note}",
                waiting=waiting,
                ready_step_s=found["ready"],
                step_s=found[name],
            )
        )
    return records


def name_of(device: torch.device) -> str:
    """What the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
