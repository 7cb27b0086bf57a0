"""Training stages under torchrun: one command, two processes, one set of files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from abaw.stages import finetune
from abaw.store import FeatureStore
from tests.unit.stages.labelled_set import TRAIN, config, make_labelled

PLAIN = ["finetune.drop_path=0.0", "finetune.steps=2"]


def torchrun(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "abaw"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*program, *command, "-c", str(root / "data.toml")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done


def sets(overrides: list[str]) -> list[str]:
    return [word for text in overrides for word in ("--set", text)]


def test_finetuning_folds_in_two_processes_is_that_of_one(tmp_path: Path) -> None:
    one, two = make_labelled(tmp_path / "one"), make_labelled(tmp_path / "two")
    alone = finetune.run(config(one, *PLAIN), task="va", folds="3").data["folds"]
    done = torchrun(two, "finetune", "--task", "va", "--folds", "3", *sets(PLAIN))
    assert done.stdout.count("scores ") == 1
    both = finetune.run(config(two, *PLAIN), task="va", folds="3").data["folds"]
    assert [fold["skipped"] for fold in both] == [True] * 3
    for key in ("last_loss", "best_score"):
        assert [fold[key] for fold in both] == pytest.approx([fold[key] for fold in alone], rel=1e-4, abs=1e-6)
    for name in ("fold-0", "fold-1", "fold-2", "folds"):
        stores = [FeatureStore.open(root / f"predictions/finetune-va-vit_tiny_64-{name}") for root in (one, two)]
        assert stores[0].track_ids() == stores[1].track_ids()
    assert set(stores[1].track_ids()) == {*TRAIN, "v"}


def test_pretraining_runs_in_two_processes(tmp_path: Path) -> None:
    root = make_labelled(tmp_path)
    small = ["pretrain.steps=2", "pretrain.batch_size=4", "pretrain.checkpoint_every=1"]
    done = torchrun(root, "pretrain", *sets(small))
    assert done.stdout.count("loss ") == 1
    assert (root / "runs/pretrain-vit_tiny_64/best.safetensors").is_file()
    assert len((root / "runs/pretrain-vit_tiny_64/metrics.jsonl").read_text().splitlines()) == 2
