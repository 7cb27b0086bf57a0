"""Batches of feature windows for the training loop, and the same windows in order for scoring.

Everything is a function of (seed, step, window). The stores are read by `data.windows`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from abaw.data.annotations import Labels
from abaw.data.windows import FeatureStreams, Stitcher, Window, cut
from abaw.media.prefetch import prefetch
from abaw.training.batches import SampleOrder

Scores = dict[str, np.ndarray]
Scorer = Callable[[Mapping[str, Tensor]], Scores]
BATCHES_AHEAD = 1


def collate(streams: FeatureStreams, windows: Sequence[Window], *, length: int, size: int) -> dict[str, Tensor]:
    """Windows -> features float16 [size, length, D], present bool [size, length, streams], rows bool [size, length].

    Missing windows and rows past a track's end are padding: zeros, and False in ``rows``. A padding window keeps its
    first row real, since attention over nothing is undefined; the caller cuts it off.
    """
    features = np.empty((size, length, sum(streams.dims)), np.float16)
    present = np.zeros((size, length, len(streams.dims)), bool)
    rows = np.zeros((size, length), bool)
    rows[:, 0] = True
    features[len(windows) :] = 0
    for place, window in enumerate(windows):
        count = window.stop - window.start
        streams.read_into(window, features[place, :count], present[place, :count])
        features[place, count:] = 0
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
    scorer: Scorer,
    *,
    length: int,
    stride: int,
    batch_size: int,
    stitch: str = "mean",
    ahead: bool = False,
) -> Iterator[tuple[str, Scores]]:
    """Each track in turn with its scores by head, float32 [T, L], as soon as its last window is scored.

    ``scorer`` maps a collated batch to scores [batch_size, length, L] by head. Batches cross tracks and all have one
    shape. ``ahead``: read the next one while one is scored, which gains nothing on a CPU: the model wants every core.
    ``stitch``: what counts where windows overlap (`data.windows`).
    """
    counts = {track_id: streams.num_rows(track_id) for track_id in track_ids}
    windows = [w for track_id, count in counts.items() for w in cut(track_id, count, window=length, stride=stride)]
    with closing(_scored(streams, windows, scorer, length=length, batch_size=batch_size, ahead=ahead)) as scored:
        for track_id, count in counts.items():
            if count == 0:
                yield track_id, _nothing(scorer(collate(streams, [], length=length, size=batch_size)))
                continue
            stitchers: dict[str, Stitcher] = {}
            for _ in cut(track_id, count, window=length, stride=stride):
                window, scores = next(scored)
                for head, values in scores.items():
                    if head not in stitchers:
                        stitchers[head] = Stitcher(count, values.shape[1], stitch)
                    stitchers[head].add(window, values)
            yield track_id, {head: stitcher.result() for head, stitcher in stitchers.items()}


def _scored(
    streams: FeatureStreams,
    windows: Sequence[Window],
    scorer: Scorer,
    *,
    length: int,
    batch_size: int,
    ahead: bool,
) -> Generator[tuple[Window, Scores], None, None]:
    """Each window in turn with the scores [N, L] of its rows by head."""
    parts = [windows[start : start + batch_size] for start in range(0, len(windows), batch_size)]
    batches = (collate(streams, part, length=length, size=batch_size) for part in parts)
    with closing(prefetch(batches, depth=BATCHES_AHEAD) if ahead else batches) as read:
        for part, batch in zip(parts, read, strict=True):
            scored = scorer(batch)
            for place, window in enumerate(part):
                yield window, {head: values[place, : window.stop - window.start] for head, values in scored.items()}


def _nothing(scores: Scores) -> Scores:
    """Scores of a track without rows: float32 [0, L] by head."""
    return {head: np.zeros((0, values.shape[2]), np.float32) for head, values in scores.items()}
