"""Windows in batches, and scores put together again."""

import numpy as np
import torch

from abaw.data.annotations import Labels
from abaw.data.windows import FeatureStreams, cut
from abaw.training.batches import SampleOrder
from abaw.training.windows import WindowBatches, collate, labelled_windows, score_tracks
from tests.unit.data.test_windows import make_store


def streams_of(tmp_path, **lengths):
    tracks = {name: [1] * count for name, count in lengths.items()}
    return FeatureStreams([make_store(tmp_path / "visual-x", "visual", tracks, dim=1)], [], gap="hold")


def test_short_windows_are_padded_and_marked(tmp_path):
    streams = streams_of(tmp_path, a=3)
    batch = collate(streams, cut("a", 3, window=5, stride=5), length=5, size=2)
    assert batch["features"][0, :, 0].tolist() == [0, 1, 2, 0, 0]
    assert batch["rows"].tolist() == [[True, True, True, False, False], [True, False, False, False, False]]


def test_labels_travel_with_their_rows(tmp_path):
    streams = streams_of(tmp_path, a=7)
    values = np.arange(7, dtype=np.float32)[:, None].repeat(2, 1)
    labels = {"a": {"va": Labels(values, np.ones((7, 2), bool))}}
    windows = cut("a", 7, window=4, stride=4)
    source = WindowBatches(streams, windows, labels, SampleOrder(len(windows), 2, seed=0), 4)
    batch = source.batch(0, 0, 1)
    assert torch.equal(batch["va.values"][..., 0][batch["va.mask"][..., 0]], batch["features"][..., 0][batch["rows"]])


def test_a_step_is_the_same_however_it_is_cut(tmp_path):
    streams = streams_of(tmp_path, a=40)
    windows = cut("a", 40, window=4, stride=4)
    labels = {"a": {"va": Labels(np.zeros((40, 2), np.float32), np.ones((40, 2), bool))}}
    source = WindowBatches(streams, windows, labels, SampleOrder(len(windows), 6, seed=3), 4)
    whole = source.batch(5, 0, 1)["features"]
    parts = [source.batch(5, part, 3)["features"] for part in range(3)]
    assert torch.equal(whole, torch.cat(parts))


def test_scores_of_overlapping_windows_give_every_row_once(tmp_path):
    streams = streams_of(tmp_path, a=11, b=3)
    scores = score_tracks(
        streams, ["a", "b"], lambda batch: {"va": batch["features"].numpy()}, length=4, stride=3, batch_size=2
    )
    assert scores["a"]["va"][:, 0].tolist() == list(range(11))
    assert scores["b"]["va"][:, 0].tolist() == [0, 1, 2]


def test_windows_without_a_label_are_not_trained_on():
    mask = np.zeros((10, 1), bool)
    mask[9] = True
    own = {"expr": Labels(np.zeros((10, 1), np.float32), mask)}
    assert [(w.start, w.stop) for w in labelled_windows({"a": own}, window=4, stride=2)] == [(6, 10)]
