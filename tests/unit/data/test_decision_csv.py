"""Csv tables of decisions and scores, with their rules for frames, names and what is missing."""

import logging

import numpy as np
import pytest

from abaw.data.decisions import read_csv_decisions
from abaw.data.export_table import WRITERS, read_table
from abaw.errors import AbawError
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS

UNITS = ",".join(TASKS["au"].heads[0].labels)
CLASSES = ",".join(TASKS["expr"].heads[0].labels)


def write(tmp_path, text, name="scores.csv"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(tmp_path, text, task=None):
    return read_csv_decisions(write(tmp_path, text), task=None if task is None else TASKS[task])


def only(found, track="scores", head=None):
    return found.decide(track, gap="hold").decisions[head or found.task.name].tolist()


def test_frame_counts_from_0_and_frame_number_from_1(tmp_path):
    assert only(read(tmp_path, "frame,valence,arousal\n1,0.5,0\n0,0.25,0\n")) == [[0.25, 0], [0.5, 0]]
    assert only(read(tmp_path, "frame_number,valence,arousal\n1,0.25,0\n2,0.5,0\n")) == [[0.25, 0], [0.5, 0]]


def test_a_column_of_tracks_comes_before_the_files_name(tmp_path):
    found = read(tmp_path, "video,frame,valence,arousal\nb,0,1,1\na,0,-1,-1\n")
    assert (found.track_ids(), only(found, "a")) == (["a", "b"], [[-1, -1]])


def test_images_of_frames_count_from_1(tmp_path):
    found = read(tmp_path, 'path,label\n"x/v/00002.jpg",happy\nx/v/1.png,0\n', "expr")
    assert only(found, "v") == [[0], [4]]


def test_images_of_no_video_keep_their_paths(tmp_path):
    found = read(tmp_path, "image,expression\nval/b.jpg,Sadness\nval/a.jpg,0\n", "lsd")
    assert (found.keys, only(found, "images")) == (["val/b.jpg", "val/a.jpg"], [[4], [0]])


def test_probabilities_of_classes_become_the_largest_the_first_of_equals(tmp_path):
    found = read(tmp_path, f"frame,{CLASSES}\n0,.1,.1,.1,.3,.1,.3,0,0\n1,0,0,0,0,0,0,0,1\n")
    assert (found.task.name, only(found)) == ("expr", [[3], [7]])


def test_units_are_1_from_one_half_on(tmp_path):
    assert only(read(tmp_path, f"frame,{UNITS}\n0,0.5,0.49,1,0{',0' * 8}\n"))[0][:4] == [1, 0, 1, 0]


def test_rows_that_are_not_valid_or_empty_are_filled_and_marked(tmp_path):
    text = "frame,valid,valence,arousal\n0,1,0.5,0\n1,0,0.9,0.9\n2,1,,\n"
    decided = read(tmp_path, text).decide("scores", gap="hold")
    assert decided.valid.tolist() == [True, False, False]
    assert decided.decisions["va"].tolist() == [[0.5, 0]] * 3


def test_a_track_without_any_decided_row_is_read(tmp_path):
    decided = read(tmp_path, "frame,valid,valence,arousal\n0,0,,\n1,0,,\n").decide("scores", gap="hold")
    assert (decided.valid.tolist(), decided.decisions["va"].tolist()) == ([False] * 2, [[0, 0]] * 2)


def test_what_export_writes_is_read_as_the_same_decisions(tmp_path):
    scores = np.random.default_rng(0).random((9, 8)).astype(np.float32)
    valid = np.array([True] * 4 + [False] * 2 + [True] * 3)
    spec = {"scores/expr": ArraySpec("float32", (8,))}
    header = StoreHeader("predictions", "p", spec, {}, label_order={"expr": CLASSES.split(",")})
    store = FeatureStore.create(tmp_path / "store", header)
    store.write("v", {"valid": valid, "scores/expr": np.where(valid[:, None], scores, 0)}, fps=25)
    (tmp_path / "out").mkdir()
    WRITERS["csv"](read_table(store, "v", None), tmp_path / "out" / "v.csv")
    decided = read_csv_decisions(tmp_path / "out", task=None).decide("v", gap="nearest")
    assert decided.valid.tolist() == valid.tolist()
    assert decided.decisions["expr"][valid, 0].tolist() == scores[valid].argmax(axis=1).tolist()


def test_values_of_an_exported_store_are_scores_and_clipped_as_those(tmp_path):
    assert only(read(tmp_path, "frame,valid,valence,arousal\n0,1,1.5,-2\n1,1,0.5,-0.25\n")) == [[1, -1], [0.5, -0.25]]


def test_frames_that_all_begin_at_1_are_doubted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="abaw"):
        read(tmp_path, "track,frame,valence,arousal\na,1,0,0\na,2,0,0\nb,2,0,0\nb,1,0,0\n")
    assert "no track has a frame 0" in caplog.text
    assert "frame_number" in caplog.text


@pytest.mark.parametrize("text", ["frame,valence,arousal\n0,0,0\n1,0,0\n", "frame_number,valence,arousal\n1,0,0\n"])
def test_frames_that_begin_where_they_should_are_not_doubted(tmp_path, caplog, text):
    with caplog.at_level(logging.WARNING, logger="abaw"):
        read(tmp_path, text)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("frame,valence,arousal\n0,0,0\n0,0,0\n", "frame 1 of track scores is given twice", "lines 2 and 3"),
        ("frame,valence,arousal\n0,0,0\n1,nan,0\n", "no number: 'nan'", "line 3"),
        ("frame,valence,arousal\n0,0,\n", "no number: ''", "line 2"),
        ("frame,valence,arousal\n0,0,2\n", "no decision can have: '2'", "line 2"),
        ("frame,valence,arousal\n0,-5,-5\n", "no decision can have: '-5'", "line 2"),
        ("frame_number,valence,arousal\n0,0,0\n", "frame is '0'", "line 2"),
        ("frame,valence,arousal\n1.5,0,0\n", "frame is '1.5'", "line 2"),
        ("frame,valence,arousal\n0,0\n", "a row of 2 fields, not 3", "line 2"),
        ('frame,valence,arousal\n0,0,"0\n', "no csv table", "line 2"),
        ("track,frame,valence,arousal\n../v,0,0,0\n", "cannot be a track name", "line 2"),
        ("image,valence,arousal\nv/00001.jpg,0,0\nv/0.jpg,0,0\n", "names no frame", "line 3"),
        ("image,valence,arousal\na.jpg,0,0\na.jpg,0,0\n", "gives image a.jpg twice", "line 3"),
        ("frame,valid,valence,arousal\n0,1,0,1e99\n", "no decision can have: '1e99'", "line 2"),
        ("frame,valid,valence,arousal\n0,yes,0,0\n", "column valid is 'yes'", "line 2"),
        (f"frame,{UNITS}\n0,-1{',0' * 11}\n", "no decision can have: '-1'", "line 2"),
        ("frame,valence,arousal,AU1\n", "no rows behind the header", ""),
        ("valence,arousal\n0,0\n", "says no frame or image", "line 1"),
        ("frame,mood\n0,0\n", "no columns of any task", "line 1"),
        ("frame,valence,arousal,Valence\n0,0,0,0\n", "a column twice", "line 1"),
        ("frame,label\n0,3\n", "may be of several tasks: expr, lsd, ce, expr7", "line 1"),
        (f"frame,valence,arousal,{CLASSES[:7]}\n", "no rows behind", ""),
    ],
)
def test_a_bad_table_is_refused_by_line(tmp_path, text, what, line):
    path = write(tmp_path, text)
    with pytest.raises(AbawError) as caught:
        read_csv_decisions(path, task=None)
    assert what in caught.value.what
    assert caught.value.where == (f"{path}, {line}" if line else str(path))


@pytest.mark.parametrize("text", ["Bored", "-1", "8", "1.5"])
def test_a_class_that_the_task_lacks_is_named(tmp_path, text):
    with pytest.raises(AbawError, match=f"a class that expr lacks: '{text}'"):
        read(tmp_path, f"frame,expression\n0,Fear\n1,{text}\n", "expr")


def test_a_table_of_all_heads_is_of_the_task_that_has_most(tmp_path):
    found = read(tmp_path, f"frame,valence,arousal,expression,{UNITS}\n0,0,1,Other{',1' * 12}\n")
    assert (found.task.name, only(found, head="expr")) == ("mtl", [[7]])


def test_a_track_in_two_files_is_refused(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, "track,frame,valence,arousal\nv,0,0,0\n", f"set/{name}.csv")
    with pytest.raises(AbawError, match="track v is in two files"):
        read_csv_decisions(tmp_path / "set", task=None)
