"""Tasks that can be trained on, their labelled frames, and hashes of labels."""

import logging
from pathlib import Path

import numpy as np
import pytest

from abaw.config import DataConfig
from abaw.data.annotations import Labels
from abaw.data.label_sources import label_source
from abaw.data.labelled import (
    joined,
    labelled_frames,
    labels_sha256,
    require_labels,
    trainable_task,
    unseen_classes,
)
from abaw.data.manifest import Manifest
from abaw.errors import AbawError, ExitCode
from abaw.store import FeatureStore
from abaw.tasks import TASKS
from tests.unit.faces_store import make_faces, picture


def labels(*values: float, known: bool = True) -> dict[str, Labels]:
    block = np.array(values, np.float32)[:, None]
    return {"expr": Labels(block, np.full(block.shape, known))}


def test_a_task_with_labels_may_be_trained() -> None:
    assert trainable_task("va", where="fuse.task") is TASKS["va"]


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.train_on])
def test_a_task_decided_from_another_is_refused_with_that_ones_name(name: str) -> None:
    with pytest.raises(AbawError, match=f'task "{name}" has no labels of its own') as caught:
        trainable_task(name, where="fuse.task")
    assert f"--task {TASKS[name].train_on}" in caught.value.fix
    assert caught.value.code is ExitCode.CONFIG


def test_the_hash_changes_with_track_value_mask_and_order() -> None:
    sets = [
        {"a": labels(1, 2), "b": labels(3)},
        {"b": labels(3), "a": labels(1, 2)},
        {"a": labels(1, 2), "c": labels(3)},
        {"a": labels(1, 2), "b": labels(4)},
        {"a": labels(1), "b": labels(2, 3)},
        {"a": labels(1, 2), "b": labels(3, known=False)},
    ]
    assert len({labels_sha256(entry) for entry in sets}) == len(sets)


def test_what_an_unlabelled_row_holds_does_not_count() -> None:
    assert labels_sha256({"a": labels(1, known=False)}) == labels_sha256({"a": labels(2, known=False)})


def test_a_split_without_any_label_is_named() -> None:
    require_labels({"a": labels(1), "b": labels(2, known=False)}, TASKS["expr"], split="val")
    with pytest.raises(AbawError, match="no row of the val split has a label of expr"):
        require_labels({"a": labels(1, known=False)}, TASKS["expr"], split="val")


# -- frames ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """Tracks of four rows: a and b to train (b's second row shows no face), v for validation with one label, w without.

    Valence of row r is r / 10, arousal 0.
    """
    rows = [picture(row, 16) for row in range(4)]
    make_faces(tmp_path / "faces", {"a": rows, "b": [rows[0], None, *rows[2:]], "v": rows, "w": rows})
    labels = {"Train_Set/a": "0,0 .1,0 .2,0 .3,0", "Train_Set/b": "0,0 .1,0 .2,0 .3,0"}
    labels |= {"Validation_Set/v": "-5,-5 .1,0 -5,-5 -5,-5", "Validation_Set/gone": "0,0 0,0 0,0 0,0"}
    for name, values in labels.items():
        path = tmp_path / "va" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("valence,arousal\n" + values.replace(" ", "\n") + "\n")
    return DataConfig(videos=tmp_path / "videos", annotations={"va": tmp_path / "va"})


def frames(data: DataConfig, split: str = "train", **options):
    store = FeatureStore.open(data.annotations["va"].parent / "faces", kind="faces")
    source = label_source(data, TASKS["va"], store, Manifest.from_config(data, need_media=False))
    return labelled_frames(store, source, split, **options)


def test_frames_are_rows_with_a_face_and_a_label(data: DataConfig, caplog: pytest.LogCaptureFixture) -> None:
    train, val = frames(data), frames(data, "val")
    assert [(ref.track_id, ref.rows.tolist()) for ref in train.refs] == [("a", [0, 1, 2, 3]), ("b", [0, 2, 3])]
    assert train.labels["va"].values[:, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0, 0.2, 0.3])
    assert (train.lengths, len(val)) == ([4, 3], 1)
    assert "1 of 2 val tracks are not in" in caplog.text


def test_frames_of_a_track_are_thinned_evenly(data: DataConfig) -> None:
    assert [ref.rows.tolist() for ref in frames(data, per_track=2).refs] == [[0, 2], [0, 2]]


def test_tracks_may_be_chosen_across_the_splits(data: DataConfig) -> None:
    assert [ref.track_id for ref in frames(data, tracks=["b", "v"]).refs] == ["b", "v"]
    with pytest.raises(AbawError, match="track w has no labels for task va"):
        frames(data, tracks=["w"])


def test_a_store_without_the_labelled_tracks_is_refused(data: DataConfig) -> None:
    store = make_faces(data.annotations["va"].parent / "empty", {})
    source = label_source(data, TASKS["va"], store, Manifest.from_config(data, need_media=False))
    with pytest.raises(AbawError, match="2 labelled tracks, 0 of them in the faces store"):
        labelled_frames(store, source, "train")


def test_a_head_without_any_label_is_refused(tmp_path: Path) -> None:
    row = "0.1,0.2,-1" + ",0" * 12
    (tmp_path / "training_set_annotations.txt").write_text(f"header\nv/00001.jpg,{row}\n")
    store = make_faces(tmp_path / "faces", {"v": [picture(0, 16)]})
    data = DataConfig(annotations={"mtl": tmp_path})
    source = label_source(data, TASKS["mtl"], store, Manifest.from_config(data, need_media=False))
    with pytest.raises(AbawError, match="no row of the train split has a label of expr"):
        labelled_frames(store, source, "train")


def test_label_rows_unlike_the_frames_are_told(data: DataConfig, caplog: pytest.LogCaptureFixture) -> None:
    path = data.annotations["va"] / "Train_Set" / "a.txt"
    path.write_text(path.read_text() + "0,0\n")
    store = FeatureStore.open(data.annotations["va"].parent / "faces", kind="faces")
    source = label_source(data, TASKS["va"], store, Manifest.from_config(data, need_media=False))
    assert source.notes() == []
    with caplog.at_level(logging.WARNING):
        labelled_frames(store, source, "train")
    assert source.notes() == ["1 tracks have label rows unlike their frames: a +1"]


def test_joined_frames_follow_each_other(data: DataConfig) -> None:
    train, val = frames(data), frames(data, "val")
    both = joined([train, val])
    assert (len(both), both.lengths) == (8, [4, 3, 1])
    assert both.labels["va"].values[-1].tolist() == pytest.approx([0.1, 0])
    assert both.sha256 != train.sha256


def test_classes_and_units_that_no_row_shows_are_named() -> None:
    expr, au, va = (TASKS[name].heads[0] for name in ("expr", "au", "va"))
    assert unseen_classes(expr, labels(0, 1, 2, 4, 5, 6, 7)["expr"]) == ["Fear"]
    units = np.ones((2, 12), np.float32)
    units[:, 3] = 0
    mask = np.ones((2, 12), bool)
    mask[:, 7] = False  # what is not annotated shows nothing
    assert unseen_classes(au, Labels(units, mask)) == ["AU6", "AU15"]
    assert unseen_classes(va, Labels(np.zeros((2, 2), np.float32), np.ones((2, 2), bool))) == []
