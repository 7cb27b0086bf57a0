"""Run units of tracks in a local process pool, one outcome per track.

Owns the only place where an unexpected exception of one track is caught, so that one bad video does not end a run.
Knows nothing of what a unit does. No torch.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from abaw.errors import AbawError, ExitCode
from abaw.store import Reason

T = TypeVar("T")
logger = logging.getLogger(__name__)

# When the first so many tracks all failed with one message, the set-up is wrong, not the videos.
GIVE_UP_AFTER = 20
PR_SET_PDEATHSIG = 1  # prctl(2): the signal a process gets when its parent dies
# Read once by the numeric libraries, when they are loaded: they must be set before a worker starts.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class UnitTrack(Protocol):
    """What a unit is made of: anything with a track id (and perhaps a ``video``)."""

    @property
    def track_id(self) -> str: ...


@dataclass(frozen=True)
class TrackResult:
    """Outcome of one track; ``bug`` when a program error, not the data, was the cause.

    ``message`` and ``traceback`` are texts for a person, ``info`` is what the work wants to tell its stage, and
    ``seconds`` what the track took since the one before it in its unit.
    """

    track_id: str
    status: Literal["done", "failed"] = "done"
    message: str = ""
    bug: bool = False
    traceback: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    error: AbawError | None = None
    seconds: float = 0.0


Unit = Sequence[Any]
Work = Callable[[Any], Iterable[TrackResult]]
OnResult = Callable[[TrackResult], None]


def run_units(
    units: Sequence[Unit],
    work: Work,
    *,
    workers: int = 1,
    strict: bool = False,
    on_result: OnResult | None = None,
) -> list[TrackResult]:
    """As `iter_units`, all results at once in the order of the units; ``on_result`` is called as they come."""
    gathered: dict[int, list[TrackResult]] = {}
    for index, result in _watched(units, work, workers=workers, strict=strict):
        gathered.setdefault(index, []).append(result)
        if on_result is not None:
            on_result(result)
    return [result for index in sorted(gathered) for result in gathered[index]]


def iter_units(units: Sequence[Unit], work: Work, *, workers: int = 1, strict: bool = False) -> Iterator[TrackResult]:
    """Call ``work`` on every unit and yield one result per track, as they finish.

    ``work(unit)`` yields a result as each track is published; it must be picklable for ``workers > 1``, where every
    process runs its numeric libraries on one thread. An AbawError fails the unit's remaining tracks; any other
    exception does too and is marked ``bug`` with its traceback.

    Raises the first failure with ``strict``; AbawError when the first tracks all fail alike or a worker process
    dies; KeyboardInterrupt stops the workers and is passed on.
    """
    for _, result in _watched(units, work, workers=workers, strict=strict):
        yield result


def num_workers(requested: int) -> int:
    """Processes to use for ``run.workers``: 0 means one per core this process may run on."""
    if requested:
        return requested
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _watched(units: Sequence[Unit], work: Work, *, workers: int, strict: bool) -> Iterator[tuple[int, TrackResult]]:
    guard = _Guard(strict=strict)
    shown: set[str] = set()
    for index, result in _outcomes(units, work, workers=workers):
        if result.bug and result.message not in shown:
            shown.add(result.message)
            logger.error("internal error in track %s\n%s", result.track_id, result.traceback)
        _log(result)
        yield index, result
        guard.check(result, units[index])


def _log(result: TrackResult) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in result.info.get("reasons", {}).items())
    text = result.message or counts
    logger.debug("%s: %s in %.1f s%s", result.track_id, result.status, result.seconds, f", {text}" if text else "")


def shard(items: Sequence[T], spec: str | None) -> list[T]:
    """Part I of N of a list for ``spec`` "I/N" (I from 1): every N-th item, so that each part is like the whole.

    None gives everything. Raises AbawError (usage) for anything else.
    """
    if spec is None:
        return list(items)
    first, _, second = spec.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise AbawError(f'"{spec}" is not a shard', where="--shard", fix="write I/N, such as 1/4", code=ExitCode.USAGE)
    return list(items[int(first) - 1 :: int(second)])


def refuse_overwrite_of_parts(*, overwrite: bool, shard: str | None, limit: int | None, store: Path) -> None:
    """AbawError (usage) for --overwrite with --shard or --limit: all tracks would go, and only some come back."""
    if overwrite and (shard not in (None, "1/1") or limit is not None):
        raise AbawError(
            f"--overwrite with {'--limit' if limit is not None else '--shard'} would delete tracks that are not redone",
            where="--overwrite",
            fix=f"delete {store}, or the files of those tracks in it, and run without --overwrite",
            code=ExitCode.USAGE,
        )


def count_reasons(reason: np.ndarray) -> dict[str, int]:
    """How often each reason occurs in a track, by name; for ``TrackResult.info``."""
    counts = np.bincount(reason, minlength=len(Reason))
    return {Reason(number).name: int(count) for number, count in enumerate(counts) if count}


def sum_reasons(results: Iterable[TrackResult]) -> dict[str, int]:
    """The counts of all finished tracks together."""
    total: dict[str, int] = {}
    for result in results:
        for name, count in result.info.get("reasons", {}).items():
            total[name] = total.get(name, 0) + count
    return total


def describe_reasons(counts: dict[str, int], *, valid: str) -> str:
    """ "1108 with a face, 410 no face": ``valid`` words the valid rows."""
    words = {reason.name: reason.name.lower().replace("_", " ") for reason in Reason} | {"VALID": valid}
    return ", ".join(f"{count} {words[name]}" for name, count in counts.items())


def _outcomes(units: Sequence[Unit], work: Work, *, workers: int) -> Iterator[tuple[int, TrackResult]]:
    if workers <= 1 or len(units) <= 1:
        for index, unit in enumerate(units):
            for result in _run_unit(unit, work):
                yield index, result
    else:
        yield from _pooled(units, work, workers=min(workers, len(units)))


def _pooled(units: Sequence[Unit], work: Work, *, workers: int) -> Iterator[tuple[int, TrackResult]]:
    context = multiprocessing.get_context("spawn")  # fork would copy the threads' locks of torch and OpenCV
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(),))
    finished = False
    try:
        signal_before = _end_by_sigterm()
        with _one_thread_each():  # submitting starts the workers
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
        if signal_before is not None:
            signal.signal(signal.SIGTERM, signal_before)


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


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile run their numeric libraries on one thread."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_by_sigterm() -> Any:
    """Let SIGTERM (a job scheduler, `timeout`) raise SystemExit, so that the workers are ended too.

    Returns the handler to put back; None outside the main thread, which alone may set one.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    if sys.platform == "linux":  # a parent that is killed cannot: then the kernel does
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the request
        os._exit(1)


def _run_whole_unit(unit: Unit, work: Work) -> list[TrackResult]:
    return list(_run_unit(unit, work))


def _run_unit(unit: Unit, work: Work) -> Iterator[TrackResult]:
    """Results of one unit; what an exception leaves open is failed."""
    told = set()
    started = time.monotonic()
    try:
        for result in work(unit):
            told.add(result.track_id)
            yield replace(result, seconds=time.monotonic() - started)
            started = time.monotonic()
    except Exception as err:
        failed = _failure("", err)
    else:
        return
    seconds = time.monotonic() - started
    for track in unit:
        if track.track_id not in told:
            yield replace(failed, track_id=track.track_id, seconds=seconds)


def attempt(track_id: str, work: Callable[[], TrackResult]) -> TrackResult:
    """Result of the work on one track of a unit, whose failure must not be its neighbours'."""
    try:
        return work()
    except Exception as err:
        return _failure(track_id, err)


def _failure(track_id: str, err: Exception) -> TrackResult:
    if isinstance(err, AbawError):
        return TrackResult(track_id, "failed", f"{err.what} (fix: {err.fix})", error=err)
    return TrackResult(track_id, "failed", f"{type(err).__name__}: {err}", bug=True, traceback=traceback.format_exc())


class _Guard:
    """Decides when failures mean that going on makes no sense."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._num_failed = 0
        self._message: str | None = None
        self._open = True

    def check(self, result: TrackResult, unit: Unit) -> None:
        if result.status == "done":
            self._open = False
            return
        if self._strict:
            raise _as_exception(result)
        if not self._open:
            return
        message = _without_names(result.message, result.track_id, unit)
        self._num_failed += 1
        self._open = self._message in (None, message)
        self._message = message
        if self._open and self._num_failed >= GIVE_UP_AFTER:
            raise _as_exception(result, prefix=f"the first {GIVE_UP_AFTER} tracks all failed alike: ")


def _without_names(message: str, track_id: str, unit: Unit) -> str:
    for track in unit:
        video = getattr(track, "video", None)
        for name in (str(video), getattr(video, "name", ""), track.track_id):
            message = message.replace(name, "*") if name else message
    return message.replace(track_id, "*")


def _as_exception(result: TrackResult, *, prefix: str = "") -> Exception:
    if result.bug:
        return RuntimeError(f"{prefix}track {result.track_id}: {result.message}\n{result.traceback}")
    err = result.error
    if err is None:
        where, fix = f"track {result.track_id}", "see the message"
        return AbawError(f"{prefix}{result.message}", where=where, fix=fix)
    return AbawError(f"{prefix}{err.what}", where=f"{err.where} (track {result.track_id})", fix=err.fix, code=err.code)
