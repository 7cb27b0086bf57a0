"""Filling rows without data, worked out by hand."""

import numpy as np
import pytest

from abaw.config.training import GAPS
from abaw.gaps import POLICIES, fill, sources

VALID = np.array([0, 1, 0, 0, 0, 1, 0], bool)
VALUES = np.array([[9], [1], [9], [9], [9], [5], [9]], np.float32)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("mask", [0, 1, 0, 0, 0, 5, 0]),
        ("hold", [1, 1, 1, 1, 1, 5, 5]),
        ("nearest", [1, 1, 1, 1, 5, 5, 5]),
        ("linear", [1, 1, 2, 3, 4, 5, 5]),
    ],
)
def test_each_policy_by_hand(policy, expected):
    assert fill(VALUES, VALID, policy)[:, 0].tolist() == expected


@pytest.mark.parametrize("policy", ["mask", "hold", "nearest", "linear"])
def test_nothing_valid_gives_zeros(policy):
    assert fill(VALUES, np.zeros(7, bool), policy)[:, 0].tolist() == [0] * 7


@pytest.mark.parametrize("policy", ["mask", "hold", "nearest", "linear"])
def test_complete_rows_stay(policy):
    assert fill(VALUES, np.ones(7, bool), policy).tolist() == VALUES.tolist()


def test_sources_refuse_an_empty_track():
    with pytest.raises(ValueError, match="no valid row"):
        sources(np.zeros(3, bool), "hold")


def test_the_configuration_names_every_policy():
    assert GAPS == POLICIES
