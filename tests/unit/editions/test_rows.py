"""The text of rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw.editions import format_rows
from abaw.errors import AbawError
from abaw.tasks import TASKS


def values(*rows):
    return {"va": np.array(rows, np.float32)}


def test_values_have_six_decimals():
    assert format_rows(TASKS["va"], values([0.5, -1], [0.1, 1])) == ["0.500000,-1.000000", "0.100000,1.000000"]


def test_what_rounds_to_zero_has_no_minus():
    assert format_rows(TASKS["va"], values([-0.0, -4e-7])) == ["0.000000,0.000000"]


def test_a_value_between_two_decimals_takes_the_even_one():
    # 1/128 and 3/128 end in ...5 at the seventh decimal, exactly
    assert format_rows(TASKS["va"], values([0.0078125, 0.0234375])) == ["0.007812,0.023438"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=40))
def test_values_are_rounded_as_python_rounds_them(numbers):
    block = np.array(numbers[: len(numbers) // 2 * 2], np.float32).reshape(-1, 2)
    expected = [",".join(f"{value:.6f}".replace("-0.000000", "0.000000") for value in row) for row in block.tolist()]
    assert format_rows(TASKS["va"], {"va": block}) == expected


def test_classes_are_their_index():
    assert format_rows(TASKS["expr"], {"expr": np.array([[7], [0]], np.int8)}) == ["7", "0"]


def test_units_are_bits_in_the_order_of_the_header():
    assert format_rows(TASKS["au"], {"au": np.eye(12, dtype=np.int8)[[0, 11]]}) == [
        "1,0,0,0,0,0,0,0,0,0,0,0",
        "0,0,0,0,0,0,0,0,0,0,0,1",
    ]


def test_a_multi_task_row_has_fifteen_values():
    decisions = {**values([0.25, 0]), "expr": np.array([[3]], np.int8), "au": np.zeros((1, 12), np.int8)}
    assert format_rows(TASKS["mtl"], decisions) == ["0.250000,0.000000,3,0,0,0,0,0,0,0,0,0,0,0,0"]


def test_no_rows_are_no_text():
    assert format_rows(TASKS["va"], {"va": np.empty((0, 2), np.float32)}) == []
    assert format_rows(TASKS["expr"], {"expr": np.empty((0, 1), np.int8)}) == []


@pytest.mark.parametrize(
    ("task", "block"),
    [
        ("va", [[0.1, np.nan]]),
        ("va", [[1.0001, 0]]),
        ("va", [[-np.inf, 0]]),
        ("expr", [[8]]),
        ("expr", [[-1]]),
        ("au", [[0] * 11 + [2]]),
        ("au", [[-1] + [0] * 11]),
    ],
)
def test_decisions_that_no_file_may_hold_are_refused(task, block):
    with pytest.raises(AbawError, match=f"decisions of {task}"):
        format_rows(TASKS[task], {task: np.array(block)})
