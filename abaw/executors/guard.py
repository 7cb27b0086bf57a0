"""When failures mean that going on makes no sense, and the exception that then ends the run."""

from __future__ import annotations

from abaw.errors import AbawError
from abaw.executors.results import TrackResult, Unit

# When the first so many tracks all failed with one message, the set-up is wrong, not the videos.
GIVE_UP_AFTER = 20


class Guard:
    """Watches the results of a run; with ``strict`` the first failure ends it."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._num_failed = 0
        self._message: str | None = None
        self._open = True

    def check(self, result: TrackResult, unit: Unit) -> None:
        """Raise the failure that ends the run, as AbawError or, of a bug, as RuntimeError with its traceback."""
        if result.status == "done":
            self._open = False
            return
        if self._strict:
            raise _as_exception(result)
        if not self._open:
            return
        message = _without_names(result.message, result.track_id, unit)
        self._num_failed += 1
        self._open = self._message in (None, message)
        self._message = message
        if self._open and self._num_failed >= GIVE_UP_AFTER:
            raise _as_exception(result, prefix=f"the first {GIVE_UP_AFTER} tracks all failed alike: ")


def _without_names(message: str, track_id: str, unit: Unit) -> str:
    for track in unit:
        video = getattr(track, "video", None)
        for name in (str(video), getattr(video, "name", ""), track.track_id):
            message = message.replace(name, "*") if name else message
    return message.replace(track_id, "*")


def _as_exception(result: TrackResult, *, prefix: str = "") -> Exception:
    if result.bug:
        return RuntimeError(f"{prefix}track {result.track_id}: {result.message}\n{result.traceback}")
    err = result.error
    if err is None:
        where, fix = f"track {result.track_id}", "see the message"
        return AbawError(f"{prefix}{result.message}", where=where, fix=fix)
    return AbawError(f"{prefix}{err.what}", where=f"{err.where} (track {result.track_id})", fix=err.fix, code=err.code)
