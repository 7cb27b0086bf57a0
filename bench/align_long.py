"""Memory and cost per frame of `align` on a video of one minute, ten minutes and one hour."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench import clips
from bench.align import COMPOSED, Stage, prepare
from bench.record import make_record

MINUTE = 60 * clips.FPS  # frames
LENGTHS = {"1 min": MINUTE, "10 min": 10 * MINUTE, "60 min": 60 * MINUTE}
ROUNDS = 3  # of the one-minute video before and after the others, since the machine's speed may drift
MAX_MB = 800
MAX_GROWTH = 1.05  # of the cost per frame from one minute to one hour
MAX_MEMORY_GROWTH = 1.1  # of the peak from ten minutes to one hour, six times the length


class Measured(NamedTuple):
    """One video in a process of its own: seconds and processor seconds per frame, and the process's peak."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def run(work: Path | None) -> list[dict[str, Any]]:
    """Records of the peak memory and of its growth, and of the growth of a frame's cost."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        minute = clips.talking_face(folder / "minute.mp4", speaker="grid_bbaf2n", frames=MINUTE)
        brief = [_measure(folder, minute, MINUTE) for _ in range(ROUNDS)]
        long = {label: _measure(folder, minute, frames) for label, frames in LENGTHS.items() if frames > MINUTE}
        brief += [_measure(folder, minute, MINUTE) for _ in range(ROUNDS)]
        return _records(brief, long)


def align_alone(folder: str) -> None:
    """Align the videos of two prepared folders, `warm` first, and print seconds and rows of the other as JSON."""
    stages = {name: Stage(Path(folder) / name) for name in ("warm", "video")}
    stages["warm"]()
    cpu = time.process_time()
    seconds = stages["video"]()
    cpu = time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": stages["video"].rows, "peak_mb": _peak_mb()}))


def _peak_mb() -> float:
    """Largest resident memory of this process; unlike getrusage's it leaves out the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _measure(folder: Path, minute: Path, frames: int) -> Measured:
    """One video of so many frames, aligned by a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        video = clips.lengthened(place / "video.mp4", minute, frames=frames)
        prepare(place / "video", {"video": video}, detector="mtcnn")
        prepare(place / "warm", {"warm": clips.lengthened(place / "warm.mp4", minute, frames=50)}, detector="mtcnn")
        code = f"from bench.align_long import align_alone; align_alone({str(place)!r})"
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(done.stdout.splitlines()[-1])
        if told["rows"] != frames:
            raise RuntimeError(f"{frames} frames gave {told['rows']} rows")
        return Measured(told["seconds"] / frames, told["cpu"] / frames, told["peak_mb"])


def _records(brief: list[Measured], long: dict[str, Measured]) -> list[dict[str, Any]]:
    peaks = {"1 min": statistics.median(one.peak_mb for one in brief)} | {k: one.peak_mb for k, one in long.items()}
    hour = long["60 min"]
    growth = [hour.seconds / one.seconds for one in brief]
    cpu_growth = hour.cpu_seconds / statistics.median(one.cpu_seconds for one in brief)
    made = f"mtcnn, one process for each video; {COMPOSED}, packets repeated"
    return [
        make_record(
            "align-long.peak-memory",
            [peaks["60 min"]],
            "MB",
            limit=MAX_MB,
            higher_is_better=False,
            note=f"peak resident memory of the process that aligns one hour; {made}",
            peak_mb_by_length=peaks,
        ),
        make_record(
            "align-long.memory-growth",
            [peaks["60 min"] / peaks["10 min"]],
            "ratio",
            limit=MAX_MEMORY_GROWTH,
            higher_is_better=False,
            note="peak of one hour over that of ten minutes",
        ),
        make_record(
            "align-long.cost-growth",
            growth,
            "ratio",
            limit=MAX_GROWTH,
            higher_is_better=False,
            note=f"seconds a frame of one hour over those of one minute, {len(brief)} runs before and after; {made}",
            processor_time_growth=cpu_growth,
            ms_per_frame={"1 min": [1e3 * one.seconds for one in brief]}
            | {label: [1e3 * one.seconds] for label, one in long.items()},
        ),
    ]
