"""Run an iterator in a thread of its own, a bounded number of items ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def prefetch(
    items: Iterable[T], *, depth: int = 8, max_bytes: int = 1 << 27, size_of: Callable[[T], int] = lambda _: 0
) -> Generator[T, None, None]:
    """The same items in the same order, made by a thread while the caller works on earlier ones.

    At most ``depth`` items wait, and no more than ``max_bytes`` by ``size_of`` (one item always may). What the
    iterator raises, or its closing, is raised here. Closing the generator stops the thread and closes the iterator.
    """
    queue: _Queue[T] = _Queue(depth, max_bytes, size_of)
    thread = threading.Thread(target=queue.fill, args=(items,), daemon=True)
    thread.start()
    try:
        yield from queue.drain()
    finally:
        queue.stop()
        thread.join()


class _Queue(Generic[T]):
    def __init__(self, depth: int, max_bytes: int, size_of: Callable[[T], int]) -> None:
        self._depth, self._max_bytes, self._size_of = depth, max_bytes, size_of
        self._waiting: deque[T] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._done = self._stopped = False
        self._error: BaseException | None = None

    def fill(self, items: Iterable[T]) -> None:
        try:
            self._put_all(iter(items))
        except BaseException as err:
            self._error = err
        finally:  # whatever went wrong: a reader that is not told waits for ever
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _put_all(self, iterator: Iterator[T]) -> None:
        try:
            for item in iterator:
                if not self._put(item):
                    break
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _put(self, item: T) -> bool:
        size = self._size_of(item)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(size))
            self._waiting.append(item)
            self._bytes += size
            self._changed.notify_all()
            return not self._stopped

    def _has_room(self, size: int) -> bool:
        full = len(self._waiting) >= self._depth or self._bytes + size > self._max_bytes
        return not self._waiting or not full

    def drain(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._done)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._bytes -= self._size_of(item)
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
