"""Units in this process, or in a pool of processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from abaw.errors import AbawError
from abaw.executors.processes import begin_worker, ending_by_sigterm, environment, thread_variables
from abaw.executors.results import TrackResult, Unit, Work, run_unit


def outcomes(units: Sequence[Unit], work: Work, *, workers: int) -> Iterator[tuple[int, TrackResult]]:
    """Index of the unit and result of each track, as they finish; in this process for one worker or one unit.

    Raises AbawError when a worker process dies.
    """
    if workers <= 1 or len(units) <= 1:
        for index, unit in enumerate(units):
            for result in run_unit(unit, work):
                yield index, result
    else:
        with ending_by_sigterm():
            yield from _pooled(units, work, workers=min(workers, len(units)))


def _pooled(units: Sequence[Unit], work: Work, *, workers: int) -> Iterator[tuple[int, TrackResult]]:
    context = multiprocessing.get_context("spawn")  # fork would copy the threads' locks of torch and OpenCV
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker, initargs=(os.getpid(),))
    finished = False
    try:
        with environment(thread_variables(1)):  # submitting starts the workers
            futures: dict[Future[list[TrackResult]], int] = {
                pool.submit(_run_whole_unit, unit, work): index for index, unit in enumerate(units)
            }
        for future in as_completed(futures):
            index = futures[future]
            for result in _result_of(future, units[index]):
                yield index, result
        finished = True
    finally:
        _end(pool, finished=finished)


def _end(pool: ProcessPoolExecutor, *, finished: bool) -> None:
    """Shut the pool down; where the run was broken off, end the workers now: what they publish is atomic."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=finished, cancel_futures=True)
    if not finished:
        for process in workers:
            process.terminate()
        for process in workers:
            process.join()


def _result_of(future: Future[list[TrackResult]], unit: Unit) -> list[TrackResult]:
    try:
        return future.result()
    except BrokenProcessPool as err:
        names = ", ".join(track.track_id for track in unit)
        raise AbawError(
            f"a worker process died (often: out of memory), at or before {names}",
            where="run.workers",
            fix="run the same command again, finished tracks are kept; with fewer workers if it comes back",
        ) from err


def _run_whole_unit(unit: Unit, work: Work) -> list[TrackResult]:
    return list(run_unit(unit, work))
