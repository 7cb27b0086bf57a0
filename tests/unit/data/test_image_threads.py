"""The pool of threads for images."""

import contextlib
import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from abaw.data.image_threads import THREADED_SIZE, in_parts, in_parts_if_large, num_threads


@pytest.mark.parametrize(
    ("cores", "world", "local", "expected"),
    [(8, None, None, 8), (64, None, None, 16), (8, "4", "4", 2), (8, "8", "2", 4), (2, "4", "4", 1), (8, "1", "4", 8)],
)
def test_threads_are_the_cores_allowed_shared_among_the_processes_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, world: str | None, local: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    for name, value in (("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", local)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert num_threads() == expected


def test_every_place_is_worked_on_once_and_small_images_in_the_callers_thread() -> None:
    for size, count, parts in ((THREADED_SIZE, 20, 3), (THREADED_SIZE - 1, 20, 1), (THREADED_SIZE, 0, 0)):
        seen: list[tuple[np.ndarray, str]] = []
        images = np.zeros((count, size, size, 3), np.uint8)
        in_parts_if_large(lambda part: seen.append((np.arange(count)[part], threading.current_thread().name)), images)  # noqa: B023
        assert len(seen) == parts
        assert sorted(place for places, _ in seen for place in places) == list(range(count))
        own = threading.current_thread().name
        assert {name == own for _, name in seen} <= {size < THREADED_SIZE}


def test_an_error_in_a_thread_is_raised() -> None:
    def fail(part: slice) -> None:
        raise ValueError(part.start)

    with pytest.raises(ValueError, match="0"):
        in_parts(fail, 20)


def test_after_an_error_no_thread_goes_on() -> None:
    begun, active = threading.Event(), set[int]()

    def work(part: slice) -> None:
        if part.start == 0:
            begun.wait(0.2)  # for another thread, where there is one
            raise ValueError
        active.add(part.start)
        begun.set()
        threading.Event().wait(0.05)
        active.remove(part.start)

    with pytest.raises(ValueError):
        in_parts(work, 100)
    assert active == set()


def test_nothing_is_kept_of_work_that_failed() -> None:
    class Store:
        def fail(self, part: slice) -> None:
            raise ValueError(part.start)

    store = Store()
    watched = weakref.ref(store)
    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            in_parts(store.fail, 20)
        del store
        assert watched() is None
    finally:
        gc.enable()


def test_a_forked_process_has_threads_of_its_own() -> None:
    code = """
import os
from abaw.data.image_threads import in_parts
in_parts(lambda _: None, 20)
child = os.fork()
in_parts(lambda _: None, 20)  # a child would wait for ever for threads that only its parent has
if child == 0:
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
