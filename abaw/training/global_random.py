"""Borrowing the generators that belong to the whole process, for code of others that draws from nothing else.

timm's mixing and its image operations draw from `random` and `numpy.random` themselves. Here they are seeded for it,
one user at a time, and put back as they were. torch's generator is left alone: the model draws from it meanwhile.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

_lock = threading.Lock()


@contextmanager
def borrowed_generators() -> Iterator[Callable[[np.random.Generator], None]]:
    """Gives a function that seeds both process-wide generators from one of our own; both are restored at the end."""
    with _lock:
        python_state, numpy_state = random.getstate(), np.random.get_state()
        try:
            yield _seed
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _seed(rng: np.random.Generator) -> None:
    first, second = rng.integers(0, 1 << 32, size=2).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002 - this very generator is what timm draws from
