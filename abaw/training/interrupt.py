"""SIGTERM and SIGINT as a request to stop after the running step, with nothing lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A context in which the signals set `asked` instead of ending the process; only in the main thread.

    With `impatient` a second Ctrl-C breaks off at once. Handlers are restored afterwards, and a signal that was
    ignored stays ignored.
    """

    def __init__(self, *, impatient: bool) -> None:
        self.asked = False
        self._impatient, self._breakable = impatient, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._ask) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """A signal that comes meanwhile raises KeyboardInterrupt at once."""
        self._breakable = True
        try:
            yield
        finally:
            self._breakable = False

    def _ask(self, number: int, _: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self._breakable or (again and self._impatient and number == signal.SIGINT):
            raise KeyboardInterrupt
