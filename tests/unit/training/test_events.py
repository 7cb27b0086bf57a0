"""Curves for TensorBoard, which is no dependency: a package of its name stands in."""

import json
import logging
import sys
import types
from pathlib import Path

import pytest

from abaw.training.events import Events
from tests.unit.training.tiny_run import train


class Writer:
    """Writes what it is told as JSON lines, in the place of SummaryWriter."""

    def __init__(self, log_dir: str, purge_step: int) -> None:
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        self.file = (Path(log_dir) / f"from{purge_step}").open("a")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.file.write(json.dumps([step, name, value]) + "\n")

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site" / "tensorboard").mkdir(parents=True)
    (tmp_path / "site" / "tensorboard" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)


@pytest.mark.usefixtures("installed")
def test_a_training_draws_what_it_logs(tmp_path: Path) -> None:
    train(tmp_path / "r")
    drawn = [json.loads(line) for line in (tmp_path / "r" / "tensorboard" / "from1").read_text().splitlines()]
    logged = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    names = ("loss", "half", "val score", "lr")
    assert drawn == [[line["step"], name, line[name]] for line in logged for name in names]


@pytest.mark.usefixtures("installed")
def test_other_processes_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with Events(tmp_path / "tensorboard", step=0) as events:
        events.write(1, {"loss": 1.0})
    assert not (tmp_path / "tensorboard").exists()


def test_a_package_that_cannot_be_loaded_is_only_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(logging.getLogger("abaw"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="abaw"), Events(tmp_path / "curves", step=0) as events:
        events.write(1, {"loss": 1.0})
    assert "no TensorBoard files" in caplog.text
