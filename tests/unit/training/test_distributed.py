"""Training in several processes equals training in one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw.errors import AbawError
from abaw.training.distributed import gather_rows, gather_scores, is_main, main_first, own_part, piece_size
from tests.unit.training.ranks import EQUAL, ROWS
from tests.unit.training.tiny_run import CASES, train

# Sums over two halves and over the whole differ by rounding alone (float32, twelve steps).
TOLERANCE = 2e-5


def launch(what: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.unit.training.ranks"]
    return subprocess.run([sys.executable, *words, what, str(folder)], capture_output=True, text=True, check=False)


def notes(folder: Path) -> list[dict]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def lines(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, trained in two processes, one of them in a folder where a process was killed before."""
    folder = tmp_path_factory.mktemp("two")
    assert launch("killed", folder).returncode != 0
    state = torch.load(folder / "killed" / "resume.pt", weights_only=True)["state"]
    (folder / "killed.json").write_text(json.dumps(state))
    done = launch("everything", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", EQUAL)
def test_two_processes_train_as_one(tmp_path: Path, two: Path, name: str) -> None:
    train(tmp_path / "one", CASES[name])
    for one, other in zip(lines(tmp_path / "one"), lines(two / name), strict=True):
        assert other == pytest.approx(one, rel=TOLERANCE)
    one, other = (
        torch.load(folder / "resume.pt", weights_only=True)["model"] for folder in (tmp_path / "one", two / name)
    )
    assert all(torch.allclose(one[key], other[key], atol=TOLERANCE) for key in one)


@pytest.mark.parametrize("name", EQUAL)
def test_all_processes_end_with_the_same_weights(two: Path, name: str) -> None:
    first, second = notes(two)
    assert first[name] == second[name]


def test_scores_are_gathered_in_order_without_a_duplicate(two: Path) -> None:
    first, second = notes(two)
    assert (first["rows"], second["rows"]) == (31, 30)
    assert first["scores"] == second["scores"] == [[k, k * k] for k in range(ROWS)]


def test_the_others_fail_with_the_first_process(two: Path) -> None:
    assert [found["error"] for found in notes(two)] == [
        ["AbawError", "the disk is full"],
        ["FailedElsewhere", "the disk is full"],
    ]
    assert [found["first"] for found in notes(two)] == [0, 0]


def test_a_request_to_one_process_stops_all_at_the_same_step(two: Path) -> None:
    assert [found["stopped"] for found in notes(two)] == [7, 7]


def test_a_killed_training_of_two_processes_ends_with_the_same_weights(two: Path) -> None:
    assert json.loads((two / "killed.json").read_text())["step"] == 6
    assert notes(two)[0]["killed"] == notes(two)[0]["normed"]
    assert lines(two / "killed") == lines(two / "normed")


def test_a_loss_that_is_not_finite_is_told_by_the_first_process_alone(two: Path) -> None:
    (first, what), (second, same) = (found["poisoned"] for found in notes(two))
    assert (first, second) == ("AbawError", "FailedElsewhere")
    assert "stopped at step 5" in what
    assert what == same


def test_a_failing_process_ends_all_with_one_message(tmp_path: Path) -> None:
    done = launch("unreadable", tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert "face 3 cannot be read" in done.stderr
    assert done.stderr.count("Traceback") <= 1  # the launcher shows its own


def test_one_process_has_all_rows_and_gathers_nothing() -> None:
    values = torch.ones(2, 3, requires_grad=True)
    assert gather_rows(values) is values
    assert own_part(3).tolist() == [0, 1, 2]
    order = np.array([2, 0, 1])
    assert gather_scores(order, {"a": order * 10}, 3)["a"].tolist() == [0, 10, 20]
    assert is_main()


@pytest.mark.parametrize("rows", [[0, 1, 1], [0, 1], [0, 1, 3]])
def test_rows_scored_twice_or_never_are_refused(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="not each of 3 rows exactly once"):
        gather_scores(np.array(rows), {"a": np.zeros(len(rows))}, 3)


def test_processes_that_have_not_joined_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not is_main()
    with pytest.raises(AbawError, match="one of 2 processes"), main_first():
        pass


def test_a_batch_is_cut_into_equal_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert piece_size(12, 3, where="batch_size") == 4
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AbawError, match="batch of 10 cannot be cut") as caught:
        piece_size(10, 2, where="finetune.batch_size")
    assert "multiple of 4, such as 8" in caught.value.fix
