"""The film and the picture that are made of a scored video."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from abaw.media.audio import read_waveform
from abaw.media.video import read_frames
from abaw.predicting import run
from abaw.predicting.picture import binned
from abaw.store import FeatureStore
from tests.unit.conftest import write_video
from tests.unit.predicting.project import config

FACES = "finetune-va-vit_tiny_64"


def overlay(root: Path, video: Path, out: Path, **options: bool) -> Path:
    summary = run(config(root), [video], runs=[FACES], out=out, overlay=True, **options)
    assert not summary.failed, summary.failed
    return out / f"{video.stem}-overlay.mp4"


def onset_s(path: Path) -> float:
    """When the sound begins, on the container's clock."""
    wave = read_waveform(path, 16000)
    assert wave is not None
    return wave.start_s + float(np.flatnonzero(np.abs(wave.samples) > 0.1)[0]) / 16000


@pytest.fixture(scope="module")
def late():
    """A second of sound at 16 kHz that is silent at first: a tone from 0.3 s on."""
    time = np.arange(16000) / 16000
    return (0.4 * np.sin(2 * np.pi * 440 * time) * (time >= 0.3)).astype(np.float32)


def test_the_film_is_h264_that_every_player_shows_with_even_sides(trained, tmp_path, face_pictures, tone):
    odd = [picture[:119, :159] for picture in face_pictures]
    made = overlay(trained, write_video(tmp_path / "v.mkv", odd, codec="mpeg4", sound=tone), tmp_path / "out")
    with av.open(str(made)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == 0
        assert stream.height % 2 == 0
        assert stream.height > 119


def test_the_film_has_every_frame_at_its_own_time(trained, tmp_path, face_pictures):
    times = [0.5 + 0.04 * row + (0.3 if row > 5 else 0) for row in range(12)]
    made = overlay(trained, write_video(tmp_path / "v.mp4", face_pictures, times=times), tmp_path / "out")
    found = np.array([frame.time_s for frame in read_frames(made)])
    np.testing.assert_allclose(found - found[0], np.array(times) - times[0], atol=1e-3)


def test_the_box_is_drawn_around_the_face_and_nothing_else_of_the_picture_is_lost(
    trained, tmp_path, face_pictures, tone
):
    video = write_video(tmp_path / "v.mp4", [cv2.resize(one, (480, 360)) for one in face_pictures], sound=tone)
    made = overlay(trained, video, tmp_path / "out")
    store = FeatureStore.open(tmp_path / "out" / "work" / "features" / "faces")
    x0, y0, x1, y1 = store.read(store.track_ids()[0], "box")[0].round().astype(int)
    before, after = (next(iter(read_frames(path))).image.astype(int) for path in (video, made))
    change = np.abs(after[:360, :480] - before).max(axis=2)
    middle = (y0 + y1) // 2
    assert change[middle - 10 : middle + 10, [x0, x1]].min() > 40
    assert np.median(change[y0 + 20 : y1 - 20, x0 + 20 : x1 - 20]) < 15
    assert after[360:].max() > 150  # the trace and the notice below


@pytest.mark.parametrize(
    ("name", "codec"), [("kept.mp4", "aac"), ("anew.mkv", "libmp3lame"), ("plain.mov", "pcm_s16le")]
)
def test_the_sound_is_kept_and_heard_at_its_time(trained, tmp_path, face_pictures, late, name, codec):
    video = write_video(tmp_path / "aac.mp4", [face_pictures[row % 12] for row in range(25)], sound=late)
    if name != "kept.mp4":
        video = _with_codec(video, tmp_path / name, codec)
    made = overlay(trained, video, tmp_path / "out")
    with av.open(str(made)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    assert onset_s(made) == pytest.approx(onset_s(video), abs=0.01)


def _with_codec(source: Path, target: Path, codec: str) -> Path:
    """The same film with its sound encoded otherwise."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        picture = made.add_stream_from_template(given.streams.video[0])
        sound = made.add_stream(codec, rate=16000, layout="mono")
        packets = [packet for packet in given.demux(video=0) if packet.dts is not None]
        given.seek(0)
        blocks = [frame for packet in given.demux(audio=0) for frame in packet.decode()]
        for packet in packets:
            packet.stream = picture
            made.mux(packet)
        resampler = av.AudioResampler(format=sound.codec_context.format.name, layout="mono", rate=16000)
        for block in [*blocks, None]:
            for frame in resampler.resample(block):
                made.mux(sound.encode(frame))
        made.mux(sound.encode(None))
    return target


def test_a_film_without_sound_stays_without(trained, clip, tmp_path):
    with av.open(str(overlay(trained, clip("v.mp4", sound=None), tmp_path / "out"))) as container:
        assert not container.streams.audio


def test_a_hidden_face_and_two_people_are_drawn_too(trained, tmp_path, pair_pictures, tone):
    hidden = [*pair_pictures[:8], *[np.full_like(pair_pictures[0], 90)] * 4]
    made = overlay(trained, write_video(tmp_path / "v.mp4", hidden, sound=tone), tmp_path / "out", all_faces=True)
    assert len(list(read_frames(made))) == 12


# -- the picture -------------------------------------------------------------------------------------------------------
def test_the_timeline_is_a_picture_with_curves(trained, clip, tmp_path):
    run(config(trained), [clip("$a$ 1.mp4")], out=tmp_path / "out", timeline=True)
    image = cv2.imread(str(tmp_path / "out" / "$a$ 1-timeline.png"))
    assert image.shape[1] == 1200
    assert image.shape[0] > 300
    blue = (image[..., 0].astype(int) - image[..., 2]) > 100  # the curve of valence
    assert blue.sum() > 100


def test_many_rows_are_drawn_as_means_of_neighbours():
    values, valid = np.array([[1.0], [3.0], [9.0], [5.0], [7.0]]), np.array([True, True, False, False, True])
    np.testing.assert_array_equal(binned(values, valid, np.array([0, 2, 4, 5])), [[2.0], [np.nan], [7.0]])


# -- memory ------------------------------------------------------------------------------------------------------------
PEAK = """
import resource, sys
from pathlib import Path
from abaw.predicting import run
from tests.unit.predicting.project import config
root, *videos = map(Path, sys.argv[1:])
for video in videos:
    summary = run(config(root), [video], out=video.with_suffix(""), overlay=True, timeline=True)
    assert not summary.failed, summary.failed
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_longer_video_takes_hardly_more_memory(trained, tmp_path, face_pictures):
    videos = []
    for count in (30, 330):
        noise = np.random.default_rng(0).normal(0, 0.1, 640 * count).astype(np.float32)
        pictures = [face_pictures[row % 2] for row in range(count)]
        videos.append(str(write_video(tmp_path / f"{count}.mp4", pictures, sound=noise)))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(trained), *videos],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    short, long = (1024 * int(line) for line in done.stdout.split())
    assert long - short < 300 * 160 * 120 * 3  # what keeping the added pictures would take at least
