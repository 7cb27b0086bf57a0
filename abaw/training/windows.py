"""Batches of feature windows for the training loop, and the same windows in order for scoring.

Everything is a function of (seed, step, window). The stores are read by `data.windows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from abaw.data.annotations import Labels
from abaw.data.windows import FeatureStreams, Window, cut, stitch
from abaw.training.batches import SampleOrder

Scores = dict[str, np.ndarray]


def collate(streams: FeatureStreams, windows: Sequence[Window], *, length: int, size: int) -> dict[str, Tensor]:
    """Windows -> features float32 [size, length, D], present bool [size, length, streams], rows bool [size, length].

    Missing windows and rows past a track's end are padding: zeros, and False in ``rows``. A padding window keeps its
    first row real, since attention over nothing is undefined; the caller cuts it off.
    """
    num_streams = len(streams.dims)
    features = np.zeros((size, length, sum(streams.dims)), np.float32)
    present = np.zeros((size, length, num_streams), bool)
    rows = np.zeros((size, length), bool)
    rows[:, 0] = True
    for place, window in enumerate(windows):
        count = window.stop - window.start
        features[place, :count], present[place, :count] = streams.read(window)
        rows[place, :count] = True
    return {
        "features": torch.from_numpy(features),
        "present": torch.from_numpy(present),
        "rows": torch.from_numpy(rows),
    }


def labelled_windows(labels: Mapping[str, Mapping[str, Labels]], *, window: int, stride: int) -> list[Window]:
    """Windows over the tracks of ``labels`` (track -> head -> Labels) that hold a label of any head."""
    return [
        part
        for track_id, heads in labels.items()
        for part in cut(track_id, max(own.num_rows for own in heads.values()), window=window, stride=stride)
        if any(own.mask[part.start : part.stop].any() for own in heads.values())
    ]


@dataclass
class WindowBatches:
    """Source of `fit` for feature windows with labels per row.

    ``labels``: track -> head -> Labels over the track's rows.
    """

    streams: FeatureStreams
    windows: Sequence[Window]
    labels: Mapping[str, Mapping[str, Labels]]
    order: SampleOrder
    length: int

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        windows = self._windows(step, part, parts)
        batch = collate(self.streams, windows, length=self.length, size=len(windows))
        for head, example in self.labels[windows[0].track_id].items():
            shape = (len(windows), self.length, example.values.shape[1])
            values, mask = np.zeros(shape, np.float32), np.zeros(shape, bool)
            for place, window in enumerate(windows):
                own, count = self.labels[window.track_id][head], window.stop - window.start
                values[place, :count] = own.values[window.start : window.stop]
                mask[place, :count] = own.mask[window.start : window.stop]
            batch[f"{head}.values"], batch[f"{head}.mask"] = torch.from_numpy(values), torch.from_numpy(mask)
        return batch

    def sample_ids(self, step: int, part: int, parts: int) -> list[str]:
        return [f"{w.track_id}:{w.start}-{w.stop}" for w in self._windows(step, part, parts)]

    def _windows(self, step: int, part: int, parts: int) -> list[Window]:
        return [self.windows[int(index)] for index in np.array_split(self.order.at(step), parts)[part]]


def score_tracks(
    streams: FeatureStreams,
    track_ids: Sequence[str],
    scorer: Callable[[Mapping[str, Tensor]], Scores],
    *,
    length: int,
    stride: int,
    batch_size: int,
) -> dict[str, Scores]:
    """Scores by track and head, float32 [T, L], averaged where windows overlap.

    ``scorer`` maps a collated batch to scores [batch_size, length, L] by head. Batches cross tracks and all have one
    shape. Rows of a track without any data of its own are zeros.
    """
    counts = {track_id: streams.num_rows(track_id) for track_id in track_ids}
    windows = {track_id: cut(track_id, count, window=length, stride=stride) for track_id, count in counts.items()}
    flat = [window for own in windows.values() for window in own]
    blocks: dict[str, dict[str, list[np.ndarray]]] = {track_id: {} for track_id in track_ids}
    for start in range(0, len(flat), batch_size):
        part = flat[start : start + batch_size]
        scored = scorer(collate(streams, part, length=length, size=batch_size))
        for place, window in enumerate(part):
            for head, values in scored.items():
                block = values[place, : window.stop - window.start]
                blocks[window.track_id].setdefault(head, []).append(block)
    return {
        track_id: {head: stitch(counts[track_id], windows[track_id], parts) for head, parts in own.items()}
        for track_id, own in blocks.items()
    }
