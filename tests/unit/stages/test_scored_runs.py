"""fuse and finetune: what a rerun does, exact resume, and refusals before any training."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from abaw.config import Config
from abaw.console import Summary
from abaw.errors import AbawError, ExitCode
from abaw.stages import finetune, fuse, pretrain
from abaw.store import FeatureStore
from tests.unit.stages.tiny_set import config, contents, make_features, make_set

RUNS = {"fuse": "fuse-va-netease", "finetune": "finetune-va-vit_tiny_64"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path)


def stage(name: str) -> Callable[..., Summary]:
    return {"fuse": fuse.run, "finetune": finetune.run, "pretrain": pretrain.run}[name]


def options(root: Path, *overrides: str) -> Config:
    return config(root, "finetune.init_from=none", *overrides)


def trained(root: Path, name: str) -> dict[str, bytes]:
    """The files of a run that training writes."""
    found = contents(root / "runs" / RUNS[name])
    return {file: content for file, content in found.items() if file != "done"}


@pytest.mark.parametrize("name", RUNS)
def test_a_lost_track_is_scored_again_alone(root: Path, name: str) -> None:
    stage(name)(options(root))
    folder = root / "predictions" / RUNS[name]
    before, run = contents(folder), trained(root, name)
    kept = (folder / "v1.h5").stat().st_mtime_ns
    (folder / "x1.h5").unlink()
    (root / "runs" / RUNS[name] / "resume.pt").unlink()
    assert stage(name)(options(root), dry_run=True).data["state"] == "done, 1 tracks to score"
    assert not stage(name)(options(root)).data["skipped"]
    assert contents(folder) == before
    assert (folder / "v1.h5").stat().st_mtime_ns == kept
    assert trained(root, name) == {file: content for file, content in run.items() if file != "resume.pt"}
    assert stage(name)(options(root)).data["skipped"]


def test_a_new_test_track_is_scored_without_training(root: Path) -> None:
    fuse.run(config(root))
    run = trained(root, "fuse")
    (root / "test.txt").write_text("x1\nx2\n")
    for store in ("visual-a", "visual-b"):
        shutil.copy(root / "features" / store / "x1.h5", root / "features" / store / "x2.h5")
    assert fuse.run(config(root)).data["predicted_tracks"] == 3
    scores = contents(root / "predictions/fuse-va-netease")
    assert scores["x2.h5"] == scores["x1.h5"]
    assert trained(root, "fuse") == run


@pytest.mark.parametrize("name", RUNS)
def test_scores_of_other_weights_are_made_afresh(root: Path, name: str) -> None:
    stage(name)(options(root))
    folder = root / "predictions" / RUNS[name]
    before, header = contents(folder), FeatureStore.open(folder).header
    other = replace(header, settings={**header.settings, "weights": "0" * 64})
    FeatureStore.create(folder, other, overwrite=True)
    assert not stage(name)(options(root)).data["skipped"]
    assert contents(folder) == before


def test_a_done_run_whose_weights_are_gone_says_so(root: Path) -> None:
    fuse.run(config(root))
    (root / "runs/fuse-va-netease/best.safetensors").unlink()
    with pytest.raises(AbawError, match="its weights are gone"):
        fuse.run(config(root))


class Killed(BaseException):
    pass


class Killer(logging.Handler):
    """Ends the run when it reports a step: after that round's weights, before its resume point."""

    def __init__(self, words: str) -> None:
        super().__init__(logging.INFO)
        self.words = words

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            raise Killed


def run_killed(run: Callable[[], Summary], words: str) -> None:
    logger, killer = logging.getLogger("abaw"), Killer(words)
    level = logger.level
    logger.addHandler(killer)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(Killed):
            run()
    finally:
        logger.removeHandler(killer)
        logger.setLevel(level)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("step", [2, 4])
def test_a_killed_run_ends_with_the_same_files(root: Path, name: str, step: int) -> None:
    whole = options(root, "finetune.steps=6")
    stage(name)(whole)
    scores, run = contents(root / "predictions" / RUNS[name]), root / "runs" / RUNS[name]
    weights = (run / "best.safetensors").read_bytes()
    run_killed(lambda: stage(name)(whole, overwrite=True), f"step {step}/6")
    assert not (run / "done").exists()
    assert not (root / "predictions" / RUNS[name]).exists()
    stage(name)(whole)
    assert (run / "best.safetensors").read_bytes() == weights
    assert contents(root / "predictions" / RUNS[name]) == scores


@pytest.mark.parametrize("name", [*RUNS, "pretrain"])
def test_a_dry_run_says_at_which_step_a_stopped_run_would_continue(root: Path, name: str) -> None:
    cfg = options(root, "finetune.steps=6", "pretrain.steps=6")
    run_killed(lambda: stage(name)(cfg), "step 4/6")
    assert stage(name)(cfg, dry_run=True).data["state"] == "stopped, would continue at step 2"


@pytest.mark.parametrize("name", ["finetune", "pretrain"])
def test_a_dry_run_of_what_is_to_be_redone_says_so(root: Path, name: str) -> None:
    stage(name)(options(root))
    assert stage(name)(options(root), overwrite=True, dry_run=True).data["state"] == "to do"


@pytest.mark.parametrize("name", RUNS)
def test_scoring_that_was_interrupted_goes_on(root: Path, name: str) -> None:
    stage(name)(options(root))
    scores, run = contents(root / "predictions" / RUNS[name]), trained(root, name)
    (root / "predictions" / RUNS[name] / "x1.h5").unlink()
    (root / "runs" / RUNS[name] / "done").unlink()
    stage(name)(options(root))
    assert contents(root / "predictions" / RUNS[name]) == scores
    assert trained(root, name) == run


@pytest.mark.parametrize("name", RUNS)
def test_a_task_without_labels_of_its_own_is_refused(root: Path, name: str) -> None:
    with pytest.raises(AbawError, match='"ce" has no labels of its own') as caught:
        stage(name)(options(root), task="ce")
    assert "--task expr" in caught.value.fix
    assert caught.value.code is ExitCode.CONFIG


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_batch_of_one_row_is_refused_before_training(root: Path, pieces: int) -> None:
    cut = [f"fuse.batch_size={pieces}", f"fuse.accumulate={pieces}"]
    with pytest.raises(AbawError, match="a single row of track t1") as caught:
        fuse.run(config(root, *cut, "fuse.window=1", "fuse.stride=1"))
    assert caught.value.code is ExitCode.CONFIG
    assert not (root / "runs").exists()
    assert fuse.run(config(root, "fuse.batch_size=1", "fuse.window=2", "fuse.stride=1")).data["steps"] == 6


def test_the_next_command_can_be_pasted_beside_the_configuration(root: Path) -> None:
    lines = dict(fuse.run(config(root)).lines)
    assert lines["next"] == "abaw evaluate predictions/fuse-va-netease"


def test_one_of_several_processes_that_cannot_find_the_others_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(AbawError, match="nothing says where the first one is"):
        fuse.run(config(root))
    assert not (root / "runs").exists()


def test_streams_aligned_another_way_are_recorded_when_accepted(root: Path) -> None:
    shutil.rmtree(root / "features/visual-b")
    make_features(root / "features/visual-b", seed=2, recipe="b")
    with pytest.raises(AbawError, match="aligned another way"):
        fuse.run(config(root))
    fuse.run(config(root, "run.accept_recipe_mismatch=true"))
    record = json.loads((root / "runs/fuse-va-netease/run.json").read_text())
    assert "accepted by accept_recipe_mismatch" in record["warnings"][0]
