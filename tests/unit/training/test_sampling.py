"""How often frames are drawn."""

import numpy as np
import pytest

from abaw.data.annotations import Labels
from abaw.errors import AbawError, ExitCode
from abaw.tasks import TASKS
from abaw.training.sampling import balanced_sampling


def test_every_class_that_occurs_is_equally_likely() -> None:
    values = np.array([[0], [0], [0], [4], [4], [7]], np.float32)
    weights = balanced_sampling(TASKS["expr"].heads, {"expr": Labels(values, np.ones((6, 1), bool))})
    assert weights == pytest.approx([2 / 3] * 3 + [1, 1, 2])  # three classes: 6 / (3 x rows of the class)


def test_unlabelled_rows_get_the_mean_weight() -> None:
    values = np.array([[0], [0], [1], [0]], np.float32)
    mask = np.array([[True], [True], [True], [False]])
    weights = balanced_sampling(TASKS["expr"].heads, {"expr": Labels(values, mask)})
    assert weights == pytest.approx([0.75, 0.75, 1.5, 1.0])


def test_rows_of_rare_units_are_drawn_more_often() -> None:
    values = np.zeros((6, 12), np.float32)
    values[:2, 0] = 1  # AU1 in two rows
    values[1, 5] = 1  # AU10 in one of them
    mask = np.ones((6, 12), bool)
    mask[5] = False
    weights = balanced_sampling(TASKS["au"].heads, {"au": Labels(values, mask)})
    plain = np.array([1 / 2, (1 / 2 + 1) / 2, 1 / 3, 1 / 3, 1 / 3])
    assert weights == pytest.approx([*plain / plain.mean(), 1.0])


def test_several_heads_are_balanced_by_the_classes() -> None:
    labels = {
        "va": Labels(np.zeros((3, 2), np.float32), np.ones((3, 2), bool)),
        "expr": Labels(np.array([[1], [1], [2]], np.float32), np.ones((3, 1), bool)),
        "au": Labels(np.ones((3, 12), np.float32), np.ones((3, 12), bool)),
    }
    assert balanced_sampling(TASKS["mtl"].heads, labels) == pytest.approx([0.75, 0.75, 1.5])


def test_values_alone_cannot_be_balanced() -> None:
    labels = {"va": Labels(np.zeros((3, 2), np.float32), np.ones((3, 2), bool))}
    with pytest.raises(AbawError, match="va has no classes") as caught:
        balanced_sampling(TASKS["va"].heads, labels)
    assert caught.value.code is ExitCode.CONFIG
    assert 'sampling = "uniform"' in caught.value.fix
