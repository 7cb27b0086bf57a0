"""Labelled images from elsewhere."""

import hashlib
import logging
from pathlib import Path

import pytest

from abaw.data.extra import extra_frames
from abaw.errors import AbawError, ExitCode
from abaw.tasks import TASKS
from tests.unit.faces_store import make_faces, make_images, picture

CSV = "path,label\na/1.jpg,1\na/2.jpg,7\nb/3.jpg,6\nb/4.jpg,6\ngone.jpg,0\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images in two shards, the last without a face; a csv in AffectNet's order that names one image too many."""
    make_images(tmp_path / "faces", ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"], shard_size=2, faceless=["b/4.jpg"])
    (tmp_path / "labels.csv").write_text(CSV)
    return tmp_path


def extra(root: Path, labels: str = "affectnet8", task: str = "expr"):
    return extra_frames(
        store=root / "faces", csv=root / "labels.csv", labels=labels, dataset="AffectNet", task=TASKS[task]
    )


def test_images_are_found_by_path_and_classes_by_name(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        frames, _, warnings = extra(root)
    assert [(ref.track_id, ref.rows.tolist()) for ref in frames.refs] == [("photos-00000", [0]), ("photos-00001", [0])]
    assert frames.labels["expr"].values[:, 0].tolist() == [4, 1]  # Happiness and Anger
    assert frames.lengths == [1, 1]
    for words in (
        "images of class Contempt, which expr lacks: 1",
        "1 of 5 images are not in",
        "1 labelled images have no face",
    ):
        assert words in caplog.text
        assert any(text.startswith("AffectNet: ") and words in text for text in warnings)


def test_the_record_names_data_set_space_and_file(root: Path) -> None:
    _, record, _ = extra(root)
    assert (record["dataset"], record["labels"]) == ("AffectNet", "affectnet8")
    assert record["split_file"] == hashlib.sha256(CSV.encode()).hexdigest()
    assert record["tracks_sha256"] == hashlib.sha256(b"a/1.jpg\nb/3.jpg").hexdigest()


def test_classes_without_a_space_are_refused(root: Path) -> None:
    with pytest.raises(AbawError, match="need a label space") as caught:
        extra(root, labels="")
    assert caught.value.code is ExitCode.CONFIG
    assert "affectnet8" in caught.value.fix
    with pytest.raises(AbawError, match='unknown label space "affect"'):
        extra(root, labels="affect")


def test_values_need_no_space(root: Path) -> None:
    (root / "labels.csv").write_text("path,valence,arousal\na/1.jpg,0.5,0.5\n")
    frames, record, warnings = extra(root, labels="", task="va")
    assert len(frames) == 1
    assert record["labels"] == "va"
    assert warnings == []


def test_paths_that_do_not_agree_are_shown_side_by_side(root: Path) -> None:
    (root / "labels.csv").write_text("path,label\ntrain/a/1.jpg,1\n")
    with pytest.raises(AbawError, match=r"no image of labels\.csv can be used") as caught:
        extra(root)
    assert "images like train/a/1.jpg" in caught.value.where
    assert "images like a/1.jpg" in caught.value.where


def test_a_store_of_videos_has_no_paths(root: Path) -> None:
    make_faces(root / "faces2", {"v": [picture(0)]})
    with pytest.raises(AbawError, match="no store of an image collection"):
        extra_frames(
            store=root / "faces2", csv=root / "labels.csv", labels="affectnet8", dataset="A", task=TASKS["expr"]
        )
