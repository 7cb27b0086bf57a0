from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.errors import AbawError, ExitCode
from abaw.media import faces
from abaw.media.warp import template
from abaw.stages import align
from abaw.stages.align import unit
from abaw.store import FeatureStore, Reason

TOML = '[data]\nvideos = "videos"\n[run]\nworkers = 1\n'


@pytest.fixture
def folder(tmp_path, make_video, face_pictures, blank) -> Path:
    """Two videos with a face and one without, and a configuration that names nothing but their folder."""
    make_video("videos/a.mp4", face_pictures[:5])
    make_video("videos/b.mp4", face_pictures[5:])
    make_video("videos/c.mp4", [blank] * 3)
    (tmp_path / "data.toml").write_text(TOML)
    return tmp_path


def run(folder: Path, *overrides: str, **options):
    return align.run(load_config(folder / "data.toml", overrides=overrides), **options)


def store(folder: Path) -> FeatureStore:
    return FeatureStore.open(folder / "features" / "faces", kind="faces")


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "features" / "faces").glob("*.h5")}


def test_a_folder_of_videos_is_enough(folder):
    summary = run(folder)
    assert store(folder).track_ids() == ["a", "b", "c"]
    assert [store(folder).num_rows(name) for name in "abc"] == [5, 7, 3]
    assert summary.data["reasons"] == {"VALID": 12, "NO_FACE": 3}
    assert not summary.failed


def test_the_arrays_are_those_of_the_format(folder):
    run(folder)
    track = store(folder)
    assert track.read("a", "time") == pytest.approx(np.arange(5) / 25)
    assert track.fps("a") == 25
    assert track.read("a", "offsets").shape == (6,)
    assert track.read("a", "landmarks").shape == (5, 5, 2)
    assert track.valid("c").tolist() == [False] * 3
    assert set(track.read("c", "reason")) == {Reason.NO_FACE}


def test_rate_and_times_are_the_containers_whatever_the_name_says(tmp_path, make_video, blank):
    make_video("videos/12-24-160x120.mp4", [blank] * 4, fps=24000 / 1001)
    (tmp_path / "data.toml").write_text(TOML)
    run(tmp_path, "align.detector=center")
    assert store(tmp_path).fps("12-24-160x120") == pytest.approx(23.976, abs=1e-3)
    assert store(tmp_path).read("12-24-160x120", "time") == pytest.approx(np.arange(4) * 1001 / 24000, abs=1e-5)


def test_a_rerun_does_only_what_is_missing(folder):
    run(folder)
    before = file_bytes(folder)
    (folder / "features" / "faces" / "b.h5").unlink()
    summary = run(folder)
    assert summary.data["tracks"] == 1
    assert file_bytes(folder) == before


def test_several_workers_give_the_same_bytes(folder):
    run(folder)
    one = file_bytes(folder)
    run(folder, "run.workers=2", overwrite=True)
    assert file_bytes(folder) == one


def test_other_settings_are_refused_and_overwritten_on_request(folder):
    run(folder)
    with pytest.raises(AbawError, match="size_px: 112 recorded, 64 now"):
        run(folder, "align.size_px=64")
    run(folder, "align.size_px=64", overwrite=True)
    assert store(folder).header.settings["size_px"] == 64


def test_size_and_quality_are_no_part_of_the_recipe(folder):
    run(folder)
    recipe = store(folder).header.recipe
    run(folder, "align.size_px=64", "align.jpeg_quality=80", overwrite=True)
    assert store(folder).header.recipe == recipe
    run(folder, "align.margin=0.2", overwrite=True)
    assert store(folder).header.recipe["fingerprint"] != recipe["fingerprint"]


def test_one_bad_video_does_not_end_the_run(folder):
    (folder / "videos" / "a.mp4").write_text("this is no video")
    summary = run(folder)
    assert [failure.track_id for failure in summary.failed] == ["a"]
    assert "a.mp4 is not a readable video" in summary.failed[0].message
    assert summary.exit_code == ExitCode.PARTIAL
    assert store(folder).track_ids() == ["b", "c"]


def test_strict_stops_at_the_bad_video(folder):
    (folder / "videos" / "a.mp4").write_text("this is no video")
    with pytest.raises(AbawError, match="not a readable video"):
        run(folder, strict=True)


class BrokenDetector(faces.CenterDetector):
    """Stands in for a detector with a slip in it."""

    def detect(self, image):
        message = "slip"
        raise ZeroDivisionError(message)


def test_a_program_error_is_a_bug_and_not_a_missing_face(folder, monkeypatch):
    entry = faces.DetectorEntry(BrokenDetector, BrokenDetector.settings, "none", short_side_px=1, min_score=0.0)
    monkeypatch.setattr(faces, "DETECTORS", {**faces.DETECTORS, "broken": entry})
    summary = run(folder, "align.detector=broken")
    assert all(failure.bug for failure in summary.failed)
    assert summary.failed[0].message == "ZeroDivisionError: slip"
    assert summary.exit_code == ExitCode.BUG
    assert store(folder).track_ids() == []


def test_an_interrupted_run_continues_to_the_same_bytes(folder, monkeypatch):
    run(folder, "align.detector=center")
    whole = file_bytes(folder)

    class Interrupted(faces.CenterDetector):
        calls = 0

        def detect(self, image):
            Interrupted.calls += 1
            if Interrupted.calls == 8:  # in the middle of the second video
                raise KeyboardInterrupt
            return super().detect(image)

    entry = faces.DetectorEntry(Interrupted, Interrupted.settings, "none", short_side_px=1, min_score=0.0)
    unit._detector.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(faces, "DETECTORS", {"center": entry})
        with pytest.raises(KeyboardInterrupt):
            run(folder, "align.detector=center", overwrite=True)
    unit._detector.cache_clear()
    assert store(folder).track_ids() == ["a"]
    assert not list((folder / "features" / "faces").glob(".*.tmp"))
    run(folder, "align.detector=center")
    assert file_bytes(folder) == whole


def test_a_killed_run_continues_to_the_same_bytes(folder):
    run(folder)
    whole = file_bytes(folder)
    program = (
        "import os\nfrom pathlib import Path\nfrom abaw.config_file import load_config\n"
        "from abaw.stages import align\nfrom abaw.store import FeatureStore\nwrite = FeatureStore.write\n"
        "def die(self, name, *args, **kwargs):\n"
        "    write(self, name, *args, **kwargs)\n    os.kill(os.getpid(), 9)\n"
        "FeatureStore.write = die\nalign.run(load_config(Path('data.toml')), overwrite=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, check=False)
    assert done.returncode == -9
    assert store(folder).track_ids() == ["a"]
    run(folder)
    assert file_bytes(folder) == whole


def test_left_and_right_come_from_their_sides_of_one_video(tmp_path, make_video, pair_pictures):
    """The video is composed of one portrait and its mirror image."""
    make_video("videos/5-25-240x120.mp4", pair_pictures)
    labels = tmp_path / "labels" / "Train_Set"
    labels.mkdir(parents=True)
    for side in ("left", "right"):
        (labels / f"5-25-240x120_{side}.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * 12)
    (tmp_path / "data.toml").write_text(TOML.replace('"videos"\n', '"videos"\nannotations = { va = "labels" }\n'))
    run(tmp_path)
    assert store(tmp_path).track_ids() == ["5-25-240x120_left", "5-25-240x120_right"]
    boxes = {side: store(tmp_path).read(f"5-25-240x120_{side}", "box") for side in ("left", "right")}
    assert boxes["left"][:, 2].max() < boxes["right"][:, 0].min()


def test_a_labelled_track_without_a_video_is_reported(folder):
    labels = folder / "labels" / "Train_Set"
    labels.mkdir(parents=True)
    (labels / "lost.txt").write_text("valence,arousal\n0.1,0.2\n")
    (folder / "data.toml").write_text(TOML.replace('"videos"\n', '"videos"\nannotations = { va = "labels" }\n'))
    summary = run(folder)
    assert [failure.track_id for failure in summary.failed] == ["lost"]
    assert summary.data["tracks"] == 3


def test_more_shards_than_videos_leave_some_jobs_without_work(folder):
    for part in range(1, 6):
        assert run(folder, shard=f"{part}/5").exit_code == ExitCode.OK
    assert store(folder).track_ids() == ["a", "b", "c"]


def test_a_track_without_a_video_is_reported_by_one_of_the_shards(folder):
    labels = folder / "labels" / "Train_Set"
    labels.mkdir(parents=True)
    (labels / "lost.txt").write_text("valence,arousal\n0.1,0.2\n")
    (folder / "data.toml").write_text(TOML.replace('"videos"\n', '"videos"\nannotations = { va = "labels" }\n'))
    failed = [failure.track_id for part in ("1/2", "2/2") for failure in run(folder, shard=part).failed]
    assert failed == ["lost"]


def test_rows_do_not_depend_on_which_tracks_of_a_video_are_asked_for(tmp_path, make_video, pair_pictures):
    """The video is composed of one portrait and its mirror image, which is away for some frames."""
    alone = [np.where(np.arange(240)[None, :, None] < 120, 90, picture).astype(np.uint8) for picture in pair_pictures]
    make_video("videos/v.mp4", pair_pictures + alone + pair_pictures)
    labels = tmp_path / "labels" / "Train_Set"
    labels.mkdir(parents=True)
    for name in ("v", "v_right"):
        (labels / f"{name}.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * 36)
    (tmp_path / "data.toml").write_text(TOML.replace('"videos"\n', '"videos"\nannotations = { va = "labels" }\n'))
    run(tmp_path)
    whole = file_bytes(tmp_path)
    store(tmp_path).track_path("v").unlink()
    run(tmp_path)
    assert file_bytes(tmp_path) == whole
    run(tmp_path, overwrite=True)
    assert file_bytes(tmp_path) == whole


def test_a_refused_start_does_not_tie_the_store_to_its_settings(folder):
    with pytest.raises(AbawError):
        run(folder, "align.detector=yunet", "run.offline=true", f'run.weights_dir="{folder}/weights"')
    assert not run(folder).failed


def test_all_faces_are_of_videos_only(images):
    with pytest.raises(AbawError, match="all faces are kept of videos only"):
        run(images, "align.all_faces=true")


def test_a_dry_run_refuses_what_the_run_refuses(images):
    run(images)
    (images / "faces" / "a" / "2.png").unlink()
    with pytest.raises(AbawError, match="faces-00000"):
        run(images, dry_run=True)


def test_a_failed_track_is_noted_until_it_is_done(folder):
    good = (folder / "videos" / "b.mp4").read_bytes()
    (folder / "videos" / "b.mp4").write_text("this is no video")
    run(folder)
    assert "not a readable video" in store(folder).notes["failures"]["b"]
    (folder / "videos" / "b.mp4").write_bytes(good)
    run(folder)
    assert store(folder).notes["failures"] == {}


def test_what_cannot_be_exported_is_a_failure_beside_the_others(folder):
    (folder / "videos" / "c.mp4").write_text("this is no video")
    (folder / "crops" / "a").mkdir(parents=True)
    (folder / "crops" / "a" / "00001.jpg").write_bytes(b"another picture")
    summary = run(folder, export=folder / "crops")
    assert sorted(failure.track_id for failure in summary.failed) == ["a", "c"]
    assert len(list((folder / "crops" / "b").glob("*.jpg"))) == 7


def test_an_export_folder_that_cannot_be_made_is_refused_before_the_work(folder):
    (folder / "crops").write_text("a file")
    with pytest.raises(AbawError, match="crops could not be written"):
        run(folder, export=folder / "crops")
    assert not (folder / "features").exists()


def test_limit_and_shard_choose_tracks(folder):
    run(folder, limit=1)
    assert store(folder).track_ids() == ["a"]
    run(folder, shard="2/2")
    assert store(folder).track_ids() == ["a", "b"]


def test_dry_run_says_what_is_to_do_and_does_nothing(folder):
    assert run(folder, dry_run=True).data == {"todo": ["a", "b", "c"], "done": []}
    assert not (folder / "features").exists()
    run(folder, limit=1)
    assert run(folder, dry_run=True).data == {"todo": ["b", "c"], "done": ["a"]}


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "data.toml").write_text(TOML)
    with pytest.raises(AbawError, match="no track has a recording in"):
        run(tmp_path)


@pytest.fixture
def images(tmp_path, face_pictures, blank) -> Path:
    """A collection of three images in two folders, one of them without a face."""
    for name, picture in {"a/1.png": face_pictures[0], "a/2.png": blank, "b/1.png": face_pictures[3]}.items():
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "faces" / name), picture[..., ::-1])
    (tmp_path / "data.toml").write_text('[data]\nkind = "images"\nimages = "faces"\n[run]\nworkers = 1\n')
    return tmp_path


def test_a_collection_of_images_becomes_shard_tracks(images):
    summary = run(images)
    assert summary.data["reasons"] == {"VALID": 2, "NO_FACE": 1}
    track = store(images)
    assert track.track_ids() == ["faces-00000"]
    assert track.read("faces-00000", "key").tolist() == ["a/1.png", "a/2.png", "b/1.png"]
    assert track.valid("faces-00000").tolist() == [True, False, True]


def test_a_collection_that_changed_is_not_continued(images):
    run(images)
    (images / "faces" / "a" / "2.png").unlink()
    with pytest.raises(AbawError, match="faces-00000"):
        run(images)


def test_a_collection_that_lost_a_whole_shard_is_not_continued(images):
    run(images)
    track = store(images).track_path("faces-00000")
    track.with_name("faces-00001.h5").write_bytes(track.read_bytes())
    with pytest.raises(AbawError, match="has shrunk: it has 1 shards now, and 2"):
        run(images)


@pytest.fixture
def crops(tmp_path) -> Path:
    folder = tmp_path / "crops" / "3-20-640x360_left"
    folder.mkdir(parents=True)
    for number in (1, 2, 4):
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), np.full((112, 112, 3), 40 * number, np.uint8))
    labels = tmp_path / "labels" / "Train_Set"
    labels.mkdir(parents=True)
    (labels / "3-20-640x360_left.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * 6)
    (tmp_path / "data.toml").write_text(
        '[data]\nkind = "crops"\ncrops = "crops"\nannotations = { va = "labels" }\n[run]\nworkers = 1\n'
    )
    return tmp_path


def test_the_organisers_crops_are_taken_as_they_are(crops):
    run(crops)
    name = "3-20-640x360_left"
    missing = Reason.MISSING_CROP
    assert store(crops).read(name, "reason").tolist() == [0, 0, missing, 0, missing, missing]  # six label rows
    assert store(crops).read(name, "time") == pytest.approx(np.arange(6) / 20)
    original = (crops / "crops" / name / "00001.jpg").read_bytes()
    assert store(crops).read(name, "jpeg")[: len(original)].tobytes() == original


def test_crops_finished_with_fewer_rows_than_known_now_are_named(crops, caplog):
    run(crops)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    (crops / "labels" / "Train_Set" / "3-20-640x360_left.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * 8)
    with caplog.at_level(logging.WARNING, logger="abaw"):
        run(crops)
    path = crops / "features" / "faces" / "3-20-640x360_left.h5"
    assert "3-20-640x360_left has 6 rows in the store, but 8" in caplog.text
    assert f"rm '{path}' && abaw align" in caplog.text
    path.unlink()
    run(crops)
    assert store(crops).num_rows("3-20-640x360_left") == 8


def test_a_refused_label_file_does_not_end_the_run(crops, caplog):
    (crops / "labels" / "Train_Set" / "3-20-640x360_left.txt").write_text("valence,arousal\n0.1\n")
    with caplog.at_level(logging.WARNING, logger="abaw"):
        run(crops)
    assert "line 2" in caplog.text
    assert store(crops).num_rows("3-20-640x360_left") == 4  # up to the highest crop


def test_crops_of_the_videos_other_person_are_never_taken(crops):
    labels = crops / "labels" / "Train_Set"
    (crops / "crops" / "3-20-640x360_left").rename(crops / "crops" / "3-20-640x360")
    (labels / "3-20-640x360.txt").write_text("valence,arousal\n0.1,0.2\n")
    summary = run(crops)
    assert store(crops).track_ids() == ["3-20-640x360"]
    assert [failure.track_id for failure in summary.failed] == ["3-20-640x360_left"]


def test_the_recipe_of_the_organisers_crops_is_unknown(crops):
    run(crops)
    header = store(crops).header
    assert header.recipe["fingerprint"] == "unknown"
    assert header.settings["landmarks"]["detector"]["name"] == "mtcnn"
    assert header.settings["time"] == "nominal"


def test_crops_without_a_face_have_the_templates_landmarks_and_say_so(crops):
    run(crops)
    name = "3-20-640x360_left"
    assert store(crops).read(name, "template").tolist() == [True, True, False, True, False, False]
    assert store(crops).read(name, "landmarks")[0] == pytest.approx(template(112), abs=1e-4)
    assert store(crops).facts(name) == {"num_crops": 3, "highest_crop": 4}


def test_landmarks_of_crops_may_always_be_the_templates(crops):
    run(crops, 'align.crop_landmarks="template"')
    assert store(crops).header.settings["landmarks"] == "template"


def test_units_are_the_tracks_of_one_recording():
    tracks = [SimpleNamespace(track_id=name, video=Path(name[0])) for name in ("a1", "b", "a2")]
    assert [[track.track_id for track in unit] for unit in align.group_by_video(tracks)] == [["a1", "a2"], ["b"]]


def test_all_faces_are_one_track_per_person(tmp_path, make_video, pair_pictures, blank):
    """The video is composed of one portrait and its mirror image."""
    make_video("videos/pair.mp4", pair_pictures)
    make_video("videos/empty.mp4", [blank] * 3)
    (tmp_path / "data.toml").write_text(TOML)
    summary = run(tmp_path, "align.all_faces=true")
    assert store(tmp_path).track_ids() == ["empty_person1", "pair_person1", "pair_person2"]
    assert summary.data["tracks"] == 3
    assert not store(tmp_path).valid("empty_person1").any()


def test_all_faces_are_redone_where_a_person_is_missing(tmp_path, make_video, pair_pictures):
    make_video("videos/pair.mp4", pair_pictures)
    (tmp_path / "data.toml").write_text(TOML)
    run(tmp_path, "align.all_faces=true")
    before = file_bytes(tmp_path)
    assert run(tmp_path, "align.all_faces=true").data["tracks"] == 0
    for name in ("pair_person1", "pair_person2"):
        store(tmp_path).track_path(name).unlink()
        assert run(tmp_path, "align.all_faces=true").data["tracks"] == 2
        assert file_bytes(tmp_path) == before


def test_crops_are_exported_in_the_organisers_layout(folder):
    run(folder, export=folder / "crops")
    begin, end = store(folder).read("b", "offsets")[2:4]
    exported = (folder / "crops" / "b" / "00003.jpg").read_bytes()
    assert exported == store(folder).read("b", "jpeg")[begin:end].tobytes()
    assert len(list((folder / "crops").glob("*/*.jpg"))) == 12


def test_what_the_file_says_of_itself_is_kept(folder):
    run(folder)
    assert store(folder).facts("a")["header_frames"] == 5
    assert store(folder).facts("a")["sound"] is False


def test_a_yunet_without_a_file_and_offline_says_where_to_get_it(folder):
    with pytest.raises(AbawError) as failed:
        run(folder, "align.detector=yunet", "run.offline=true", f'run.weights_dir="{folder}/weights"')
    assert failed.value.code == ExitCode.MISSING


def test_a_damaged_person_does_not_stop_the_others(tmp_path, make_video, pair_pictures):
    make_video("videos/pair.mp4", pair_pictures)
    (tmp_path / "data.toml").write_text(TOML)
    run(tmp_path, "align.all_faces=true")
    store(tmp_path).track_path("pair_person1").write_text("junk")
    make_video("videos/more.mp4", pair_pictures)
    assert run(tmp_path, "align.all_faces=true").data["tracks"] == 2
