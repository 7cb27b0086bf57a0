"""Windows over feature stores and their inverse."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw.data.windows import STITCHES, FeatureStreams, Stitcher, Window, check_cut, cut, stitch, window_starts
from abaw.errors import AbawError
from abaw.gaps import POLICIES, fill
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
@given(st.integers(1, 200), st.integers(1, 50), st.sampled_from(list(STITCHES)), st.data())
def test_stitch_inverts_cut(num_rows, window, how, data):
    stride = data.draw(st.integers(1, window))
    values = np.random.default_rng(num_rows).random((num_rows, 2), np.float32)
    windows = cut("a", num_rows, window=window, stride=stride)
    assert np.allclose(stitch(num_rows, windows, [values[w.start : w.stop] for w in windows], how), values)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 50), st.data())
def test_windows_cover_every_row_and_keep_the_tail(num_rows, window, data):
    windows = cut("a", num_rows, window=window, stride=data.draw(st.integers(1, window)))
    assert set().union(*(range(w.start, w.stop) for w in windows)) == set(range(num_rows))
    assert {w.stop - w.start for w in windows} == {min(window, num_rows)}


def test_overlaps_are_averaged():
    windows = [Window("a", 0, 2), Window("a", 1, 3)]
    scores = [np.array([[0.0], [2.0]]), np.array([[4.0], [6.0]])]
    assert stitch(3, windows, scores)[:, 0].tolist() == [0, 3, 6]


def test_the_middle_of_a_window_can_count_more():
    windows = [Window("a", 0, 4), Window("a", 2, 6)]
    scores = [np.zeros((4, 1)), np.full((4, 1), 6.0)]
    # weights 1 2 2 1 of each window: row 2 has 2 of the first and 1 of the second, row 3 the other way round
    assert stitch(6, windows, scores, "centre")[:, 0].tolist() == [0, 0, 2, 4, 6, 6]


def test_the_last_window_can_win():
    windows = [Window("a", 0, 2), Window("a", 1, 3)]
    scores = [np.array([[0.0], [2.0]]), np.array([[4.0], [6.0]])]
    assert stitch(3, windows, scores, "last")[:, 0].tolist() == [0, 4, 6]


def test_a_track_without_rows_has_no_windows_and_no_scores():
    assert cut("a", 0, window=4, stride=2) == []
    assert Stitcher(0, 3).result().shape == (0, 3)


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


@pytest.mark.parametrize("gap", ["hold", "nearest", "linear"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_windows_are_pieces_of_the_filled_track(tmp_path, gap, in_memory):
    valid = np.random.default_rng(3).random(60) < 0.3
    visual = make_store(tmp_path / "visual-x", "visual", {"a": valid}, dim=1)
    whole = fill(np.where(valid, np.arange(60), 0)[:, None].astype(np.float32), valid, gap)
    streams = FeatureStreams([visual], [], gap=gap, in_memory=in_memory)
    for start in range(55):
        block, present = streams.read(Window("a", start, start + 5))
        assert block.tolist() == whole[start : start + 5].astype(np.float16).tolist()
        assert present.all()


def test_every_store_has_its_own_gap_policy(tmp_path):
    tracks = {"a": [1, 1, 0, 0, 1, 1]}
    visual = make_store(tmp_path / "visual-x", "visual", tracks, dim=1)
    audio = make_store(tmp_path / "audio-y", "audio", tracks, dim=1)
    other = make_store(tmp_path / "audio-z", "audio", tracks, dim=1)
    streams = FeatureStreams([visual], [audio, other], gap={"visual-x": "linear", "audio-y": "mask"})
    features, present = streams.read(Window("a", 1, 5))
    assert features.tolist() == [[1, 1, 1], [2, 0, 1], [3, 0, 1], [4, 4, 4]]  # a store that is not named: hold
    assert present[1].tolist() == [True, False, True]


def test_a_gap_policy_of_an_unknown_store_names_the_closest(tmp_path):
    visual = make_store(tmp_path / "visual-mae", "visual", {"a": [1]})
    with pytest.raises(AbawError) as caught:
        FeatureStreams([visual], [], gap={"visual-mea": "mask"})
    assert 'unknown store of the streams "visual-mea"' in caught.value.what
    assert 'did you mean "visual-mae"?' in caught.value.fix


def test_an_unknown_gap_policy_is_refused(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1]})
    with pytest.raises(AbawError, match='unknown gap policy "holt"'):
        FeatureStreams([visual], [], gap={"visual-x": "holt"})


def test_features_stay_float16(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 0, 1]})
    for gap in POLICIES:
        assert FeatureStreams([visual], [], gap=gap).read(Window("a", 0, 3))[0].dtype == np.float16


def test_kept_in_memory_features_outlive_the_file(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 1, 1]}, dim=1)
    streams = FeatureStreams([visual], [], gap="hold", in_memory=True)
    streams.read(Window("a", 0, 1))
    streams.streams[0].store.close()
    (visual / "a.h5").unlink()
    assert streams.read(Window("a", 1, 3))[0].tolist() == [[1], [2]]


def spoil(path, track_id, row, value):
    with h5py.File(path / f"{track_id}.h5", "r+") as file:
        file["features"][row, 1] = value


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named_with_store_track_and_row(tmp_path, value, in_memory):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1] * 9})
    spoil(visual, "a", 6, value)
    streams = FeatureStreams([visual], [], gap="hold", in_memory=in_memory)
    with pytest.raises(AbawError, match="visual-x holds NaN or infinity in track a, first in row 6"):
        streams.read(Window("a", 4, 8))


def test_statistics_find_a_value_that_is_no_number(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1] * 1500})
    spoil(visual, "a", 1300, np.nan)
    with pytest.raises(AbawError, match="first in row 1300"):
        FeatureStreams([visual], [], gap="hold").statistics(["a"])


def test_the_largest_numbers_of_either_sign_are_numbers(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 1]})
    spoil(visual, "a", 0, 65504)
    spoil(visual, "a", 1, -65504)
    assert FeatureStreams([visual], [], gap="hold").read(Window("a", 0, 2))[0][:, 1].tolist() == [65504, -65504]


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


def test_statistics_of_a_long_track_are_those_of_its_rows(tmp_path):
    valid = np.random.default_rng(5).random(2500) < 0.7  # blocks of 256 rows
    visual = make_store(tmp_path / "visual-x", "visual", {"a": valid, "b": [1, 1]}, dim=1, offset=300)
    mean, std = FeatureStreams([visual], [], gap="hold").statistics(["a", "b"])
    rows = np.concatenate([np.flatnonzero(valid), [0, 1]]) + 300
    rows = rows.astype(np.float16).astype(np.float64)
    assert (mean[0], std[0]) == (pytest.approx(rows.mean()), pytest.approx(rows.std()))


def test_a_large_constant_column_is_only_centred(tmp_path):
    """A sum of squares in place of differences would leave a deviation of rounding errors."""
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1] * 3, "b": [1] * 3}, dim=2)
    for track_id in "ab":
        for row in range(3):
            spoil(visual, track_id, row, 60000)
    mean, std = FeatureStreams([visual], [], gap="hold").statistics(["a", "b"])
    assert (mean[1], std[1]) == (60000, 1)


def test_a_store_without_any_data_is_refused(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 1]})
    audio = make_store(tmp_path / "audio-y", "audio", {"a": [0, 0]})
    with pytest.raises(AbawError, match="audio-y has no row with data in any training track") as caught:
        FeatureStreams([visual], [audio], gap="hold").statistics(["a"])
    assert "leave this one out of fuse.audio" in caught.value.fix


def test_a_missing_track_is_named(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1]})
    with pytest.raises(AbawError, match="visual-x lacks 1 of 2 tracks: b") as caught:
        FeatureStreams([visual], [], gap="hold").check(["a", "b"])
    assert "`abaw extract-visual --encoder x` again" in caught.value.fix
    crossed = make_store(tmp_path / "visual-x-fold-1", "visual", {"a": [1]})
    with pytest.raises(AbawError) as caught:
        FeatureStreams([crossed], [], gap="hold").check(["a", "b"])
    assert "`abaw extract-visual --encoder x --folds K --fold 1` again" in caught.value.fix


def test_different_rows_of_one_track_are_named_with_both_numbers(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1, 1]})
    audio = make_store(tmp_path / "audio-y", "audio", {"a": [1, 1, 1]})
    with pytest.raises(AbawError, match="2 rows in visual-x, 3 rows in audio-y"):
        FeatureStreams([visual], [audio], gap="hold").check(["a"])


def test_more_files_than_may_be_open_are_warned_of_unless_they_are_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("abaw.open_files.open_files_allowed", lambda: 3)
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1], "b": [1]})
    audio = make_store(tmp_path / "audio-y", "audio", {"a": [1], "b": [1]})
    said = FeatureStreams([visual], [audio], gap="hold").check(["a", "b"])
    assert said[0].startswith("4 track files are read in random order, and 3 may be open at once")
    assert FeatureStreams([visual], [audio], gap="hold", in_memory=True).check(["a", "b"]) == []


def test_stores_of_one_name_are_told_apart_by_their_rows(tmp_path):
    paths = [
        make_store(tmp_path / side / "visual-x", "visual", {"a": [1] * count}) for side, count in (("l", 2), ("r", 3))
    ]
    with pytest.raises(AbawError, match="2 rows in visual-x, 3 rows in visual-x"):
        FeatureStreams(paths, [], gap="hold").check(["a"])


def test_a_stride_above_the_window_is_refused():
    with pytest.raises(AbawError, match="score_stride 5 is larger than window 4") as caught:
        check_cut({"a": 10}, window=4, strides={"stride": 4, "score_stride": 5}, where="fuse")
    assert (caught.value.where, caught.value.fix) == ("fuse.score_stride", "set it to at most 4")


def test_a_window_longer_than_every_track_is_warned_of():
    (told,) = check_cut({"a": 3, "b": 8}, window=9, strides={"stride": 9}, where="fuse")
    assert told.startswith("fuse.window = 9 is longer than every training track")
    assert "the longest, b, has 8 rows" in told
    assert check_cut({"a": 3, "b": 8}, window=8, strides={"stride": 8}, where="fuse") == []


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


def test_two_known_alignments_are_compared_behind_an_unknown_one(tmp_path):
    unknown = {"fingerprint": "unknown", "settings": {}}
    paths = [
        make_store(tmp_path / f"visual-{number}", "visual", {"a": [1]}, recipe=recipe)
        for number, recipe in enumerate((unknown, make_recipe({"size_px": 112}), make_recipe({"size_px": 224})))
    ]
    with pytest.raises(AbawError, match=r"visual-2 \(beside visual-1\).*size_px: 224 recorded, 112 now"):
        FeatureStreams(paths, [], gap="hold").check(["a"])


def test_a_constant_column_is_only_centred(tmp_path):
    visual = make_store(tmp_path / "visual-x", "visual", {"a": [1]}, dim=1, offset=7)
    mean, std = FeatureStreams([visual], [], gap="hold").statistics(["a"])
    assert (mean[0], std[0]) == (7, 1)
