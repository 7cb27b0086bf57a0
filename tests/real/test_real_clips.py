"""Alignment and sound features on real recordings, given by --real-data."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.media.boxes import iou
from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.people import AlignSettings, align_video
from abaw.media.video import read_frames
from abaw.stages import align, extract_audio
from abaw.store import FeatureStore, Reason

pytestmark = pytest.mark.real
GRID = ("bbaf2n", "brbk7n", "lbax4n", "lbbc2a", "lrwp9a", "pwij3p", "sbia1a", "swwp2s")
WITHOUT_SOUND = ("intel_asl_again", "intel_asl_walk", "intel_two_faces")
WITHOUT_FACE = ("bbb_1s", "no_duration", "pyfeat_no_face", "rotated180_vfr_noface")


@pytest.fixture(scope="module")
def folder(real_data, tmp_path_factory) -> Path:
    """All clips, aligned and with their sound extracted."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "data.toml").write_text(f'[data]\nvideos = "{real_data / "videos"}"\n[run]\nworkers = 2\n')
    cfg = load_config(folder / "data.toml")
    assert not align.run(cfg).failed
    assert not extract_audio.run(cfg).failed
    return folder


@pytest.fixture(scope="module")
def faces(folder) -> FeatureStore:
    return FeatureStore.open(folder / "features" / "faces", kind="faces")


@pytest.fixture(scope="module")
def sound(folder) -> FeatureStore:
    return FeatureStore.open(folder / "features" / "audio-logmel", kind="audio")


def plain_decode(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("name", GRID)
def test_every_grid_clip_has_75_rows_and_a_face_in_each(faces, name):
    assert faces.num_rows(f"grid_{name}") == 75
    assert faces.valid(f"grid_{name}").all()
    assert faces.read(f"grid_{name}", "score").min() > 0.9


def test_every_clip_has_the_rows_of_a_plain_decode(real_data, faces):
    rows = {path.stem: plain_decode(path) for path in (real_data / "videos").iterdir()}
    assert {name: faces.num_rows(name) for name in faces.track_ids()} == rows


def test_times_increase_strictly_in_every_clip(faces):
    assert all(np.all(np.diff(faces.read(name, "time")) > 0) for name in faces.track_ids())


def test_a_late_first_frame_keeps_its_time(faces):
    assert faces.read("intel_asl_again", "time")[0] == pytest.approx(0.033)


@pytest.mark.parametrize("name", WITHOUT_FACE)
def test_clips_without_a_face_have_none(faces, name):
    assert not faces.valid(name).any()


def test_a_face_that_comes_later_is_found_from_its_first_frame(faces):
    """A cartoon for 96 frames, then a person for 72, then one black frame."""
    assert np.flatnonzero(faces.valid("pyfeat_noface_face")).tolist() == list(range(96, 168))


def test_crops_are_upright_and_eyes_lie_where_the_template_puts_them(faces):
    for name in [f"grid_{clip}" for clip in GRID]:
        landmarks, warp = faces.read(name, "landmarks"), faces.read(name, "warp")
        placed = np.einsum("tij,tkj->tki", warp[:, :, :2], landmarks) + warp[:, None, :, 2]
        assert placed[:, 0].mean(axis=0) == pytest.approx((38.3, 51.7), abs=3)
        assert placed[:, 1].mean(axis=0) == pytest.approx((73.5, 51.5), abs=3)


def test_sound_features_have_the_rows_of_the_faces_and_are_finite(faces, sound):
    assert sound.track_ids() == faces.track_ids()
    for name in sound.track_ids():
        assert sound.num_rows(name) == faces.num_rows(name)
        assert np.isfinite(sound.read(name, "features")).all()


@pytest.mark.parametrize("name", WITHOUT_SOUND)
def test_clips_without_sound_are_rows_of_no_sound(sound, name):
    assert set(sound.read(name, "reason")) == {Reason.NO_SOUND}


@pytest.mark.parametrize("name", GRID)
def test_speech_is_heard_in_every_frame_of_a_grid_clip(sound, name):
    assert sound.valid(f"grid_{name}")[:74].all()


def test_a_silent_track_is_flagged_silent(sound):
    assert set(sound.read("no_duration", "reason")) == {Reason.SILENT}


def test_frames_after_the_sound_are_flagged(sound):
    reason = sound.read("pyfeat_noface_face", "reason")  # 3.97 s of sound, 6.4 s of picture
    assert np.flatnonzero(reason == Reason.BEYOND_SOUND).tolist() == list(range(97, 169))


def test_two_real_people_come_out_left_and_right(real_data):
    detector = build_detector("mtcnn", DetectorOptions())
    path = real_data / "videos" / "intel_two_faces.gif"
    left, right = align_video(path, ["left", "right"], detector, AlignSettings()).tracks
    assert left["valid"].all()
    assert right["valid"].all()
    assert left["box"][:, 2].max() < right["box"][:, 0].min()


def test_two_talking_faces_composed_side_by_side_stay_apart(real_data, tmp_path):
    """A composition: two GRID clips side by side; each side must equal its clip's own faces."""
    clips = [list(read_frames(real_data / "videos" / f"grid_{name}.mpg"))[:40] for name in ("bbaf2n", "lbax4n")]
    pictures = [np.hstack([one.image, two.image]) for one, two in zip(*clips, strict=True)]
    writer = cv2.VideoWriter(str(tmp_path / "pair.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (720, 288))
    for picture in pictures:
        writer.write(picture[..., ::-1])
    writer.release()
    detector = build_detector("mtcnn", DetectorOptions())
    both = align_video(tmp_path / "pair.mp4", ["left", "right"], detector, AlignSettings()).tracks
    for arrays, shift, name in zip(both, (0, 360), ("bbaf2n", "lbax4n"), strict=True):
        alone = align_video(real_data / "videos" / f"grid_{name}.mpg", [None], detector, AlignSettings()).tracks[0]
        assert arrays["valid"].all()
        pairs = zip(arrays["box"] - np.float32([shift, 0, shift, 0]), alone["box"][:40], strict=True)
        overlap = [iou(one[None], two[None])[0, 0] for one, two in pairs]
        assert np.median(overlap) > 0.85


def test_the_lips_move_in_the_aligned_crops(faces):
    """Speech shows: the mouth changes more from frame to frame than the forehead does."""
    name = "grid_swwp2s"
    jpeg, offsets = faces.read(name, "jpeg"), faces.read(name, "offsets")
    spans = zip(offsets, offsets[1:], strict=False)
    crops = np.stack([cv2.imdecode(jpeg[begin:end], cv2.IMREAD_GRAYSCALE) for begin, end in spans]).astype(float)
    change = np.abs(np.diff(crops, axis=0)).mean(axis=0)
    assert change[80:105, 40:72].mean() > 1.3 * change[15:35, 40:72].mean()
