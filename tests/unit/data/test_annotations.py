"""Label files, read right or refused by line."""

import numpy as np
import pytest

from abaw.config import DataConfig
from abaw.data.annotations import LabelReader, read_label_file, read_mtl_file
from abaw.data.manifest import Track
from abaw.errors import AbawError
from abaw.tasks import AU_LABELS, TASKS

AU, EXPR, VA = (TASKS[name].heads[0] for name in ("au", "expr", "va"))
EXPR_HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


def write(tmp_path, text, name="v.txt"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_values_and_mask_of_valence_arousal(tmp_path):
    labels = read_label_file(write(tmp_path, "valence,arousal\n0.5,-0.25\n-5,-5\n-5.0,1\n"), VA)
    assert labels.mask.tolist() == [[True, True], [False, False], [False, True]]
    assert labels.values.tolist() == [[0.5, -0.25], [0, 0], [0, 1]]


def test_class_index_is_one_column(tmp_path):
    labels = read_label_file(write(tmp_path, f"{EXPR_HEADER}\n0\n-1\n7\n"), EXPR)
    assert (labels.values.tolist(), labels.mask.tolist()) == ([[0], [0], [7]], [[True], [False], [True]])


def test_units_are_masked_one_by_one(tmp_path):
    labels = read_label_file(write(tmp_path, f"{','.join(AU_LABELS)}\n1,-1{',0' * 10}\n"), AU)
    assert labels.mask[0].tolist() == [True, False] + [True] * 10


@pytest.mark.parametrize(
    "text",
    [
        "valence,arousal\n0.5,0\n",
        "\ufeffvalence,arousal\r\n0.5,0\r\n",
        "Valence, Arousal\n0.5,0\n\n  \n",
        "valence,arousal\n0.5, 0",
    ],
)
def test_harmless_quirks_are_read_right(tmp_path, text):
    assert read_label_file(write(tmp_path, text), VA).values.tolist() == [[0.5, 0]]


def test_header_alone_is_a_track_without_rows(tmp_path):
    assert read_label_file(write(tmp_path, "valence,arousal\n"), VA).num_rows == 0


def test_labels_of_another_task_are_named(tmp_path):
    path = write(tmp_path, f"{EXPR_HEADER}\n0\n")
    with pytest.raises(AbawError, match="holds labels of expr, not of va") as caught:
        read_label_file(path, VA)
    assert caught.value.where == f"{path}, line 1"


@pytest.mark.parametrize(
    ("head", "body", "line"),
    [
        (VA, "valence,arousal\n0,0\n0,1.5\n", 3),
        (VA, "valence,arousal\n0\n", 2),
        (VA, "valence,arousal\n0,0\n\n0,0\n", 3),
        (VA, "valence,arousal\n0,zero\n", 2),
        (VA, "valence,arousal\n0,nan\n", 2),
        (VA, "valence,arousal\n0,0\n0,0,0\n", 3),
        (EXPR, f"{EXPR_HEADER}\n1\n8\n", 3),
        (EXPR, f"{EXPR_HEADER}\n1.5\n", 2),
        (AU, f"{','.join(AU_LABELS)}\n2{',0' * 11}\n", 2),
    ],
)
def test_a_garbled_row_is_refused_by_line(tmp_path, head, body, line):
    path = write(tmp_path, body)
    with pytest.raises(AbawError) as caught:
        read_label_file(path, head)
    assert caught.value.where == f"{path}, line {line}"


def reader_with(tmp_path, count, tolerance=1):
    write(tmp_path, "valence,arousal\n" + "0.5,0.5\n" * count, "Train_Set/v.txt")
    return LabelReader(DataConfig(annotations={"va": tmp_path}, max_row_difference=tolerance), TASKS["va"])


TRACK = Track("v", None, {"va": "train"})


def test_one_row_too_few_is_padded_as_unlabelled(tmp_path):
    reader = reader_with(tmp_path, 3)
    labels = reader.labels(TRACK, 4)["va"]
    assert labels.mask[:, 0].tolist() == [True, True, True, False]
    assert reader.differences == {"v": -1}


def test_one_row_too_many_is_cut(tmp_path):
    assert reader_with(tmp_path, 4).labels(TRACK, 3)["va"].num_rows == 3


def test_more_than_the_tolerance_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(AbawError, match="7 label rows but 5 frames"):
        reader_with(tmp_path, 7).labels(TRACK, 5)
    assert reader_with(tmp_path, 7, tolerance=2).labels(TRACK, 5)["va"].num_rows == 5


def test_an_unconfigured_task_says_which_key_to_add():
    with pytest.raises(AbawError, match="no labels are configured for task au") as caught:
        LabelReader(DataConfig(), TASKS["au"])
    assert "au =" in caught.value.fix


MTL_ROW = ",0.5,-5,3,1,0,0,0,0,0,0,0,0,0,0,-1"


def test_sparse_multi_task_rows_fill_what_they_label(tmp_path):
    write(tmp_path, f"image,valence,arousal,expression,aus\nv/00002.jpg{MTL_ROW}\n", "training_set_annotations.txt")
    reader = LabelReader(DataConfig(annotations={"mtl": tmp_path}), TASKS["mtl"])
    labels = reader.labels(Track("v", None, {"mtl": "train"}), 3)
    assert labels["va"].mask.tolist() == [[False, False], [True, False], [False, False]]
    assert labels["expr"].values[1, 0] == 3
    assert labels["au"].mask[1].tolist() == [True] * 11 + [False]


def test_a_multi_task_row_with_fifteen_fields_is_refused(tmp_path):
    path = write(tmp_path, f"header\nv/00001.jpg{MTL_ROW[:-3]}\n")
    with pytest.raises(AbawError, match="no multi-task label"):
        read_mtl_file(path)


def test_fit_keeps_values_in_place(tmp_path):
    labels = read_label_file(write(tmp_path, "valence,arousal\n0.1,0.2\n0.3,0.4\n"), VA).fit(3)
    assert np.allclose(labels.values, [[0.1, 0.2], [0.3, 0.4], [0, 0]])


def test_multi_task_rows_past_the_media_are_refused(tmp_path):
    write(tmp_path, f"header\nv/00009.jpg{MTL_ROW}\n", "training_set_annotations.txt")
    reader = LabelReader(DataConfig(annotations={"mtl": tmp_path}), TASKS["mtl"])
    with pytest.raises(AbawError, match="9 label rows but 3 frames"):
        reader.labels(Track("v", None, {"mtl": "train"}), 3)
