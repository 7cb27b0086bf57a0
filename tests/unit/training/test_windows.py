"""Windows in batches, and scores put together again."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from abaw.data.annotations import Labels
from abaw.data.windows import FeatureStreams, cut
from abaw.errors import AbawError
from abaw.training.batches import SampleOrder
from abaw.training.windows import WindowBatches, collate, labelled_windows, score_tracks
from tests.unit.data.test_windows import make_store


def streams_of(tmp_path, **lengths):
    tracks = {name: [1] * count for name, count in lengths.items()}
    return FeatureStreams([make_store(tmp_path / "visual-x", "visual", tracks, dim=1)], [], gap="hold")


def same(batch):
    return {"va": batch["features"].numpy()}


def test_short_windows_are_padded_and_marked(tmp_path):
    streams = streams_of(tmp_path, a=3)
    batch = collate(streams, cut("a", 3, window=5, stride=5), length=5, size=2)
    assert batch["features"].dtype == torch.float16
    assert batch["features"][..., 0].tolist() == [[0, 1, 2, 0, 0], [0] * 5]
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
    scores = dict(score_tracks(streams, ["a", "b"], same, length=4, stride=3, batch_size=2))
    assert scores["a"]["va"][:, 0].tolist() == list(range(11))
    assert scores["b"]["va"][:, 0].tolist() == [0, 1, 2]


def test_a_track_is_given_as_soon_as_its_last_window_is_scored(tmp_path):
    streams = streams_of(tmp_path, a=5, b=12)
    asked = []

    def scorer(batch):
        asked.append(batch["rows"].shape)
        return same(batch)

    given = score_tracks(streams, ["a", "b"], scorer, length=4, stride=4, batch_size=2)
    assert next(given)[0] == "a"
    assert asked == [(2, 4)]  # its two windows, and none of b's three
    assert [name for name, _ in given] == ["b"]
    assert asked == [(2, 4)] * 3


def test_a_track_without_rows_has_scores_of_no_rows(tmp_path):
    scores = dict(score_tracks(streams_of(tmp_path, a=0, b=3), ["a", "b"], same, length=4, stride=4, batch_size=2))
    assert scores["a"]["va"].shape == (0, 1)
    assert scores["b"]["va"][:, 0].tolist() == [0, 1, 2]


def test_overlaps_are_put_together_as_asked(tmp_path):
    streams = streams_of(tmp_path, a=3)

    def places(batch):
        return {"va": np.broadcast_to(np.arange(2.0)[:, None], (4, 2, 1))}  # 0 and 1 in every window

    last = dict(score_tracks(streams, ["a"], places, length=2, stride=1, batch_size=4, stitch="last"))
    assert last["a"]["va"][:, 0].tolist() == [0, 0, 1]
    mean = dict(score_tracks(streams, ["a"], places, length=2, stride=1, batch_size=4))
    assert mean["a"]["va"][:, 0].tolist() == [0, 0.5, 1]


def test_an_error_of_the_reader_is_raised(tmp_path):
    streams = streams_of(tmp_path, a=30)
    with pytest.raises(AbawError, match='no track "b"'):
        list(score_tracks(streams, ["a", "b"], same, length=4, stride=4, batch_size=2))


def test_a_thread_may_read_batches_while_tracks_are_scored(tmp_path, monkeypatch):
    """With fewer files allowed open than there are tracks, so that they are closed and opened all the time."""
    monkeypatch.setattr("abaw.open_files.open_files_allowed", lambda: 3)
    lengths = {f"t{number}": 20 + number for number in range(8)}
    streams = streams_of(tmp_path, **lengths)
    windows = [window for name, count in lengths.items() for window in cut(name, count, window=4, stride=4)]
    labels = {name: {"va": Labels(np.zeros((n, 2), np.float32), np.ones((n, 2), bool))} for name, n in lengths.items()}
    source = WindowBatches(streams, windows, labels, SampleOrder(len(windows), 8, seed=0), 4)
    alone = [source.batch(step, 0, 1)["features"] for step in range(20)]
    with ThreadPoolExecutor(1) as reader:
        read = [reader.submit(source.batch, step, 0, 1) for step in range(20)]
        scores = dict(score_tracks(streams, list(lengths), same, length=4, stride=2, batch_size=4))
        together = [future.result()["features"] for future in read]
    assert all(map(torch.equal, alone, together))
    assert all(scores[name]["va"][:, 0].tolist() == list(range(count)) for name, count in lengths.items())


def test_windows_without_a_label_are_not_trained_on():
    mask = np.zeros((10, 1), bool)
    mask[9] = True
    own = {"expr": Labels(np.zeros((10, 1), np.float32), mask)}
    assert [(w.start, w.stop) for w in labelled_windows({"a": own}, window=4, stride=2)] == [(6, 10)]
