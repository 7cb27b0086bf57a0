from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from abaw.media.prefetch import prefetch


def test_items_arrive_in_order():
    assert list(prefetch(range(100), depth=3)) == list(range(100))


def test_an_error_of_the_producer_is_raised_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        message = "broken"
        raise KeyError(message)

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="broken"):
        next(ahead)


class Unclosable:
    """Two items of an iterator whose closing fails, as that of a file on a lost disk does."""

    def __init__(self) -> None:
        self._items = iter([1, 2])

    def __iter__(self) -> Unclosable:
        return self

    def __next__(self) -> int:
        return next(self._items)

    def close(self) -> None:
        message = "the disk is gone"
        raise OSError(message)


def test_an_error_of_closing_the_producer_is_raised_after_its_items():
    ahead = prefetch(Unclosable())
    taken: list[int] = []
    raised: list[str] = []

    def take() -> None:
        try:
            for item in ahead:
                taken.append(item)
        except OSError as error:
            raised.append(str(error))

    reader = threading.Thread(target=take, daemon=True)  # so that a reader that waits for ever fails, not hangs
    reader.start()
    reader.join(10)
    assert (taken, raised) == ([1, 2], ["the disk is gone"])


def test_closing_early_closes_the_producer():
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    ahead = prefetch(items(), depth=2)
    assert next(ahead) == 0
    ahead.close()
    assert closed == [True]


def test_no_more_items_are_made_than_fit():
    made = []

    def items() -> Iterator[int]:
        for item in range(50):
            made.append(item)
            yield item

    ahead = prefetch(items(), depth=50, max_bytes=10, size_of=lambda _: 4)
    next(ahead)
    ahead.close()
    assert len(made) <= 5  # two wait, one was taken, one is made, one more after closing


def test_one_item_larger_than_the_limit_still_passes():
    assert list(prefetch([1, 2], max_bytes=1, size_of=lambda _: 100)) == [1, 2]
