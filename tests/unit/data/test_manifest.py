"""Which tracks there are and which video each belongs to."""

import os
from pathlib import Path

import pytest

from abaw.config import DataConfig
from abaw.data.manifest import Manifest, nominal_fps, split_person, split_side
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
    ("name", "fps"),
    [("10-60-1280x720", 60), ("7-23.976-640x360_left", 23.976), ("video45_1", 30), ("a-b-c", 30), ("a-0-10x10", 30)],
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


def crops(root: Path, **keys) -> Manifest:
    return Manifest.from_config(DataConfig(kind="crops", crops=root / "crops", **keys))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a_person2", ("a", 2)),
        ("a_person12", ("a", 12)),
        ("a_person1_person3", ("a_person1", 3)),
        ("a_person0", ("a_person0", None)),
        ("a_person", ("a_person", None)),
        ("_person1", ("_person1", None)),
        ("a_person2_left", ("a_person2_left", None)),
    ],
)
def test_people_are_numbered_at_the_end_of_a_name(name, parts):
    assert split_person(name) == parts


def test_a_video_whose_own_name_ends_like_a_persons_keeps_it(tmp_path):
    make_tree(tmp_path, "videos/v_person1.mp4", "videos/v.mp4")
    assert [(t.track_id, t.video.name, t.side) for t in manifest(tmp_path)] == [
        ("v", "v.mp4", None),
        ("v_person1", "v_person1.mp4", None),
    ]


def test_a_list_of_test_tracks_may_have_video_names_spaces_blank_lines_and_a_mark(tmp_path):
    make_tree(tmp_path, "videos/my clip.mp4")
    (tmp_path / "list.txt").write_bytes("\ufeffmy clip.MP4\r\n  \r\n v.1 \r\nw,x\n\n".encode())
    tracks = manifest(tmp_path, test={"va": tmp_path / "list.txt"})
    assert [(t.track_id, t.splits) for t in tracks] == [
        ("my clip", {"va": "test"}),
        ("v.1", {"va": "test"}),
        ("w", {"va": "test"}),
    ]


@pytest.mark.parametrize("name", ["../v", "a/b", "..", ".mp4", ",3", "a\\b", "a\x07b"])
def test_an_unusable_name_in_a_list_is_refused_by_file_and_line(tmp_path, name):
    make_tree(tmp_path, "videos/v.mp4")
    (tmp_path / "list.txt").write_text(f"v\n\n{name}\n")
    with pytest.raises(AbawError, match="cannot be a track name") as caught:
        manifest(tmp_path, test={"va": tmp_path / "list.txt"})
    assert caught.value.where == f"{tmp_path / 'list.txt'}, line 3"


def test_names_may_hold_spaces_two_dots_and_any_letters(tmp_path):
    make_tree(tmp_path, "videos/a b.mp4", "videos/c..d.mp4", "videos/\u00e9t\u00e9 \u5f20.mp4")
    assert [t.track_id for t in manifest(tmp_path)] == ["a b", "c..d", "\u00e9t\u00e9 \u5f20"]


def test_a_video_whose_name_is_no_track_name_is_refused_by_file(tmp_path):
    make_tree(tmp_path, "videos/deep/a\nb.mp4")
    with pytest.raises(AbawError, match=r"'a\\nb' cannot be a track name") as caught:
        manifest(tmp_path)
    assert caught.value.where.endswith("b.mp4")


def test_two_formats_of_one_name_are_refused_in_one_folder_too(tmp_path):
    make_tree(tmp_path, "videos/a.avi", "videos/a.mp4")
    with pytest.raises(AbawError, match='would both be track "a"'):
        manifest(tmp_path)


def test_videos_behind_a_link_are_found_and_a_link_back_up_ends(tmp_path):
    make_tree(tmp_path, "videos/a.mp4", "disk/b.mp4")
    (tmp_path / "videos" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "videos" / "loop").symlink_to(tmp_path / "videos")
    assert [t.track_id for t in manifest(tmp_path)] == ["a", "b"]


def test_a_link_to_a_video_that_is_gone_is_a_track_that_will_fail_by_name(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    assert [t.track_id for t in manifest(tmp_path)] == ["a"]


@pytest.mark.parametrize("kind", ["videos", "crops", "images"])
def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch, kind):
    """The system's refusal is staged, since tests may run as a user who may read everything."""
    make_tree(tmp_path, f"{kind}/closed/00001.jpg")

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    listing = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(AbawError, match="closed cannot be read \\(Permission denied\\)"):
        Manifest.from_config(DataConfig(kind=kind, **{kind: tmp_path / kind}))


def test_junk_beside_the_tracks_of_crops_is_left_out_with_a_warning(tmp_path, caplog):
    make_tree(tmp_path, "crops/v/00001.jpg", "crops/notes/a.txt", "crops/.cache/00001.jpg", "crops/list.txt")
    assert [t.track_id for t in crops(tmp_path)] == ["v"]
    assert "1 folders" in caplog.text
    assert "notes" in caplog.text


def test_a_labelled_track_whose_folder_is_empty_keeps_its_folder(tmp_path):
    make_tree(tmp_path, "crops/v/00001.jpg", "VA/Train_Set/w.txt")
    (tmp_path / "crops" / "w").mkdir()
    tracks = crops(tmp_path, annotations={"va": tmp_path / "VA"})
    assert [(t.track_id, t.video.name) for t in tracks] == [("v", "v"), ("w", "w")]


def test_hidden_label_files_of_other_systems_are_left_out(tmp_path):
    make_tree(tmp_path, "videos/v.mp4", "VA/Train_Set/v.txt", "VA/Train_Set/._v.txt")
    assert [t.track_id for t in manifest(tmp_path, annotations={"va": tmp_path / "VA"})] == ["v"]


def test_an_unusable_name_in_the_mtl_file_is_refused_by_line(tmp_path):
    make_tree(tmp_path, "videos/v.mp4")
    (tmp_path / "training_set_annotations.txt").write_text("image\nv/00003.jpg,0\n.w/00009.jpg,0\n")
    with pytest.raises(AbawError) as caught:
        manifest(tmp_path, annotations={"mtl": tmp_path})
    assert caught.value.where.endswith("training_set_annotations.txt, line 3")


def test_an_mtl_file_that_is_no_text_is_refused(tmp_path):
    make_tree(tmp_path, "videos/v.mp4")
    (tmp_path / "training_set_annotations.txt").write_bytes(b"image\n\xff\xfe/1.jpg")
    with pytest.raises(AbawError, match="not UTF-8"):
        manifest(tmp_path, annotations={"mtl": tmp_path})


def test_tracks_of_an_image_collection_are_its_shards(tmp_path):
    make_tree(tmp_path, "photos/a.jpg", "photos/b/c.png")
    tracks = Manifest.from_config(DataConfig(kind="images", images=tmp_path / "photos"))
    assert [(t.track_id, t.video, t.splits) for t in tracks] == [("photos-00000", tmp_path / "photos", {})]


def test_without_media_a_collection_is_not_looked_at(tmp_path):
    data = DataConfig(kind="images", images=tmp_path / "nowhere")
    assert len(Manifest.from_config(data, need_media=False)) == 0


def test_a_folder_whose_only_picture_is_number_nought_holds_no_crops(tmp_path):
    make_tree(tmp_path, "crops/v/00001.jpg", "crops/w/00000.jpg")
    tracks = Manifest.from_config(DataConfig(kind="crops", crops=tmp_path / "crops"))
    assert [track.track_id for track in tracks] == ["v"]


def test_letters_with_marks_taken_apart_in_a_file_name_are_the_same(tmp_path):
    """As macOS writes them; the label file holds them in one piece."""
    make_tree(tmp_path, "videos/a\u0308.mp4", "VA/Train_Set/\u00e4_left.txt")
    tracks = manifest(tmp_path, annotations={"va": tmp_path / "VA"})
    assert [(t.track_id, t.video.name, t.side) for t in tracks] == [("\u00e4_left", "a\u0308.mp4", "left")]


def test_two_spellings_of_one_name_stay_two_tracks(tmp_path):
    make_tree(tmp_path, "videos/a\u0308.mp4", "videos/\u00e4.mp4", "VA/Train_Set/\u00e4.txt")
    tracks = manifest(tmp_path, annotations={"va": tmp_path / "VA"})
    assert {t.track_id: t.video.name for t in tracks} == {"a\u0308": "a\u0308.mp4", "\u00e4": "\u00e4.mp4"}
