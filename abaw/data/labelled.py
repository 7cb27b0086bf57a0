"""Labelled frames of a split: which rows of which tracks have both a face and a label, and the labels."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from abaw.data.annotations import LabelReader, Labels, concatenate
from abaw.data.frames import FrameRef, spread
from abaw.data.manifest import Track
from abaw.errors import AbawError
from abaw.store import FeatureStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledFrames:
    """Frames of many tracks and their labels by head; row i of the labels belongs to the i-th frame."""

    refs: list[FrameRef]
    labels: dict[str, Labels]

    def __len__(self) -> int:
        return sum(len(ref) for ref in self.refs)

    def arrays(self) -> dict[str, np.ndarray]:
        """Labels as `<head>.values` and `<head>.mask`, for batches."""
        found: dict[str, np.ndarray] = {}
        for name, labels in self.labels.items():
            found |= {f"{name}.values": labels.values, f"{name}.mask": labels.mask}
        return found

    @property
    def sha256(self) -> str:
        """Hash of tracks, rows and labels: changes when any of them does."""
        digest = hashlib.sha256()
        for ref in self.refs:
            digest.update(f"{ref.track_id}:{len(ref)}\n".encode())
            digest.update(ref.rows.astype("<i8").tobytes())
        for name in sorted(self.labels):
            values, mask = self.labels[name].values, self.labels[name].mask
            digest.update(np.where(mask, values, 0).astype("<f4").tobytes() + mask.tobytes())
        return digest.hexdigest()


def labelled_frames(
    store: FeatureStore, tracks: Sequence[Track], reader: LabelReader, *, split: str, per_track: int = 0
) -> LabelledFrames:
    """Rows with a face and at least one label; at most `per_track` of a track, evenly spread (0 = all).

    Tracks the store lacks are counted in a warning. Raises AbawError when nothing is left.
    """
    refs: list[FrameRef] = []
    parts: dict[str, list[Labels]] = {head.name: [] for head in reader.task.heads}
    lacking = [track.track_id for track in tracks if track.track_id not in store]
    for track in tracks:
        if track.track_id in store:
            valid = store.valid(track.track_id)
            labels = reader.labels(track, len(valid))
            labelled = np.any([own.mask.any(axis=1) for own in labels.values()], axis=0)
            rows = spread(np.flatnonzero(valid & labelled), per_track)
            if len(rows):
                refs.append(FrameRef(store, track.track_id, rows))
                for name, own in labels.items():
                    parts[name].append(Labels(own.values[rows], own.mask[rows]))
    if not refs:
        raise AbawError(
            f"no labelled face for task {reader.task.name}, split {split}: {len(tracks)} labelled tracks, "
            f"{len(tracks) - len(lacking)} of them in the faces store",
            where=f"{store.path} and {reader.path}",
            fix="run `abaw align` on the labelled videos, or correct data.annotations",
        )
    if lacking:
        logger.warning(
            "%d of %d %s tracks are not in %s: %s", len(lacking), len(tracks), split, store.path, ", ".join(lacking[:5])
        )
    return LabelledFrames(refs, {name: concatenate(own) for name, own in parts.items()})
