"""Device and precision are resolved in one place."""

import pytest
import torch

from abaw.errors import AbawError, ExitCode
from abaw.training.device import rank_and_world, require_one_process, resolve_device, resolve_precision


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


@pytest.mark.parametrize("world", ["", "1"])
def test_one_process_may_train(monkeypatch: pytest.MonkeyPatch, world: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    require_one_process()
    monkeypatch.delenv("WORLD_SIZE")
    require_one_process()


def test_several_processes_are_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(AbawError, match="one of 4 processes") as caught:
        require_one_process()
    assert caught.value.code is ExitCode.CONFIG
