from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from abaw.data.manifest import Track
from abaw.errors import AbawError, ExitCode
from abaw.executors import (
    GIVE_UP_AFTER,
    TrackResult,
    count_reasons,
    describe_reasons,
    iter_units,
    num_workers,
    refuse_overwrite_of_parts,
    run_units,
    shard,
    sum_reasons,
)

# Work for other processes must lie in a module that they can import.
WORK = """
import os
import numpy
import threadpoolctl
from abaw.errors import AbawError
from abaw.executors import TrackResult

def work(unit):
    for track in unit:
        if track.track_id == "bad":
            raise AbawError("bad video", where="here", fix="replace it")
        if track.track_id == "bug":
            raise KeyError("slip")
        if track.track_id == "dies":
            os._exit(9)
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
        yield TrackResult(track.track_id, info={"pid": os.getpid(), "threads": pools, "reasons": {"VALID": 7}})
"""


def units(*names: str) -> list[list[Track]]:
    """One unit per word; "a+b" is a unit of two tracks."""
    return [[Track(part, Path(f"{name}.mp4"), {}) for part in name.split("+")] for name in names]


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "work_for_executors.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("work_for_executors").work
    sys.modules.pop("work_for_executors")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_units(work, workers):
    results = run_units(units("c", "a+b", "d"), work, workers=workers)
    assert [(result.track_id, result.status) for result in results] == [(name, "done") for name in "cabd"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_users_error_fails_the_rest_of_its_unit_only(work, workers):
    results = run_units(units("a+bad+b", "c"), work, workers=workers)
    assert [result.status for result in results] == ["done", "failed", "failed", "done"]
    assert results[1].message == "bad video (fix: replace it)"
    assert not results[1].bug


@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_error_is_told_apart_with_its_traceback(work, workers):
    result = run_units(units("bug", "a"), work, workers=workers)[0]
    assert result.bug
    assert result.message == "KeyError: 'slip'"
    assert "work_for_executors.py" in result.traceback


def test_worker_processes_run_on_one_thread_each(work, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    results = run_units(units("a", "b"), work, workers=2)
    assert all(result.info["threads"] for result in results)
    assert {threads for result in results for threads in result.info["threads"]} == {1}
    assert os.environ["OPENBLAS_NUM_THREADS"] == "2"  # of this process
    assert "OMP_NUM_THREADS" not in os.environ


def test_every_finished_track_is_a_line_of_the_debug_log(work, caplog):
    with caplog.at_level(logging.DEBUG, logger="abaw"):
        run_units(units("a", "bad"), work)
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"a: done in \d+\.\d s, 7 VALID", lines[0])
    assert re.fullmatch(r"bad: failed in \d+\.\d s, bad video \(fix: replace it\)", lines[1])


def test_a_worker_that_dies_is_reported(work):
    with pytest.raises(AbawError, match="a worker process died"):
        run_units(units("dies", "a", "b"), work, workers=2)


def test_strict_raises_the_first_failure(work):
    with pytest.raises(AbawError, match="bad video"):
        run_units(units("a", "bad", "b"), work, strict=True)
    with pytest.raises(RuntimeError, match=r"track bug: KeyError: 'slip'\nTraceback"):
        run_units(units("bug", "a"), work, strict=True)


def test_the_first_tracks_failing_alike_stop_the_run():
    seen = []

    def work(unit: list[Track]) -> Iterator[TrackResult]:
        seen.append(unit[0].track_id)
        what = f"no codec for {unit[0].video}"
        raise AbawError(what, where=str(unit[0].video), fix="install it")
        yield

    names = [f"t{number}" for number in range(50)]
    with pytest.raises(AbawError, match=f"the first {GIVE_UP_AFTER} tracks all failed alike: no codec"):
        run_units(units(*names), work)
    assert len(seen) == GIVE_UP_AFTER


def test_different_failures_do_not_stop_the_run():
    def work(unit: list[Track]) -> Iterator[TrackResult]:
        number = int(unit[0].track_id[1:])
        what = "no codec" if number % 2 else "no picture"
        raise AbawError(what, where="", fix="")
        yield

    assert len(run_units(units(*[f"t{number}" for number in range(30)]), work)) == 30


def test_results_are_told_as_they_come(work):
    told = []
    run_units(units("a", "b"), work, on_result=lambda result: told.append(result.track_id))
    assert told == ["a", "b"]


def test_an_interrupt_stops_the_run():
    def work(unit: list[Track]) -> Iterator[TrackResult]:
        if unit[0].track_id == "b":
            raise KeyboardInterrupt
        yield TrackResult(unit[0].track_id)

    got = []
    with pytest.raises(KeyboardInterrupt):
        got.extend(result.track_id for result in iter_units(units("a", "b", "c"), work))
    assert got == ["a"]


def test_stopping_early_ends_the_workers(work):
    results = iter_units(units("a", "b", "c", "d"), work, workers=2)
    pid = next(results).info["pid"]
    results.close()
    assert not Path(f"/proc/{pid}").exists()


def test_shards_are_disjoint_and_complete():
    parts = [shard(list(range(7)), f"{part}/3") for part in (1, 2, 3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    assert shard([1, 2], None) == [1, 2]


@pytest.mark.parametrize("spec", ["0/3", "4/3", "x", "1/", "/2", "1/2/3", "-1/2"])
def test_a_shard_that_is_none_is_refused(spec):
    with pytest.raises(AbawError) as caught:
        shard([1], spec)
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(("shard", "limit"), [("1/2", None), (None, 1)])
def test_overwriting_a_part_is_refused(tmp_path, shard, limit):
    refuse_overwrite_of_parts(overwrite=True, shard=None, limit=None, store=tmp_path)
    refuse_overwrite_of_parts(overwrite=False, shard=shard, limit=limit, store=tmp_path)
    with pytest.raises(AbawError, match="delete tracks that are not redone"):
        refuse_overwrite_of_parts(overwrite=True, shard=shard, limit=limit, store=tmp_path)


RUN_AND_WAIT = """
import sys, time
from abaw.executors import run_units

def work(unit):
    print("started", flush=True)
    time.sleep(60)
    return []

if __name__ == "__main__":
    run_units([["a"], ["b"]], work, workers=2)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, number):
    (tmp_path / "script.py").write_text(RUN_AND_WAIT)
    command = [sys.executable, str(tmp_path / "script.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline().startswith(b"started")
    process.send_signal(number)
    # The workers hold the pipe's other end: it closes when the last of them is gone.
    process.communicate(timeout=20)
    assert process.returncode == (143 if number == signal.SIGTERM else -9)


def test_the_number_of_workers_is_as_asked_or_one_per_core():
    assert num_workers(3) == 3
    assert num_workers(0) >= 1


def test_reasons_are_counted_by_name():
    results = [TrackResult(name, info={"reasons": count_reasons([0, 0, 1])}) for name in "ab"]
    assert sum_reasons([*results, TrackResult("c", "failed")]) == {"VALID": 4, "NO_FACE": 2}
    assert describe_reasons({"VALID": 4, "NO_FACE": 2}, valid="with a face") == "4 with a face, 2 no face"
