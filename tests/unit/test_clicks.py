"""Sound on the frame clock: clicks at known times of half an hour are found at their frames, at any frame rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.encoders.audio import AudioEncoder, AudioOptions, build_audio_encoder, cut_piece
from abaw.media.audio import Waveform, read_waveform
from abaw.stages import align, extract_audio
from abaw.store import FeatureStore
from abaw.timeline import FrameSums, frame_edges, frames_outside
from tests.unit.encoders.speech_models import save_folder

RATE = 16000
DURATION_S = 1800
OFFSET_S = Fraction(1234, 1000)  # of the sound's start behind the picture's, in the clock "late sound"
# Multiples of 5 ms, where log-mel with that hop has its tokens; some near the ends, one on a frame of 25 fps.
CLICKS_S = [Fraction(ms, 1000) for ms in (30, 61_320, 333_335, 1_000_005, 1_400_675, 1_799_900)]
FPS = {
    "23.976": Fraction(24000, 1001),
    "25": Fraction(25),
    "29.97": Fraction(30000, 1001),
    "30": Fraction(30),
    "60": Fraction(60),
    "late sound": Fraction(30000, 1001),
}
CLOCKS = [*FPS, "variable"]
EXACT = {"logmel, 5 ms": {"hop_s": 0.005, "window_s": 0.01}}  # a click is heard by the one token on it
LOCAL = {
    "logmel": {},
    "mfcc": {},
    "vggish": {"weights": "random"},
    "vggish, native hop": {"weights": "random", "hop_s": 0.96},
}
SPEECH = ("wav2vec2", "hubert", "wavlm")


@pytest.fixture(scope="module")
def half_an_hour(tmp_path_factory) -> Waveform:
    """Silence but for the clicks, each one sample long: written losslessly into a container and read from there."""
    samples = np.zeros(DURATION_S * RATE, np.int16)
    samples[[int(click * RATE) for click in CLICKS_S]] = 30000
    path = tmp_path_factory.mktemp("clicks") / "half_an_hour.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        for start in range(0, len(samples), 60 * RATE):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 60 * RATE], format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    waveform = read_waveform(path, RATE)
    assert waveform is not None
    assert len(waveform.samples) == len(samples)
    return waveform


class Heard:
    """An encoder of the half hour: how far each of its tokens lies from its token of silence, ``[N, 1]``."""

    def __init__(self, encoder: AudioEncoder, sound: Waveform) -> None:
        self.hop_s, self.window_s, self._offset_s = encoder.hop_s, encoder.window_s, encoder.offset_s
        self._sound = sound
        self._tokens = np.zeros((encoder.num_tokens(len(sound.samples)), 1), np.float32)
        pieces = encoder.pieces(len(sound.samples))
        silence = encoder.encode(np.zeros((1, pieces[0].length), np.float32))[0]
        for piece in pieces:
            cut = cut_piece(sound.samples, piece)
            if cut.any():  # a piece depends on nothing else: one of zeros alone is silence
                kept = (encoder.encode(cut[None])[0] - silence)[piece.first : piece.first + piece.count]
                self._tokens[piece.token : piece.token + piece.count, 0] = np.linalg.norm(kept, axis=1)

    def on_frames(self, times: np.ndarray, start_s: float) -> np.ndarray:
        """float32 ``[T]``; 0 for frames outside the sound."""
        offset_s = start_s + self._offset_s
        sums = FrameSums(times, num_tokens=len(self._tokens), dim=1, offset_s=offset_s, hop_s=self.hop_s)
        sums.add(0, self._tokens)
        outside = frames_outside(times, start_s=start_s, stop_s=start_s + self._sound.stop_s)
        return np.where(outside, 0, sums.features()[:, 0])


@pytest.fixture(scope="module")
def heard(request, half_an_hour, tmp_path_factory) -> Heard:
    options = {**EXACT, **LOCAL}.get(request.param)
    if options is None:
        options = {"weights": str(save_folder(tmp_path_factory.mktemp("speech"), request.param))}
    name = request.param.partition(",")[0]
    return Heard(build_audio_encoder(name, AudioOptions(**options)), half_an_hour)


def frame_clock(name: str) -> tuple[np.ndarray, float, list[int]]:
    """Times of a video's frames, the sound's start, and the frame of each click: by fractions where there is a rate."""
    if name == "variable":
        steps = np.random.default_rng(0).choice([1 / 60, 0.02, 0.04, 0.1, 0.35], size=20_000)
        times = np.round(np.cumsum(steps) - steps[0], 6)
        times = times[times < DURATION_S + 2]
        return times, 0.0, [int(np.count_nonzero(times <= float(click))) - 1 for click in CLICKS_S]
    fps, start_s = FPS[name], OFFSET_S if name == "late sound" else Fraction(0)
    times = np.array([float(frame / fps) for frame in range(int((DURATION_S + 2) * fps))])
    return times, float(start_s), [int((start_s + click) * fps) for click in CLICKS_S]


@pytest.mark.parametrize("heard", EXACT, indirect=True)
@pytest.mark.parametrize("clock", CLOCKS)
def test_logmel_every_5_ms_hears_each_click_of_half_an_hour_in_its_frame_and_in_no_other(heard, clock):
    times, start_s, rows = frame_clock(clock)
    assert np.flatnonzero(heard.on_frames(times, start_s) > 0).tolist() == rows


@pytest.mark.parametrize("heard", LOCAL, indirect=True)
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_click_changes_its_frame_and_none_beyond_half_a_hop_and_half_a_window(heard, clock):
    """Not where the change is largest: a network with random weights need not answer most to what is in its middle."""
    times, start_s, rows = frame_clock(clock)
    changed = np.flatnonzero(heard.on_frames(times, start_s) > 1e-3)
    assert set(rows) <= set(changed.tolist())
    apart = np.min([distances(times, start_s + float(click))[changed] for click in CLICKS_S], axis=0)
    assert apart.max() <= heard.hop_s / 2 + heard.window_s / 2


@pytest.mark.parametrize("heard", SPEECH, indirect=True)
@pytest.mark.parametrize("clock", CLOCKS)
def test_speech_models_answer_most_within_half_a_hop_and_half_a_window_of_a_click(heard, clock):
    """Small models with the published convolutions; attention carries a click all over its window, but little of it."""
    times, start_s, _ = frame_clock(clock)
    values = heard.on_frames(times, start_s)
    for click in CLICKS_S:
        apart = distances(times, start_s + float(click))
        near = np.flatnonzero(apart < 2)
        assert apart[near[values[near].argmax()]] <= heard.hop_s / 2 + heard.window_s / 2


def distances(times: np.ndarray, time_s: float) -> np.ndarray:
    """Seconds from each frame to an instant, 0 for the frame that holds it."""
    edges = frame_edges(times)
    return np.maximum(edges[:-1] - time_s, time_s - edges[1:]).clip(0)


def burst(rate: int, seconds: float, times_s: list[float]) -> np.ndarray:
    """Silence with 4 ms of a 3-kHz tone around each of these times: what a lossy codec keeps in its place."""
    samples = np.zeros(round(rate * seconds), np.float32)
    count = rate // 250
    shape = 0.8 * np.sin(2 * np.pi * 3000 * np.arange(count) / rate) * np.hanning(count)
    for time_s in times_s:
        first = round(time_s * rate) - count // 2
        samples[first : first + count] = shape
    return samples


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "early.mp4", "uneven.mkv"])
def test_clicks_in_real_containers_are_found_at_their_frames(tmp_path, make_video, blank, name):
    """Through align and extract-audio: sound that starts late, a picture that does, and frames of uneven lengths."""
    fps, count = Fraction(30000, 1001), 90
    times = [float(row / fps) for row in range(count)]
    start_s = 0.4 if name.startswith("late") else 0.0
    if name.startswith("early"):
        times = [0.3 + time_s for time_s in times]
    if name.startswith("uneven"):
        times = np.cumsum(np.tile([0.02, 0.05, 0.033, 0.09], 20)).round(3).tolist()
    rows = [20, 41, 58]
    clicks = [(times[row] + times[row + 1]) / 2 for row in rows]
    sound = burst(44100, 3.0, [click - start_s for click in clicks])
    pictures = [blank] * len(times)
    make_video(f"videos/{name}", pictures, times=times, sound=sound, sound_start_s=start_s, sample_rate=44100)
    (tmp_path / "data.toml").write_text(CONFIG)
    cfg = load_config(tmp_path / "data.toml")
    align.run(cfg)
    assert not extract_audio.run(cfg).failed
    store = FeatureStore.open(tmp_path / "features" / "audio-clicks", kind="audio")
    loudness = store.read(Path(name).stem, "features").astype(np.float32).mean(axis=1)
    loudness[~store.valid(Path(name).stem)] = -99
    found = [max(range(row - 8, row + 9), key=lambda near: loudness[near]) for row in rows]
    assert found == rows
    assert sorted(np.argsort(loudness)[-3:].tolist()) == rows


CONFIG = """
[data]
videos = "videos"
[run]
workers = 1
[align]
detector = "center"
[extract_audio]
encoders = ["clicks"]
silence_db = -200
[encoders.clicks]
encoder = "logmel"
hop_s = 0.005
window_s = 0.01
"""
