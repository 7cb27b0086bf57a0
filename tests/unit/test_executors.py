from __future__ import annotations

import importlib
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
        yield TrackResult(track.track_id, info={"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")})
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


def test_worker_processes_run_on_one_thread_each(work):
    results = run_units(units("a", "b"), work, workers=2)
    assert {result.info["threads"] for result in results} == {"1"}


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


def test_overwriting_in_parts_is_refused(tmp_path):
    refuse_overwrite_of_parts(overwrite=True, shard=None, store=tmp_path)
    refuse_overwrite_of_parts(overwrite=False, shard="1/2", store=tmp_path)
    with pytest.raises(AbawError, match="--overwrite with --shard"):
        refuse_overwrite_of_parts(overwrite=True, shard="1/2", store=tmp_path)


def test_the_number_of_workers_is_as_asked_or_one_per_core():
    assert num_workers(3) == 3
    assert num_workers(0) >= 1


def test_reasons_are_counted_by_name():
    results = [TrackResult(name, info={"reasons": count_reasons([0, 0, 1])}) for name in "ab"]
    assert sum_reasons([*results, TrackResult("c", "failed")]) == {"VALID": 4, "NO_FACE": 2}
    assert describe_reasons({"VALID": 4, "NO_FACE": 2}, valid="with a face") == "4 with a face, 2 no face"
