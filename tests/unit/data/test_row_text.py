"""Rows in their usual form are read many at once; others are left to whoever asked."""

import io
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw.data import row_text
from abaw.data.row_text import UnusualTextError, blocks, first_folders, parse_rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=20), min_size=1, max_size=12), st.booleans())
def test_runs_of_a_folder_begin_where_its_name_changes(names, long):
    """Long names are compared by eight letters at a time, so that they get a case of their own."""
    names = [name * 8 for name in names] if long else names
    block = "".join(f"{name}/{number:05d}.jpg,3\n" for number, name in enumerate(names, start=1)).encode()
    runs = [(name, next(own)[0]) for name, own in groupby(enumerate(names), key=lambda pair: pair[1])]
    rows = parse_rows(block, image=True, values=0, classes=1)
    assert list(zip(rows.names, rows.starts.tolist(), strict=True)) == runs
    assert rows.numbers.tolist() == list(range(1, len(names) + 1))
    found, starts = first_folders(block)
    assert list(zip(found, starts.tolist(), strict=True)) == runs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.decimals(-9, 9, places=6), st.integers(0, 6)), min_size=1, max_size=20))
def test_numbers_are_those_that_the_c_library_reads(numbers):
    texts = [f"{value:.{places}f}" for value, places in numbers]
    rows = parse_rows("".join(f"{text}\n" for text in texts).encode(), image=False, values=1, classes=0)
    assert rows.values[:, 0].tolist() == [np.float32(float(text)) for text in texts]


def test_minus_one_is_a_value_a_class_and_a_part_of_a_name():
    block = b"10-120-1280x720/00007.jpg,-1,-1.25,-1,3\n"
    rows = parse_rows(block, image=True, values=2, classes=2)
    assert (rows.names, rows.numbers.tolist()) == (["10-120-1280x720"], [7])
    assert (rows.values.tolist(), rows.classes.tolist()) == ([[-1, -1.25]], [[-1, 3]])


@pytest.mark.parametrize(
    "block",
    [b"v/1.jpg,1,2\n", b"v/1.jpg\n", b"v.jpg,1\n", b"/1.jpg,1\n", b"v/0.jpg,1\n", b"v/1.jpg,12\n", b"v/1.jpg,:\n"],
)
def test_unusual_rows_are_left_alone(block):
    assert parse_rows(block, image=True, values=0, classes=1) is None


@pytest.mark.parametrize("size", [3, 5, 100])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_pieces_hold_whole_lines_whatever_their_size(monkeypatch, size, end):
    text = end.join(["\ufeffa,b", "", "1,2", "3,4", "", " \x1a"]).encode()
    monkeypatch.setattr(row_text, "BLOCK", size)  # the byte order mark is in the first piece
    pieces = list(blocks(io.BytesIO(text)))
    assert b"".join(pieces) == b"a,b\n\n1,2\n3,4\n"
    assert all(piece.endswith(b"\n") for piece in pieces)


def test_a_line_without_an_end_is_refused():
    with pytest.raises(UnusualTextError, match="a line has no end"):
        list(blocks(io.BytesIO(b"a\n" + b"0" * (4 << 20))))
