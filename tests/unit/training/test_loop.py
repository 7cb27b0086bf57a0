"""The training loop: exact resume, selection, accumulation, and its one stop."""

import json
import logging
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from abaw.checkpoint import load_checkpoint
from abaw.errors import AbawError
from abaw.training.loop import LoopSettings, Round, describe, step_seed
from abaw.training.resume import write_state
from tests.unit.training.tiny_run import CASES, SETTINGS, STEPS, Case, Points, at_step, train


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


RESUMED = ["normed", "halves", "averaged", "transformer", "bf16"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every kind killed at every step."""
    folder = tmp_path_factory.mktemp("killed")
    words = [f"{name}:{step}" for name in RESUMED for step in range(STEPS)]
    subprocess.run([sys.executable, "-m", "tests.unit.training.tiny_run", str(folder), *words], check=True)
    return folder


@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_process_ends_with_the_same_weights(tmp_path: Path, killed: Path, name: str) -> None:
    whole, _ = train(tmp_path / "whole", CASES[name])
    for step in range(STEPS):
        cut = killed / f"{name}-{step}"
        resumed, _ = train(cut, CASES[name])
        assert same(whole, resumed), step
        assert lines(tmp_path / "whole") == lines(cut), step
        assert (tmp_path / "whole" / "best.safetensors").read_bytes() == (cut / "best.safetensors").read_bytes(), step


def test_rounds_are_reported_in_order_and_the_best_is_kept(tmp_path: Path) -> None:
    rounds: list[Round] = []
    model, result = train(tmp_path, report=rounds.append)
    assert [done.step for done in rounds] == [4, 8, 12]
    scores = [done.metrics["score"] for done in rounds]
    assert result.best_score == max(scores)
    assert load_checkpoint(tmp_path / "best.safetensors")[1]["step"] == result.best_step
    assert rounds[0].parts["half"] == pytest.approx(rounds[0].loss / 2, rel=1e-5)


def test_keep_last_publishes_the_final_weights(tmp_path: Path) -> None:
    model, _ = train(tmp_path, Case(settings=LoopSettings(steps=5, validate_every=2, save_every=5, keep="last")))
    weights, header = load_checkpoint(tmp_path / "best.safetensors")
    assert header["step"] == 5
    assert torch.equal(weights["0.weight"], model.state_dict()["0.weight"])


def test_the_resume_point_is_loadable_without_running_code(tmp_path: Path) -> None:
    train(tmp_path)
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["state"]["step"] == STEPS
    assert not list(tmp_path.glob(".*.tmp"))


def test_other_threads_and_processes_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path)
    content = torch.load(tmp_path / "resume.pt", weights_only=True)
    torch.save({**content, "threads": 7, "world": 4}, tmp_path / "resume.pt")
    monkeypatch.setattr(logging.getLogger("abaw"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="abaw"):
        train(tmp_path)
    assert "used 7 torch threads before and uses 1 now" in caplog.text
    assert "used 4 processes before and uses 1 now" in caplog.text


def test_a_resume_point_of_the_first_version_is_taken_up(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Stop):
        train(tmp_path / "cut", on_step=stop_at(7))
    content = torch.load(tmp_path / "cut" / "resume.pt", weights_only=True)
    del content["world"], content["state"]["round_due"]
    torch.save(content, tmp_path / "cut" / "resume.pt")
    assert same(whole, train(tmp_path / "cut")[0])


def test_a_damaged_resume_point_is_named(tmp_path: Path) -> None:
    train(tmp_path)
    (tmp_path / "resume.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(AbawError, match="resume point .* cannot be read"):
        train(tmp_path)


def test_a_loss_that_is_not_finite_names_step_and_samples_and_spares_the_weights(tmp_path: Path) -> None:
    source = Points(poison=6)
    with pytest.raises(AbawError, match="stopped at step 6: loss nan") as caught:
        train(tmp_path, source=source)
    assert all(name in caught.value.where for name in source.sample_ids(6, 0, 1)[:8])
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["state"]["step"] == 6
    assert "nonfinite.json" in caught.value.fix
    assert "nonfinite.pt" in caught.value.fix


def test_the_report_of_a_loss_that_is_not_finite_allows_a_replay(tmp_path: Path) -> None:
    source = Points(poison=6)
    with pytest.raises(AbawError, match="stopped at step 6"):
        train(tmp_path, CASES["halves"], source=source)
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (found["step"], found["samples"]) == (6, source.sample_ids(6, 0, 1))
    assert found["losses"] == {"loss": "nan", "half": "nan"}
    assert set(found["gradient_norms"]) == {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}
    batch = torch.load(tmp_path / "nonfinite.pt", weights_only=True)
    assert torch.equal(torch.cat([piece["x"] for piece in batch["pieces"]]), source.batch(6, 0, 1)["x"])


def test_after_a_loss_that_is_not_finite_the_run_goes_on_before_that_step(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="stopped at step 7"):
        train(tmp_path / "cut", source=Points(poison=7))
    assert not (tmp_path / "cut" / "done").exists()
    assert torch.load(tmp_path / "cut/resume.pt", weights_only=True)["state"]["step"] == 7
    mended, _ = train(tmp_path / "cut")
    assert same(train(tmp_path / "whole")[0], mended)
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")
    assert not list((tmp_path / "cut").glob("nonfinite*"))


def test_accumulated_pieces_make_the_whole_batch() -> None:
    source = Points()
    whole = source.batch(3, 0, 1)["x"]
    assert torch.equal(whole, torch.cat([source.batch(3, part, 2)["x"] for part in range(2)]))


def test_accumulation_is_resumed_exactly_too(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", CASES["halves"])
    with pytest.raises(Stop):
        train(tmp_path / "cut", CASES["halves"], on_step=stop_at(7))
    assert same(whole, train(tmp_path / "cut", CASES["halves"])[0])


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_finishes_the_step_and_loses_nothing(tmp_path: Path, number: int) -> None:
    inherited = signal.signal(number, signal.default_int_handler)  # the background job of a shell ignores SIGINT
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", on_step=at_step(4, number))
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, inherited)
    assert torch.load(tmp_path / "cut" / "resume.pt", weights_only=True)["state"]["step"] == 5
    steps: list[int] = []
    resumed, _ = train(tmp_path / "cut", on_step=steps.append)
    assert steps == list(range(5, STEPS))
    assert same(train(tmp_path / "whole")[0], resumed)


@pytest.mark.parametrize("step", [3, STEPS - 1])
def test_a_request_to_stop_before_a_round_puts_the_round_off(tmp_path: Path, step: int) -> None:
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", on_step=at_step(step, signal.SIGTERM))
    state = torch.load(tmp_path / "cut" / "resume.pt", weights_only=True)["state"]
    assert (state["step"], state["round_due"]) == (step + 1, True)
    assert same(whole, train(tmp_path / "cut")[0])
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")


@pytest.mark.parametrize("name", ["normed", "averaged"])
def test_a_request_to_stop_breaks_validation_off(tmp_path: Path, name: str) -> None:
    whole, _ = train(tmp_path / "whole", CASES[name])

    def stop() -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("validation went on")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", CASES[name], on_validate=stop)
    assert torch.load(tmp_path / "cut" / "resume.pt", weights_only=True)["state"]["step"] == 4
    assert same(whole, train(tmp_path / "cut", CASES[name])[0])
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")


def test_the_averaged_weights_are_kept_and_the_trained_ones_go_on(tmp_path: Path) -> None:
    model, _ = train(tmp_path / "a", Case(settings=replace(SETTINGS, ema_decay=0.9, keep="last")))
    plain, _ = train(tmp_path / "b", Case(settings=replace(SETTINGS, keep="last")))
    assert same(model, plain)
    kept = [load_checkpoint(tmp_path / name / "best.safetensors")[0]["0.weight"] for name in ("a", "b")]
    assert torch.equal(kept[1], plain.state_dict()["0.weight"])
    stored = torch.load(tmp_path / "a" / "resume.pt", weights_only=True)["average"]["0.weight"]
    assert torch.equal(kept[0], stored)
    assert not torch.equal(kept[0], kept[1])


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_keeps_the_names_of_the_weights(tmp_path: Path) -> None:
    compiled, _ = train(tmp_path / "compiled", CASES["compiled"])
    plain, _ = train(tmp_path / "plain", CASES["line"])
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
