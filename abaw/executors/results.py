"""The outcome of a track, and the one place where an unexpected exception of a track is caught.

Knows nothing of what a unit does, nor where it runs. No torch.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from abaw.errors import AbawError
from abaw.store import Reason


class UnitTrack(Protocol):
    """What a unit is made of: anything with a track id (and perhaps a ``video``)."""

    @property
    def track_id(self) -> str: ...


@dataclass(frozen=True)
class TrackResult:
    """Outcome of one track; ``bug`` when a program error, not the data, was the cause.

    ``message`` and ``traceback`` are texts for a person, ``info`` is what the work wants to tell its stage, and
    ``seconds`` what the track took since the one before it in its unit.
    """

    track_id: str
    status: Literal["done", "failed"] = "done"
    message: str = ""
    bug: bool = False
    traceback: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    error: AbawError | None = None
    seconds: float = 0.0


Unit = Sequence[Any]
Work = Callable[[Any], Iterable[TrackResult]]
OnResult = Callable[[TrackResult], None]


def run_unit(unit: Unit, work: Work) -> Iterator[TrackResult]:
    """Results of one unit; what an exception leaves open is failed."""
    told = set()
    started = time.monotonic()
    try:
        for result in work(unit):
            told.add(result.track_id)
            yield replace(result, seconds=time.monotonic() - started)
            started = time.monotonic()
    except Exception as err:
        failed = _failure("", err)
    else:
        return
    seconds = time.monotonic() - started
    for track in unit:
        if track.track_id not in told:
            yield replace(failed, track_id=track.track_id, seconds=seconds)


def attempt(track_id: str, work: Callable[[], TrackResult]) -> TrackResult:
    """Result of the work on one track of a unit, whose failure must not be its neighbours'."""
    try:
        return work()
    except Exception as err:
        return _failure(track_id, err)


def _failure(track_id: str, err: Exception) -> TrackResult:
    if isinstance(err, AbawError):
        return TrackResult(track_id, "failed", f"{err.what} (fix: {err.fix})", error=err)
    return TrackResult(track_id, "failed", f"{type(err).__name__}: {err}", bug=True, traceback=traceback.format_exc())


def count_reasons(reason: np.ndarray) -> dict[str, int]:
    """How often each reason occurs in a track, by name; for ``TrackResult.info``."""
    counts = np.bincount(reason, minlength=len(Reason))
    return {Reason(number).name: int(count) for number, count in enumerate(counts) if count}


def sum_reasons(results: Iterable[TrackResult]) -> dict[str, int]:
    """The counts of all finished tracks together."""
    total: dict[str, int] = {}
    for result in results:
        for name, count in result.info.get("reasons", {}).items():
            total[name] = total.get(name, 0) + count
    return total


def describe_reasons(counts: dict[str, int], *, valid: str) -> str:
    """ "1108 with a face, 410 no face": ``valid`` words the valid rows."""
    words = {reason.name: reason.name.lower().replace("_", " ") for reason in Reason} | {"VALID": valid}
    return ", ".join(f"{count} {words[name]}" for name, count in counts.items())
