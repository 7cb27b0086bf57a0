"""Of several processes only one prints."""

import logging
import warnings

import pytest

from abaw import console
from abaw.errors import AbawError
from abaw.training.distributed import FailedElsewhere

ERROR = AbawError("face 3 cannot be read", where="t1", fix="align it again")


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch):
    """This process is the second of two; logging and warnings are put back afterwards."""
    logger = logging.getLogger("abaw")
    before = (logger.handlers[:], logger.level, logger.propagate)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    monkeypatch.setattr(console, "OTHERS_WAIT", 0)
    with warnings.catch_warnings():
        yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("second")
def test_the_second_process_prints_neither_results_nor_progress(capsys: pytest.CaptureFixture[str]) -> None:
    console.setup(verbose=True)
    logging.getLogger("abaw.training").error("lost")
    warnings.warn("old", stacklevel=1)
    assert list(console.progress(range(20), desc="train")) == list(range(20))
    console.print_text("a result")
    console.show(console.Summary("finetune", [("run", "r")], [console.Failure("t1", "no face")]))
    console.show_interrupted()
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("second")
def test_the_second_process_prints_an_error_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_error(ERROR)
    assert capsys.readouterr().err.startswith("error: face 3 cannot be read")


def test_an_error_of_another_process_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_error(FailedElsewhere(ERROR.what, where=ERROR.where, fix=ERROR.fix))
    assert capsys.readouterr() == ("", "")


def test_a_single_process_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    console.print_text("a result")
    console.show_error(ERROR)
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert err.count("error:") == 1


def test_a_rank_that_torchrun_did_not_give_silences_nobody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    console.print_text("a result")
    assert capsys.readouterr().out == "a result\n"
