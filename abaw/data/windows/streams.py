"""Visual and audio stores of the fusion, joined per track on the frame clock."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from abaw import open_files
from abaw.data.windows.cutting import Window
from abaw.data.windows.stream import Stream
from abaw.errors import AbawError, choose
from abaw.gaps import POLICIES
from abaw.provenance import UNKNOWN, check_recipe, combine_trained_on
from abaw.store import FeatureStore

logger = logging.getLogger(__name__)

DEFAULT_GAP = "hold"  # of stores that a table of gap policies does not name
WHERE = "fuse.visual, fuse.audio"


class FeatureStreams:
    """Visual and audio stores, read together row by row. Several threads may read at once."""

    def __init__(
        self, visual: Sequence[Path], audio: Sequence[Path], *, gap: str | Mapping[str, str], in_memory: bool = False
    ) -> None:
        """``gap``: how rows without data are filled (`gaps.POLICIES`), or that by the name of a store's folder.

        ``in_memory``: keep every track that was read, as float16. Raises AbawError for a store that is missing or of
        another kind and for a gap of an unknown store.
        """
        stores = [(path, "visual") for path in visual] + [(path, "audio") for path in audio]
        gaps = _gaps([path.name for path, _ in stores], gap)
        self.streams = [
            Stream(path.name, kind, FeatureStore.open(path, kind=kind), own_gap, in_memory)
            for (path, kind), own_gap in zip(stores, gaps, strict=True)
        ]
        ends = np.cumsum([0, *self.dims]).tolist()
        self._columns = [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]
        self._valid: dict[str, np.ndarray] = {}

    @property
    def dims(self) -> list[int]:
        """Columns of each stream."""
        return [stream.dim for stream in self.streams]

    # -- looking ---------------------------------------------------------------------------------------------------
    def check(self, track_ids: Sequence[str], *, accept_recipe_mismatch: bool = False) -> list[str]:
        """Make sure that every stream has every track with the same rows, made from faces aligned the same way.

        Returns warnings to record. Raises AbawError naming what is missing or differs.
        """
        self._require_tracks(track_ids)
        self._require_equal_rows(track_ids)
        known = [s for s in self.streams if s.store.header.recipe.get("fingerprint", UNKNOWN) != UNKNOWN]
        first = (known or self.streams)[0]
        return self._slow_reading(len(track_ids)) + [
            warning
            for stream in self.streams
            if stream is not first
            for warning in check_recipe(
                stream.store.header.recipe,
                first.store.header.recipe,
                what=f"{stream.name} (beside {first.name})",
                where=WHERE,
                accept=accept_recipe_mismatch,
            )
        ]

    def _require_tracks(self, track_ids: Sequence[str]) -> None:
        for stream in self.streams:
            missing = [track_id for track_id in track_ids if track_id not in stream.store]
            if missing:
                imported = stream.store.header.settings.get("encoder") == "imported"
                command = "import" if imported else _extraction(stream)
                raise AbawError(
                    f"{stream.name} lacks {len(missing)} of {len(track_ids)} tracks: {', '.join(missing[:5])}",
                    where=str(stream.store.path),
                    fix=f"run `abaw {command}` again"
                    + (" with a source that has them" if imported else ": it adds what is missing"),
                )

    def _require_equal_rows(self, track_ids: Sequence[str]) -> None:
        differing = []
        for track_id in track_ids:
            counts = [stream.store.num_rows(track_id) for stream in self.streams]
            if len(set(counts)) > 1:
                pairs = zip(counts, self.streams, strict=True)
                differing.append((track_id, ", ".join(f"{count} rows in {stream.name}" for count, stream in pairs)))
        if differing:
            track_id, shown = differing[0]
            more = f" ({len(differing) - 1} more tracks differ)" if len(differing) > 1 else ""
            raise AbawError(
                f"track {track_id} has {shown}{more}",
                where=WHERE,
                fix="extract it again in all of them from one faces store (delete the track's files first)",
            )

    def _slow_reading(self, num_tracks: int) -> list[str]:
        """A warning where not all files can be open at once: opening one costs ten times what a window costs."""
        wanted, allowed = num_tracks * len(self.streams), open_files.open_files_allowed()
        if wanted <= allowed or all(stream.in_memory for stream in self.streams):
            return []
        limit = "`ulimit -n 8192` or " if allowed < open_files.MAX_OPEN_FILES else ""
        message = (
            f"{wanted} track files are read in random order, and {allowed} may be open at once: windows will be read "
            f"far slower; {limit}fuse.in_memory = true helps"
        )
        logger.warning(message)
        return [message]

    def trained_on(self) -> list[dict[str, object]]:
        """Labels behind any of the encoders."""
        return combine_trained_on(stream.store.header.trained_on for stream in self.streams)

    def describe(self) -> list[dict[str, str]]:
        """Name, kind and fingerprint of each stream, in column order."""
        return [{"name": s.name, "kind": s.kind, "fingerprint": s.store.fingerprint} for s in self.streams]

    def num_rows(self, track_id: str) -> int:
        """T of a track."""
        return self.streams[0].store.num_rows(track_id)

    def valid(self, track_id: str) -> np.ndarray:
        """bool [T, streams]: rows with data of their own, before any gap is filled."""
        found = self._valid.get(track_id)
        if found is None:
            # stream by stream in memory: reading asks for one column at a time
            columns = np.array([stream.store.valid(track_id) for stream in self.streams])
            found = self._valid[track_id] = columns.T
        return found

    # -- reading ---------------------------------------------------------------------------------------------------
    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Features float16 [N, D] of a window's rows, all streams side by side, and bool [N, streams]: filled or own.

        Gaps are filled by the stream's policy from the rows around them, also from outside the window; rows of a
        stream that has no data in the whole track are zeros and False. Raises AbawError for NaN or infinity, naming
        store, track and row.
        """
        count = window.stop - window.start
        features = np.empty((count, sum(self.dims)), np.float16)
        present = np.empty((count, len(self.streams)), bool)
        self.read_into(window, features, present)
        return features, present

    def read_into(self, window: Window, features: np.ndarray, present: np.ndarray) -> None:
        """`read` into arrays that are there: one read a stream and one copy where nothing is missing."""
        valid = self.valid(window.track_id)
        for index, (stream, columns) in enumerate(zip(self.streams, self._columns, strict=True)):
            stream.read_into(window, valid[:, index], features[:, columns], present[:, index])

    def statistics(self, track_ids: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation float32 [D] of each column over rows with data of their own.

        Raises AbawError when a stream has none in any of the tracks.
        """
        names = list(track_ids)
        found = [
            stream.statistics((name, self.valid(name)[:, index]) for name in names)
            for index, stream in enumerate(self.streams)
        ]
        mean, std = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return mean, std

    def require_finite(self, track_ids: Iterable[str]) -> None:
        """Raise AbawError for NaN or infinity in any row of these tracks, naming store, track and row."""
        for track_id in track_ids:
            for stream in self.streams:
                stream.require_finite(track_id, self.num_rows(track_id))

    def close(self) -> None:
        """Close the files held open and forget what was kept; reading opens them again."""
        self._valid.clear()
        for stream in self.streams:
            stream.close()


def _extraction(stream: Stream) -> str:
    """The command that adds tracks to a store, as far as its name tells."""
    prefix = f"{stream.kind}-"
    if not stream.name.startswith(prefix):
        return f"extract-{stream.kind}"
    encoder, _, fold = stream.name.removeprefix(prefix).partition("-fold-")
    return f"extract-{stream.kind} --encoder {encoder}" + (f" --folds K --fold {fold}" if fold else "")


def _gaps(names: Sequence[str], gap: str | Mapping[str, str]) -> list[str]:
    """Gap policy of each store. Raises AbawError (configuration) for a store or policy that does not exist."""
    policies = {policy: policy for policy in POLICIES}
    if isinstance(gap, str):
        return [choose(policies, gap, what="gap policy", where="fuse.gap")] * len(names)
    for name in gap:
        choose(dict.fromkeys(names), name, what="store of the streams", where="fuse.gap")
    return [choose(policies, gap.get(name, DEFAULT_GAP), what="gap policy", where=f"fuse.gap.{name}") for name in names]
