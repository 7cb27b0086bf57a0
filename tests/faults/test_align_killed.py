"""`abaw align` killed at random moments, and run again, gives the files of a run that was left alone, byte for byte.

The kills follow each other in one folder: what the last run leaves must be right after all of them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from abaw.store import FeatureStore
from tests.unit.conftest import write_video

pytestmark = pytest.mark.slow
FRAMES = range(80, 320, 20)  # of each video
KILLS = 6
KILLS_BEFORE = 1  # are aimed before the first publish; the others each at the next publish, seen in the folder
SEED = 1
MIN_BETWEEN = 0.5
TOML = '[data]\nvideos = "videos"\n[run]\nworkers = 2\n[align]\ndetector = "center"\n'
TIMEOUT_S = 120


class Course(NamedTuple):
    """A whole run: bytes of each track file, and seconds from the start to the first and the last of them."""

    files: dict[str, bytes]
    first_s: float
    last_s: float

    @property
    def step_s(self) -> float:
        """Mean time from one publish to the next."""
        return (self.last_s - self.first_s) / (len(self.files) - 1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Twelve short videos whose pictures and lengths all differ."""
    folder = tmp_path_factory.mktemp("killed") / "videos"
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    for number, frames in enumerate(FRAMES):
        pictures = [np.roll(noise, 3 * row + 20 * number, axis=1) for row in range(frames)]
        write_video(folder / f"{number}.mp4", pictures)
    return folder


def start(folder: Path, videos: Path) -> subprocess.Popen:
    """The command in a process group of its own, on a folder that may hold a part of its work already."""
    folder.mkdir(exist_ok=True)
    (folder / "data.toml").write_text(TOML.replace('"videos"', f'"{videos}"'))
    command = [sys.executable, "-m", "abaw", "align", "-q", "-c", str(folder / "data.toml")]
    return subprocess.Popen(command, start_new_session=True)


def published(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "features" / "faces").glob("[!.]*.h5"))}


def num_published(folder: Path) -> int:
    return len(list((folder / "features" / "faces").glob("[!.]*.h5")))


def wait_for_tracks(folder: Path, count: int, process: subprocess.Popen) -> None:
    """Until so many tracks are there or the process has ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while num_published(folder) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> Course:
    folder = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    process = start(folder, videos)
    times = []
    for count in (1, len(FRAMES)):
        wait_for_tracks(folder, count, process)
        times.append(time.monotonic() - began)
    assert process.wait(TIMEOUT_S) == 0
    return Course(published(folder), *times)


def kill_after(folder: Path, process: subprocess.Popen, count: int, delay_s: float) -> str:
    """Kill the process and its workers so long after so many publishes; says where in its course that was."""
    wait_for_tracks(folder, count, process)
    time.sleep(delay_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT_S)
    there = num_published(folder)
    return "before the first" if there == 0 else "between" if there < len(FRAMES) else "after the last"


def test_a_run_killed_at_any_moment_and_run_again_gives_the_same_files(videos, whole, tmp_path, capsys):
    chance, folder = random.Random(SEED), tmp_path / "killed"
    moments = Counter({"before the first": 0, "between": 0, "after the last": 0})
    for number in range(KILLS):
        count = 0 if number < KILLS_BEFORE else num_published(folder) + 1
        # A quarter of a step at most: this run may be faster than the one that was timed.
        delay_s = chance.random() * (whole.step_s / 4 if count else whole.first_s)
        moments[kill_after(folder, start(folder, videos), count, delay_s)] += 1
        left = published(folder)
        assert left == {name: whole.files[name] for name in left}, f"kill {number} left a file that is not whole"
    assert start(folder, videos).wait(TIMEOUT_S) == 0
    assert published(folder) == whole.files
    store = FeatureStore.open(folder / "features" / "faces", kind="faces")
    assert [f"{name}.h5" for name in store.track_ids()] == sorted(whole.files)
    histogram = ", ".join(f"{count} {moment}" for moment, count in moments.items())
    with capsys.disabled():
        sys.stdout.write(f"\n{KILLS} kills by the publish they fell at: {histogram}\n")
    assert moments["between"] >= MIN_BETWEEN * KILLS, histogram
