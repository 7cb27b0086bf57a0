"""Run units of tracks, one outcome per track: in this process, in a local process pool, or as tasks of a Ray cluster.

Whatever runs them, the same failures stop the run and the same lines are logged. Knows nothing of what a unit does.
No torch; nothing of Ray is imported unless it is chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from abaw.executors import local
from abaw.executors.guard import GIVE_UP_AFTER, Guard
from abaw.executors.parts import refuse_overwrite_of_parts, shard
from abaw.executors.processes import num_workers
from abaw.executors.resources import RAY, Resources
from abaw.executors.results import (
    OnResult,
    TrackResult,
    Unit,
    UnitTrack,
    Work,
    attempt,
    count_reasons,
    describe_reasons,
    sum_reasons,
)

__all__ = [
    "GIVE_UP_AFTER",
    "RAY",
    "OnResult",
    "Resources",
    "TrackResult",
    "Unit",
    "UnitTrack",
    "Work",
    "attempt",
    "count_reasons",
    "describe_reasons",
    "iter_units",
    "num_workers",
    "refuse_overwrite_of_parts",
    "run_units",
    "shard",
    "sum_reasons",
]

logger = logging.getLogger(__name__)
LOCAL = Resources()


def run_units(
    units: Sequence[Unit],
    work: Work,
    *,
    workers: int = 1,
    strict: bool = False,
    on_result: OnResult | None = None,
    resources: Resources = LOCAL,
) -> list[TrackResult]:
    """As `iter_units`, all results at once in the order of the units; ``on_result`` is called as they come."""
    gathered: dict[int, list[TrackResult]] = {}
    for index, result in _watched(units, work, workers=workers, strict=strict, resources=resources):
        gathered.setdefault(index, []).append(result)
        if on_result is not None:
            on_result(result)
    return [result for index in sorted(gathered) for result in gathered[index]]


def iter_units(
    units: Sequence[Unit], work: Work, *, workers: int = 1, strict: bool = False, resources: Resources = LOCAL
) -> Iterator[TrackResult]:
    """Call ``work`` on every unit and yield one result per track, as they finish.

    ``work(unit)`` yields a result as each track is published; it must be picklable for ``workers > 1`` and on Ray.
    Every local process runs its numeric libraries on one thread, a task of Ray on ``resources.cpus``. An AbawError
    fails the unit's remaining tracks; any other exception does too and is marked ``bug`` with its traceback.

    Raises the first failure with ``strict``; AbawError when the first tracks all fail alike, when a local worker
    process dies, or where `ray_tasks.outcomes` does; KeyboardInterrupt stops the workers and is passed on.
    """
    for _, result in _watched(units, work, workers=workers, strict=strict, resources=resources):
        yield result


def _watched(
    units: Sequence[Unit], work: Work, *, workers: int, strict: bool, resources: Resources
) -> Iterator[tuple[int, TrackResult]]:
    guard = Guard(strict=strict)
    shown: set[str] = set()
    for index, result in _outcomes(units, work, workers=workers, resources=resources):
        if result.bug and result.message not in shown:
            shown.add(result.message)
            logger.error("internal error in track %s\n%s", result.track_id, result.traceback)
        _log(result)
        yield index, result
        guard.check(result, units[index])


def _outcomes(
    units: Sequence[Unit], work: Work, *, workers: int, resources: Resources
) -> Iterator[tuple[int, TrackResult]]:
    if not resources.is_ray:
        return local.outcomes(units, work, workers=workers)
    from abaw.executors import ray_tasks

    return ray_tasks.outcomes(units, work, resources)


def _log(result: TrackResult) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in result.info.get("reasons", {}).items())
    text = result.message or counts
    logger.debug("%s: %s in %.1f s%s", result.track_id, result.status, result.seconds, f", {text}" if text else "")
