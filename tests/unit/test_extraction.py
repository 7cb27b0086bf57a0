"""Reading ahead, writing behind, and the check of bf16."""

import threading

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.extraction import Writer, check_bf16, lowest_cosine, read_ahead


def test_the_lowest_cosine_of_all_rows_counts() -> None:
    exact = np.array([[1, 0], [0, 2], [3, 4]], np.float32)
    fast = np.array([[2, 0], [0, 1], [4, 3]], np.float32)  # 1, 1, and (12 + 12) / 25
    assert lowest_cosine(fast, exact) == pytest.approx(0.96)


def test_rows_of_zeros_on_both_sides_agree_and_on_one_side_do_not() -> None:
    zeros, ones = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert lowest_cosine(zeros, zeros) == 1
    assert lowest_cosine(zeros, ones) == lowest_cosine(ones, zeros) == 0
    assert lowest_cosine(zeros[:0], ones[:0]) == 1


def test_bf16_that_changes_little_passes_with_its_cosine() -> None:
    exact = np.array([[1, 0]], np.float32)
    assert check_bf16(np.array([[1, 0.03]], np.float32), exact, encoder="mae") == pytest.approx(0.99955, abs=1e-5)


@pytest.mark.parametrize("fast", [[1, 0.1], [np.nan, 0], [np.inf, 1], [0, 0]])
def test_bf16_that_changes_features_or_breaks_them_is_refused_with_the_key_to_set(fast: list[float]) -> None:
    with pytest.raises(AbawError, match="0.999 is asked for") as caught:
        check_bf16(np.array([fast], np.float32), np.array([[1, 0]], np.float32), encoder="mine")
    assert caught.value.where == "encoders.mine.precision"
    assert 'precision = "fp32"' in caught.value.fix


def test_read_ahead_gives_all_items_in_order() -> None:
    assert list(read_ahead(iter(range(20)), depth=3)) == list(range(20))


def test_the_writer_works_in_one_other_thread_and_hands_results_back_in_order() -> None:
    threads = set[str]()

    def work(number: int) -> int:
        threads.add(threading.current_thread().name)
        return number

    with Writer[int]() as writer:
        found: list[int] = []
        for number in range(10):
            writer.submit(lambda number=number: work(number))
            found += writer.finished()
        found += writer.rest()
    assert found == list(range(10))
    assert len(threads) == 1
    assert threads != {threading.current_thread().name}


def test_the_caller_waits_when_too_much_is_unwritten() -> None:
    may_end, given = threading.Event(), list[int]()

    def give() -> None:
        with Writer[bool](waiting=2) as writer:
            for number in range(3):
                writer.submit(lambda: may_end.wait(10))
                given.append(number)

    caller = threading.Thread(target=give)
    caller.start()
    caller.join(0.3)
    assert given == [0, 1]
    may_end.set()
    caller.join(10)
    assert given == [0, 1, 2]


def test_what_has_begun_is_finished_and_the_rest_dropped_when_the_caller_fails() -> None:
    begun, may_end, done = threading.Event(), threading.Event(), list[int]()

    def slow() -> None:
        begun.set()
        may_end.wait(10)
        done.append(0)

    def fail() -> None:
        with Writer[None]() as writer:
            writer.submit(slow)
            writer.submit(lambda: done.append(1))
            begun.wait(10)
            threading.Timer(0.1, may_end.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert done == [0]


def test_an_error_of_the_work_is_raised_where_its_result_is_taken() -> None:
    def fail() -> None:
        raise ValueError("disk")

    with Writer[None]() as writer:
        writer.submit(fail)
        with pytest.raises(ValueError, match="disk"):
            list(writer.rest())
