"""Metrics against values worked out by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import confusion_matrix, f1_score

from abaw.metrics import ccc, confusion, f1_binary, f1_per_class


def test_ccc_by_hand():
    # x = 1 2 3, y = 2 3 4: cov 2/3, both variances 2/3, means 1 apart: (4/3) / (4/3 + 1) = 4/7
    assert ccc(np.array([1, 2, 3]), np.array([2, 3, 4])) == pytest.approx(4 / 7)


def test_ccc_of_a_series_with_itself_is_one():
    assert ccc(np.array([0.1, -0.4, 0.9]), np.array([0.1, -0.4, 0.9])) == pytest.approx(1)


@pytest.mark.parametrize("constant", [0.0, 0.5])
def test_ccc_of_a_constant_is_zero(constant):
    assert ccc(np.full(4, constant), np.array([1.0, 2, 3, 4])) == 0
    assert ccc(np.full(4, constant), np.full(4, constant)) == 0


def test_ccc_of_nothing_is_zero():
    assert ccc(np.zeros(0), np.zeros(0)) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_ccc_is_symmetric_and_at_most_pearson(seed):
    x, y = np.random.default_rng(seed).normal(size=(2, 30))
    assert ccc(x, y) == pytest.approx(ccc(y, x))
    assert abs(ccc(x, y)) <= abs(np.corrcoef(x, y)[0, 1]) + 1e-12


def test_ccc_has_population_variances():
    # cov 1/4, variances 1/4 and 1/4, means 1/2 apart: (2/4) / (1/2 + 1/4); with sample variances 1 / (1 + 1/4)
    assert ccc(np.array([0, 1]), np.array([0.5, 1.5])) == pytest.approx(2 / 3)


def test_ccc_is_pearsons_correlation_times_what_scale_and_shift_cost():
    x, y = np.random.default_rng(0).normal(size=(2, 400)) + [[0.3], [0.1]]
    y = 0.4 * x + y
    u, v = x.std() / y.std(), (x.mean() - y.mean()) / np.sqrt(x.std() * y.std())
    assert ccc(x, y) == pytest.approx(pearsonr(x, y)[0] * 2 / (u + 1 / u + v * v), abs=1e-12)


def test_f1_by_hand():
    # hits 1, false alarms 1, misses 2: 2 / (2 + 1 + 2)
    assert f1_binary(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 1])) == pytest.approx(0.4)


def test_f1_without_positives_anywhere_is_zero():
    assert f1_binary(np.zeros(5), np.zeros(5)) == 0


def test_absent_class_counts_zero():
    assert f1_per_class(np.array([0, 1]), np.array([0, 1]), 3).tolist() == [1, 1, 0]


def test_confusion_rows_are_truth():
    assert confusion(np.array([1, 1, 0]), np.array([0, 1, 0]), 2).tolist() == [[1, 1], [0, 1]]


def test_f1_equals_scikit_learn():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, (2, 500))
    assert f1_per_class(x, y, 8).mean() == pytest.approx(f1_score(y, x, average="macro"))
    assert f1_binary(x > 3, y > 3) == pytest.approx(f1_score(y > 3, x > 3))


@pytest.mark.parametrize("num_classes", [6, 7, 8])
def test_f1_per_class_equals_scikit_learn_also_where_a_class_is_absent(num_classes):
    rng = np.random.default_rng(num_classes)
    x, y = rng.integers(0, num_classes - 1, (2, 60))  # the last class is nowhere
    y[y == 0] = 1  # and the first is only decided
    names = range(num_classes)
    wanted = f1_score(y, x, labels=names, average=None, zero_division=0)
    assert f1_per_class(x, y, num_classes).tolist() == pytest.approx(wanted)
    assert f1_per_class(x, y, num_classes)[[0, -1]].tolist() == [0, 0]
    assert np.array_equal(confusion(x, y, num_classes), confusion_matrix(y, x, labels=names))
