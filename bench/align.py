"""How fast `align` finds, follows and stores faces, beside plain decoding of the same clips in the same run.

The clips are composed from real recordings (bench/clips.py). What is timed is the whole stage, from the videos to the
published store, after a short clip that loads the detector.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.video.reformatter import VideoReformatter

from abaw.config_file import load_config
from abaw.stages import align
from bench import clips
from bench.record import make_record

REPEATS = 3
PAIR_FRAMES = 4500  # of each of two clips, beside two short ones: what is longer runs at the steady rate
FACELESS_FRAMES = 600
YUNET = "face_detection_yunet_2023mar.onnx"
YUNET_SIDE_PX = 180
# What a detector's record says of settings other than the defaults.
SETTING_NOTES = {"mtcnn": "", "yunet": f"; short_side_px = {YUNET_SIDE_PX}, where its default is 240"}
COMPOSED = "composed: one GRID speaker at 720x576 drifting over a photograph, 1280x720 H.264, 25 fps"


class Limits(NamedTuple):
    """Frames a second for one clip, its share of plain decoding, frames a second for two clips with two workers."""

    single: float
    share: float
    pair: float


LIMITS = {"mtcnn": Limits(150, 0.33, 180), "yunet": Limits(200, 0.45, 240)}
LIMIT_NO_FACE = 20


class Stage:
    """`abaw align` on a prepared folder; calling it aligns everything anew and gives the seconds."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "data.toml"
        self.rows = self.valid = 0

    def __call__(self) -> float:
        start = time.perf_counter()
        summary = align.run(load_config(self.config), overwrite=True)
        seconds = time.perf_counter() - start
        if summary.failed:
            raise RuntimeError(str(summary.failed))
        self.rows, self.valid = summary.data["rows"], summary.data["reasons"].get("VALID", 0)
        return seconds


def prepare(folder: Path, videos: dict[str, Path], *, detector: str, workers: int = 1) -> Stage:
    """A folder of its own for some videos (by name of their track) and the configuration of a detector."""
    (folder / "videos").mkdir(parents=True)
    for name, video in videos.items():
        (folder / "videos" / f"{name}{video.suffix}").symlink_to(video.resolve())
    lines = ["[data]", 'videos = "videos"', "[run]", f"workers = {workers}", "[align]", f'detector = "{detector}"']
    if detector == "yunet":
        lines += [f'weights = "{clips.recording("weights", YUNET)}"', f"short_side_px = {YUNET_SIDE_PX}"]
    (folder / "data.toml").write_text("\n".join(lines) + "\n")
    return Stage(folder)


def run(work: Path | None) -> list[dict[str, Any]]:
    """Records of one clip, of two clips with two workers, and of clips without a face."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        made = {
            "one": clips.talking_face(folder / "one.mp4", speaker="grid_bbaf2n"),
            "two": clips.talking_face(folder / "two.mp4", speaker="grid_lbax4n"),
            "none": clips.no_face(folder / "none.mp4", frames=FACELESS_FRAMES),
            "warm": clips.talking_face(folder / "warm.mp4", speaker="grid_bbaf2n", frames=50),
        }
        records = _single(folder, made)
        pair = {name: made[name] for name in ("one", "two")}
        long = {
            name: clips.lengthened(folder / f"{name}-long.mp4", clip, frames=PAIR_FRAMES) for name, clip in pair.items()
        }
        for detector in LIMITS:
            records += _pair(folder, pair, long, detector)
        return records


def _single(folder: Path, made: dict[str, Path]) -> list[dict[str, Any]]:
    """One process: decoding and each detector on the clip with a face, and the default detector on that without."""
    stages = {name: prepare(folder / name, {"one": made["one"]}, detector=name) for name in LIMITS}
    faceless = prepare(folder / "faceless", {"none": made["none"]}, detector="mtcnn")
    for name in LIMITS:
        prepare(folder / f"warm-{name}", {"warm": made["warm"]}, detector=name)()
    jobs: dict[str, Callable[[], float]] = {
        "plain": lambda: _decode(made["one"]),
        "lean": lambda: _decode(made["one"], lean=True),
        **stages,
        "faceless": faceless,
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(REPEATS):
        for name, job in jobs.items():
            seconds[name].append(job())
    plain, lean = ([clips.FRAMES / taken for taken in seconds[name]] for name in ("plain", "lean"))
    records = [_decoding_record(plain, lean)]
    for name, stage in stages.items():
        records += _single_records(name, stage, [stage.rows / taken for taken in seconds[name]], plain)
    rates = [FACELESS_FRAMES / taken for taken in seconds["faceless"]]
    return [*records, _faceless_record(rates, faceless)]


def _decode(path: Path, *, lean: bool = False) -> float:
    """Seconds to decode a clip to RGB by PyAV alone, on one thread.

    PyAV sets up a converter, and threads for it, for every frame; ``lean`` keeps one of one thread instead.
    """
    start = time.perf_counter()
    converter = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
        for frame in container.decode(stream):
            if lean:
                converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            else:
                frame.to_ndarray(format="rgb24")
    return time.perf_counter() - start


def _decoding_record(plain: list[float], lean: list[float]) -> dict[str, Any]:
    return make_record(
        "align.plain-decoding",
        plain,
        "frames/s",
        higher_is_better=True,
        note=f'PyAV frame.to_ndarray(format="rgb24"), one decoding thread, nothing else; {COMPOSED}',
        one_converter_frames_per_s=statistics.median(lean),
    )


def _single_records(name: str, stage: Stage, rates: list[float], plain: list[float]) -> list[dict[str, Any]]:
    found = f"{stage.valid} of {stage.rows} rows with a face"
    note = f"whole stage in one process, one clip; {COMPOSED}, {clips.FRAMES} frames; {found}{SETTING_NOTES[name]}"
    shares = [ours / decoding for ours, decoding in zip(rates, plain, strict=True)]
    limits = LIMITS[name]
    share_note = "frames/s over those of plain decoding in the same round; ours also detects, warps and stores"
    return [
        make_record(f"align.{name}", rates, "frames/s", limit=limits.single, higher_is_better=True, note=note),
        make_record(
            f"align.{name}-vs-decoding", shares, "ratio", limit=limits.share, higher_is_better=True, note=share_note
        ),
    ]


def _faceless_record(rates: list[float], stage: Stage) -> dict[str, Any]:
    note = f"mtcnn, {FACELESS_FRAMES} frames of real clips without a face at 1280x720; {stage.valid} rows got one"
    return make_record("align.mtcnn-no-face", rates, "frames/s", limit=LIMIT_NO_FACE, higher_is_better=True, note=note)


def _pair(folder: Path, pair: dict[str, Path], long: dict[str, Path], detector: str) -> list[dict[str, Any]]:
    """Two clips with two workers: the steady rate from short and long clips, and that of short ones with the start."""
    brief = prepare(folder / f"pair-{detector}", pair, detector=detector, workers=2)
    lasting = prepare(folder / f"long-pair-{detector}", long, detector=detector, workers=2)
    steady, whole = [], []
    for _ in range(REPEATS):
        short_s, long_s = brief(), lasting()
        whole.append(brief.rows / short_s)
        steady.append((lasting.rows - brief.rows) / (long_s - short_s))
    frames = f"{clips.FRAMES} frames each"
    note = f"whole stage, two workers; frames of two {PAIR_FRAMES}-frame clips beyond those of {frames}, over the time"
    note += f" beyond theirs: the start of the workers counts in neither; {COMPOSED}"
    return [
        make_record(
            f"align.{detector}-two-workers",
            steady,
            "frames/s",
            limit=LIMITS[detector].pair,
            higher_is_better=True,
            note=note + SETTING_NOTES[detector],
            with_start_frames_per_s=statistics.median(whole),
        )
    ]
