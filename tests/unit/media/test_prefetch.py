from __future__ import annotations

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
