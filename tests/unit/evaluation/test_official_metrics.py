"""Each task's official score from files on disk, against hand-computed cases, scikit-learn and scipy."""

from pathlib import Path

import numpy as np
import pytest

from abaw.tasks import TASKS, Problem
from tests.unit.evaluation.small_set import (
    evaluated,
    random_labels,
    random_scores,
    reference,
    write_config,
    write_labels,
    write_scores,
)

SIZES = {"v1": 90, "v2_left": 40, "v2_right": 7, "v3": 60}
BY_TRACK = [name for name in TASKS if name != "mtl"]


def one_hot(classes, count):
    return np.eye(count, dtype=np.float32)[classes]


def score_of(root: Path, task: str, scores, labels, *overrides: str) -> dict[str, float]:
    """Metrics of one track."""
    write_config(root, task)
    write_labels(root, task, {"v1": np.asarray(labels)})
    write_scores(root, "p", task, {"v1": {name: np.asarray(own, np.float32) for name, own in scores.items()}})
    return evaluated(root, "p", *overrides).metrics()


# -- by hand ---------------------------------------------------------------------------------------------------------
def test_expression_by_hand(tmp_path):
    # Neutral: 1 hit, 1 missed; Anger: 2 hits, 1 false; Other: 1 hit; the last row is not annotated; five are absent
    metrics = score_of(tmp_path, "expr", {"expr": one_hot([0, 1, 1, 1, 7, 3], 8)}, [[0], [0], [1], [1], [7], [-1]])
    assert metrics["score"] == pytest.approx((2 / 3 + 4 / 5 + 1) / 8)
    assert metrics["expr.f1.Fear"] == 0  # decided in an unlabelled row only: absent


def test_seven_expressions_by_hand(tmp_path):
    metrics = score_of(tmp_path, "expr7", {"expr7": one_hot([0, 6, 6], 7)}, [[0], [6], [0]])
    assert metrics["score"] == pytest.approx((2 / 3 + 2 / 3) / 7)


def test_six_expressions_by_hand(tmp_path):
    metrics = score_of(tmp_path, "lsd", {"lsd": one_hot([0, 5, 5, 2], 6)}, [[0], [5], [5], [3]])
    assert metrics["score"] == pytest.approx(2 / 6)


def test_compound_expressions_by_hand(tmp_path):
    metrics = score_of(tmp_path, "ce", {"ce": one_hot([0, 1, 6, 6], 7)}, [[0], [1], [6], [1]])
    assert metrics["score"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 7)


UNITS = np.zeros((4, 12))
UNITS[:, 0] = 1, 1, 0, 0  # truth of AU1
DECIDED = np.zeros((4, 12))
DECIDED[:, 0] = 0.5, 0.2, 0.9, 0.4  # one hit (0.5 is active), one missed, one false
DECIDED[3, 1] = 0.7  # one false of AU2


def test_units_by_hand(tmp_path):
    metrics = score_of(tmp_path, "au", {"au": DECIDED}, UNITS)
    assert metrics["au.f1.AU1"] == pytest.approx(2 / 4)
    assert metrics["score"] == pytest.approx(0.5 / 12)  # the others are nowhere: 0 each


@pytest.mark.parametrize(("mask", "wanted"), [("row", 2 / 3), ("element", 2 / 4)])
def test_a_row_with_an_unlabelled_unit_is_dropped_or_only_that_unit(tmp_path, mask, wanted):
    labels = UNITS.copy()
    labels[1, 11] = -1  # the row of AU1 that is missed
    metrics = score_of(tmp_path, "au", {"au": DECIDED}, labels, f"evaluate.au_mask={mask}")
    assert metrics["au.f1.AU1"] == pytest.approx(wanted)


def test_valence_and_arousal_by_hand(tmp_path):
    # x = 0.1 0.2 0.3, y = 0.2 0.3 0.4: covariance and variances 0.02 / 3, means 0.1 apart: (0.04 / 3) / (0.07 / 3)
    labels = np.array([[0.2, 0.5], [0.3, -0.5], [0.4, 0.1], [1, -5], [-5, 1]])
    scores = np.array([[0.1, 0.5], [0.2, -0.5], [0.3, 0.1], [-1, -1], [-1, -1]])
    metrics = score_of(tmp_path, "va", {"va": scores}, labels)
    assert metrics["va.ccc.valence"] == pytest.approx(4 / 7, abs=1e-6)  # sample variances would give 2 / 3
    assert metrics["va.ccc.arousal"] == pytest.approx(1)
    assert metrics["score"] == pytest.approx((4 / 7 + 1) / 2, abs=1e-6)


@pytest.mark.parametrize("constant", ["truth", "decisions"])
def test_the_ccc_of_a_constant_is_zero(tmp_path, constant):
    varying, still = np.array([[0.1, -0.3], [0.5, 0.2], [0.3, 0.9]]), np.full((3, 2), 0.3)
    labels, scores = (still, varying) if constant == "truth" else (varying, still)
    assert score_of(tmp_path, "va", {"va": scores}, labels)["score"] == 0


def test_multi_task_rows_count_for_the_heads_they_are_annotated_in(tmp_path):
    units = [1, 0] * 6
    labels = [
        [0.2, 0.5, 3, *units],
        [0.3, -0.5, -1, *[-1] * 12],  # valence and arousal only
        [0.4, 0.1, -1, *units[:-1], -1],  # one unit is missing: no units
        [-5, -5, 3, *[-1] * 12],  # an expression only
        [-5, 0.9, 4, *units],  # valence is missing: no arousal either
    ]
    scores = {
        "va": [[0.1, 0.5], [0.2, -0.5], [0.3, 0.1], [-1, -1], [-1, -1]],
        "expr": one_hot([3, 0, 0, 0, 4], 8),
        "au": np.array([units, [1] * 12, [1] * 12, [1] * 12, units]),
    }
    metrics = score_of(tmp_path, "mtl", scores, labels)
    assert metrics["va.ccc"] == pytest.approx((4 / 7 + 1) / 2, abs=1e-6)
    assert metrics["expr.f1"] == pytest.approx((2 / 3 + 1) / 8)
    assert metrics["au.f1"] == pytest.approx(6 / 12)
    assert metrics["score"] == pytest.approx(metrics["va.ccc"] + metrics["expr.f1"] + metrics["au.f1"])


# -- against others --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", BY_TRACK)
def test_scores_of_several_tracks_equal_those_of_their_rows_by_scikit_learn_and_scipy(tmp_path, name):
    head, rng = TASKS[name].heads[0], np.random.default_rng(0)
    labels = {track: random_labels(head, rows, rng) for track, rows in SIZES.items()}
    scores = {track: {head.name: random_scores(head, own, rng)} for track, own in labels.items()}
    write_config(tmp_path, name)
    write_labels(tmp_path, name, labels)
    write_scores(tmp_path, "p", name, scores)
    metrics = evaluated(tmp_path, "p").metrics()
    parts = reference(
        head, np.concatenate([own[head.name] for own in scores.values()]), np.concatenate(list(labels.values()))
    )
    assert metrics["score"] == pytest.approx(parts.mean(), abs=1e-7)
    assert [metrics[f"{head.name}.{head.metric}.{label}"] for label in head.labels] == pytest.approx(parts, abs=1e-7)


def test_multi_task_scores_of_partly_labelled_rows_equal_those_of_each_heads_rows(tmp_path):
    heads, rng = TASKS["mtl"].heads, np.random.default_rng(1)
    labels, scores = {}, {}
    for track, rows in SIZES.items():
        blocks = {head.name: random_labels(head, rows, rng, missing=0.03) for head in heads}
        blocks["au"][rng.random(rows) < 0.2] = -1
        labels[track] = np.hstack(list(blocks.values()))
        scores[track] = {head.name: random_scores(head, blocks[head.name], rng) for head in heads}
    write_config(tmp_path, "mtl")
    write_labels(tmp_path, "mtl", labels)
    write_scores(tmp_path, "p", "mtl", scores)
    metrics = evaluated(tmp_path, "p").metrics()
    pooled, total, start = np.concatenate(list(labels.values())), 0.0, 0
    for head in heads:
        own = pooled[:, start : start + head.target_dim]
        parts = reference(head, np.concatenate([one[head.name] for one in scores.values()]), own)
        assert metrics[f"{head.name}.{head.metric}"] == pytest.approx(parts.mean(), abs=1e-7)
        total, start = total + parts.mean(), start + head.target_dim
    assert metrics["score"] == pytest.approx(total, abs=1e-7)
    assert [head.problem for head in heads] == [Problem.REGRESSION, Problem.MULTICLASS, Problem.MULTILABEL]
