"""Label files with random edits: a clear error, or what a slow reader of its own finds in them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from abaw.data import row_text
from abaw.data.annotations import read_label_file, read_mtl_file
from abaw.tasks import TASKS
from tests.unit.data.mutants import lines_of, mutants, number, read_or_refuse, same_names

HEADS = {name: TASKS[name].heads[0] for name in ("va", "expr", "au", "ce")}
ODD = set(b"\x1c\x85\xa8")  # rare line ends: behind the last row they may be refused
MTL_HEADER = "image,valence,arousal,expression,aus"

values = st.one_of(
    st.sampled_from(["-5", "-5.0", "0", "1", "-1", "-1.0", "0.", ".5", "-2e-05", "+0.25"]),
    st.floats(-1, 1).map(lambda value: f"{value:.4f}"),
    st.floats(-1, 1, width=32).map(repr),
)


def row_of(head):
    if head.name == "va":
        return st.tuples(values, values).map(",".join)
    top = head.output_dim - 1 if head.target_dim == 1 else 1
    return st.lists(st.integers(-1, top).map(str), min_size=head.target_dim, max_size=head.target_dim).map(",".join)


def file_of(head):
    rows = st.lists(row_of(head), min_size=8, max_size=30)
    return rows.map(lambda lines: "\n".join([",".join(head.labels), *lines, ""]).encode())


def slow_labels(content, head):
    """Rows of numbers, -5 and -1 as they are; None for a file that must be refused."""
    lines = lines_of(content)
    if not lines or not same_names(lines[0], list(head.labels)):
        return None
    rows = []
    for line in lines[1:]:
        try:
            row = [float(np.float32(number(field))) for field in line.split(",")]
        except ValueError:
            return None
        if head.name == "va":
            good = all(-1 <= value <= 1 or value == -5 for value in row)
        else:
            top = head.output_dim - 1 if head.target_dim == 1 else 1
            good = all(value in range(-1, top + 1) for value in row)
        if not good or len(row) != head.target_dim:
            return None
        rows.append(row)
    return rows


def is_headed(content, names):
    lines = lines_of(content)
    return bool(lines) and same_names(lines[0], names)


@pytest.mark.parametrize("block", [row_text.BLOCK, 64], ids=["one piece", "many pieces"])
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.filterwarnings("error")
def test_a_mutated_label_file_is_refused_or_read_as_a_slow_reader_reads_it(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(row_text, "BLOCK", block)
    head, path, seen = HEADS[name], tmp_path / "v.txt", Counter()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(mutants(file_of(head)))
    def check(content):
        path.write_bytes(content)
        labels = read_or_refuse(read_label_file, path, head)
        seen.update(all=1, past=is_headed(content, list(head.labels)), accepted=labels is not None)
        if labels is None:
            assert slow_labels(content, head) is None or set(content) & ODD
            return
        expected = np.array(slow_labels(content, head), np.float32).reshape(-1, head.target_dim)
        missing = expected == (-5 if name == "va" else -1)
        assert np.array_equal(labels.mask, ~missing)
        assert np.array_equal(labels.values, np.where(missing, 0, expected))

    check()
    assert seen["past"] >= 0.3 * seen["all"]
    assert seen["accepted"] >= 0.05 * seen["all"]


mtl_rows = st.tuples(
    st.sampled_from(["v", "10-30-1280x720", "a b_left", "é"]),
    st.sampled_from(["00001.jpg", "00012.jpg", "7.jpg", "123456.png", "00300.jpg"]),
    *(row_of(head) for head in TASKS["mtl"].heads),
).map(lambda parts: f"{parts[0]}/{','.join(parts[1:])}")


def slow_mtl(content):
    """Rows by track as lists of 16 numbers; None for a file that must be refused."""
    lines = lines_of(content)
    if not lines or slow_mtl_row(lines[0]) is not None:
        return None
    tracks = {}
    for line in lines[1:]:
        row = slow_mtl_row(line)
        if row is None:
            return None
        tracks.setdefault(row[0], []).append(row[1])
    return tracks


def slow_mtl_row(line):
    image, *fields = line.split(",")
    track, slash, name = image.strip().rpartition("/")
    digits = name.strip().split(".")[0]
    try:
        numbers = [float(np.float32(number(field))) for field in fields]
    except ValueError:
        return None
    if not slash or len(numbers) != 15 or not (digits.isascii() and digits.isdigit()) or int(digits) < 1:
        return None
    good = [
        *(-1 <= value <= 1 or value == -5 for value in numbers[:2]),
        numbers[2] in range(-1, 8),
        *(value in (-1, 0, 1) for value in numbers[3:]),
    ]
    return (track, [int(digits) - 1, *numbers]) if all(good) else None


@pytest.mark.parametrize("block", [row_text.BLOCK, 200], ids=["one piece", "many pieces"])
@pytest.mark.filterwarnings("error")
def test_a_mutated_multi_task_file_is_refused_or_read_as_a_slow_reader_reads_it(tmp_path, monkeypatch, block):
    monkeypatch.setattr(row_text, "BLOCK", block)
    path, seen = tmp_path / "train_set.txt", Counter()
    files = st.lists(mtl_rows, min_size=3, max_size=12).map(lambda rows: "\n".join([MTL_HEADER, *rows, ""]).encode())

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(mutants(files))
    def check(content):
        path.write_bytes(content)
        found = read_or_refuse(read_mtl_file, path)
        seen.update(all=1, past=is_headed(content, MTL_HEADER.split(",")), accepted=found is not None)
        expected = slow_mtl(content)
        if found is None:
            assert expected is None or set(content) & ODD
            return
        assert list(found) == list(expected)
        for track, table in found.items():
            assert np.array_equal(table, np.array(expected[track], np.float32))

    check()
    assert seen["past"] >= 0.3 * seen["all"]
    assert seen["accepted"] >= 0.05 * seen["all"]
