"""Which tracks there are and which video each belongs to."""

from pathlib import Path

import pytest

from abaw.config import DataConfig
from abaw.data.manifest import Manifest, nominal_fps, split_side
from abaw.errors import AbawError


def make_tree(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def manifest(root, **keys):
    return Manifest.from_config(DataConfig(videos=root / "videos", **keys))


def test_videos_alone_are_enough(tmp_path):
    make_tree(tmp_path, "videos/b.mp4", "videos/deep/a.AVI", "videos/notes.txt")
    tracks = manifest(tmp_path)
    assert [(t.track_id, t.video.name, t.splits) for t in tracks] == [("a", "a.AVI", {}), ("b", "b.mp4", {})]


def test_two_people_share_one_video(tmp_path):
    make_tree(tmp_path, "videos/v1.mp4", "VA/Train_Set/v1_left.txt", "VA/Train_Set/v1_right.txt")
    tracks = manifest(tmp_path, annotations={"va": tmp_path / "VA"})
    assert [(t.track_id, t.video.name, t.side) for t in tracks] == [
        ("v1_left", "v1.mp4", "left"),
        ("v1_right", "v1.mp4", "right"),
    ]


def test_a_side_is_the_suffix_not_its_letters(tmp_path):
    assert split_side("lift_left") == ("lift", "left")
    assert split_side("bright") == ("bright", None)


def test_a_video_of_that_very_name_has_no_side(tmp_path):
    make_tree(tmp_path, "videos/v_left.mp4")
    assert manifest(tmp_path)[0].side is None


def test_crops_of_one_person_are_never_anothers(tmp_path):
    make_tree(tmp_path, "crops/v/00001.jpg", "crops/v_right/00001.jpg", "VA/Train_Set/v_left.txt")
    tracks = Manifest.from_config(
        DataConfig(kind="crops", crops=tmp_path / "crops", annotations={"va": tmp_path / "VA"})
    )
    assert [(t.track_id, t.video and t.video.name) for t in tracks] == [
        ("v", "v"),
        ("v_left", None),
        ("v_right", "v_right"),
    ]


def test_splits_are_per_task(tmp_path):
    make_tree(tmp_path, "videos/v.mp4", "VA/Train_Set/v.txt", "EX/Validation_Set/v.txt")
    tracks = manifest(tmp_path, annotations={"va": tmp_path / "VA", "expr": tmp_path / "EX"})
    assert tracks[0].splits == {"va": "train", "expr": "val"}
    assert [t.track_id for t in tracks.select(task="expr", split="val")] == ["v"]
    assert tracks.select(task="expr", split="train") == []


def test_test_tracks_come_from_their_list(tmp_path):
    make_tree(tmp_path, "videos/v.mp4")
    (tmp_path / "list.txt").write_text("v\r\n\r\nw\n")
    tracks = manifest(tmp_path, test={"va": tmp_path / "list.txt"})
    assert [(t.track_id, t.splits, t.video is None) for t in tracks] == [
        ("v", {"va": "test"}, False),
        ("w", {"va": "test"}, True),
    ]


def test_mtl_file_names_its_tracks(tmp_path):
    make_tree(tmp_path, "videos/v.mp4")
    (tmp_path / "training_set_annotations.txt").write_text("image,valence\nv/00003.jpg,0\nv/00009.jpg,0\n")
    tracks = manifest(tmp_path, annotations={"mtl": tmp_path})
    assert tracks[0].splits == {"mtl": "train"}


@pytest.mark.parametrize(
    ("name", "fps"), [("10-60-1280x720", 60), ("7-23.976-640x360_left", 23.976), ("video45_1", 30), ("a-b-c", 30)]
)
def test_frames_per_second_stand_in_the_stem(name, fps):
    assert nominal_fps(name) == fps


def test_two_files_of_one_name_are_refused(tmp_path):
    make_tree(tmp_path, "videos/a/v.mp4", "videos/b/v.avi")
    with pytest.raises(AbawError, match='would both be track "v"') as caught:
        manifest(tmp_path)
    assert "a/v.mp4" in caught.value.where
    assert "b/v.avi" in caught.value.where


def test_one_track_in_two_splits_of_a_task_is_refused(tmp_path):
    make_tree(tmp_path, "videos/v.mp4", "VA/Train_Set/v.txt", "VA/Validation_Set/v.txt")
    with pytest.raises(AbawError, match="in two splits of task va"):
        manifest(tmp_path, annotations={"va": tmp_path / "VA"})


def test_a_missing_folder_names_its_key(tmp_path):
    with pytest.raises(AbawError, match="does not exist") as caught:
        manifest(tmp_path)
    assert caught.value.where == "data.videos"


def test_an_annotation_folder_without_labels_is_refused(tmp_path):
    make_tree(tmp_path, "videos/v.mp4")
    (tmp_path / "VA").mkdir()
    with pytest.raises(AbawError, match="no label files for task va"):
        manifest(tmp_path, annotations={"va": tmp_path / "VA"})
