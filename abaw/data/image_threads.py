"""The threads that decode, cut and augment images, one pool for all of it: OpenCV and NumPy let go of Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache

import numpy as np

MAX_THREADS = 16
PART = 8  # images that one thread takes at a time
THREADED_SIZE = 128  # pixels; with smaller images the threads would mostly wait for Python's lock


def num_threads() -> int:
    """Cores this process may use, divided among the processes that torchrun started on this machine; at most 16."""
    return max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)) // _local_processes()))


def _local_processes() -> int:
    world, local = (os.environ.get(name, "") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    together = world.isdigit() and int(world) > 1 and local.isdigit()
    return max(1, int(local)) if together else 1


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="images")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork


class Parts:
    """Work on the places of `count` images, `size` at a time, under way in several threads from now on.

    `work` must not start other such work and wait for it: all threads could be waiting for one.
    """

    def __init__(self, work: Callable[[slice], None], count: int, *, size: int = PART) -> None:
        self._futures = [_threads().submit(work, slice(start, start + size)) for start in range(0, count, size)]

    def wait(self) -> None:
        """Until no thread is at work any more and nothing is kept that `work` holds; raises its first error."""
        try:
            list(map(Future.result, self._futures))
        finally:
            list(map(Future.cancel, self._futures))
            wait(self._futures)
            # An error knows this frame, and its future knows the error: a circle that keeps files open.
            self._futures.clear()


def in_parts(work: Callable[[slice], None], count: int) -> None:
    """The same, waited for."""
    Parts(work, count).wait()


def in_parts_if_large(work: Callable[[slice], None], images: np.ndarray) -> None:
    """The same for images [B, S, S, 3]; small ones all at once, in the thread of the caller."""
    if images.shape[1] < THREADED_SIZE:
        work(slice(None))
    else:
        in_parts(work, len(images))
