from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from abaw.errors import AbawError
from abaw.media.audio import read_waveform


def write_pcm(path, blocks, *, rate=16000, layout="mono", fmt="s16"):
    """Write PCM blocks at given start times: ``blocks`` are (seconds, int16 samples [channels, S])."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        for start_s, samples in blocks:
            packed = np.ascontiguousarray(samples.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format=fmt, layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(start_s * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def constant(value, count, channels=1):
    return np.full((channels, count), round(value * 32768), dtype=np.int16)


def test_pcm_comes_out_as_it_went_in(tmp_path):
    samples = np.arange(-800, 800, dtype=np.int16)[None]
    waveform = read_waveform(write_pcm(tmp_path / "a.mkv", [(0, samples)]), 16000)
    assert waveform.samples.dtype == np.float32
    assert np.array_equal(waveform.samples, samples[0] / np.float32(32768))


def test_mono_is_the_mean_of_the_channels(tmp_path):
    stereo = np.concatenate([constant(0.5, 400), constant(-0.25, 400)])
    waveform = read_waveform(write_pcm(tmp_path / "a.mkv", [(0, stereo)], layout="stereo"), 16000)
    assert waveform.samples == pytest.approx(np.full(400, 0.125))


def test_resampling_keeps_length_and_pitch(tmp_path):
    rate = 44100
    tone = (8000 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)).astype(np.int16)[None]
    waveform = read_waveform(write_pcm(tmp_path / "a.mkv", [(0, tone)], rate=rate), 16000)
    assert len(waveform.samples) == pytest.approx(16000, abs=2)
    assert np.abs(np.fft.rfft(waveform.samples[:16000])).argmax() == pytest.approx(1000, abs=1)


def test_the_start_of_the_sound_is_on_the_containers_clock(make_video, blank, tone):
    path = make_video("a.mkv", [blank] * 30, sound=tone, sound_start_s=0.5)
    waveform = read_waveform(path, 16000)
    assert waveform.start_s == pytest.approx(0.5, abs=0.07)  # AAC begins with up to one block of lead-in
    first = waveform.start_s + np.flatnonzero(np.abs(waveform.samples) > 0.1)[0] / 16000
    assert first == pytest.approx(0.5, abs=0.07)


def test_a_hole_in_the_sound_is_silence_of_its_length(tmp_path):
    path = write_pcm(tmp_path / "a.mkv", [(0, constant(0.5, 1600)), (0.5, constant(0.25, 1600))])
    samples = read_waveform(path, 16000).samples
    assert len(samples) == pytest.approx(9600, abs=32)
    assert samples[1000] == pytest.approx(0.5)
    assert not samples[1700:7900].any()
    assert samples[9000] == pytest.approx(0.25)


def test_a_video_without_sound_has_no_waveform(make_video, blank):
    assert read_waveform(make_video("a.mp4", [blank] * 3), 16000) is None


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_sound_files_are_read(tmp_path, name):
    samples = np.linspace(-0.5, 0.5, 800)
    soundfile.write(tmp_path / name, np.stack([samples, -samples], axis=1), 16000)
    waveform = read_waveform(tmp_path / name, 16000)
    assert waveform.start_s == 0
    assert waveform.samples == pytest.approx(np.zeros(800), abs=1e-4)


def test_sound_files_are_resampled(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    assert len(read_waveform(tmp_path / "a.wav", 16000).samples) == pytest.approx(16000, abs=2)


@pytest.mark.parametrize("name", ["a.mp4", "a.wav"])
def test_a_file_that_is_no_media_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a sound\n" * 30)
    with pytest.raises(AbawError, match=f"{name} is not a readable"):
        read_waveform(tmp_path / name, 16000)


def test_a_truncated_file_gives_the_sound_up_to_there(make_video, blank, tone):
    long = np.tile(tone, 8)
    path = make_video("a.mkv", [blank] * 100, sound=long)
    whole = read_waveform(path, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    part = read_waveform(path, 16000)
    assert 0 < len(part.samples) < len(whole.samples)
    assert np.array_equal(part.samples, whole.samples[: len(part.samples)])


def damaged(path, packets=slice(None)):
    """Overwrite these packets of the sound in an mp4 with 0xff."""
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    for pos, size in spans[packets]:
        data[pos : pos + size] = b"\xff" * size
    path.write_bytes(data)
    return path


def test_packets_that_do_not_decode_are_counted(make_video, blank, tone):
    path = make_video("a.mp4", [blank] * 12, sound=tone)
    whole = read_waveform(path, 16000)
    assert (whole.errors, whole.first_error) == (0, "")
    waveform = read_waveform(damaged(path, slice(4, 6)), 16000)
    assert waveform.errors == 2
    assert waveform.first_error
    assert waveform.stop_s == pytest.approx(whole.stop_s)  # the hole is silence


def test_sound_of_which_nothing_decodes_is_an_error_not_silence(make_video, blank, tone):
    path = damaged(make_video("a.mp4", [blank] * 12, sound=tone))
    with pytest.raises(AbawError, match="the sound of a.mp4 does not decode"):
        read_waveform(path, 16000)
