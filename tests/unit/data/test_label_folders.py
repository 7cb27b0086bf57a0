"""Labels of any folder or file, for decisions by track and for single images."""

import numpy as np
import pytest

from abaw.data.label_folders import folder_labels
from abaw.errors import AbawError
from abaw.tasks import TASKS

VA = "valence,arousal\n"
MTL = "image,valence,arousal,expression,aus\n"


def write(tmp_path, text, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_folders_of_splits_keep_their_splits(tmp_path):
    write(tmp_path, VA + "0.5,0\n", "Validation_Set/a.txt")
    write(tmp_path, VA + "0,0\n", "Train_Set/b.txt")
    source = folder_labels(tmp_path, TASKS["va"], tolerance=1)
    assert (source.track_ids("val"), source.track_ids("train"), source.by_track) == (["a"], ["b"], True)
    assert source.labels("a", 1, "val")["va"].values.tolist() == [[0.5, 0]]


def test_a_flat_folder_is_of_the_val_split_and_other_texts_are_noted(tmp_path):
    write(tmp_path, VA + "0.5,0\n-5,-5\n", "a.txt")
    write(tmp_path, "Read me first\n", "README.txt")
    source = folder_labels(tmp_path, TASKS["va"], tolerance=1)
    assert (source.track_ids("val"), source.count("a")) == (["a"], 2)
    assert source.labels("a", 2, "val")["va"].mask.tolist() == [[True, True], [False, False]]
    assert source.notes() == [f"1 texts in {tmp_path} have no header of a task: README.txt"]


def test_one_label_file_is_one_track(tmp_path):
    source = folder_labels(write(tmp_path, VA + "0,0\n", "v_left.txt"), TASKS["va"], tolerance=1)
    assert source.track_ids("val") == ["v_left"]


def test_a_flat_folder_of_another_task_is_refused(tmp_path):
    write(tmp_path, VA + "0,0\n", "v.txt")
    with pytest.raises(AbawError, match="holds labels of va, not of au"):
        folder_labels(tmp_path, TASKS["au"], tolerance=1)


def test_one_file_of_another_task_in_a_flat_folder_is_refused_when_it_is_read(tmp_path):
    write(tmp_path, VA + "0,0\n", "v.txt")
    write(tmp_path, "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n3\n", "w.txt")
    source = folder_labels(tmp_path, TASKS["va"], tolerance=1)
    with pytest.raises(AbawError, match="holds labels of expr, not of va"):
        source.labels("w", 1, "val")


@pytest.mark.parametrize("name", ["validation_set.txt", "labels.txt"])
def test_a_multi_task_file_is_found_under_its_name_or_alone(tmp_path, name):
    write(tmp_path, f"{MTL}v/00002.jpg,0.5,0,3{',1' * 12}\n", name)
    for path in (tmp_path, tmp_path / name):
        source = folder_labels(path, TASKS["mtl"], tolerance=1)
        assert source.track_ids("val") == ["v"]
        assert source.labels("v", 2, "val")["expr"].values.tolist() == [[0], [3]]


def test_a_file_with_no_header_of_a_task_is_no_track(tmp_path):
    with pytest.raises(AbawError, match=r"notes.txt holds no label files of task va"):
        folder_labels(write(tmp_path, "image,mood\nv/00001.jpg,3\n", "notes.txt"), TASKS["va"], tolerance=1)


@pytest.mark.parametrize("name", ["validation_set.txt", "labels.txt"])
def test_multi_task_labels_are_named_where_those_of_one_task_are_wanted(tmp_path, name):
    path = write(tmp_path, f"{MTL}v/00002.jpg,0.5,0,3{',1' * 12}\n", name)
    for given, what in ((path, "is a label file of mtl, not of va"), (tmp_path, "holds label files of mtl, not of va")):
        with pytest.raises(AbawError, match=what):
            folder_labels(given, TASKS["va"], tolerance=1)


def test_more_rows_than_the_tolerance_are_refused(tmp_path):
    path = write(tmp_path, VA + "0,0\n" * 5, "v.txt")
    assert folder_labels(path, TASKS["va"], tolerance=2).labels("v", 3, "val")["va"].num_rows == 3
    with pytest.raises(AbawError, match="5 label rows but 3 frames"):
        folder_labels(path, TASKS["va"], tolerance=1).labels("v", 3, "val")


def test_a_folder_without_labels_names_the_one_below_that_has_them(tmp_path):
    write(tmp_path, VA + "0,0\n", "VA_Challenge/Validation_Set/v.txt")
    write(tmp_path, "AU1\n", "AU_Challenge/Validation_Set/v.txt")
    with pytest.raises(AbawError, match="holds no label files of task va") as caught:
        folder_labels(tmp_path, TASKS["va"], tolerance=1)
    assert f"did you mean {tmp_path / 'VA_Challenge'}?" in caught.value.fix
    with pytest.raises(AbawError, match="does not exist"):
        folder_labels(tmp_path / "gone", TASKS["va"], tolerance=1)


def test_images_are_found_by_path_or_by_an_end_that_is_theirs_alone(tmp_path):
    for name in (
        "val/Anger/1.jpg",
        "val/Fear/2.jpg",
        "val/Fear/3.jpg",
        "val/Anger/3.jpg",
        "train/Fear/9.jpg",
        "x/1.png",
    ):
        write(tmp_path, "", name)
    keys = ["2.jpg", "val/Anger/1.jpg", "3.jpg", "Anger/3.jpg", "9.jpg", "unknown.jpg"]
    source = folder_labels(tmp_path, TASKS["lsd"], tolerance=1, keys=keys)
    labels = source.labels("images", 6, "val")["lsd"]
    assert labels.mask[:, 0].tolist() == [True, True, False, True, False, False]
    assert labels.values[labels.mask].tolist() == [2, 0, 0]
    assert (source.track_ids("val"), source.by_track, source.count("images")) == (["images"], False, 0)
    assert source.rows("images", 6, "train").tolist() == [False] * 4 + [True, False]
    assert source.recordings("images", 6).tolist() == [0, 1, 0, 2, 0, 0]
    assert source.notes() == [
        "1 images in folders x are left out",
        "2 images have no label of their own, as 3.jpg",
        "1 labelled images have no decision, as val/Fear/3.jpg",
    ]


def test_images_in_a_csv_file_have_labels_by_column(tmp_path):
    path = write(tmp_path, "path,label\na/1.jpg,Happiness\na/2.jpg,-1\n", "labels.csv")
    labels = folder_labels(path, TASKS["lsd"], tolerance=1, keys=["2.jpg", "1.jpg"]).labels("images", 2, "val")["lsd"]
    assert (labels.values.tolist(), labels.mask.tolist()) == ([[0], [3]], [[False], [True]])


def test_labels_that_name_no_image_are_refused(tmp_path):
    path = write(tmp_path, "path,label\na/1.jpg,Happiness\n", "labels.csv")
    with pytest.raises(AbawError, match="name none of the 2 images"):
        folder_labels(path, TASKS["lsd"], tolerance=1, keys=["7.jpg", "8.jpg"])


def test_tasks_of_values_need_a_table_of_images(tmp_path):
    with pytest.raises(AbawError, match="no labels of single images for task va"):
        folder_labels(tmp_path, TASKS["va"], tolerance=1, keys=["7.jpg"])
    table = np.array([[0.5, -0.5]], np.float32)
    write(tmp_path, "path,valence,arousal\n7.jpg,0.5,-0.5\n", "val.csv")
    source = folder_labels(tmp_path, TASKS["va"], tolerance=1, keys=["7.jpg"])
    assert np.array_equal(source.labels("images", 1, "val")["va"].values, table)
