"""Probes in processes of their own, with a time limit: what hangs or crashes in native code takes them along, not us.

A probe is a module of this package that is run. It says what it finds step by step, a JSON object a line, so that
where it ended is known; a step says what was done, the last of them ``{"step": "end"}``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

PACKAGE = "abaw.stages.doctor"
GRACE_S = 5.0  # until what was killed is gone
MARK = "abaw-doctor "  # other lines of a probe's output are its libraries' chatter


@dataclass
class Outcome:
    """What a probe said, by step, and why it ended early: "" where it came to its end."""

    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    failure: str = ""

    def __contains__(self, step: str) -> bool:
        return step in self.steps

    def __getitem__(self, step: str) -> dict[str, Any]:
        return self.steps[step]


class Child:
    """A probe that is running. ``result`` waits for it, ``stop`` ends it; both may be called again."""

    def __init__(self, arguments: list[str], *, limit_s: float) -> None:
        self.limit_s = limit_s
        self._deadline = monotonic() + limit_s
        self._outcome: Outcome | None = None
        # The same places to import from as here. With -P no module is taken from the folder that one happens to be in.
        places = os.pathsep.join(str(Path(place).resolve()) for place in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": places},
            start_new_session=True,  # so that its own children end with it
        )

    def result(self) -> Outcome:
        """What the probe said until its end or its time limit."""
        if self._outcome is None:
            self._outcome = self._wait()
        return self._outcome

    def _wait(self) -> Outcome:
        try:
            out, err = self._process.communicate(timeout=max(0.0, self._deadline - monotonic()))
        except subprocess.TimeoutExpired:
            self.stop()
            out, err = self._rest()
            return Outcome(_steps(out), f"did not come back within {self.limit_s:g} s")
        steps, status = _steps(out), self._process.returncode
        if "end" in steps:  # how it dies after that, as in a driver's clean-up, hurts nobody
            return Outcome(steps)
        if status < 0:
            return Outcome(steps, f"was ended by {_signal_name(-status)}")
        last = next((line for line in reversed(err.decode(errors="replace").splitlines()) if line.strip()), "")
        return Outcome(steps, last.strip() or f"ended with status {status}")

    def _rest(self) -> tuple[bytes, bytes]:
        try:
            return self._process.communicate(timeout=GRACE_S)
        except subprocess.TimeoutExpired as error:  # the kernel holds it, as in a read from a dead server
            return error.stdout or b"", error.stderr or b""

    def stop(self) -> None:
        """End the probe where it is still there."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def start(probe: str, *arguments: str, limit_s: float) -> Child:
    """Run a module of this package."""
    return Child(["-m", f"{PACKAGE}.{probe}", str(limit_s), *arguments], limit_s=limit_s)


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def _steps(output: bytes) -> dict[str, dict[str, Any]]:
    steps = {}
    for line in output.decode(errors="replace").splitlines():
        if line.startswith(MARK):
            with suppress(ValueError):  # the line it was killed in
                content = json.loads(line.removeprefix(MARK))
                steps[str(content.pop("step"))] = content
    return steps


# -- inside the child --------------------------------------------------------------------------------------------------
def say(step: str, **content: Any) -> None:
    """Tell the parent process what is done."""
    os.write(1, f"\n{MARK}{json.dumps({'step': step, **content}, default=str)}\n".encode())


def probe(work: Callable[..., None]) -> None:
    """Run a probe with the arguments of the command line; it ends itself where its parent is not there to do it."""
    limit_s, *arguments = sys.argv[1:]
    signal.alarm(int(float(limit_s) + 2 * GRACE_S))
    work(*arguments)
    say("end")
