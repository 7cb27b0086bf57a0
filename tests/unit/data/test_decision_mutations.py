"""Submission and csv files with random edits, read as decisions: a clear error, or what a slow reader finds in them."""

import csv
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from abaw.data import row_text
from abaw.data.decisions import read_csv_decisions, read_decisions
from abaw.tasks import TASKS, Problem
from tests.unit.data.mutants import lines_of, mutants, number, read_or_refuse, same_names

HEADERS = {
    "va": "image_location,valence,arousal",
    "expr": "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "au": "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
    "mtl": "image,valence,arousal,expression,aus",
}
TRACKS = ("v", "10-30-1280x720", "a b_left")


def fields_of(task):
    """Texts of a row's decisions."""
    texts = {
        Problem.REGRESSION: st.one_of(st.floats(-1, 1).map(lambda v: f"{v:.4f}"), st.sampled_from(["-1", "1.0", "0"])),
        Problem.MULTILABEL: st.sampled_from(["0", "1"]),
    }
    columns = []
    for head in task.heads:
        one = texts.get(head.problem, st.integers(0, head.output_dim - 1).map(str))
        columns.append(st.lists(one, min_size=head.target_dim, max_size=head.target_dim))
    return st.tuples(*columns).map(lambda parts: [text for part in parts for text in part])


def rows_of(task):
    """Distinct frames of a few tracks, each with its decisions."""
    frames = st.lists(st.tuples(st.sampled_from(TRACKS), st.integers(1, 40)), min_size=6, max_size=20, unique=True)
    return frames.flatmap(lambda own: st.tuples(*(st.tuples(st.just(frame), fields_of(task)) for frame in own)))


def is_decision(task, numbers):
    place = 0
    for head in task.heads:
        own = numbers[place : place + head.target_dim]
        place += head.target_dim
        top = {Problem.REGRESSION: None, Problem.MULTILABEL: 1}.get(head.problem, head.output_dim - 1)
        if len(own) < head.target_dim:
            return False
        if not all(-1 <= value <= 1 if top is None else value in range(top + 1) for value in own):
            return False
    return place == len(numbers)


def frame_of(image):
    """Track and 0-based row of stem/00001.jpg; None where it is none."""
    folder, slash, name = image.strip().replace("\\", "/").removeprefix("./").rpartition("/")
    digits, dot, suffix = name.partition(".")
    good = slash and dot and suffix.isidentifier() | suffix.isalnum() and digits.isascii() and digits.isdigit()
    track = folder.rpartition("/")[2]
    return (track, int(digits) - 1) if good and track and int(digits) > 0 else None


def slow_frames(content, task):
    """Numbers by track and row of a submission file; None where it must be refused."""
    lines = lines_of(content)
    if not lines or len(lines) < 2:
        return None
    found = {}
    for line in lines[1:]:
        image, *texts = line.split(",")
        frame = frame_of(image)
        try:
            numbers = [float(np.float32(number(text))) for text in texts]
        except ValueError:
            return None
        if frame is None or frame in found or not is_decision(task, numbers):
            return None
        found[frame] = numbers
    return found


def all_frames(read, task):
    """Numbers by track and row of what was read, as the slow readers give them."""
    found = {}
    for track in read.track_ids():
        decided = read.decide(track, gap="hold")
        table = np.concatenate([decided.decisions[head.name] for head in task.heads], axis=1)
        for row in np.flatnonzero(decided.valid).tolist():
            found[track, row] = [float(value) for value in table[row]]
    return found


@pytest.mark.parametrize("block", [row_text.BLOCK, 150], ids=["one piece", "many pieces"])
@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.filterwarnings("error")
def test_a_mutated_submission_is_refused_or_read_as_a_slow_reader_reads_it(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(row_text, "BLOCK", block)
    task, path, seen = TASKS[name], tmp_path / "predictions.txt", Counter()
    lines = rows_of(task).map(lambda rows: [f"{track}/{row:05d}.jpg,{','.join(own)}" for (track, row), own in rows])
    files = lines.map(lambda own: "\n".join([HEADERS[name], *own, ""]).encode())

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(mutants(files))
    def check(content):
        path.write_bytes(content)
        read = read_or_refuse(read_decisions, path, task=task)
        lines = lines_of(content)
        headed = bool(lines) and same_names(lines[0], HEADERS[name].split(","))
        seen.update(all=1, past=headed, accepted=read is not None)
        if read is not None and read.keys is None:
            assert all_frames(read, task) == slow_frames(content, task)

    check()
    assert seen["past"] >= 0.3 * seen["all"]
    assert seen["accepted"] >= 0.05 * seen["all"]


def slow_csv(content, task):
    """Numbers by track and row of a csv file with the columns track, frame and one for each label."""
    try:
        text = content.decode("utf-8-sig").rstrip(" \t\r\n\x0b\x0c\x1a")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(field.strip() for field in row)]
    except (UnicodeDecodeError, csv.Error):
        return None
    found = {}
    for row in rows[1:]:
        fields = dict(zip(rows[0], row, strict=False))
        texts = [fields[name] for name in rows[0][2:] if name]
        if any(texts):
            found[fields["track"].strip(), int(float(fields["frame"]))] = [float(np.float32(text)) for text in texts]
    return found


@pytest.mark.parametrize("name", ["va", "au"])
@pytest.mark.filterwarnings("error")
def test_a_mutated_csv_file_is_refused_or_read_as_a_slow_reader_reads_it(tmp_path, name):
    task, path, seen = TASKS[name], tmp_path / "scores.csv", Counter()
    header = ",".join(["track", "frame", *task.heads[0].labels])
    lines = rows_of(task).map(lambda rows: [f"{track},{row},{','.join(own)}" for (track, row), own in rows])
    files = lines.map(lambda own: "\n".join([header, *own, ""]).encode())

    @settings(max_examples=100, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(mutants(files))
    def check(content):
        path.write_bytes(content)
        read = read_or_refuse(read_csv_decisions, path, task=task)
        lines = lines_of(content)
        seen.update(all=1, past=bool(lines) and same_names(lines[0], header.split(",")), accepted=read is not None)
        if read is not None and lines and lines[0].startswith(header):
            expected = slow_csv(content, task)
            assert all_frames(read, task) == {
                frame: [float(value >= 0.5) for value in own] if name == "au" else own
                for frame, own in expected.items()
            }

    check()
    assert seen["past"] >= 0.3 * seen["all"]
    assert seen["accepted"] >= 0.05 * seen["all"]
