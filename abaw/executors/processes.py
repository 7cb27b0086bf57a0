"""What processes that work for another one have in common: their threads, and that they end with it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2): the signal a process gets when its parent dies
# Read once by the numeric libraries, when they are loaded: they must be set before a worker starts.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def num_workers(requested: int) -> int:
    """Processes to use for ``run.workers``: 0 means one per core this process may run on."""
    if requested:
        return requested
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_variables(count: int) -> dict[str, str]:
    """The environment of a process whose numeric libraries are to use so many threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(count))


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Processes started meanwhile have these environment variables, and so has this one."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def ending_by_sigterm() -> Iterator[None]:
    """Let SIGTERM (a job scheduler, `timeout`) raise SystemExit, so that the workers are ended too.

    Puts back the handler that was there. Nothing outside the main thread, which alone may set one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    raise_at_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def raise_at_sigterm() -> None:
    """Take SIGTERM back from a library that has set a handler of its own meanwhile; in the main thread only."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _: Any) -> None:
    sys.exit(128 + number)


def begin_worker(parent: int) -> None:
    """Of a process of the pool: leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    if sys.platform == "linux":  # a parent that is killed cannot: then the kernel does
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the request
        os._exit(1)
