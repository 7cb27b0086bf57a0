"""Smoothing and post.json."""

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.postprocess import Post, in_words, load_post, save_post, smooth, without_short_runs

FILTERS = ("box", "gaussian", "median", "savgol")


def test_box_filter_shrinks_at_the_ends():
    scores = np.array([[0.0], [3.0], [6.0], [0.0]], np.float32)
    assert smooth(scores, 1)[:, 0].tolist() == pytest.approx([1.5, 3.0, 3.0, 3.0])


def test_no_width_changes_nothing():
    scores = np.ones((3, 2), np.float32)
    assert smooth(scores, 0) is scores


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 7, 40])
@pytest.mark.parametrize("half_width", [1, 2, 10, 75])
def test_a_constant_stays_that_constant_up_to_both_ends(kind, num_rows, half_width):
    scores = np.tile(np.array([[0.1, -0.7, 0.5]], np.float32), (num_rows, 1))
    smoothed = smooth(scores, half_width, kind)
    assert smoothed.dtype == np.float32
    assert np.array_equal(smoothed, scores)


@pytest.mark.parametrize("kind", FILTERS)
def test_columns_do_not_touch_each_other(kind):
    scores = np.random.default_rng(0).random((50, 3), np.float32)
    alone = np.concatenate([smooth(scores[:, [column]], 4, kind) for column in range(3)], axis=1)
    assert np.array_equal(smooth(scores, 4, kind), alone)


@pytest.mark.parametrize("kind", FILTERS)
def test_a_filter_is_centred(kind):
    scores = np.random.default_rng(1).random((31, 1), np.float32)
    assert smooth(scores[::-1], 5, kind)[::-1] == pytest.approx(smooth(scores, 5, kind), abs=1e-6)


def test_a_gaussian_has_half_the_half_width_as_deviation_and_shrinks_at_the_ends():
    scores = np.array([[0.0], [1.0], [0.0]], np.float32)
    beside = np.exp(-2.0)  # one row is two deviations away
    wanted = [beside / (1 + beside), 1 / (1 + 2 * beside), beside / (1 + beside)]
    assert smooth(scores, 1, "gaussian")[:, 0].tolist() == pytest.approx(wanted)


def test_a_median_repeats_the_outermost_rows():
    scores = np.array([[5.0], [1.0], [2.0], [9.0]], np.float32)
    assert smooth(scores, 1, "median")[:, 0].tolist() == [5, 2, 2, 9]
    assert smooth(scores, 100, "median")[:, 0].tolist() == [5, 5, 5, 9]  # of 201 rows at row 2: 1, 2, 99 times 5


def test_a_polynomial_of_third_order_passes_savitzky_and_golay_unchanged():
    t = np.linspace(-1, 1, 30)
    cubic = (0.3 - t + 0.5 * t**2 + 2 * t**3)[:, None].astype(np.float32)
    assert smooth(cubic, 7, "savgol") == pytest.approx(cubic, abs=1e-6)
    assert np.abs(smooth((t**4)[:, None].astype(np.float32), 7, "savgol")[:, 0] - t**4).max() > 1e-3


@pytest.mark.parametrize("half_width", [1, 2, 7, 20])
def test_savitzky_and_golay_is_that_of_scipy(half_width):
    from scipy.signal import savgol_filter

    scores = np.random.default_rng(half_width).random((41, 2)).astype(np.float32)
    size = 2 * half_width + 1
    wanted = savgol_filter(scores.astype(np.float64), size, min(3, size - 1), axis=0, mode="interp")
    assert smooth(scores, half_width, "savgol") == pytest.approx(wanted, abs=1e-6)


def test_a_track_shorter_than_the_window_has_a_smaller_one():
    scores = np.random.default_rng(2).random((11, 1), np.float32)
    assert np.array_equal(smooth(scores, 60, "savgol"), smooth(scores, 5, "savgol"))


def short_runs_by_hand(classes, min_run, num_classes):
    found, start = list(classes), 0
    while start < len(classes):
        stop = start
        while stop < len(classes) and classes[stop] == classes[start]:
            stop += 1
        if stop - start < min_run:
            near = list(classes[max(start - 2 * min_run, 0) : stop + 2 * min_run])
            most = max(near.count(one) for one in range(num_classes))
            ties = [one for one in range(num_classes) if near.count(one) == most]
            found[start:stop] = [classes[start] if classes[start] in ties else ties[0]] * (stop - start)
        start = stop
    return found


def test_a_short_run_takes_the_class_around_it():
    assert without_short_runs(np.array([0] * 5 + [3] * 2 + [0] * 5), 3, 8).tolist() == [0] * 12
    assert without_short_runs(np.array([0] * 5 + [3] * 3 + [0] * 5), 3, 8).tolist() == [0] * 5 + [3] * 3 + [0] * 5


def test_of_equally_frequent_classes_a_run_keeps_its_own_else_takes_the_first():
    assert without_short_runs(np.array([4, 4, 2, 2]), 3, 8).tolist() == [4, 4, 2, 2]
    assert without_short_runs(np.array([5, 5, 1, 4, 4]), 2, 8).tolist() == [5, 5, 4, 4, 4]


def test_a_class_wins_only_within_twice_the_run_on_each_side():
    far = np.array([7] * 9 + [1] * 4 + [0] + [1] * 4 + [7] * 9)
    assert without_short_runs(far, 2, 8).tolist() == [7] * 9 + [1] * 9 + [7] * 9


@pytest.mark.parametrize("min_run", [1, 2, 3, 5, 20])
def test_short_runs_agree_with_a_plain_loop(min_run):
    rng = np.random.default_rng(min_run)
    for num_rows in (1, 2, 17, 90):
        classes = np.repeat(rng.integers(0, 4, num_rows), rng.integers(1, 5, num_rows))[:num_rows].astype(np.int8)
        assert without_short_runs(classes, min_run, 5).tolist() == short_runs_by_hand(classes, min_run, 5)


def test_post_survives_writing(tmp_path):
    post = Post(
        half_width={"va": 5},
        thresholds={"au": [0.5] * 12},
        fitted_on="fold 0",
        filter={"va": "savgol"},
        min_run={"expr": 20},
        gain={"va": 0.01},
        interval={"va": (-0.01, 0.03)},
        kept_raw=["expr"],
        nested_folds=5,
    )
    save_post(tmp_path, post)
    assert load_post(tmp_path) == post


def test_a_file_of_before_the_other_filters_is_a_box(tmp_path):
    (tmp_path / "post.json").write_text('{"half_width": {"va": 5}, "thresholds": {}, "clip": [-1.0, 1.0]}')
    post = load_post(tmp_path)
    assert (post.half_width, post.filter, post.min_run) == ({"va": 5}, {}, {})
    assert in_words(post, "va") == "box 5"


def test_settings_in_words():
    post = Post(half_width={"expr": 10}, filter={"expr": "median"}, min_run={"expr": 20}, thresholds={"au": [0.4]})
    assert in_words(post, "expr") == "median 10, runs from 20"
    assert in_words(post, "au") == "thresholds"
    assert in_words(post, "va") == "as they are"
    clipped = Post(clip=(-0.8, 0.8))
    assert in_words(clipped, "va", values=True) == "clipped to -0.8..0.8"
    assert in_words(clipped, "expr") == "as they are"  # classes have no bounds


def test_post_processing_that_found_nothing_is_raw():
    assert Post(gain={"va": 0.0}, kept_raw=["va"], nested_folds=5, half_width={"va": 0}).is_raw
    for changed in ({"half_width": {"va": 1}}, {"min_run": {"expr": 2}}, {"thresholds": {"au": [0.5]}}):
        assert not Post(**changed).is_raw
    assert not Post(clip=(-0.9, 0.9)).is_raw


def test_without_a_file_there_is_no_post_processing(tmp_path):
    assert load_post(tmp_path) == Post()


def test_a_garbled_file_is_an_error_of_ours(tmp_path):
    (tmp_path / "post.json").write_text('{"halfwidth": 3}')
    with pytest.raises(AbawError, match=r"post\.json"):
        load_post(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"half_width": "x"}',
        '{"half_width": {"va": -3}}',
        '{"clip": [1, 2, 3]}',
        '{"thresholds": [1]}',
        "[]",
        '{"clip": [NaN, 1]}',
        '{"filter": {"va": "mean"}}',
        '{"min_run": {"expr": -1}}',
        '{"interval": {"va": [0.1]}}',
    ],
)
def test_values_of_another_form_are_errors_of_ours(tmp_path, text):
    (tmp_path / "post.json").write_text(text)
    with pytest.raises(AbawError, match=r"post\.json"):
        load_post(tmp_path)
