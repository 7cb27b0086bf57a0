"""Labels of image collections, found by the images' paths."""

from pathlib import Path

import numpy as np
import pytest

from abaw.config import DataConfig
from abaw.data.keyed import split_word
from abaw.data.label_sources import LabelSource, label_source
from abaw.data.labelled import labelled_frames
from abaw.data.manifest import Manifest
from abaw.errors import AbawError
from abaw.store import FeatureStore
from abaw.tasks import TASKS
from tests.unit.faces_store import make_images

LSD_KEYS = [
    "test/0.jpg",
    "test/1.jpg",
    "train/Anger/0.jpg",
    "train/Anger/1.jpg",
    "train/Surprise/0.jpg",
    "val/happiness/0.jpg",
    "val/SADNESS/0.jpg",
]


def source(store: FeatureStore, task: str, path: Path, **keys) -> LabelSource:
    data = DataConfig(kind="images", annotations={task: path}, **keys)
    return label_source(data, TASKS[task], store, Manifest.from_config(data, need_media=False))


def test_folders_name_split_and_class(tmp_path: Path) -> None:
    (tmp_path / "lsd").mkdir()
    store = make_images(tmp_path / "faces", LSD_KEYS)
    labels = source(store, "lsd", tmp_path / "lsd", images=tmp_path / "lsd")
    assert not labels.by_track
    assert labels.rows("photos-00000", 7, "test").tolist() == [True, True] + [False] * 5
    train, val = (labels.labels("photos-00000", 7, split)["lsd"] for split in ("train", "val"))
    assert np.flatnonzero(train.mask).tolist() == [2, 3, 4]
    assert train.values[train.mask].tolist() == [0, 0, 5]  # Anger, Anger, Surprise
    assert val.values[val.mask].tolist() == [3, 4]  # Happiness, Sadness
    assert labels.notes() == []


def test_rows_without_a_face_or_of_another_split_are_no_training_frames(tmp_path: Path) -> None:
    (tmp_path / "lsd").mkdir()
    store = make_images(tmp_path / "faces", LSD_KEYS, shard_size=4, faceless=["train/Anger/0.jpg"])
    labels = source(store, "lsd", tmp_path / "lsd")
    frames = labelled_frames(store, labels, "train")
    assert [(ref.track_id, ref.rows.tolist()) for ref in frames.refs] == [("photos-00000", [3]), ("photos-00001", [0])]
    assert frames.labels["lsd"].values[:, 0].tolist() == [0, 5]
    assert labels.track_ids("test") == ["photos-00000"]
    assert labels.track_ids("train") == ["photos-00000", "photos-00001"]


def test_labels_may_lie_in_a_folder_of_the_collection(tmp_path: Path) -> None:
    (tmp_path / "sets" / "LSD").mkdir(parents=True)
    keys = [*(f"LSD/{key}" for key in LSD_KEYS), "other/train/Fear/1.jpg"]
    labels = source(make_images(tmp_path / "faces", keys), "lsd", tmp_path / "sets" / "LSD", images=tmp_path / "sets")
    assert np.flatnonzero(labels.labels("photos-00000", 8, "train")["lsd"].mask).tolist() == [2, 3, 4]


def test_a_folder_of_no_class_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "lsd").mkdir()
    store = make_images(tmp_path / "faces", ["train/Anger/1.jpg", "train/Contempt/1.jpg", "train/Contempt/2.jpg"])
    labels = source(store, "lsd", tmp_path / "lsd")
    assert labels.labels("photos-00000", 3, "train")["lsd"].mask[:, 0].tolist() == [True, False, False]
    assert labels.notes() == ["images in folders Contempt are left out: lsd has no such class"]


@pytest.mark.parametrize(
    ("folder", "index"),
    [("train", 0), ("Training_Set", 0), ("LSD_validation_set", 1), ("Val", 1), ("test", 2), ("trainval", -1)],
)
def test_a_split_is_a_word_of_the_folder_s_name(folder: str, index: int) -> None:
    assert split_word(folder) == index


def test_csv_files_label_images_by_path(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("path,valence,arousal\nb/2.jpg,0.5,0\ngone.jpg,0,0\n")
    (tmp_path / "val.csv").write_text("path,valence,arousal\na/1.jpg,-0.5,0.25\n")
    (tmp_path / "test.csv").write_text("path\nb/3.jpg\n")
    labels = source(make_images(tmp_path / "faces", ["a/1.jpg", "b/2.jpg", "b/3.jpg"]), "va", tmp_path)
    assert labels.labels("photos-00000", 3, "train")["va"].mask[:, 0].tolist() == [False, True, False]
    assert labels.labels("photos-00000", 3, "val")["va"].values[0].tolist() == [-0.5, 0.25]
    assert labels.rows("photos-00000", 3, "test").tolist() == [False, False, True]
    assert labels.notes() == [f"1 of 3 labelled images are not in {tmp_path / 'faces'}"]


def test_an_image_of_two_splits_is_refused(tmp_path: Path) -> None:
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text("path,label\na/1.jpg,1\n")
    with pytest.raises(AbawError, match=r"1 images are in two splits, a/1\.jpg"):
        source(make_images(tmp_path / "faces", ["a/1.jpg"]), "expr", tmp_path)


MTL = "image,valence,arousal,expression,aus\n"
UNITS = ",0" * 11


def mtl(tmp_path: Path) -> Path:
    """Two sparse training rows of one track, one of them without valence and arousal, and a validation row."""
    text = f"{MTL}v/00002.jpg,0.5,-0.5,3,1{UNITS}\nv/00007.jpg,-5,-5,-1,1{UNITS}\n"
    (tmp_path / "training_set_annotations.txt").write_text(text)
    (tmp_path / "validation_set_annotations.txt").write_text(f"{MTL}w/00001.jpg,0,0,0,0{UNITS}\n")
    return tmp_path


@pytest.mark.parametrize("prefix", ["", "cropped_aligned/"])
def test_sparse_multi_task_rows_are_found_by_track_and_number(tmp_path: Path, prefix: str) -> None:
    keys = [f"{prefix}{name}" for name in ("v/00001.jpg", "v/00002.jpg", "v/00007.png", "w/00001.jpg", "x/00001.jpg")]
    (tmp_path / "test.txt").write_text("x\n")
    labels = source(make_images(tmp_path / "faces", keys), "mtl", mtl(tmp_path), test={"mtl": tmp_path / "test.txt"})
    train = labels.labels("photos-00000", 5, "train")
    assert train["va"].mask[:, 0].tolist() == [False, True, False, False, False]
    assert train["va"].values[1].tolist() == [0.5, -0.5]
    assert train["expr"].values[1, 0] == 3
    assert train["au"].mask.all(axis=1).tolist() == [False, True, True, False, False]
    assert labels.rows("photos-00000", 5, "val").tolist() == [False, False, False, True, False]
    assert labels.rows("photos-00000", 5, "test").tolist() == [False, False, False, False, True]


def test_multi_task_images_of_one_folder_are_one_recording(tmp_path: Path) -> None:
    keys = [f"v/{number:05d}.jpg" for number in (1, 2, 7)] + ["u/00001.jpg"]
    text = MTL + "".join(f"{key},0,0,0,0{UNITS}\n" for key in keys)
    (tmp_path / "training_set_annotations.txt").write_text(text)
    store = make_images(tmp_path / "faces", keys)
    labels = source(store, "mtl", tmp_path)
    assert labelled_frames(store, labels, "train").lengths == [3, 1]
    assert labelled_frames(store, labels, "train", per_track=2).refs[0].rows.tolist() == [0, 1, 3]


def test_a_test_list_may_name_images(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("x/00002.jpg\n")
    store = make_images(tmp_path / "faces", ["v/00002.jpg", "x/00001.jpg", "x/00002.jpg"])
    labels = source(store, "mtl", mtl(tmp_path), test={"mtl": tmp_path / "test.txt"})
    assert labels.rows("photos-00000", 3, "test").tolist() == [False, False, True]


def test_labels_of_no_image_show_both_spellings(tmp_path: Path) -> None:
    (tmp_path / "lsd").mkdir()
    labels = source(make_images(tmp_path / "faces", ["faces/1.jpg"]), "lsd", tmp_path / "lsd")
    with pytest.raises(AbawError, match="name no image of faces") as caught:
        labels.track_ids("train")
    assert "train/Anger/1.jpg" in caught.value.where
    assert "images like faces/1.jpg" in caught.value.where


def test_a_task_that_folders_cannot_label_says_which_files_to_write(tmp_path: Path) -> None:
    store = make_images(tmp_path / "faces", ["train/Anger/1.jpg"])
    for task, words in (("va", "have no labels in"), ("mtl", "no labels of task mtl")):
        with pytest.raises(AbawError, match=words):
            source(store, task, tmp_path)
    with pytest.raises(AbawError, match="no labels are configured for task lsd"):
        label_source(DataConfig(kind="images"), TASKS["lsd"], store, Manifest([]))
    with pytest.raises(AbawError, match="does not exist"):
        source(store, "lsd", tmp_path / "nowhere")


def test_a_split_without_images_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / "lsd").mkdir()
    store = make_images(tmp_path / "faces", ["train/Anger/1.jpg"])
    with pytest.raises(AbawError, match="no labelled face for task lsd, split val"):
        labelled_frames(store, source(store, "lsd", tmp_path / "lsd"), "val")


def test_a_collection_s_labels_are_not_looked_for_in_tracks(tmp_path: Path) -> None:
    data = DataConfig(kind="images", images=tmp_path, annotations={"lsd": tmp_path}, test={"lsd": tmp_path / "no.txt"})
    assert len(Manifest.from_config(data, need_media=False)) == 0
