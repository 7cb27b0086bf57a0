"""Combining scores of several models, and fitting the weights, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from abaw.data.annotations import Labels
from abaw.ensembles import WeightFit, check_combine, combine, from_terms, normalised, to_terms
from abaw.errors import AbawError, ExitCode
from abaw.postprocess import Post
from abaw.tasks import TASKS, Head, Problem, decide, measure

UNIT = Head("units", Problem.MULTILABEL, ("AU1",))
CLASS = Head("classes", Problem.MULTICLASS, ("a", "b"))
VALUE = TASKS["va"].heads[0]


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def combined(head: Head, scores: list[np.ndarray], how: str, weights: list[float] | None = None) -> np.ndarray:
    valid = [np.ones(len(own), bool) for own in scores]
    return combine(head, scores, valid, weights or [1.0] * len(scores), how)


def labels_of(values: np.ndarray) -> Labels:
    return Labels(values.astype(np.float32), np.ones(values.shape, bool))


# -- combining ---------------------------------------------------------------------------------------------------------
def test_scores_are_averaged_by_their_weights():
    found = combined(VALUE, [np.full((2, 2), 0.8, np.float32), np.full((2, 2), -0.4, np.float32)], "scores", [3, 1])
    assert found == pytest.approx(0.5)  # (3 * 0.8 - 0.4) / 4
    assert found.dtype == np.float32


def test_logits_of_units_are_log_odds():
    # odds 9 and 1: their geometric mean is 3, which is a probability of 3 / 4
    assert combined(UNIT, [column(0.9), column(0.5)], "logits") == pytest.approx(0.75, abs=1e-6)


def test_logits_of_classes_give_the_normalised_geometric_mean():
    # sqrt(0.9 * 0.5) to sqrt(0.1 * 0.5) is 3 to 1
    scores = [np.array([[0.9, 0.1]], np.float32), np.array([[0.5, 0.5]], np.float32)]
    assert combined(CLASS, scores, "logits") == pytest.approx(np.array([[0.75, 0.25]]), abs=1e-6)


def test_certain_scores_have_finite_logits():
    assert combined(UNIT, [column(1.0), column(0.0)], "logits") == pytest.approx(0.5, abs=1e-6)
    sure = [np.array([[1.0, 0.0]], np.float32)] * 2
    assert combined(CLASS, sure, "logits") == pytest.approx(np.array([[1, 0]]), abs=1e-5)


def test_two_votes_beat_one_that_is_surer():
    scores = [column(0.55), column(0.55), column(0.05)]
    assert UNIT.decide(combined(UNIT, scores, "votes"), Post())[0, 0] == 1
    assert UNIT.decide(combined(UNIT, scores, "scores"), Post())[0, 0] == 0


def test_the_mean_score_decides_even_votes():
    for high, decision in ((0.95, 1), (0.55, 0)):
        found = combined(UNIT, [column(high), column(0.4)], "votes")
        assert found == pytest.approx(0.5, abs=1e-3)
        assert UNIT.decide(found, Post())[0, 0] == decision
    scores = [np.array([[0.6, 0.4]], np.float32), np.array([[0.3, 0.7]], np.float32)]
    assert CLASS.decide(combined(CLASS, scores, "votes"), Post())[0, 0] == 1


def test_votes_of_classes_are_shares_that_sum_to_one():
    scores = [np.array([[0.6, 0.4]], np.float32)] * 3 + [np.array([[0.1, 0.9]], np.float32)]
    found = combined(CLASS, scores, "votes")
    assert found == pytest.approx(np.array([[0.75, 0.25]]), abs=1e-3)
    assert found.sum() == pytest.approx(1)


def test_values_have_no_logits_and_no_votes():
    for how in ("logits", "votes"):
        with pytest.raises(AbawError, match="it has values") as caught:
            check_combine(TASKS["va"], how, where="here")
        assert caught.value.code == ExitCode.CONFIG
        check_combine(TASKS["mtl"], how, where="here")
        assert combined(VALUE, [np.full((1, 2), 0.2), np.full((1, 2), 0.6)], how) == pytest.approx(0.4)
    check_combine(TASKS["va"], "scores", where="here")


def test_a_row_is_the_mean_of_the_members_that_have_it():
    first, second = column(0.2, 0.4, 0), column(0.6, 0, 0)
    valid = [np.array([True, True, False]), np.array([True, False, False])]
    assert combine(UNIT, [first, second], valid, [1, 1], "scores")[:, 0] == pytest.approx([0.4, 0.4, 0])
    assert combine(UNIT, [first, second], valid, [1, 1], "logits")[2, 0] == 0


def test_a_member_without_weight_gives_no_row():
    valid = [np.array([True, False]), np.array([True, True])]
    found = combine(UNIT, [column(0.2, 0), column(0.6, 0.6)], valid, [1, 0], "scores")
    assert found[:, 0] == pytest.approx([0.2, 0])


def test_a_track_without_rows_stays_empty():
    none = np.zeros((0, 2), np.float32)
    assert combine(CLASS, [none, none], [np.zeros(0, bool)] * 2, [1, 1], "logits").shape == (0, 2)


def test_weights_sum_to_one():
    assert normalised([1, 3], ["a", "b"], where="here") == (0.25, 0.75)


@pytest.mark.parametrize(("weights", "fault"), [([1.0], "1 weights for 2 members"), ([0.0, 0.0], "all weights are 0")])
def test_weights_that_fit_no_members_are_refused(weights, fault):
    with pytest.raises(AbawError, match=fault) as caught:
        normalised(weights, ["a", "b"], where="here")
    assert "a, b" in caught.value.what


# -- fitting -----------------------------------------------------------------------------------------------------------
def random_scores(task, rng, rows):
    """Labels of a task, and three members' scores that are worse and worse."""
    labels, members = {}, [{}, {}, {}]
    for head in task.heads:
        shape = (rows, head.output_dim)
        if head.problem is Problem.REGRESSION:
            truth = values = rng.uniform(-1, 1, shape)
        elif head.problem is Problem.MULTICLASS:
            truth = rng.integers(0, head.output_dim, (rows, 1))
            values = (truth == np.arange(head.output_dim)).astype(float)
        else:
            truth = values = (rng.random(shape) < 0.4).astype(float)
        labels[head.name] = labels_of(truth)
        for number, member in enumerate(members):
            noisy = values + (0.5 + 0.3 * number) * rng.normal(size=shape)
            if head.problem is Problem.MULTILABEL:
                noisy = 1 / (1 + np.exp(1 - 2 * noisy))
            elif head.problem is Problem.MULTICLASS:
                noisy = np.exp(noisy) / np.exp(noisy).sum(axis=1, keepdims=True)
            member[head.name] = noisy.astype(np.float32)
    return labels, members


@pytest.mark.parametrize(
    ("name", "how"), [(task, "scores") for task in ("au", "expr", "va", "mtl")] + [("au", "logits"), ("expr", "votes")]
)
def test_members_and_their_equal_mixture_score_what_evaluation_says(name, how):
    task, rng = TASKS[name], np.random.default_rng(0)
    fit = WeightFit(task, how, members=3, parts=2)
    tracks = [random_scores(task, rng, rows) for rows in (70, 50, 30)]
    for part, (labels, members) in zip((0, 1, 0), tracks, strict=True):
        for head in task.heads:
            scores = [member[head.name] for member in members]
            fit.add(part, head.name, scores, [np.ones(len(scores[0]), bool)] * 3, labels[head.name])
    found = fit.fit(rounds=4)

    def official(mixture):
        pooled, truth = {}, {}
        for head in task.heads:
            blocks = [[member[head.name] for member in members] for _, members in tracks]
            pooled[head.name] = np.concatenate([combined(head, own, how, mixture) for own in blocks])
            truth[head.name] = labels_of(np.concatenate([labels[head.name].values for labels, _ in tracks]))
        return measure(task, decide(task, pooled), truth)["score"]

    assert found.alone == pytest.approx([official([1, 0, 0]), official([0, 1, 0]), official([0, 0, 1])], abs=1e-6)
    assert found.equal == pytest.approx(official([1, 1, 1]), abs=1e-6)
    assert official(list(found.weights)) >= max(*found.alone, found.equal) - 1e-6


def test_errors_that_cancel_each_other_get_equal_weights():
    rng = np.random.default_rng(0)
    truth, error = rng.uniform(-0.5, 0.5, (40, 2)), rng.uniform(-0.4, 0.4, (40, 2))
    fit = WeightFit(TASKS["va"], "scores", members=2, parts=2)
    for part in range(2):
        rows = slice(20 * part, 20 * part + 20)
        scores = [(truth + sign * error)[rows].astype(np.float32) for sign in (1, -1)]
        fit.add(part, "va", scores, [np.ones(20, bool)] * 2, labels_of(truth[rows]))
    found = fit.fit()
    assert found.weights == (0.5, 0.5)
    assert found.score == pytest.approx(1)
    assert found.by_part == ((0.5, 0.5), (0.5, 0.5))


def test_a_member_that_is_always_wrong_gets_no_weight():
    fit = WeightFit(TASKS["expr"], "scores", members=2, parts=2)
    for part in range(2):
        truth = np.arange(8)[:, None]
        good = (truth == np.arange(8)).astype(np.float32)
        fit.add(part, "expr", [good[:, ::-1].copy(), good], [np.ones(8, bool)] * 2, labels_of(truth))
    found = fit.fit()
    assert (found.weights, found.score, found.alone) == ((0.0, 1.0), 1.0, (0.0, 1.0))


def test_what_is_promised_was_measured_on_parts_that_the_weights_do_not_know():
    # The first member is right in part 0 only, the second in part 1 only: weights of either fail on the other.
    truth = np.arange(8)[:, None]
    good = (truth == np.arange(8)).astype(np.float32)
    bad = good[:, ::-1].copy()
    fit = WeightFit(TASKS["expr"], "scores", members=2, parts=2)
    for part, scores in enumerate(([good, bad], [bad, good])):
        fit.add(part, "expr", scores, [np.ones(8, bool)] * 2, labels_of(truth))
    found = fit.fit()
    assert found.by_part == ((0.0, 1.0), (1.0, 0.0))
    assert found.score == 0
    assert found.alone == (0.5, 0.5)


def test_equal_weights_stay_where_no_others_are_better():
    truth = np.arange(8)[:, None]
    good = (truth == np.arange(8)).astype(np.float32)
    fit = WeightFit(TASKS["expr"], "scores", members=3, parts=2)
    for part in range(2):
        fit.add(part, "expr", [good] * 3, [np.ones(8, bool)] * 3, labels_of(truth))
    assert fit.fit().weights == pytest.approx([1 / 3] * 3)


def test_rows_that_a_member_lacks_or_that_have_no_label_do_not_count():
    fit = WeightFit(TASKS["va"], "scores", members=2, parts=1)
    labels = Labels(np.zeros((4, 2), np.float32), np.array([[1, 1], [1, 0], [1, 1], [1, 1]], bool))
    valid = [np.array([True, True, True, False]), np.ones(4, bool)]
    fit.add(0, "va", [np.zeros((4, 2), np.float32)] * 2, valid, labels)
    assert fit.num_rows == {"va": 2}


def test_terms_and_scores_undo_each_other():
    scores = np.random.default_rng(0).dirichlet(np.ones(2), 5).astype(np.float32)
    for head, block in ((CLASS, scores), (UNIT, scores[:, :1])):
        assert from_terms(head, to_terms(head, block, "logits"), "logits") == pytest.approx(block, abs=1e-5)
