"""Extractions killed at random moments, and run again, give the files of one that was left alone, byte for byte."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from abaw.config_file import load_config
from tests.unit.conftest import write_video
from tests.unit.faces_store import Tracks, make_faces, picture

pytestmark = pytest.mark.slow
TRACKS = 8
ROWS = range(100, 100 + 10 * TRACKS, 10)  # of each track
KILLS = ((0, 1), (1, 1), (3, 2), (6, 1))  # tracks that are there when a run is killed, and its workers
SEED = 1
TIMEOUT_S = 120
RATE = 16000
TOML = """
[data]
videos = "../videos"
[run]
threads = 1
device = "cpu"
[extract_visual]
faces = "../faces"
encoders = ["vit"]
[extract_audio]
faces = "../faces"
encoders = ["logmel"]
[encoders.vit]
encoder = "mae"
weights = "random"
batch_size = 16
"""
# Forked from a process that has imported them already: ten starts cost no more than one.
STAGES = {"visual-vit": "abaw.stages.extract_visual", "audio-logmel": "abaw.stages.extract_audio"}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(list(STAGES.values()))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight short videos with noise for sound, and their faces, some of which are missing."""
    folder, rng = tmp_path_factory.mktemp("killed"), np.random.default_rng(0)
    tracks: Tracks = {}
    for number, rows in enumerate(ROWS):
        sound = rng.normal(0, 0.1, rows * RATE // 25).astype(np.float32)
        write_video(folder / "videos" / f"{number}.mp4", [np.zeros((32, 32, 3), np.uint8)] * rows, sound=sound)
        tracks[str(number)] = [None if row % 7 == 3 else picture(row % 20 + 100 * number) for row in range(rows)]
    make_faces(folder / "faces", tracks)
    return folder


def extract(stage: str, path: Path) -> None:
    """What a process of its own does, in a group of its own."""
    os.setsid()
    sys.exit(importlib.import_module(stage).run(load_config(path)).exit_code)


def start(folder: Path, name: str, *, workers: int = 1) -> BaseProcess:
    """The command on a folder that may hold a part of its work already."""
    folder.mkdir(exist_ok=True)
    (folder / "data.toml").write_text(TOML.replace("[run]", f"[run]\nworkers = {workers}"))
    process = FORKS.Process(target=extract, args=(STAGES[name], folder / "data.toml"))
    process.start()
    while process.is_alive() and os.getpgid(process.pid or 0) != process.pid:  # a group of its own comes first
        time.sleep(0.001)
    return process


def finish(folder: Path, name: str) -> None:
    process = start(folder, name)
    process.join(TIMEOUT_S)
    assert process.exitcode == 0


def published(folder: Path, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "features" / name).glob("[!.]*.h5"))}


def wait_for_tracks(folder: Path, name: str, count: int, process: BaseProcess) -> None:
    """Until so many tracks are there or the process has ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(list((folder / "features" / name).glob("[!.]*.h5"))) < count and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_after(folder: Path, name: str, count: int, delay_s: float, *, workers: int) -> None:
    """Kill a run and its workers so long after so many publishes."""
    process = start(folder, name, workers=workers)
    wait_for_tracks(folder, name, count, process)
    time.sleep(delay_s)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join(TIMEOUT_S)


@pytest.mark.parametrize("name", STAGES)
def test_an_extraction_killed_at_any_moment_and_run_again_gives_the_same_files(
    data: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = FORKS.Process(target=int)
    warm.start()
    warm.join(TIMEOUT_S)
    began = time.monotonic()
    process = start(data / f"whole-{name}", name)
    wait_for_tracks(data / f"whole-{name}", name, 1, process)
    first_s = time.monotonic() - began
    process.join(TIMEOUT_S)
    whole = published(data / f"whole-{name}", name)
    assert (process.exitcode, len(whole)) == (0, TRACKS)
    chance, left = random.Random(SEED), []
    for number, (count, workers) in enumerate(KILLS):
        folder = data / f"{name}-{number}"
        kill_after(folder, name, count, chance.uniform(0, 0.02 if count else first_s), workers=workers)
        there = published(folder, name)
        left.append(len(there))
        assert there == {file: whole[file] for file in there}, f"kill {number} left a file that is not whole"
        finish(folder, name)
        assert published(folder, name) == whole, f"kill {number}: other files after the second run"
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: tracks of {TRACKS} there after each kill: {left}\n")
    assert any(0 < count < TRACKS for count in left)
