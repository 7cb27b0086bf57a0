from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

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


def sine(rate: int, seconds: float = 1.0, *, level: float = 0.5) -> np.ndarray:
    """440 Hz, float32."""
    return (level * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def encode(path: Path, codec: str, samples: np.ndarray, rate: int, layout: str = "mono") -> Path:
    """Write float32 ``[channels, S]`` with a codec that keeps the channels apart."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        for part in av.AudioResampler(format="fltp").resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def pitch(samples: np.ndarray) -> float:
    """Hz of the loudest part of a second at 16 kHz."""
    return float(np.abs(np.fft.rfft(samples[:16000])).argmax())


def test_a_track_of_ten_milliseconds_is_read_whole(tmp_path):
    samples = (sine(44100, 0.01)[None] * 32767).astype(np.int16)
    waveform = read_waveform(write_pcm(tmp_path / "a.mkv", [(0, samples)], rate=44100), 16000)
    assert len(waveform.samples) == 160


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.wav", "a.flac"])
def test_eight_channels_at_96_khz_are_mixed_and_resampled(tmp_path, name):
    """Channel k holds k/8 of the tone; their mean is 7/16 of it. AAC keeps eight channels apart, where PyAV crashes."""
    samples = np.stack([sine(96000) * channel / 8 for channel in range(8)])
    if name.endswith(("wav", "flac")):
        soundfile.write(tmp_path / name, samples.T, 96000)
    else:
        encode(tmp_path / name, "aac" if name == "a.mp4" else "pcm_f32le", samples, 96000, "7.1")
    found = read_waveform(tmp_path / name, 16000).samples
    assert len(found) == pytest.approx(16000, abs=171)  # AAC: up to one block of 1024 more
    assert found[4000:12000] == pytest.approx(sine(16000)[4000:12000] * 7 / 16, abs=0.02)


def test_sound_at_8_khz_is_brought_to_16_khz(tmp_path):
    found = read_waveform(encode(tmp_path / "a.mp4", "aac", sine(8000)[None], 8000), 16000)
    assert len(found.samples) == pytest.approx(16000, abs=2048)
    assert pitch(found.samples) == 440


def test_a_stream_of_aac_that_breaks_off_gives_what_is_there_and_counts(tmp_path):
    path = encode(tmp_path / "a.aac", "aac", sine(16000, 4)[None], 16000)
    whole = read_waveform(path, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    part = read_waveform(path, 16000)
    assert 30000 < len(part.samples) < 45000
    assert np.array_equal(part.samples, whole.samples[: len(part.samples)])
    assert (whole.errors, part.errors) == (0, 1)


def test_silence_is_sound(tmp_path):
    samples = read_waveform(encode(tmp_path / "a.mp4", "aac", np.zeros((1, 16000), np.float32), 16000), 16000).samples
    assert len(samples) == pytest.approx(16000, abs=1024)
    assert not samples.any()


@pytest.mark.parametrize(
    ("subtype", "error"), [("PCM_24", 1e-6), ("PCM_32", 1e-6), ("FLOAT", 0), ("DOUBLE", 1e-7), ("ULAW", 0.02)]
)
def test_wav_files_of_every_depth_are_read(tmp_path, subtype, error):
    soundfile.write(tmp_path / "a.wav", sine(16000), 16000, subtype=subtype)
    assert read_waveform(tmp_path / "a.wav", 16000).samples == pytest.approx(sine(16000), abs=error)


def test_a_wav_file_that_cannot_be_searched_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(8000), 8000, subtype="GSM610")
    assert pitch(read_waveform(tmp_path / "a.wav", 16000).samples) == 440


def test_mp3_is_read_without_its_lead_in(tmp_path):
    path = encode(tmp_path / "a.mp3", "libmp3lame", sine(44100)[None], 44100)
    waveform = read_waveform(path, 16000)
    assert (len(waveform.samples), waveform.start_s) == (16000, 0)
    assert waveform.samples[2000:14000] == pytest.approx(sine(16000)[2000:14000], abs=0.05)


def test_an_mp3_file_that_breaks_off_gives_no_more_than_is_there(tmp_path):
    path = encode(tmp_path / "a.mp3", "libmp3lame", sine(44100, 4)[None], 44100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    samples = read_waveform(path, 16000).samples
    assert 28000 < len(samples) < 33000
    assert np.abs(samples).max() < 0.6


def test_a_flac_file_that_breaks_off_gives_what_is_there_and_counts(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise := np.random.default_rng(0).uniform(-0.5, 0.5, 64000), 16000)
    path = tmp_path / "a.flac"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    waveform = read_waveform(path, 16000)
    assert 24000 < len(waveform.samples) < 33000
    assert waveform.samples == pytest.approx(noise[: len(waveform.samples)], abs=1e-4)
    assert waveform.errors == 1


def test_samples_that_are_no_numbers_are_silence_and_counted(tmp_path):
    samples = sine(16000)
    samples[[100, 200]] = np.nan, np.inf
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    waveform = read_waveform(tmp_path / "a.wav", 16000)
    assert waveform.samples[[100, 200]].tolist() == [0, 0]
    assert np.array_equal(waveform.samples[201:], samples[201:])
    assert (waveform.errors, waveform.first_error) == (1, "samples that are no numbers")


def test_a_sound_file_without_a_sample_has_no_waveform(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    assert read_waveform(tmp_path / "a.wav", 16000) is None


def test_a_sound_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AbawError, match=r"cannot read sound file a.wav: No such file"):
        read_waveform(tmp_path / "a.wav", 16000)


READ = """
import sys
from pathlib import Path
from abaw.media.audio import read_waveform
peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
before = peak()
print(len(read_waveform(Path(sys.argv[1]), 16000).samples), peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_long_sound_is_read_in_little_more_memory_than_it_fills(tmp_path):
    """Twenty minutes: 77 MB at 16 kHz. One block of noise, written over and over."""
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 32000, 1) as file:
        block = np.random.default_rng(0).uniform(-0.5, 0.5, 32000 * 10)
        for _ in range(120):
            file.write(block)
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path / "a.flac")], capture_output=True, check=True)
    samples, peak_mb = map(int, done.stdout.split())
    assert samples == 19_200_000
    assert peak_mb < 77 + 60
