"""Scores become decisions and metrics by one rule."""

import numpy as np
import pytest

from abaw.data.annotations import Labels
from abaw.postprocess import Post
from abaw.tasks import TASKS, Problem, decide, measure, score


def scores_of(task, num_rows, seed=0):
    rng = np.random.default_rng(seed)
    return {head.name: rng.random((num_rows, head.output_dim), np.float32) for head in task.heads}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_decides_and_measures_a_perfect_answer(name):
    task = TASKS[name]
    scores = scores_of(task, 200)
    decisions = decide(task, scores)
    labels = {k: Labels(v.astype(np.float32), np.ones(v.shape, bool)) for k, v in decisions.items()}
    assert measure(task, decisions, labels)["score"] == pytest.approx(len(task.heads))


@pytest.mark.parametrize("name", TASKS)
def test_shapes_and_ranges_of_decisions(name):
    task = TASKS[name]
    for head, decided in zip(task.heads, decide(task, scores_of(task, 30)).values(), strict=True):
        assert decided.shape == (30, head.target_dim)
        top = {Problem.MULTILABEL: 1, Problem.MULTICLASS: head.output_dim - 1, Problem.REGRESSION: 1}[head.problem]
        assert decided.min() >= -1
        assert decided.max() <= top


def test_units_are_active_at_half_or_at_their_own_threshold():
    scores = {"au": np.full((1, 12), 0.5, np.float32)}
    assert decide(TASKS["au"], scores)["au"].all()
    post = Post(thresholds={"au": [0.6] * 11 + [0.4]})
    assert decide(TASKS["au"], scores, post)["au"].tolist() == [[0] * 11 + [1]]


def test_scores_are_smoothed_before_they_are_decided():
    scores = np.zeros((5, 12), np.float32)
    scores[2] = 1.0
    assert decide(TASKS["au"], {"au": scores})["au"][:, 0].tolist() == [0, 0, 1, 0, 0]
    wide = Post(half_width={"au": 1}, thresholds={"au": [0.3] * 12})
    assert decide(TASKS["au"], {"au": scores}, wide)["au"][:, 0].tolist() == [0, 1, 1, 1, 0]
    median = Post(half_width={"au": 1}, filter={"au": "median"}, thresholds={"au": [0.3] * 12})
    assert not decide(TASKS["au"], {"au": scores}, median)["au"].any()


def test_short_runs_of_an_expression_are_taken_out_after_the_choice():
    classes = np.array([2] * 6 + [5] + [2] * 6)
    scores = {"expr": np.eye(8, dtype=np.float32)[classes]}
    assert decide(TASKS["expr"], scores)["expr"][:, 0].tolist() == classes.tolist()
    decided = decide(TASKS["expr"], scores, Post(min_run={"expr": 2}))["expr"]
    assert (decided.shape, decided.dtype, set(decided[:, 0].tolist())) == ((13, 1), np.int8, {2})


def test_a_heads_settings_leave_the_other_heads_alone():
    task = TASKS["mtl"]
    scores = scores_of(task, 40)
    raw = decide(task, scores)
    tuned = decide(task, scores, Post(half_width={"va": 9}, min_run={"expr": 9}))
    assert np.array_equal(tuned["au"], raw["au"])
    assert not np.array_equal(tuned["va"], raw["va"])
    assert not np.array_equal(tuned["expr"], raw["expr"])


def test_values_are_clipped():
    assert decide(TASKS["va"], {"va": np.array([[2.0, -3.0]], np.float32)})["va"].tolist() == [[1, -1]]


def test_a_row_with_one_unlabelled_unit_is_dropped_unless_masked_by_element():
    decisions = {"au": np.ones((2, 12), np.int8)}
    values, mask = np.ones((2, 12), np.float32), np.ones((2, 12), bool)
    values[1], mask[1, 0] = 0, False
    labels = {"au": Labels(values, mask)}
    assert measure(TASKS["au"], decisions, labels)["au.f1.AU2"] == 1  # only row 0 counts
    by_element = measure(TASKS["au"], decisions, labels, element_mask=True)
    assert by_element["au.f1.AU2"] == pytest.approx(2 / 3)  # row 1 is a false alarm for AU2
    assert by_element["au.f1.AU1"] == 1


def test_va_score_is_the_mean_of_both_ccc_over_rows_labelled_in_both():
    truth = np.array([[1, 2], [2, 3], [3, 4], [9, 9]], np.float32)
    mask = np.array([[1, 1], [1, 1], [1, 1], [1, 0]], bool)
    decisions = {"va": truth + np.array([[1, 0]], np.float32)}
    metrics = measure(TASKS["va"], decisions, {"va": Labels(truth, mask)})
    assert metrics["va.ccc.valence"] == pytest.approx(4 / 7)
    assert metrics["score"] == pytest.approx((4 / 7 + 1) / 2)


def test_multi_task_score_is_the_sum_of_three_means():
    task = TASKS["mtl"]
    decisions = decide(task, scores_of(task, 50))
    labels = {k: Labels(v.astype(np.float32), np.ones(v.shape, bool)) for k, v in decisions.items()}
    metrics = measure(task, decisions, labels)
    assert metrics["score"] == pytest.approx(metrics["va.ccc"] + metrics["expr.f1"] + metrics["au.f1"])


def test_score_of_scores_equals_measure_of_decisions():
    task = TASKS["expr"]
    scores = scores_of(task, 40)
    labels = {"expr": Labels(np.arange(40, dtype=np.float32)[:, None] % 8, np.ones((40, 1), bool))}
    assert score(task, scores, labels) == measure(task, decide(task, scores), labels)
