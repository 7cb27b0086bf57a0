"""`abaw align` killed at random moments, and run again, gives the files of a run that was left alone, byte for byte."""

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
KILLS = 8
SEED = 1
# Of the kills that are aimed before the first publish; the others are aimed after it.
SHARE_BEFORE = 0.15
MIN_BETWEEN = 0.5
FRAMES = range(250, 650, 50)  # of each video
TOML = '[data]\nvideos = "videos"\n[run]\nworkers = 2\n[align]\ndetector = "center"\n'
TIMEOUT_S = 120


class Course(NamedTuple):
    """A whole run: bytes of each track file, and seconds from the start to the first and the last of them."""

    files: dict[str, bytes]
    first_s: float
    last_s: float


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Eight short videos whose pictures and lengths all differ."""
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


def kill_at(folder: Path, process: subprocess.Popen, whole: Course, chance: random.Random) -> str:
    """Kill the process and its workers at a random moment; says where in its course that was."""
    if chance.random() < SHARE_BEFORE:
        time.sleep(chance.random() * whole.first_s)
    else:
        wait_for_tracks(folder, 1, process)
        time.sleep(chance.random() * (whole.last_s - whole.first_s))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT_S)
    count = num_published(folder)
    return "before the first" if count == 0 else "between" if count < len(whole.files) else "after the last"


def test_a_run_killed_at_any_moment_and_run_again_gives_the_same_files(videos, whole, tmp_path, capsys):
    chance = random.Random(SEED)
    moments = Counter({"before the first": 0, "between": 0, "after the last": 0})
    for number in range(KILLS):
        folder = tmp_path / str(number)
        moments[kill_at(folder, start(folder, videos), whole, chance)] += 1
        left = published(folder)
        assert left == {name: whole.files[name] for name in left}, f"kill {number} left a file that is not whole"
        assert start(folder, videos).wait(TIMEOUT_S) == 0
        assert published(folder) == whole.files, f"kill {number}: other files after the second run"
        store = FeatureStore.open(folder / "features" / "faces", kind="faces")
        assert [f"{name}.h5" for name in store.track_ids()] == sorted(whole.files)
    histogram = ", ".join(f"{count} {moment}" for moment, count in moments.items())
    with capsys.disabled():
        sys.stdout.write(f"\n{KILLS} kills by the publish they fell at: {histogram}\n")
    assert moments["between"] >= MIN_BETWEEN * KILLS, histogram
