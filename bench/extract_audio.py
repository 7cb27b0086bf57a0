"""How much of a speech model's own speed `extract-audio` keeps, what an hour of sound takes, and what windows cost.

Random weights: the speed is that of trained ones, the cosines are not.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from abaw._compat import prepare_torchaudio
from abaw.config_file import load_config
from abaw.data.manifest import Track
from abaw.encoders.audio import AudioEncoder, AudioOptions, build_audio_encoder, cut_piece, encode_batch, encode_whole
from abaw.provenance import unknown_recipe
from abaw.stages.extract_audio.recordings import read_recording
from abaw.stages.extract_audio.setup import Plan, build_header, make_plans
from abaw.stages.extract_audio.work import extract_unit
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.training.device import use_threads
from bench.record import make_record

RATE, FPS = 16000, 30
RECORDINGS, SECONDS, TURNS = 4, 120, 3  # 48 windows: whole batches of 4
LEAST_SHARE = 0.9
HOUR_S, MAX_MB = 3600, 1500
ONE_PIECE_S = 60
CONTEXTS_S = (0.0, 0.5, 1.0, 2.0, 4.0)
COSINE_S = 60
SPEECH = ("bbaf2n", "brbk7n", "lbax4n", "lbbc2a", "lrwp9a", "pwij3p", "sbia1a", "swwp2s")


def run(work: Path | None) -> list[dict[str, Any]]:
    """Records of the rate beside the bare model's, of an hour's memory, and of the windows' cosines."""
    threads = use_threads(0)
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        rates = rate_record(folder / "rate", threads, recordings=RECORDINGS, seconds=SECONDS, turns=TURNS)
        memory = memory_record(folder / "hour", seconds=HOUR_S)
    return [rates, memory, *(cosine_record(encoder, seconds=COSINE_S) for encoder in ("hubert", "wavlm"))]


# -- speed -------------------------------------------------------------------------------------------------------------
def rate_record(folder: Path, threads: int, *, recordings: int, seconds: float, turns: int) -> dict[str, Any]:
    """Seconds of sound a second: the stage, the bare model on the same windows, and pieces of other lengths."""
    plan, tracks = prepare(folder, recordings=recordings, seconds=seconds)
    encoder = plan.build()
    batches = _windows(plan, encoder, tracks)
    encode_batch(encoder, batches[0][:1], 1)  # the first pass sets things up
    shares, ours, bare, one, ten = [], [], [], [], []
    for turn in range(turns):
        stage_s, bare_s = _stage_seconds(plan, tracks, turn), _bare_seconds(encoder, batches)
        shares.append(bare_s / stage_s)
        ours.append(recordings * seconds / stage_s)
        bare.append(recordings * seconds / bare_s)
        one.append(_piece_rate(encoder, length_s=ONE_PIECE_S))
        ten.append(_piece_rate(encoder, length_s=10))
    note = (
        f"extract-audio over the bare model on the same windows of 10 s + 2 x 1 s; HuBERT-base, {encoder.precision}, "
    )
    note += f"{threads} threads, batch {encoder.batch_size}, {recordings} AAC tracks of {seconds:g} s"
    return make_record(
        "extract-audio.hubert-base",
        shares,
        "ratio",
        limit=LEAST_SHARE,
        higher_is_better=True,
        note=note,
        sound_s_per_s=ours,
        bare_s_per_s=bare,
        one_piece_of_60_s_per_s=one,
        bare_10_s_windows_per_s=ten,
        to_one_piece=statistics.median(ours) / statistics.median(one),
        bare_10_s_to_one_piece=statistics.median(ten) / statistics.median(one),
    )


def _windows(plan: Plan, encoder: AudioEncoder, tracks: Sequence[Track]) -> list[list[np.ndarray]]:
    """What the stage encodes, in batches."""
    faces = FeatureStore.open(plan.faces)
    found = [read_recording([track], faces, plan, encoder) for track in tracks]
    cut = [cut_piece(one.samples, piece, one.statistics) for one in found for piece in one.pieces]
    return [cut[start : start + encoder.batch_size] for start in range(0, len(cut), encoder.batch_size)]


def _stage_seconds(plan: Plan, tracks: Sequence[Track], turn: int) -> float:
    header = build_header(plan, FeatureStore.open(plan.faces).header)
    FeatureStore.create(plan.store, header, overwrite=turn > 0)
    start = time.perf_counter()
    done = list(extract_unit(tracks, plan=plan))
    seconds = time.perf_counter() - start
    if any(result.status != "done" for result in done):
        raise RuntimeError(done[0].message)
    return seconds


def _bare_seconds(encoder: AudioEncoder, batches: Sequence[list[np.ndarray]]) -> float:
    start = time.perf_counter()
    for batch in batches:
        encode_batch(encoder, batch, len(batch))
    return time.perf_counter() - start


def _piece_rate(encoder: AudioEncoder, *, length_s: float) -> float:
    """Seconds of sound per second, of one minute in pieces of one length."""
    sounds = _sound(ONE_PIECE_S).reshape(-1, round(length_s * RATE))
    start = time.perf_counter()
    for number in range(0, len(sounds), encoder.batch_size):
        encoder.encode(sounds[number : number + encoder.batch_size])
    return ONE_PIECE_S / (time.perf_counter() - start)


# -- memory ------------------------------------------------------------------------------------------------------------
def memory_record(folder: Path, *, seconds: float) -> dict[str, Any]:
    """Peak of a process that extracts one long recording, with the check of bf16 where that is taken."""
    prepare(folder, recordings=1, seconds=seconds)
    root = Path(__file__).resolve().parent.parent
    code = f"from bench.extract_audio import extract_alone; extract_alone({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    return make_record(
        "extract-audio.peak-memory",
        [told["peak_mb"]],
        "MB",
        limit=MAX_MB,
        higher_is_better=False,
        note=f"peak resident memory of the process that extracts {seconds:g} s of sound for {FPS} rows/s; HuBERT-base, "
        f"{told['precision']}",
        seconds=told["seconds"],
    )


def extract_alone(folder: str) -> None:
    """Extract what `prepare` has made and print seconds and the peak of this process as JSON."""
    from abaw.stages import extract_audio

    cfg = load_config(Path(folder) / "data.toml")
    start = time.perf_counter()
    summary = extract_audio.run(cfg)
    seconds = time.perf_counter() - start
    if summary.failed:
        raise RuntimeError(summary.failed[0].message)
    precision = FeatureStore.open(cfg.features_store("audio", "speech")).header.settings["precision"]
    status = Path("/proc/self/status").read_text()  # unlike getrusage's peak it leaves out the parent's
    peak_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "precision": precision}))


# -- what windows cost -------------------------------------------------------------------------------------------------
def cosine_record(name: str, *, seconds: float) -> dict[str, Any]:
    """Cosine of the tokens of windows of 10 s to those of one piece, by seconds of context on each side."""
    sound, said = _speech(seconds)
    base = AudioOptions(weights="random", piece_s=seconds)
    whole = encode_whole(build_audio_encoder(name, base), sound)
    means, lows = {}, {}
    for context_s in CONTEXTS_S:
        options = AudioOptions(weights="random", context_s=context_s, batch_size=1)
        cosines = _cosines(encode_whole(build_audio_encoder(name, options), sound), whole)
        means[f"{context_s:g} s"], lows[f"{context_s:g} s"] = float(cosines.mean()), float(np.quantile(cosines, 0.01))
    return make_record(
        f"extract-audio.windows-{name}-base",
        [means["1 s"]],
        "cosine",
        higher_is_better=True,
        note=f"mean cosine of a token of 10-s windows with 1 s of context to one piece of {len(sound) / RATE:.0f} s, "
        f"random weights, fp32, last layer; {said}",
        mean_by_context=means,
        first_percentile_by_context=lows,
    )


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def _speech(seconds: float) -> tuple[np.ndarray, str]:
    """Sentences of eight GRID speakers, over and over in other orders and levels; a synthetic sound without them."""
    from abaw.media.audio import read_waveform
    from bench import clips

    files = [clips.REAL_DATA / "videos" / f"grid_{name}.mpg" for name in SPEECH]
    heard = [read_waveform(file, RATE) for file in files if file.is_file()]
    if not heard or any(one is None for one in heard):
        return _sound(seconds), "synthetic sound"
    rng, parts, length = np.random.default_rng(0), list[np.ndarray](), 0
    while length < seconds * RATE:
        for number in rng.permutation(len(heard)):
            parts.append(heard[number].samples * np.float32(rng.uniform(0.3, 1)))  # type: ignore[union-attr]
            length += len(parts[-1])
    return np.concatenate(parts)[: round(seconds * RATE)], f"{len(heard)} GRID sentences in changing order and level"


# -- what is extracted -------------------------------------------------------------------------------------------------
def prepare(folder: Path, *, recordings: int, seconds: float) -> tuple[Plan, list[Track]]:
    """Recordings with sound, a faces store with the rows of their pictures, and a configuration."""
    times = np.arange(round(seconds * FPS)) / FPS
    arrays = {"time": ArraySpec("float64")}
    faces = FeatureStore.create(
        folder / "features" / "faces", StoreHeader("faces", "faces", arrays, {}, unknown_recipe())
    )
    for number in range(recordings):
        _write_sound(folder / "videos" / f"v{number}.mp4", _sound(seconds, seed=number))
        faces.write(f"v{number}", {"valid": np.ones(len(times), bool), "time": times}, fps=FPS)
    _write_weights(folder / "hubert.pth")
    (folder / "data.toml").write_text(
        '[data]\nvideos = "videos"\n[extract_audio]\nencoders = ["speech"]\n'
        '[encoders.speech]\nencoder = "hubert"\nweights = "hubert.pth"\n'
    )
    cfg = load_config(folder / "data.toml")
    tracks = [Track(f"v{number}", folder / "videos" / f"v{number}.mp4", {}) for number in range(recordings)]
    return make_plans(cfg, ["speech"], faces)[0], tracks


def _write_weights(path: Path) -> None:
    """Random weights in a file like the published one: what is read is mapped, what is drawn is not."""
    prepare_torchaudio()
    from torchaudio.models import hubert_base

    torch.manual_seed(0)
    torch.save(hubert_base().state_dict(), path)


def _sound(seconds: float, *, seed: int = 0) -> np.ndarray:
    """A hum of changing pitch and level in noise, float32 in [-1, 1]."""
    rng, time_s = np.random.default_rng(seed), np.arange(round(seconds * RATE), dtype=np.float32) / RATE
    level = 0.15 + 0.1 * np.sin(2 * np.pi * 3 * time_s)
    tone = sum(np.sin(2 * np.pi * k * (120 * time_s + 5 * np.sin(time_s))) / k for k in (1, 2, 3, 5))
    return (level * tone + 0.02 * rng.standard_normal(len(time_s), dtype=np.float32)).astype(np.float32).clip(-1, 1)


def _write_sound(path: Path, sound: np.ndarray) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
