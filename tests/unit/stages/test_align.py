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
from abaw.stages import align
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
    entry = faces.DetectorEntry(BrokenDetector, BrokenDetector.settings, "none")
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

    entry = faces.DetectorEntry(Interrupted, Interrupted.settings, "none")
    align._detector.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(faces, "DETECTORS", {"center": entry})
        with pytest.raises(KeyboardInterrupt):
            run(folder, "align.detector=center", overwrite=True)
    align._detector.cache_clear()
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


def test_image_collections_are_named_as_not_there_yet(folder):
    with pytest.raises(AbawError, match='kind = "images" cannot be aligned yet'):
        run(folder, 'data.kind="images"', 'data.images="videos"')


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
    assert not caplog.records
    (crops / "labels" / "Train_Set" / "3-20-640x360_left.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * 8)
    with caplog.at_level(logging.WARNING, logger="abaw"):
        run(crops)
    path = crops / "features" / "faces" / "3-20-640x360_left.h5"
    assert "3-20-640x360_left has 6 rows in the store, but 8" in caplog.text
    assert f"rm '{path}' && abaw align" in caplog.text
    path.unlink()
    run(crops)
    assert store(crops).num_rows("3-20-640x360_left") == 8


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
    assert header.settings["landmarks"] == "template"
    assert header.settings["time"] == "nominal"


def test_units_are_the_tracks_of_one_recording():
    tracks = [SimpleNamespace(track_id=name, video=Path(name[0])) for name in ("a1", "b", "a2")]
    assert [[track.track_id for track in unit] for unit in align.group_by_video(tracks)] == [["a1", "a2"], ["b"]]
