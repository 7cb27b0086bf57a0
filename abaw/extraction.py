"""What both extract stages share: reading ahead of the model, writing behind it, and the check of bf16.

Knows nothing of faces, of sound, or of what the stores hold. No torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np

from abaw.errors import AbawError
from abaw.media.prefetch import prefetch as read_ahead

__all__ = ["LEAST_COSINE", "Writer", "check_bf16", "lowest_cosine", "read_ahead"]

T = TypeVar("T")
LEAST_COSINE = 0.999


def lowest_cosine(fast: np.ndarray, exact: np.ndarray) -> float:
    """Smallest cosine of a row of [N, D] to the same row of the other; NaN where either holds one, 1 without rows.

    Rows that are zeros on both sides count 1, on one side 0.
    """
    fast, exact = fast.astype(np.float64), exact.astype(np.float64)
    lengths = np.linalg.norm(fast, axis=1) * np.linalg.norm(exact, axis=1)
    products = np.einsum("nd,nd->n", fast, exact)
    with np.errstate(invalid="ignore"):  # infinity by infinity: not a number, and said so
        cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths != 0)
    cosines[~fast.any(axis=1) & ~exact.any(axis=1)] = 1.0
    return float(cosines.min(initial=1.0))


def check_bf16(fast: np.ndarray, exact: np.ndarray, *, encoder: str) -> float:
    """Lowest cosine of a batch's features in bf16 to those in fp32, both [N, D].

    Raises AbawError when it is below 0.999 or not a number.
    """
    cosine = lowest_cosine(fast, exact)
    if not cosine >= LEAST_COSINE:
        raise AbawError(
            f'encoder "{encoder}" gives other features in bf16 than in fp32: of the first batch the lowest cosine is '
            f"{cosine:.5f}, and {LEAST_COSINE} is asked for",
            where=f"encoders.{encoder}.precision",
            fix=f'write precision = "fp32" in the table [encoders.{encoder}]',
        )
    return cosine


class Writer(Generic[T]):
    """One thread that does the work it is given, in order, while the caller goes on; a context manager.

    The work should catch what it may raise (`executors.attempt`): what it does raise is raised where its result is
    taken. Leaving the context by an exception drops what has not begun.
    """

    def __init__(self, *, waiting: int = 2) -> None:
        self._waiting = waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._given: deque[Future[T]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=error is not None)

    def submit(self, work: Callable[[], T]) -> None:
        """Have ``work`` done. Waits first while ``waiting`` others are not finished, so that memory stays bounded."""
        unfinished = [given for given in self._given if not given.done()]
        if len(unfinished) >= self._waiting:
            unfinished[-self._waiting].exception()
        self._given.append(self._thread.submit(work))

    def finished(self) -> Iterator[T]:
        """Results that are there, in the order the work was given; does not wait."""
        while self._given and self._given[0].done():
            yield self._given.popleft().result()

    def rest(self) -> Iterator[T]:
        """All results that have not been taken, each when it is there."""
        while self._given:
            yield self._given.popleft().result()
