"""The training loop: exact resume, selection, accumulation, and its one stop."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from abaw.checkpoint import load_checkpoint
from abaw.errors import AbawError
from abaw.training.loop import LoopSettings, Round, describe, step_seed, write_state
from tests.unit.training.tiny_run import STEPS, Points, half_batches, train


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


class Stop(Exception):
    pass


def stop_at(step: int):
    def stop(now: int) -> None:
        if now == step:
            raise Stop

    return stop


@pytest.mark.parametrize("step", [1, 3, 5, 9, 11])
def test_a_run_stopped_anywhere_ends_with_the_same_weights(tmp_path: Path, step: int) -> None:
    whole, first = train(tmp_path / "whole")
    with pytest.raises(Stop):
        train(tmp_path / "cut", on_step=stop_at(step))
    cut, second = train(tmp_path / "cut")
    assert same(whole, cut)
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")
    assert (first.best_score, first.best_step) == (second.best_score, second.best_step)
    best = [load_checkpoint(tmp_path / name / "best.safetensors")[0] for name in ("whole", "cut")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_a_killed_process_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    command = [sys.executable, "-m", "tests.unit.training.tiny_run", str(tmp_path / "killed"), "8"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    resumed, _ = train(tmp_path / "killed")
    assert same(whole, resumed)
    assert lines(tmp_path / "whole") == lines(tmp_path / "killed")


def test_rounds_are_reported_in_order_and_the_best_is_kept(tmp_path: Path) -> None:
    rounds: list[Round] = []
    model, result = train(tmp_path, report=rounds.append)
    assert [done.step for done in rounds] == [4, 8, 12]
    scores = [done.metrics["score"] for done in rounds]
    assert result.best_score == max(scores)
    assert load_checkpoint(tmp_path / "best.safetensors")[1]["step"] == result.best_step
    assert rounds[0].parts["half"] == pytest.approx(rounds[0].loss / 2, rel=1e-5)


def test_keep_last_publishes_the_final_weights(tmp_path: Path) -> None:
    model, _ = train(tmp_path, settings=LoopSettings(steps=5, validate_every=2, save_every=5, keep="last"))
    weights, header = load_checkpoint(tmp_path / "best.safetensors")
    assert header["step"] == 5
    assert torch.equal(weights["0.weight"], model.state_dict()["0.weight"])


def test_the_resume_point_is_loadable_without_running_code(tmp_path: Path) -> None:
    train(tmp_path)
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["state"]["step"] == STEPS
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_damaged_resume_point_is_named(tmp_path: Path) -> None:
    train(tmp_path)
    (tmp_path / "resume.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(AbawError, match="resume point .* cannot be read"):
        train(tmp_path)


def test_a_loss_that_is_not_finite_names_step_and_samples_and_spares_the_weights(tmp_path: Path) -> None:
    source = Points(poison=6)
    with pytest.raises(AbawError, match="stopped at step 6: loss nan") as caught:
        train(tmp_path, source=source)
    assert all(name in caught.value.where for name in source.sample_ids(6, 0, 1))
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["state"]["step"] == 6


def test_accumulated_pieces_make_the_whole_batch() -> None:
    source = Points()
    whole = source.batch(3, 0, 1)["x"]
    assert torch.equal(whole, torch.cat([source.batch(3, part, 2)["x"] for part in range(2)]))


def test_accumulation_is_resumed_exactly_too(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", settings=half_batches())
    with pytest.raises(Stop):
        train(tmp_path / "cut", settings=half_batches(), on_step=stop_at(7))
    assert same(whole, train(tmp_path / "cut", settings=half_batches())[0])


def test_dropout_seeds_differ_by_step_rank_and_seed() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_round_is_one_line_in_fixed_order() -> None:
    done = Round(200, 600, 0.412, {}, {"score": 0.512, "va.ccc": 0.512}, 0.518, 150, 8.1e-5, 12.34)
    line = "step 200/600  loss 0.4120  val va.ccc 0.512 (best 0.518 @ 150)  lr 8.1e-05  12.3 s"
    assert describe(done, metric="va.ccc") == line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_from_other_failures() -> None:
    with pytest.raises(OSError, match="inline_container"):
        write_state({"weights": torch.zeros(1_000_000)}, Path("/dev/full"))


class Broken:
    def __reduce__(self):
        message = "CUDA error: out of memory"
        raise RuntimeError(message)


def test_a_failing_device_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="CUDA error"):
        write_state({"weights": Broken()}, tmp_path / "state.pt")
