"""Device and precision are resolved in one place."""

import logging
import os
from collections.abc import Iterator

import pytest
import torch

from abaw.errors import AbawError, ExitCode
from abaw.training.device import launched, rank_and_world, resolve_device, resolve_precision, use_threads


def test_auto_says_what_it_took_and_a_name_needs_no_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="abaw"):
        taken = resolve_device("auto")
        resolve_device("cpu")
    (line,) = caplog.messages
    assert line.startswith(f"device: {taken}")


def test_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_that_is_not_there_is_exit_code_5(name: str) -> None:
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(AbawError, match="is not available") as caught:
        resolve_device(name)
    assert caught.value.code is ExitCode.MISSING


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x"])
def test_an_unknown_device_is_a_configuration_error(name: str) -> None:
    with pytest.raises(AbawError) as caught:
        resolve_device(name)
    assert caught.value.code is ExitCode.CONFIG


def test_precision_is_resolved_to_one_of_two() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) in ("fp32", "bf16")
    assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(AbawError, match='unknown precision "half"'):
        resolve_precision("half", cpu)


def test_a_single_process_has_rank_0_of_1() -> None:
    assert rank_and_world() == (0, 1)


def test_auto_goes_on_with_the_recorded_precision_and_a_name_does_not() -> None:
    cpu = torch.device("cpu")
    assert [resolve_precision("auto", cpu, recorded=name) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("fp32", cpu, recorded="bf16") == "fp32"


def test_the_launcher_says_rank_and_world(monkeypatch: pytest.MonkeyPatch) -> None:
    for world, rank, expected in (("", "", (0, 1)), ("1", "0", (0, 1)), ("4", "3", (3, 4))):
        monkeypatch.setenv("WORLD_SIZE", world)
        monkeypatch.setenv("RANK", rank)
        assert launched() == expected


def test_several_processes_cannot_share_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(AbawError, match='2 processes cannot share device "cuda:0"') as caught:
        resolve_device("cuda:0")
    assert caught.value.code is ExitCode.CONFIG


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


CORES = len(os.sched_getaffinity(0))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("count", "local", "wished", "expected"),
    [
        (0, "", "", CORES),
        (0, "", "1", 1),
        (3, "", "1", 3),
        (0, "2", "1", max(1, CORES // 2)),
        (0, "2", "", max(1, CORES // 2)),
        (0, "2", "5", 5),
        (3, "2", "1", 3),
        (0, "1000", "1", 1),
    ],
)
def test_processes_of_a_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, count: int, local: str, wished: str, expected: int
) -> None:
    torch.set_num_threads(int(wished or 2))  # as torch does by itself when it is loaded
    monkeypatch.setenv("OMP_NUM_THREADS", wished)
    monkeypatch.setenv("WORLD_SIZE", local)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    assert use_threads(count) == expected
