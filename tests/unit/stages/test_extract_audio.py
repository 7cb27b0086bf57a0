from __future__ import annotations

import logging
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from abaw import timeline
from abaw.config_file import load_config
from abaw.data.manifest import Track
from abaw.encoders.audio import AudioOptions, build_audio_encoder, encode_whole
from abaw.errors import AbawError, ExitCode
from abaw.media.audio import Waveform, read_waveform
from abaw.stages import align, extract_audio
from abaw.stages.extract_audio.recordings import frame_levels, read_recording, row_reasons
from abaw.stages.extract_audio.setup import make_plans
from abaw.stages.extract_audio.work import first_sounds
from abaw.store import FeatureStore, Reason
from tests.unit.encoders.speech_models import save_folder

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


def reasons(samples: np.ndarray, times: np.ndarray, *, start_s: float = 0.0, num_tokens: int = 9) -> list[int]:
    waveform = Waveform(samples.astype(np.float32), 1000, start_s)
    return row_reasons(waveform, times, window_s=0.01, silence_db=-80, num_tokens=num_tokens).tolist()


def test_rows_before_a_late_sound_are_beyond_it():
    assert reasons(np.ones(200), np.arange(6) * 0.05, start_s=0.1) == [Reason.BEYOND_SOUND] * 2 + [Reason.VALID] * 4


def test_silence_is_flagged_where_nothing_at_all_is_heard():
    samples = np.ones(300)
    samples[80:220] = 0  # frames of 50 ms: 100-150 and 150-200 lie inside with half a window on both sides
    assert np.flatnonzero(np.array(reasons(samples, np.arange(6) * 0.05)) == Reason.SILENT).tolist() == [2, 3]


def test_a_sound_too_short_for_a_token_has_rows_without_value():
    found = reasons(np.ones(10), np.arange(3) * 0.05, num_tokens=0)
    assert found == [Reason.NO_VALUE, Reason.BEYOND_SOUND, Reason.BEYOND_SOUND]


def test_levels_are_decibels_of_full_scale():
    waveform = Waveform(np.full(200, 0.1, np.float32), 1000, 0.0)
    levels = frame_levels(waveform, np.array([0.0, 0.1]), window_s=0.01)
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


# -- encoders with a model ---------------------------------------------------------------------------------------------
SPEECH = (
    "encoders.speech.encoder=hubert",
    "encoders.speech.weights=weights",
    "encoders.speech.precision=fp32",
    "encoders.speech.piece_s=0.1",  # windows of 0.16 s, so that the recordings are several
    "encoders.speech.context_s=0.02",
    "encoders.speech.batch_size=3",
)


@pytest.fixture
def speech(folder) -> Path:
    """The videos of `folder`, and a small speech model."""
    save_folder(folder / "weights")
    return folder


def files(folder: Path, name: str = "speech") -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (folder / "features" / f"audio-{name}").glob("*.h5")}


def test_a_speech_model_gives_every_frame_the_mean_of_its_tokens(speech):
    assert not run(speech, *SPEECH, encoder="speech").failed
    path = speech / "videos" / "long.mp4"
    waveform = read_waveform(path, RATE)
    options = AudioOptions(weights=str(speech / "weights"), piece_s=0.1, context_s=0.02, batch_size=3)
    encoder = build_audio_encoder("hubert", options)
    assert len(encoder.pieces(len(waveform.samples))) > 3
    times = FeatureStore.open(speech / "features" / "faces").read("long", "time")
    offset_s = waveform.start_s + 0.0125
    tokens = encode_whole(encoder, waveform.samples)
    expected = timeline.tokens_to_frames(tokens, times, offset_s=offset_s, hop_s=0.02)
    found = store(speech, "speech")
    assert np.array_equal(found.read("long", "features"), expected.astype(np.float16))
    assert found.read("mute", "reason").tolist() == [Reason.NO_SOUND] * 4
    assert {found.header.settings[key] for key in ("hop_s", "offset_s", "window_s")} == {0.02, 0.0125, 0.025}
    assert found.header.settings["layer"] == 3
    assert found.header.trained_on[0]["labels"] == "undeclared"


def test_an_extraction_that_goes_on_gives_the_bytes_of_one_in_a_row(speech):
    run(speech, *SPEECH, encoder="speech")
    whole = files(speech)
    for path in (speech / "features" / "audio-speech").glob("*.h5"):
        path.unlink()
    run(speech, *SPEECH, encoder="speech", limit=1)
    assert len(files(speech)) == 1
    run(speech, *SPEECH, encoder="speech")
    assert files(speech) == whole


def test_batches_cross_recordings_and_no_byte_depends_on_it(speech):
    run(speech, *SPEECH, encoder="speech")
    together = files(speech)
    run(speech, *SPEECH, "encoders.speech.batch_size=1", encoder="speech", overwrite=True)
    assert files(speech) == together
    run(speech, *SPEECH, encoder="speech", overwrite=True, shard="1/1")
    assert files(speech) == together


def test_one_bad_file_does_not_end_a_unit_of_several_recordings(speech):
    (speech / "videos" / "long.mp4").write_bytes(b"")
    summary = run(speech, *SPEECH, encoder="speech")
    assert [failure.track_id for failure in summary.failed] == ["long"]
    assert store(speech, "speech").track_ids() == ["mute", "short"]


def test_bf16_is_compared_with_fp32_and_the_cosine_is_noted_once(speech, caplog):
    bf16 = (*SPEECH, "encoders.speech.precision=bf16")
    with caplog.at_level(logging.INFO, logger="abaw"):
        run(speech, *bf16, encoder="speech", limit=2)
        run(speech, *bf16, encoder="speech")
    (cosine,) = store(speech, "speech").notes["bf16_cosine"].values()
    assert 0.999 <= cosine <= 1
    assert sum("lowest cosine" in record.getMessage() for record in caplog.records) == 1
    assert store(speech, "speech").header.settings["precision"] == "bf16"


def test_silence_is_not_what_bf16_is_compared_on(speech, make_video, face_pictures, tone):
    make_video("videos/long.mp4", face_pictures, sound=np.zeros_like(tone))
    cfg = load_config(speech / "data.toml", overrides=SPEECH)
    faces = FeatureStore.open(speech / "features" / "faces", kind="faces")
    (plan,) = make_plans(cfg, ["speech"], faces)
    groups = [[Track(name, speech / "videos" / f"{name}.mp4", {})] for name in ("long", "short")]
    assert first_sounds(groups[:1], plan) is None
    found = first_sounds(groups, plan)
    assert found is not None
    assert np.ptp(found) > 0.1


def test_features_that_bf16_changes_are_refused_and_nothing_is_written(speech):
    path = speech / "weights" / "pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    # Added to every number and taken away by the norm that follows: bf16 has eight binary digits.
    changed = {"encoder.layers.2.feed_forward.output_dense.bias": torch.full((16,), 1000.0)}
    torch.save({**weights, **changed}, path)
    with pytest.raises(AbawError, match="other features in bf16") as caught:
        run(speech, *SPEECH, "encoders.speech.precision=bf16", encoder="speech")
    assert 'precision = "fp32"' in caught.value.fix
    assert not (speech / "features" / "audio-speech").exists()


def test_auto_goes_on_in_the_precision_of_the_store(speech):
    run(speech, *SPEECH, encoder="speech", limit=1)
    run(speech, *SPEECH, "encoders.speech.precision=auto", encoder="speech")
    assert store(speech, "speech").header.settings["precision"] == "fp32"


def test_auto_says_once_which_device_it_took(speech, caplog):
    with caplog.at_level(logging.INFO, logger="abaw"):
        run(speech, *SPEECH, "run.device=auto", encoder="speech")
    assert sum(record.getMessage().startswith("device: ") for record in caplog.records) == 1


def test_weights_that_are_missing_are_named_before_anything_is_written(folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    with pytest.raises(AbawError, match=r"wavlm_base\.pth") as caught:
        run(folder, f"run.weights_dir={folder / 'weights'}", encoder="wavlm")
    assert caught.value.code == ExitCode.MISSING
    assert not (folder / "features" / "audio-wavlm").exists()


def test_a_mistake_in_a_table_is_told_with_the_name_of_that_table(speech):
    with pytest.raises(AbawError, match="no layer 9") as caught:
        run(speech, *SPEECH, "encoders.speech.layer=9", encoder="speech")
    assert caught.value.where == "encoders.speech.layer"


def test_random_weights_are_warned_of(folder, caplog):
    with caplog.at_level("WARNING"):
        run(folder, "encoders.speed.encoder=vggish", "encoders.speed.weights=random", encoder="speed", limit=1)
    assert any("random weights" in record.getMessage() for record in caplog.records)


def test_a_dry_run_of_a_speech_model_counts_the_tracks(speech):
    assert ("to do", "3 tracks") in run(speech, *SPEECH, encoder="speech", dry_run=True).lines
    assert not (speech / "features" / "audio-speech").exists()


def test_a_visual_encoder_is_refused_with_its_command(folder):
    with pytest.raises(AbawError, match="encoder of faces") as caught:
        run(folder, "encoders.points.encoder=landmarks", encoder="points")
    assert "extract-visual" in caught.value.fix


def test_a_visual_encoder_without_a_table_is_sent_there_too(folder):
    with pytest.raises(AbawError, match="encoder of faces") as caught:
        run(folder, encoder="landmarks")
    assert "extract-visual --encoder landmarks" in caught.value.fix


def test_bf16_is_refused_for_an_encoder_without_a_model(folder):
    with pytest.raises(AbawError, match="fp32 only"):
        run(folder, "encoders.mel.encoder=logmel", "encoders.mel.precision=bf16", encoder="mel")


def test_cuda_that_is_not_there_is_refused(speech):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(AbawError, match="not available"):
        run(speech, *SPEECH, "run.device=cuda", encoder="speech")


def make_store(folder: Path, make_video, picture: np.ndarray, sound: np.ndarray, **options) -> FeatureStore:
    """The features of a speech model of one video of eight equal pictures."""
    make_video("videos/one.mp4", [picture] * 8, sound=sound, **options)
    (folder / "data.toml").write_text(TOML)
    save_folder(folder / "weights")
    align.run(load_config(folder / "data.toml"))
    assert not run(folder, *SPEECH, encoder="speech").failed
    return store(folder, "speech")


def test_ten_milliseconds_of_sound_are_rows_without_value(tmp_path, make_video, blank, tone):
    """In a wav beside the picture's clock AAC's blocks would make them longer."""
    (tmp_path / "videos").mkdir()
    with av.open(str(tmp_path / "videos" / "one.mkv"), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.height, picture.width, picture.pix_fmt = blank.shape[0], blank.shape[1], "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for _ in range(4):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(blank, format="rgb24")))
        container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray((tone[None, :160] * 3e4).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    (tmp_path / "data.toml").write_text(TOML)
    save_folder(tmp_path / "weights")
    align.run(load_config(tmp_path / "data.toml"))
    assert not run(tmp_path, *SPEECH, encoder="speech").failed
    found = store(tmp_path, "speech")
    assert found.read("one", "reason").tolist() == [Reason.NO_VALUE] + [Reason.BEYOND_SOUND] * 3
    assert not found.valid("one").any()
    assert not found.read("one", "features").any()


def test_sound_at_8_khz_is_resampled_once(tmp_path, make_video, blank, tone):
    found = make_store(tmp_path, make_video, blank, tone[:4000].copy(), sample_rate=8000)
    assert found.valid("one").all()
    assert found.header.settings["sample_rate"] == RATE


def test_silence_is_rows_without_value_and_without_failure(tmp_path, make_video, blank):
    found = make_store(tmp_path, make_video, blank, np.zeros(8000, np.float32))
    assert set(found.read("one", "reason").tolist()) == {Reason.SILENT}
    assert not found.read("one", "features").any()


def test_two_people_of_a_recording_share_one_encode(tmp_path, make_video, pair_pictures, tone):
    make_video("videos/pair.mp4", pair_pictures, sound=tone)
    save_folder(tmp_path / "weights")
    (tmp_path / "data.toml").write_text('[data]\nvideos = "videos"\n[run]\nworkers = 1\n')
    align.run(load_config(tmp_path / "data.toml", overrides=["align.all_faces=true"]))
    run(tmp_path, *SPEECH, encoder="speech")
    first, second = (store(tmp_path, "speech").read(f"pair_person{number}", "features") for number in (1, 2))
    assert first.any()
    assert np.array_equal(first, second)


def test_people_with_the_same_times_share_their_sums(tmp_path, make_video, pair_pictures, tone):
    make_video("videos/pair.mp4", pair_pictures, sound=tone)
    save_folder(tmp_path / "weights")
    (tmp_path / "data.toml").write_text('[data]\nvideos = "videos"\n[run]\nworkers = 1\n')
    align.run(load_config(tmp_path / "data.toml", overrides=["align.all_faces=true"]))
    cfg = load_config(tmp_path / "data.toml", overrides=list(SPEECH))
    faces = FeatureStore.open(cfg.faces_store)
    (plan,) = make_plans(cfg, ["speech"], faces)
    group = [Track(f"pair_person{number}", tmp_path / "videos" / "pair.mp4", {}) for number in (1, 2)]
    first, second = read_recording(group, faces, plan, plan.build()).tracks
    assert first.sums is second.sums
