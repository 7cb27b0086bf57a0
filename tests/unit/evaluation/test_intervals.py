"""Intervals and comparisons from sums by recording equal those from the rows themselves."""

import shutil

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.evaluation import compare
from abaw.pooled import resamples
from abaw.tasks import TASKS
from tests.unit.evaluation.small_set import (
    evaluated,
    plain,
    random_labels,
    random_scores,
    reference,
    write_config,
    write_labels,
    write_scores,
)

# Six tracks of four recordings: people, and parts of one recording, belong together.
SIZES = {"a_left": 30, "a_right": 22, "b": 41, "video9_1": 17, "video9_2": 25, "w": 36}
RECORDINGS = [("a_left", "a_right"), ("b",), ("video9_1", "video9_2"), ("w",)]
DRAWS = 40


def make(root, task, *names, seed=0):
    """Labels, and a store of scores for each name. Returns labels and scores by track."""
    head, rng = TASKS[task].heads[0], np.random.default_rng(seed)
    labels = {track: random_labels(head, rows, rng) for track, rows in SIZES.items()}
    write_config(root, task)
    write_labels(root, task, labels)
    stores = {}
    for name in names:
        stores[name] = {track: {task: random_scores(head, own, rng)} for track, own in labels.items()}
        write_scores(root, name, task, stores[name])
    return labels, stores


def slow(task, labels, *drawn):
    """Metric of each label, and their mean in front, of whole recordings one after another: (recording, its scores)."""
    head = TASKS[task].heads[0]
    rows = [(scores[track][task], labels[track]) for place, scores in drawn for track in RECORDINGS[place]]
    parts = reference(head, np.concatenate([own for own, _ in rows]), np.concatenate([own for _, own in rows]))
    return np.array([parts.mean(), *parts])


def keys(task):
    head = TASKS[task].heads[0]
    return ["score", *(f"{task}.{head.metric}.{label}" for label in head.labels)]


@pytest.mark.parametrize("task", ["va", "expr", "au"])
def test_intervals_are_those_of_a_bootstrap_that_draws_the_rows_of_whole_recordings(tmp_path, task):
    labels, stores = make(tmp_path, task, "p")
    found = evaluated(tmp_path, "p").intervals(DRAWS, 5)
    drawn = []
    for counts in resamples(len(RECORDINGS), DRAWS, seed=5).astype(int):
        places = np.repeat(np.arange(len(RECORDINGS)), counts)
        drawn.append(slow(task, labels, *((place, stores["p"]) for place in places)))
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    for place, key in enumerate(keys(task)):
        assert found[key] == pytest.approx((low[place], high[place]), abs=1e-7), key


@pytest.mark.parametrize("task", ["va", "expr", "au"])
def test_a_comparison_is_what_exchanging_the_rows_of_whole_recordings_gives(tmp_path, task):
    labels, stores = make(tmp_path, task, "a", "b")
    first, second = stores["a"], stores["b"]
    found = compare(evaluated(tmp_path, "a"), evaluated(tmp_path, "b"), resamples=200, seed=3).differences
    everywhere = range(len(RECORDINGS))
    mine = slow(task, labels, *((place, first) for place in everywhere))
    other = slow(task, labels, *((place, second) for place in everywhere))
    # Only 16 exchanges are possible: the share of those that differ at least as much is what p comes near to.
    exchanged = []
    for code in range(2 ** len(RECORDINGS)):
        swap = [bool(code >> place & 1) for place in everywhere]
        one = slow(task, labels, *((place, second if swap[place] else first) for place in everywhere))
        two = slow(task, labels, *((place, first if swap[place] else second) for place in everywhere))
        exchanged.append(one - two)
    share = (np.abs(exchanged) >= np.abs(mine - other) - 1e-9).mean(axis=0)
    drawn = []
    for counts in resamples(len(RECORDINGS), 200, seed=3).astype(int):
        places = np.repeat(np.arange(len(RECORDINGS)), counts)
        one = slow(task, labels, *((place, first) for place in places))
        drawn.append(one - slow(task, labels, *((place, second) for place in places)))
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    for place, key in enumerate(keys(task)):
        assert (found[key].a, found[key].b) == pytest.approx((mine[place], other[place]), abs=1e-7)
        assert found[key].difference == pytest.approx(mine[place] - other[place], abs=1e-7)
        assert found[key].interval == pytest.approx((low[place], high[place]), abs=1e-6)
        assert found[key].p == pytest.approx(share[place], abs=0.13)  # five times the error of 200 exchanges


def test_people_and_parts_of_one_recording_are_drawn_together(tmp_path):
    make(tmp_path, "va", "p")
    found = evaluated(tmp_path, "p")
    numbers = dict(zip(found.tracks, found.recordings.tolist(), strict=True))
    assert numbers["a_left"] == numbers["a_right"] != numbers["b"]
    assert numbers["video9_1"] == numbers["video9_2"] != numbers["w"]
    assert found.num_recordings == 4


def test_left_and_right_of_one_video_alone_give_no_interval(tmp_path):
    write_config(tmp_path, "va")
    rng, head = np.random.default_rng(0), TASKS["va"].heads[0]
    labels = {track: random_labels(head, 9, rng) for track in ("a_left", "a_right")}
    write_labels(tmp_path, "va", labels)
    write_scores(tmp_path, "p", "va", {track: {"va": random_scores(head, own, rng)} for track, own in labels.items()})
    assert evaluated(tmp_path, "p").intervals(50, 0) == {}


def test_a_recording_without_labels_is_not_drawn(tmp_path):
    labels, stores = make(tmp_path, "expr", "p")
    wanted = evaluated(tmp_path, "p").intervals(DRAWS, 0)
    write_labels(tmp_path, "expr", {**labels, "nothing": np.full((12, 1), -1)})
    write_scores(tmp_path, "more", "expr", {**stores["p"], "nothing": {"expr": np.eye(8, dtype=np.float32)[[0] * 12]}})
    found = evaluated(tmp_path, "more")
    assert found.num_recordings == 4
    assert found.intervals(DRAWS, 0) == wanted


def test_no_draw_touches_a_frame(tmp_path):
    make(tmp_path, "au", "a", "b")
    first, second = evaluated(tmp_path, "a"), evaluated(tmp_path, "b")
    shutil.rmtree(tmp_path / "predictions")
    shutil.rmtree(tmp_path / "labels")
    assert first.intervals(100, 0)["score"][0] < first.metrics()["score"] < first.intervals(100, 0)["score"][1]
    assert 0 < compare(first, second, resamples=100, seed=0).differences["score"].p <= 1
    assert max(own.hits.shape[0] for own in first.statistics["annotated"].values()) == len(SIZES)


def test_a_perfect_tie_has_p_one(tmp_path):
    labels, stores = make(tmp_path, "va", "a")
    write_scores(tmp_path, "same", "va", stores["a"])
    found = compare(evaluated(tmp_path, "a"), evaluated(tmp_path, "same"), resamples=50, seed=0)
    assert {one.p for one in found.differences.values()} == {1.0}
    assert {one.difference for one in found.differences.values()} == {0.0}
    assert {one.interval for one in found.differences.values()} == {(0.0, 0.0)}


def test_a_difference_that_every_recording_shows_has_a_small_p(tmp_path):
    rng, head = np.random.default_rng(0), TASKS["va"].heads[0]
    labels = {f"v{k}": random_labels(head, 40, rng, missing=0) for k in range(12)}
    write_config(tmp_path, "va")
    write_labels(tmp_path, "va", labels)
    for name, noise in (("good", 0.1), ("bad", 0.6)):
        scores = {
            track: {"va": (own + noise * rng.normal(size=own.shape)).astype(np.float32)}
            for track, own in labels.items()
        }
        write_scores(tmp_path, name, "va", scores)
    found = compare(evaluated(tmp_path, "good"), evaluated(tmp_path, "bad"), resamples=999, seed=0).differences["score"]
    assert found.interval[0] > 0
    assert 0.001 <= found.p < 0.01
    back = compare(evaluated(tmp_path, "bad"), evaluated(tmp_path, "good"), resamples=999, seed=0).differences["score"]
    assert (back.p, back.difference) == (found.p, -found.difference)


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    make(tmp_path, "expr", "a", "b")
    first, second = evaluated(tmp_path, "a"), evaluated(tmp_path, "b")
    one = compare(first, second, resamples=60, seed=1)
    assert plain(one.to_dict()) == plain(compare(first, second, resamples=60, seed=1).to_dict())
    assert one != compare(first, second, resamples=60, seed=2)
    assert first.intervals(60, 1) == first.intervals(60, 1) != first.intervals(60, 2)


def test_without_resamples_there_are_differences_only(tmp_path):
    make(tmp_path, "expr", "a", "b")
    first, second = evaluated(tmp_path, "a"), evaluated(tmp_path, "b")
    found = compare(first, second, resamples=0, seed=0).differences["score"]
    assert (first.intervals(0, 0), found.interval, found.p) == ({}, None, None)
    assert found.difference == first.metrics()["score"] - second.metrics()["score"]


def test_predictions_of_other_tracks_are_not_compared(tmp_path):
    labels, stores = make(tmp_path, "va", "a")
    fewer = {track: own for track, own in stores["a"].items() if track != "w"}
    held = [track for track in SIZES if track != "w"]
    write_scores(tmp_path, "fold", "va", fewer, held_out=held)
    with pytest.raises(AbawError, match="not measured on the same tracks: fold lacks w"):
        compare(evaluated(tmp_path, "a"), evaluated(tmp_path, "fold"), resamples=5, seed=0)
    with pytest.raises(AbawError, match="not measured on the same tracks: fold lacks w"):
        compare(evaluated(tmp_path, "fold"), evaluated(tmp_path, "a"), resamples=5, seed=0)


def test_predictions_measured_on_other_labels_are_not_compared(tmp_path):
    labels, _ = make(tmp_path, "expr", "a", "b")
    first = evaluated(tmp_path, "a")
    labels["w"] = (labels["w"] + 1) % 8
    write_labels(tmp_path, "expr", labels)
    with pytest.raises(AbawError, match="not measured on the same labels: they differ in w"):
        compare(first, evaluated(tmp_path, "b"), resamples=5, seed=0)


def test_predictions_of_two_tasks_are_not_compared(tmp_path):
    make(tmp_path, "va", "a")
    first = evaluated(tmp_path, "a")
    make(tmp_path, "expr", "b")
    with pytest.raises(AbawError, match="a is of task va, b of task expr"):
        compare(first, evaluated(tmp_path, "b"), resamples=5, seed=0)
