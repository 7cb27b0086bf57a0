"""Units on a Ray cluster end as they do in the local pool: results, failures, lost workers, interruption."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from abaw.data.manifest import Track
from abaw.errors import AbawError, ExitCode
from abaw.executors import Resources, TrackResult, run_units
from tests.scale.conftest import TwoNodes

pytestmark = pytest.mark.slow
TRIES = 4  # of a unit whose worker is lost: once, and three times again


def units(*names: str) -> list[list[Track]]:
    """One unit per word; "a+b" is a unit of two tracks."""
    return [[Track(part, Path(f"{name}.mp4"), {}) for part in name.split("+")] for name in names]


@pytest.fixture
def resources(two_nodes: TwoNodes, tmp_path: Path) -> Resources:
    return Resources("ray", two_nodes.address, writes=tmp_path)


@pytest.fixture
def work(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.syspath_prepend(work_folder)
    return importlib.import_module("work_on_nodes").work


def test_results_and_failures_are_those_of_the_local_pool(work, resources, caplog):
    names = units("c", "a+bad+b", "bug", "d")
    with caplog.at_level(logging.ERROR, logger="abaw"):
        here = run_units(names, work, workers=2)
        there = run_units(names, work, resources=resources)

    def told(results: list[TrackResult]) -> list[tuple[object, ...]]:
        return [(one.track_id, one.status, one.message, one.bug, bool(one.traceback)) for one in results]

    assert told(there) == told(here)
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == ["internal error in track bug"] * 2


def test_every_unit_runs_on_the_threads_that_it_declares(work, resources):
    results = run_units(units("a", "b", "c"), work, resources=resources)
    assert all(result.info["threads"] for result in results)
    assert {threads for result in results for threads in result.info["threads"]} == {1}


def test_strict_raises_the_first_failure(work, resources):
    with pytest.raises(AbawError, match="bad video") as caught:
        run_units(units("a", "bad", "b"), work, resources=resources, strict=True)
    assert caught.value.where == "here (track bad)"


def test_warnings_come_back_and_what_ray_says_stays_off_stdout(work, resources, tmp_path, caplog, capfd):
    with caplog.at_level(logging.WARNING, logger="abaw"):
        run_units(units("warns", "dies-once"), partial(work, folder=tmp_path), resources=resources)
    assert "warns is odd" in [record.getMessage() for record in caplog.records]
    assert capfd.readouterr().out == ""


def test_a_unit_whose_worker_dies_is_run_again(work, resources, tmp_path, caplog):
    results = run_units(units("dies-once", "a"), partial(work, folder=tmp_path), resources=resources)
    assert [(one.track_id, one.status) for one in results] == [("dies-once", "done"), ("a", "done")]
    assert "the worker of dies-once was lost, it is run again (1 of 3)" in caplog.text


def test_a_unit_whose_worker_always_dies_is_named(work, resources, tmp_path):
    with pytest.raises(AbawError, match=f"the worker of dies was lost {TRIES} times"):
        run_units(units("dies", "a"), partial(work, folder=tmp_path), resources=resources)


def test_a_node_without_a_folder_is_told_of(work, two_nodes, tmp_path):
    missing = tmp_path / "not-here"
    with pytest.raises(AbawError, match=f"has no {missing}") as caught:
        run_units(units("a"), work, resources=Resources("ray", two_nodes.address, reads=(missing,)))
    assert "one file system must show the same folders" in caught.value.fix


def test_nothing_is_left_in_the_folder_of_results(work, resources, tmp_path):
    run_units(units("a", "b"), work, resources=resources)
    assert list(tmp_path.iterdir()) == []


def test_what_no_node_has_is_refused_and_not_waited_for(work, two_nodes):
    with pytest.raises(AbawError, match=r"none of the \d nodes of the Ray cluster has the 1 CPU and 1 GPU") as caught:
        run_units(units("a"), work, resources=Resources("ray", two_nodes.address, gpus=1))
    assert caught.value.code == ExitCode.MISSING


def test_a_unit_goes_where_the_gpu_is_that_it_declares(work, two_nodes):
    node = two_nodes.add(num_gpus=1)  # Ray counts what it is told of
    try:
        found = run_units(units("a", "b", "c"), work, resources=Resources("ray", two_nodes.address, gpus=0.5))
        other = run_units(units("a"), work, resources=Resources("ray", two_nodes.address))
    finally:
        two_nodes.cluster.remove_node(node)
    assert {result.info["gpus"] for result in found} == {"0"}
    assert other[0].info["gpus"] == ""


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
from abaw.data.manifest import Track
from abaw.executors import Resources, run_units
from work_on_nodes import work

folder, address = Path(sys.argv[1]), sys.argv[2]
units = [[Track(f"sleeps-{number}", None, {})] for number in range(4)]
try:
    run_units(units, partial(work, folder=folder), resources=Resources("ray", address))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_running_units_end_with_the_command(two_nodes, work_folder, tmp_path, number, code):
    (tmp_path / "script.py").write_text(SCRIPT)
    folder = tmp_path / "pids"
    folder.mkdir()
    command = [sys.executable, str(tmp_path / "script.py"), str(folder), two_nodes.address]
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "PYTHONPATH": str(work_folder)})
    wait_until(lambda: len(list(folder.iterdir())) == 2)  # one on each node
    process.send_signal(number)
    assert process.wait(60) == code
    pids = [int(path.read_text()) for path in folder.iterdir()]
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    assert len(list(folder.iterdir())) == 2  # nor was another begun


def wait_until(is_so: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001"])
def test_a_cluster_that_is_not_there_is_told_of(work, two_nodes, address):
    with pytest.raises(AbawError, match=f"no Ray cluster is reached at {address}") as caught:
        run_units(units("a"), work, resources=Resources("ray", address))
    assert caught.value.code == ExitCode.MISSING
