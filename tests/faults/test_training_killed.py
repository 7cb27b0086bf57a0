"""`abaw finetune` ended at random moments, and run again, gives the weights and scores of a run that was left alone."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from abaw.stages import finetune
from abaw.store import FeatureStore
from tests.unit.stages.tiny_set import config, make_set

pytestmark = pytest.mark.slow
STEPS, EVERY = 80, 10
OPTIONS = {"steps": STEPS, "validate_every": EVERY, "init_from": "none", "drop_path": 0.1, "ema_decay": 0.9}
SET = [f"finetune.{key}={value}" for key, value in OPTIONS.items()]
NAME = "finetune-va-vit_tiny_64"
ENDS = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
SEED = 1
TIMEOUT_S = 120


def start(folder: Path) -> subprocess.Popen[bytes]:
    words = [word for text in SET for word in ("--set", text)]
    command = [sys.executable, "-m", "abaw", "finetune", "-q", "--task", "va", "-c", str(folder / "data.toml"), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def lines(folder: Path) -> list[dict]:
    path = folder / "runs" / NAME / "metrics.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def end_after_a_round(folder: Path, number: int, delay_s: float) -> int:
    """Send a run a signal, some time after its next validation round; returns its exit status."""
    process, before, deadline = start(folder), len(lines(folder)), time.monotonic() + TIMEOUT_S
    while len(lines(folder)) <= before and process.poll() is None:
        assert time.monotonic() < deadline, "no round of validation"
        time.sleep(0.005)
    time.sleep(delay_s)
    process.send_signal(number)
    return process.wait(TIMEOUT_S)


def scores(folder: Path) -> dict[str, np.ndarray]:
    store = FeatureStore.open(folder / "predictions" / NAME)
    return {track_id: np.asarray(store.read(track_id, "scores/va")) for track_id in store.track_ids()}


def test_a_training_ended_at_random_moments_gives_the_same_weights_and_scores(tmp_path: Path) -> None:
    whole, cut, draw = make_set(tmp_path / "whole"), make_set(tmp_path / "cut"), random.Random(SEED)
    seconds = finetune.run(config(whole, *SET), task="va").data["seconds"]
    round_s = seconds * EVERY / STEPS
    codes = [end_after_a_round(cut, number, draw.uniform(0, round_s)) for number in ENDS]
    assert codes == [130 if number is signal.SIGTERM else -number for number in ENDS]
    assert len(lines(cut)) < STEPS // EVERY
    assert start(cut).wait(TIMEOUT_S) == 0
    assert lines(cut) == lines(whole)
    first, second = ((folder / "runs" / NAME / "best.safetensors").read_bytes() for folder in (whole, cut))
    assert first == second
    wanted, found = scores(whole), scores(cut)
    assert set(wanted) == set(found) == {"v1", "x1"}
    assert all(np.array_equal(wanted[track_id], found[track_id]) for track_id in wanted)
