"""Windows over feature stores and their inverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw.data.windows import FeatureStreams, Window, cut, stitch, window_starts
from abaw.errors import AbawError
from abaw.provenance import make_recipe
from abaw.store import ArraySpec, FeatureStore, StoreHeader


def make_store(path, kind, tracks, dim=2, recipe=None, offset=0.0):
    """Row r of a track holds the value offset + r in every column; ``tracks``: name -> valid."""
    header = StoreHeader(
        kind,
        path.name,
        {"features": ArraySpec("float16", (dim,)), "reason": ArraySpec("uint8")},
        {},
        recipe=recipe or make_recipe({"size_px": 112}),
    )
    store = FeatureStore.create(path, header)
    for name, valid in tracks.items():
        valid = np.array(valid, bool)
        features = np.where(valid, np.arange(len(valid)) + offset, 0)[:, None].repeat(dim, 1).astype(np.float32)
        store.write(name, {"valid": valid, "features": features, "reason": (~valid).astype(np.uint8)}, fps=25)
    return path


def test_starts_by_hand():
    assert window_starts(10, 4, 3) == [0, 3, 6]
    assert window_starts(11, 4, 3) == [0, 3, 6, 7]
    assert window_starts(3, 4, 3) == [0]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 50), st.data())
def test_stitch_inverts_cut(num_rows, window, data):
    stride = data.draw(st.integers(1, window))
    values = np.random.default_rng(num_rows).random((num_rows, 2), np.float32)
    windows = cut("a", num_rows, window=window, stride=stride)
    assert np.allclose(stitch(num_rows, windows, [values[w.start : w.stop] for w in windows]), values)


def test_overlaps_are_averaged():
    windows = [Window("a", 0, 2), Window("a", 1, 3)]
    scores = [np.array([[0.0], [2.0]]), np.array([[4.0], [6.0]])]
    assert stitch(3, windows, scores)[:, 0].tolist() == [0, 3, 6]


def test_an_uncovered_row_is_a_bug():
    with pytest.raises(ValueError, match="row 1 lies in no window"):
        stitch(2, [Window("a", 0, 1)], [np.zeros((1, 1))])


def test_streams_stand_side_by_side(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 1, 1]})
    audio = make_store(tmp_path / "audio-y", "audio", {"a": [1, 1, 1]}, dim=1, offset=10)
    streams = FeatureStreams([visual], [audio], gap="hold")
    features, present = streams.read(Window("a", 1, 3))
    assert features.tolist() == [[1, 1, 11], [2, 2, 12]]
    assert present.all()
    assert streams.dims == [2, 1]


def test_a_gap_takes_its_value_from_outside_the_window(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 1, 0, 0, 1, 1]}, dim=1)
    held, _ = FeatureStreams([visual], [], gap="hold").read(Window("a", 2, 4))
    assert held[:, 0].tolist() == [1, 1]
    nearest, _ = FeatureStreams([visual], [], gap="nearest").read(Window("a", 2, 4))
    assert nearest[:, 0].tolist() == [1, 4]
    linear, _ = FeatureStreams([visual], [], gap="linear").read(Window("a", 2, 4))
    assert linear[:, 0].tolist() == [2, 3]


def test_masked_gaps_and_silent_tracks_are_marked(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 0, 1]})
    audio = make_store(tmp_path / "audio-y", "audio", {"a": [0, 0, 0]})
    _, present = FeatureStreams([visual], [audio], gap="mask").read(Window("a", 0, 3))
    assert present.tolist() == [[True, False], [False, False], [True, False]]
    features, present = FeatureStreams([visual], [audio], gap="hold").read(Window("a", 0, 3))
    assert present.tolist() == [[True, False]] * 3
    assert features[:, 2:].tolist() == [[0, 0]] * 3


def test_statistics_count_rows_with_data_only(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 1, 0], "b": [0, 0, 0, 0, 0, 1]}, dim=1)
    mean, std = FeatureStreams([visual], [], gap="hold").statistics(["a", "b"])
    # values 0, 1, 5: mean 2, population variance (4 + 1 + 9) / 3
    assert mean[0] == pytest.approx(2)
    assert std[0] == pytest.approx((14 / 3) ** 0.5)


def test_a_missing_track_is_named(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1]})
    with pytest.raises(AbawError, match="visual-x lacks 1 of 2 tracks: b"):
        FeatureStreams([visual], [], gap="hold").check(["a", "b"])


def test_different_rows_of_one_track_are_named_with_both_numbers(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 1]})
    audio = make_store(tmp_path / "audio-y", "audio", {"a": [1, 1, 1]})
    with pytest.raises(AbawError, match="2 rows in visual-x, 3 rows in audio-y"):
        FeatureStreams([visual], [audio], gap="hold").check(["a"])


def test_other_alignment_is_refused_and_can_be_accepted(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1]})
    other = make_store(tmp_path / "visual-y", "visual", {"a": [1]}, recipe=make_recipe({"size_px": 224}))
    streams = FeatureStreams([visual, other], [], gap="hold")
    with pytest.raises(AbawError, match="size_px: 224 recorded, 112 now"):
        streams.check(["a"])
    assert "accepted" in streams.check(["a"], accept_recipe_mismatch=True)[0]


def test_an_unknown_alignment_only_warns(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1]})
    other = make_store(tmp_path / "audio-y", "audio", {"a": [1]}, recipe={"fingerprint": "unknown", "settings": {}})
    assert "unknown" in FeatureStreams([visual], [other], gap="hold").check(["a"])[0]


def test_a_constant_column_is_only_centred(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1]}, dim=1, offset=7)
    mean, std = FeatureStreams([visual], [], gap="hold").statistics(["a"])
    assert (mean[0], std[0]) == (7, 1)
