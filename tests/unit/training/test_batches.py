"""Which samples a step holds, and class weights."""

import numpy as np
import pytest

from abaw.data.annotations import Labels
from abaw.errors import AbawError
from abaw.tasks import TASKS
from abaw.training.batches import SampleOrder, to_tensor
from abaw.training.weights import balanced_weights

AU, EXPR, VA = (TASKS[name].heads[0] for name in ("au", "expr", "va"))


def test_an_epoch_holds_every_sample_once_whatever_the_batch_size() -> None:
    order = SampleOrder(10, 4, seed=0)
    stream = np.concatenate([order.at(step) for step in range(5)])
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))


def test_a_step_is_the_same_when_asked_out_of_order() -> None:
    first, second = SampleOrder(50, 8, seed=3), SampleOrder(50, 8, seed=3)
    wanted = second.at(20)
    assert np.array_equal([first.at(step) for step in range(21)][20], wanted)


def test_weights_are_shares_of_the_draws() -> None:
    order = SampleOrder(3, 3000, seed=0, weights=np.array([0.0, 3.0, 1.0]))
    assert np.bincount(order.at(0), minlength=3) / 3000 == pytest.approx([0, 0.75, 0.25], abs=0.03)


def test_pixels_are_scaled_by_mean_and_deviation() -> None:
    tensor = to_tensor(np.full((1, 2, 2, 3), 255, np.uint8), [0.5, 0.0, 1.0], [0.5, 0.25, 0.1])
    assert tensor.shape == (1, 3, 2, 2)
    assert tensor[0, :, 0, 0].tolist() == pytest.approx([1.0, 4.0, 0.0], abs=1e-5)


def test_balanced_classes_get_the_largest_count_over_their_own() -> None:
    values = np.array([[0], [0], [0], [0], [1], [1], [5], [2]], np.float32)
    mask = np.array([[True]] * 7 + [[False]])
    weights = balanced_weights(EXPR, Labels(values, mask), "balanced")["weight"]
    assert weights == [1, 2, 1, 1, 1, 4, 1, 1]  # class 2 is unlabelled: it never occurs


def test_balanced_units_get_negatives_over_positives_or_shares_of_the_largest() -> None:
    values = np.zeros((8, 12), np.float32)
    values[:4, 0], values[:2, 1] = 1, 1
    labels = Labels(values, np.ones_like(values, bool))
    assert balanced_weights(AU, labels, "balanced")["positive_weight"][:3] == [1.0, 3.0, 1.0]
    assert balanced_weights(AU, labels, "balanced", "weight")["weight"][:3] == [1.0, 2.0, 1.0]


def test_values_have_no_class_weights_and_none_means_none() -> None:
    labels = Labels(np.zeros((2, 2), np.float32), np.ones((2, 2), bool))
    assert balanced_weights(VA, labels, "balanced") == {}
    assert balanced_weights(AU, labels, "none") == {}


def test_given_weights_must_fit_the_head() -> None:
    labels = Labels(np.zeros((2, 1), np.float32), np.ones((2, 1), bool))
    assert balanced_weights(EXPR, labels, [1.0] * 8) == {"weight": [1.0] * 8}
    with pytest.raises(AbawError, match="3 class weights for the 8 outputs of expr"):
        balanced_weights(EXPR, labels, [1.0, 2.0, 3.0])
