"""Units as tasks of a Ray cluster: one task per unit, its cores and GPUs declared, lost ones run again.

The only module that uses Ray, which is imported when it is called. Ray repeats nothing by itself here: what is run
again, and how often, is counted and said in one place.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from abaw import __version__
from abaw.errors import AbawError, ExitCode
from abaw.executors.processes import thread_variables
from abaw.executors.ray_node import Job, Told, run_on_node
from abaw.executors.ray_session import connected, marked
from abaw.executors.resources import Resources
from abaw.executors.results import TrackResult, Unit, Work

logger = logging.getLogger(__name__)

RETRIES = 3  # of a unit whose worker or node was lost
TICK_S = 5.0  # without a result, after which it is asked whether any node can still run the rest
SHOWN = 5  # tracks of a unit that are named


def outcomes(units: Sequence[Unit], work: Work, resources: Resources) -> Iterator[tuple[int, TrackResult]]:
    """Index of the unit and result of each track, as units finish.

    Raises AbawError where Ray is not installed or not reached, where no node has what a unit takes, where a node lacks
    a folder or has another version of this program, and for a unit whose worker was lost again and again.
    """
    if not units:
        return
    with connected(resources) as ray, marked(resources.writes) as marker:
        job = Job(work, Path.cwd(), resources.reads, marker, resources.live)
        tasks = _Tasks(ray, units, job, resources)
        try:
            yield from tasks.outcomes()
        finally:
            tasks.cancel()


class _Tasks:
    """The tasks of one run: those that wait, those that run, and how often each unit was lost."""

    def __init__(self, ray: Any, units: Sequence[Unit], job: Job, resources: Resources) -> None:
        self._ray, self._units, self._resources = ray, units, resources
        errors = ray.exceptions
        self._lost_by = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        )
        self._job = ray.put(job)
        self._waiting = deque(range(len(units)))
        self._running: dict[Any, int] = {}
        self._ended: SimpleQueue[Any] = SimpleQueue()
        self._lost: Counter[int] = Counter()
        self._said: set[str] = set()
        self._task = ray.remote(run_on_node)
        self._options: dict[str, Any] = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "max_retries": 0,
            "runtime_env": {"env_vars": thread_variables(resources.cpus)},
        }

    def outcomes(self) -> Iterator[tuple[int, TrackResult]]:
        """Index of the unit and result of each track."""
        self._require_a_node()
        while self._waiting or self._running:
            self._start()
            try:  # not in `ray.wait`, which turns the exit that a signal asks for into one with status 1
                task = self._ended.get(timeout=TICK_S)
            except Empty:
                self._require_a_node()
                continue
            index = self._running.pop(task)
            for result in self._results(task, index):
                yield index, result

    def _start(self) -> None:
        """Hand over what waits; all of it, unless fewer may run at once: Ray's scheduler sees what is still to come."""
        room = self._resources.at_once or len(self._units)
        while self._waiting and len(self._running) < room:
            index = self._waiting.popleft()
            unit = self._units[index]
            named = self._task.options(**self._options, name=_names(unit))
            task = named.remote(unit, __version__, self._job)
            self._running[task] = index
            task.future().add_done_callback(partial(self._end, task))

    def _end(self, task: Any, _: object) -> None:
        self._ended.put(task)

    def _results(self, task: Any, index: int) -> list[TrackResult]:
        """Those of a finished task; none where its worker was lost, and the unit waits to be run again."""
        try:
            told: Told | AbawError = self._ray.get(task)
        except self._lost_by as error:
            self._again(index, error)
            return []
        except self._ray.exceptions.RayError as error:
            raise _not_run(_names(self._units[index]), error) from error
        if isinstance(told, AbawError):
            raise told
        for level, text in told.said:
            if text not in self._said:  # every worker may find the same wanting
                self._said.add(text)
                logger.log(level, "%s", text)
        return told.results

    def _again(self, index: int, error: Exception) -> None:
        names = _names(self._units[index])
        self._lost[index] += 1
        why = _first_line(error)
        if self._lost[index] > RETRIES:
            raise AbawError(
                f"the worker of {names} was lost {self._lost[index]} times (often: out of memory): {why}",
                where="run.executor",
                fix="run the same command again, finished tracks are kept; with fewer at once (--workers N) if it "
                "comes back",
            ) from error
        logger.warning("the worker of %s was lost, it is run again (%d of %d)", names, self._lost[index], RETRIES)
        logger.debug("%s: %s", names, why)
        self._waiting.append(index)

    def _require_a_node(self) -> None:
        """AbawError where no node that is alive has what a unit takes, which Ray would wait for without end."""
        wanted = {"CPU": self._resources.cpus, "GPU": self._resources.gpus}
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in alive):
            return
        asked = " and ".join(f"{count:g} {name}" for name, count in wanted.items() if count)
        raise AbawError(
            f"none of the {len(alive)} nodes of the Ray cluster has the {asked} that a unit takes",
            where="run.executor, run.threads and --device",
            fix="add such a node (`ray start --address=...`), ask for less, or use --device cpu",
            code=ExitCode.MISSING,
        )

    def cancel(self) -> None:
        """End what still runs, at once: what it publishes is atomic."""
        for task in self._running:
            self._ray.cancel(task, force=True)


def _names(unit: Unit) -> str:
    names = [track.track_id for track in unit]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _not_run(names: str, error: Exception) -> AbawError:
    cause = getattr(error, "cause", None) or error
    return AbawError(
        f"Ray could not run {names}: {type(cause).__name__}: {_first_line(cause)}",
        where="run.executor",
        fix="where a package is missing, install abaw of this version with all it needs on every node; Ray's own logs "
        "say more: /tmp/ray/session_latest/logs",
        code=ExitCode.MISSING,
    )
