from __future__ import annotations

import logging
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.errors import AbawError, ExitCode
from abaw.media.audio import Waveform
from abaw.stages import align, extract_audio
from abaw.store import FeatureStore, Reason

TOML = '[data]\nvideos = "videos"\n[run]\nworkers = 1\n[align]\ndetector = "center"\n'
RATE = 16000


@pytest.fixture
def folder(tmp_path, make_video, face_pictures, tone) -> Path:
    """`long`: sound to the end; `short`: half a second of sound under a second of picture; `mute`: none."""
    make_video("videos/long.mp4", face_pictures, sound=tone)
    make_video("videos/short.mp4", face_pictures * 2, sound=tone)
    make_video("videos/mute.mp4", face_pictures[:4])
    (tmp_path / "data.toml").write_text(TOML)
    align.run(load_config(tmp_path / "data.toml"))
    return tmp_path


def run(folder: Path, *overrides: str, **options):
    return extract_audio.run(load_config(folder / "data.toml", overrides=overrides), **options)


def store(folder: Path, name: str = "logmel") -> FeatureStore:
    return FeatureStore.open(folder / "features" / f"audio-{name}", kind="audio")


def test_the_rows_are_those_of_the_faces(folder):
    summary = run(folder)
    faces = FeatureStore.open(folder / "features" / "faces")
    for name in ("long", "mute", "short"):
        assert store(folder).num_rows(name) == faces.num_rows(name)
    assert store(folder).read("long", "features").shape == (12, 64)
    assert store(folder).read("long", "features").dtype == np.float16
    assert not summary.failed


def test_a_video_without_sound_is_rows_of_no_sound(folder):
    run(folder)
    assert store(folder).read("mute", "reason").tolist() == [Reason.NO_SOUND] * 4
    assert not store(folder).read("mute", "features").any()


def test_frames_after_the_end_of_the_sound_are_flagged(folder):
    run(folder)
    reason = store(folder).read("short", "reason")  # sound ends at .5 s (and AAC's last block), picture at .96 s
    assert set(reason[:12]) == {Reason.VALID}
    assert set(reason[16:]) == {Reason.BEYOND_SOUND}
    assert not store(folder).read("short", "features")[16:].any()


def test_header_states_the_clock_and_inherits_the_recipe(folder):
    run(folder)
    header = store(folder).header
    assert header.settings["hop_s"] == 0.01
    assert header.settings["offset_s"] == 0
    assert header.settings["window_s"] == 0.04
    assert header.settings["sample_rate"] == RATE
    assert header.recipe == FeatureStore.open(folder / "features" / "faces").header.recipe


def test_a_rerun_does_only_what_is_missing(folder):
    run(folder)
    path = folder / "features" / "audio-logmel" / "long.h5"
    before = path.read_bytes()
    path.unlink()
    assert run(folder).data["tracks"] == 1
    assert path.read_bytes() == before


def test_several_workers_give_the_same_bytes(folder):
    run(folder)
    one = (folder / "features" / "audio-logmel" / "long.h5").read_bytes()
    run(folder, "run.workers=2", overwrite=True)
    assert (folder / "features" / "audio-logmel" / "long.h5").read_bytes() == one


def test_an_encoder_of_the_users_naming(folder):
    run(folder, "encoders.coarse.encoder=logmel", "encoders.coarse.num_mels=20", encoder="coarse")
    assert store(folder, "coarse").read("long", "features").shape == (12, 20)


def test_an_unknown_encoder_is_refused_with_the_names(folder):
    with pytest.raises(AbawError, match='unknown audio encoder "hubbert"'):
        run(folder, encoder="hubbert")


def test_without_faces_the_stage_that_makes_them_is_named(tmp_path, make_video, blank):
    make_video("videos/a.mp4", [blank])
    (tmp_path / "data.toml").write_text(TOML)
    with pytest.raises(AbawError, match="there is no faces store"):
        run(tmp_path)


def test_a_track_whose_video_is_gone_fails_and_is_not_mute(folder):
    labels = folder / "labels" / "Train_Set"
    labels.mkdir(parents=True)
    (labels / "long.txt").write_text("valence,arousal\n0.1,0.2\n")
    (folder / "data.toml").write_text(TOML.replace('"videos"\n', '"videos"\nannotations = { va = "labels" }\n'))
    (folder / "videos" / "long.mp4").rename(folder / "long.mp4")
    summary = run(folder)
    assert [(lost.track_id, lost.message) for lost in summary.failed] == [("long", "no recording of that name")]
    assert store(folder).track_ids() == ["mute", "short"]
    (folder / "long.mp4").rename(folder / "videos" / "long.mp4")
    assert not run(folder).failed
    (folder / "videos" / "long.mp4").unlink()
    assert not run(folder).failed  # it is done


@pytest.fixture
def crops(tmp_path) -> Path:
    """Two tracks of the organisers' crops, in the faces store."""
    for name in ("a", "b"):
        (tmp_path / "crops" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "crops" / name / "00001.jpg"), np.full((112, 112, 3), 90, np.uint8))
    (tmp_path / "data.toml").write_text('[data]\nkind = "crops"\ncrops = "crops"\n[run]\nworkers = 1\n')
    align.run(load_config(tmp_path / "data.toml"))
    return tmp_path


def test_crops_without_videos_have_no_sound_and_one_warning(crops, caplog):
    with caplog.at_level(logging.WARNING, logger="abaw"):
        assert not run(crops).failed
    assert [record.getMessage() for record in caplog.records] == [
        "data.videos is not set: 2 tracks get rows without sound"
    ]
    assert store(crops).read("a", "reason").tolist() == [Reason.NO_SOUND]


def test_beside_crops_a_video_that_is_gone_fails_too(crops, make_video, blank, tone):
    make_video("videos/a.mp4", [blank] * 3, sound=tone)
    summary = run(crops, "data.videos=videos")
    assert [lost.track_id for lost in summary.failed] == ["b"]
    assert store(crops).valid("a").all()
    assert "video's header" in store(crops).header.settings["time"]


def test_damaged_sound_is_listed(folder):
    path = folder / "videos" / "long.mp4"
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    data[spans[4][0] : sum(spans[4])] = b"\xff" * spans[4][1]
    path.write_bytes(data)
    summary = run(folder)
    assert summary.data["damaged"] == ["long"]
    assert ("damaged", "the sound of 1 tracks decodes only in part: long") in summary.lines
    assert store(folder).notes["decode_errors"]["long"] > 0


def test_sound_that_starts_late_is_put_at_its_frames(tmp_path, make_video, blank, tone):
    make_video("videos/late.mp4", [blank] * 30, sound=tone, sound_start_s=0.5)
    (tmp_path / "data.toml").write_text(TOML)
    align.run(load_config(tmp_path / "data.toml"))
    run(tmp_path)
    times = FeatureStore.open(tmp_path / "features" / "faces").read("late", "time")
    reason = store(tmp_path).read("late", "reason")
    assert times[0] == 0
    assert not np.isin(reason[times < 0.40], [Reason.VALID]).any()
    assert (reason[(times > 0.5) & (times < 0.9)] == Reason.VALID).all()


def test_an_empty_list_of_encoders_is_refused(folder):
    with pytest.raises(AbawError, match="no audio encoder is chosen") as caught:
        run(folder, "extract_audio.encoders=[]")
    assert caught.value.code == ExitCode.CONFIG


def test_one_bad_file_does_not_end_the_run(folder):
    (folder / "videos" / "long.mp4").write_bytes(b"")
    summary = run(folder)
    assert [failure.track_id for failure in summary.failed] == ["long"]
    assert store(folder).track_ids() == ["mute", "short"]


def test_left_and_right_hear_the_same(tmp_path, make_video, pair_pictures, tone):
    make_video("videos/5-25-240x120.mp4", pair_pictures, sound=tone)
    labels = tmp_path / "labels" / "Train_Set"
    labels.mkdir(parents=True)
    for side in ("left", "right"):
        (labels / f"5-25-240x120_{side}.txt").write_text("valence,arousal\n" + "0.1,0.2\n" * 12)
    (tmp_path / "data.toml").write_text(TOML.replace('"videos"\n', '"videos"\nannotations = { va = "labels" }\n'))
    align.run(load_config(tmp_path / "data.toml"))
    run(tmp_path)
    left, right = (store(tmp_path).read(f"5-25-240x120_{side}", "features") for side in ("left", "right"))
    assert left.any()
    assert np.array_equal(left, right)


def test_dry_run_does_nothing(folder):
    assert ("to do", "3 tracks") in run(folder, dry_run=True).lines
    assert not (folder / "features" / "audio-logmel").exists()


class Ramp:
    """Stands in for an encoder: token k is the number k, 10 ms apart."""

    name, dim, sample_rate, hop_s, offset_s, window_s = "ramp", 1, 1000, 0.01, 0.005, 0.01


def arrays(samples: np.ndarray, times: np.ndarray, *, start_s: float = 0.0) -> dict[str, np.ndarray]:
    tokens = np.arange(len(samples) // 10, dtype=np.float32)[:, None]
    waveform = Waveform(samples.astype(np.float32), 1000, start_s)
    return extract_audio.frame_arrays(tokens, waveform, times, encoder=Ramp(), silence_db=-80)


def test_a_late_sound_is_put_where_it_is_heard():
    # Sound from .1 s: tokens centred at .105, .115 ...; frames of 50 ms from 0.
    found = arrays(np.ones(200), np.arange(6) * 0.05, start_s=0.1)
    assert found["reason"].tolist() == [Reason.BEYOND_SOUND] * 2 + [Reason.VALID] * 4
    assert found["features"][2:, 0].tolist() == [2.0, 7.0, 12.0, 17.0]


def test_silence_is_flagged_where_nothing_at_all_is_heard():
    samples = np.ones(300)
    samples[80:220] = 0  # frames of 50 ms: 100-150 and 150-200 lie inside with half a window on both sides
    found = arrays(samples, np.arange(6) * 0.05)
    assert np.flatnonzero(found["reason"] == Reason.SILENT).tolist() == [2, 3]
    assert not found["features"][2:4].any()


def test_levels_are_decibels_of_full_scale():
    waveform = Waveform(np.full(200, 0.1, np.float32), 1000, 0.0)
    levels = extract_audio.frame_levels(waveform, np.array([0.0, 0.1]), window_s=0.01)
    assert levels == pytest.approx([-20, -20], abs=1e-3)


def test_all_faces_of_a_video_hear_its_sound(tmp_path, make_video, pair_pictures, tone):
    """The video is composed of one portrait and its mirror image."""
    make_video("videos/pair.mp4", pair_pictures, sound=tone)
    (tmp_path / "data.toml").write_text('[data]\nvideos = "videos"\n[run]\nworkers = 1\n')
    align.run(load_config(tmp_path / "data.toml", overrides=["align.all_faces=true"]))
    run(tmp_path)
    first, second = (store(tmp_path).read(f"pair_person{number}", "features") for number in (1, 2))
    assert first.any()
    assert np.array_equal(first, second)


def test_a_track_named_like_a_person_hears_nobody_elses_sound(folder):
    """`long_person2` was aligned as a recording of its own, which is gone; it is not the second face of `long`."""
    (folder / "videos" / "mute.mp4").rename(folder / "videos" / "long_person2.mp4")
    align.run(load_config(folder / "data.toml"))
    (folder / "videos" / "long_person2.mp4").unlink()
    run(folder)
    assert "long_person2" in FeatureStore.open(folder / "features" / "faces").track_ids()
    assert "long_person2" not in store(folder).track_ids()
