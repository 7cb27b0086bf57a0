"""The editions' file formats."""

import numpy as np
import pytest

from abaw.editions import EDITIONS, format_rows, read_sample
from abaw.errors import AbawError
from abaw.tasks import TASKS

VA = EDITIONS["10"].submissions["va"]


def write(tmp_path, text):
    path = tmp_path / "sample.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_submission_belongs_to_a_task(edition):
    assert all(name in TASKS and entry.task == name for name, entry in EDITIONS[edition].submissions.items())


@pytest.mark.parametrize(
    ("edition", "task", "header"),
    [
        ("10", "va", "image_location,valence,arousal"),
        ("8", "expr", "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"),
        ("5", "au", "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"),
        ("11", "mtl", "image,valence,arousal,expression,aus"),
        (
            "7",
            "ce",
            "image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,Disgustedly_Surprised,"
            "Angrily_Surprised,Sadly_Fearful,Sadly_Angry",
        ),
    ],
)
def test_headers_are_the_organisers(edition, task, header):
    assert EDITIONS[edition].submissions[task].header == header


def test_rows_of_values_classes_and_units():
    assert format_rows(TASKS["va"], {"va": np.array([[0.5, -1]], np.float32)}) == ["0.500000,-1.000000"]
    assert format_rows(TASKS["expr"], {"expr": np.array([[7]], np.int8)}) == ["7"]
    assert format_rows(TASKS["au"], {"au": np.eye(12, dtype=np.int8)[:1]}) == ["1,0,0,0,0,0,0,0,0,0,0,0"]


def test_a_multi_task_row_has_fifteen_values():
    decisions = {
        "va": np.array([[0.25, 0]], np.float32),
        "expr": np.array([[3]], np.int8),
        "au": np.zeros((1, 12), np.int8),
    }
    assert format_rows(TASKS["mtl"], decisions) == ["0.250000,0.000000,3,0,0,0,0,0,0,0,0,0,0,0,0"]


def test_sample_rows_become_tracks_and_rows_in_order(tmp_path):
    sample = read_sample(write(tmp_path, f"{VA.header}\nb/00002.jpg,0,0\na/00001.jpg,0,0\nb/00001.jpg,0,0\n"), VA)
    assert sample.tracks == ["b", "a"]
    assert sample.track_index.tolist() == [0, 1, 0]
    assert sample.rows.tolist() == [1, 0, 0]


def test_sample_is_read_leniently(tmp_path):
    sample = read_sample(write(tmp_path, f"\ufeff{VA.header}\r\na/00001.jpg\r\na/00002.jpg,x,y,z\r\n\r\n"), VA)
    assert sample.images == ["a/00001.jpg", "a/00002.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not belong to task va"),
        ("image_location,Neutral\na/00001.jpg,0\n", "does not belong to task va"),
        (f"{VA.header}\n", "has no rows"),
        (f"{VA.header}\na/00000.jpg,0,0\n", "names no image"),
        (f"{VA.header}\na.jpg,0,0\n", "names no image"),
        (f"{VA.header}\na/00001.jpg,0,0\na/00001.jpg,0,0\n", "names a/00001.jpg twice"),
    ],
)
def test_a_foreign_sample_is_refused(tmp_path, text, message):
    with pytest.raises(AbawError, match=message):
        read_sample(write(tmp_path, text), VA)
