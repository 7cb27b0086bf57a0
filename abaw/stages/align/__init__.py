"""Stage `align`: one face crop per frame of every track, into the faces store.

Videos are decoded once, whatever the number of tracks they hold; the organisers' crops are taken as they are. A row
without a face is a normal outcome with its reason; only files that cannot be read, and program errors, fail a track.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from abaw import console, executors
from abaw.config import Config
from abaw.console import Failure, Summary
from abaw.data.annotations import LabelReader
from abaw.data.manifest import Manifest, Track, nominal_fps
from abaw.editions import EDITIONS, read_sample
from abaw.errors import AbawError, ExitCode, choose
from abaw.executors import TrackResult
from abaw.media import following, tracking
from abaw.media.crops import read_crops
from abaw.media.faces import DetectorOptions, FaceDetector, build_detector, detector_settings
from abaw.media.people import AlignSettings, align_video
from abaw.media.warp import Aligner
from abaw.provenance import make_recipe, unknown_recipe
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS

logger = logging.getLogger(__name__)

ARRAYS = {
    "jpeg": ArraySpec("uint8", (), "ragged"),
    "offsets": ArraySpec("int64", (), "T+1"),
    "time": ArraySpec("float64"),
    "reason": ArraySpec("uint8"),
    "box": ArraySpec("float32", (4,)),
    "landmarks": ArraySpec("float32", (5, 2)),
    "warp": ArraySpec("float32", (2, 3)),
    "score": ArraySpec("float32"),
}

MAX_NAMED = 5  # tracks of one warning that are named


@dataclass(frozen=True)
class Plan:
    """Everything a worker needs; small and picklable. ``min_rows`` holds the rows that files give tracks of crops."""

    kind: str
    store: Path
    detector: str
    options: DetectorOptions
    settings: AlignSettings
    min_rows: dict[str, int]


def run(
    cfg: Config,
    *,
    overwrite: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Align every track of the manifest that is not in the store yet.

    ``limit`` takes the first tracks, ``shard`` "I/N" a part of the videos. Raises AbawError for a store with other
    settings and for inputs that are missing as a whole; tracks that fail are in the summary.
    """
    _refuse_images(cfg)
    executors.refuse_overwrite_of_parts(overwrite=overwrite, shard=shard, limit=limit, store=cfg.faces_store)
    tracks = [_own_media(track, kind=cfg.data.kind) for track in Manifest.from_config(cfg.data)][:limit]
    units = executors.shard(group_by_video([track for track in tracks if track.video is not None]), shard)
    _require_media(units, cfg)
    plan = _plan(cfg, [track for unit in units for track in unit])
    header = build_header(cfg, plan)
    if dry_run:
        return _dry_summary(plan.store, header, units)
    store = FeatureStore.create(plan.store, header, overwrite=overwrite)
    todo = [left for unit in units if (left := [track for track in unit if track.track_id not in store])]
    _warn_of_short(store, plan)
    started = time.monotonic()
    results = _run(todo, plan, workers=executors.num_workers(cfg.run.workers), strict=strict)
    lost = [track.track_id for track in tracks if track.video is None] if shard in (None, "1/1") else []
    num_known = sum(len(unit) for unit in units)
    return _summary(store, results, num_known=num_known, lost=lost, seconds=time.monotonic() - started)


def group_by_video(tracks: Sequence[Track]) -> list[list[Track]]:
    """Units of work: the tracks that share a recording, in order of their first track."""
    units: dict[Path | None, list[Track]] = {}
    for track in tracks:
        units.setdefault(track.video, []).append(track)
    return list(units.values())


def build_header(cfg: Config, plan: Plan) -> StoreHeader:
    """The store's header: all settings that change its rows, and the recipe that later artefacts inherit."""
    if plan.kind == "crops":
        settings: dict[str, Any] = {
            "source": "crops",
            "landmarks": "template",
            "time": "nominal",
            "jpeg_quality": cfg.align.jpeg_quality,
        }
        return StoreHeader("faces", "faces", ARRAYS, settings, recipe=unknown_recipe())
    geometry = {
        "detector": cfg.align.detector,
        "warp": cfg.align.warp,
        "template": "arcface-112" if cfg.align.warp == "arcface" else "none",
        "margin": cfg.align.margin,
    }
    settings = {
        "source": "videos",
        **geometry,
        "size_px": cfg.align.size_px,
        "jpeg_quality": cfg.align.jpeg_quality,
        "min_score": cfg.align.min_score,
        "redetect": cfg.align.redetect,
        "detection": detector_settings(plan.detector, plan.options),
        "following": following.SETTINGS,
        "people": tracking.SETTINGS,
    }
    return StoreHeader("faces", "faces", ARRAYS, settings, recipe=make_recipe(geometry))


def _own_media(track: Track, *, kind: str) -> Track:
    """Of the organisers' crops a track has its own folder or none: never that of the video's other person."""
    if kind == "crops" and track.video is not None and track.video.name != track.track_id:
        return replace(track, video=None)
    return track


def _refuse_images(cfg: Config) -> None:
    if cfg.data.kind == "images":
        raise AbawError(
            '[data] kind = "images" cannot be aligned yet',
            where="data.kind",
            fix='use kind = "videos" or kind = "crops"',
            code=ExitCode.CONFIG,
        )


def _require_media(units: list[list[Track]], cfg: Config) -> None:
    if not units:
        folder = cfg.data.crops if cfg.data.kind == "crops" else cfg.data.videos
        raise AbawError(
            f"no track has a recording in {folder}",
            where=f"data.{cfg.data.kind}",
            fix="point it at the folder that holds the recordings; their names must be those of the label files",
        )


def _plan(cfg: Config, tracks: Sequence[Track]) -> Plan:
    align = cfg.align
    options = DetectorOptions(
        short_side_px=align.short_side_px,
        min_face_px=align.min_face_px,
        follow_score=align.follow_score,
        weights=align.weights,
        device=_device(cfg.run.device),
    )
    aligner = Aligner(align.size_px, align.margin, align.warp)
    settings = AlignSettings(aligner, align.redetect, align.min_score, align.jpeg_quality)
    min_rows = _known_rows(cfg, tracks) if cfg.data.kind == "crops" else {}
    return Plan(cfg.data.kind, cfg.faces_store, align.detector, options, settings, min_rows)


def _device(name: str) -> str:
    """Following works on one face at a time, which a GPU does not speed up: one is used only when asked for."""
    if name in ("auto", "cpu"):
        return "cpu"
    from abaw.training.device import resolve_device

    return str(resolve_device(name))


def _known_rows(cfg: Config, tracks: Sequence[Track]) -> dict[str, int]:
    """Rows that label and sample files give each track: crops alone do not say where a track ends."""
    rows = _sample_rows(cfg)
    readers = {
        task: LabelReader(cfg.data, choose(TASKS, task, what="task", where="data.annotations"))
        for task in cfg.data.annotations
        if task != "mtl"
    }
    for track in tracks:
        for task, reader in readers.items():
            if track.splits.get(task) in ("train", "val"):
                lines = reader.file(track).read_bytes().decode("utf-8-sig", "replace").splitlines()
                count = sum(1 for line in lines[1:] if line.strip())
                rows[track.track_id] = max(rows.get(track.track_id, 0), count)
    return rows


def _warn_of_short(store: FeatureStore, plan: Plan) -> None:
    """Say which finished tracks of crops have fewer rows than the label and sample files of today give them."""
    counts = {name: (store.num_rows(name), rows) for name, rows in plan.min_rows.items() if name in store}
    short = {name: (have, rows) for name, (have, rows) in counts.items() if have < rows}
    for name, (have, rows) in list(short.items())[:MAX_NAMED]:
        text = (
            "track %s has %d rows in the store, but %d by its label or sample file; to redo it: rm '%s' && abaw align"
        )
        logger.warning(text, name, have, rows, store.track_path(name))
    if len(short) > MAX_NAMED:
        logger.warning("... and %d tracks more; to redo all: abaw align --overwrite", len(short) - MAX_NAMED)


def _sample_rows(cfg: Config) -> dict[str, int]:
    rows: dict[str, int] = {}
    for table in (cfg.submit, *cfg.submit_tasks.values()):
        if table.sample is None:
            continue
        edition = choose(EDITIONS, table.edition, what="edition", where="submit.edition")
        submission = choose(edition.submissions, table.task, what="task", where="submit.task")
        sample = read_sample(table.sample, submission)
        for index, row in zip(sample.track_index.tolist(), sample.rows.tolist(), strict=True):
            rows[sample.tracks[index]] = max(rows.get(sample.tracks[index], 0), row + 1)
    return rows


def _run(units: list[list[Track]], plan: Plan, *, workers: int, strict: bool) -> list[TrackResult]:
    total = sum(len(unit) for unit in units)
    results = executors.iter_units(units, partial(align_unit, plan=plan), workers=workers, strict=strict)
    return list(console.progress(results, desc="align", total=total))


def align_unit(unit: list[Track], *, plan: Plan) -> Iterator[TrackResult]:
    """Align the tracks of one recording and publish them."""
    store = FeatureStore.open(plan.store, kind="faces")
    if plan.kind == "crops":
        for track in unit:
            fps = nominal_fps(track.track_id)
            num_rows = plan.min_rows.get(track.track_id, 0)
            arrays = read_crops(_media(track), fps=fps, min_rows=num_rows, jpeg_quality=plan.settings.jpeg_quality)
            store.write(track.track_id, arrays, fps=fps)
            yield TrackResult(track.track_id, info={"reasons": executors.count_reasons(arrays["reason"])})
        return
    with _one_thread():
        detector = _detector(plan.detector, plan.options)
        sides = [track.side for track in unit]
        found = align_video(_media(unit[0]), sides, detector, plan.settings, scratch_dir=plan.store)
    for track, arrays in zip(unit, found.tracks, strict=True):
        store.write(track.track_id, arrays, fps=found.fps)
        info = {"reasons": executors.count_reasons(arrays["reason"]), "decode_errors": found.decode_errors}
        yield TrackResult(track.track_id, info=info)


def _media(track: Track) -> Path:
    assert track.video is not None
    return track.video


@lru_cache(maxsize=1)
def _detector(name: str, options: DetectorOptions) -> FaceDetector:
    """One detector per process: loading the weights costs more than a short video."""
    return build_detector(name, options)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch and OpenCV on one thread each: beside the decoding thread, more of them only wait for each other."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _dry_summary(path: Path, header: StoreHeader, units: list[list[Track]]) -> Summary:
    names = [track.track_id for unit in units for track in unit]
    known = FeatureStore.finished(path, header)
    todo = [name for name in names if name not in known]
    lines = [("to do", f"{len(todo)} tracks"), ("done", f"{len(names) - len(todo)} tracks"), ("store", str(path))]
    return Summary("align", lines, data={"todo": todo, "done": [name for name in names if name in known]})


def _summary(
    store: FeatureStore, results: list[TrackResult], *, num_known: int, lost: list[str], seconds: float
) -> Summary:
    done = [result for result in results if result.status == "done"]
    failed = [Failure(result.track_id, result.message, bug=result.bug) for result in results if result.status != "done"]
    failed += [Failure(name, "no recording of that name") for name in lost]
    reasons = executors.sum_reasons(done)
    rows = sum(reasons.values())
    counts = executors.describe_reasons(reasons, valid="with a face") or "nothing new"
    damaged = {r.track_id: r.info["decode_errors"] for r in done if r.info.get("decode_errors")}
    if damaged:
        store.note("decode_errors", {**store.notes.get("decode_errors", {}), **damaged})
    rate = f" ({rows / seconds:.0f} rows/s)" if done and seconds > 0 else ""
    lines = [
        ("tracks", f"{len(done)} aligned, {num_known - len(results)} already there, {len(failed)} failed"),
        ("rows", f"{rows} in {seconds:.1f} s{rate}: {counts}"),
        ("store", str(store.path)),
    ]
    if damaged:
        lines.append(("damaged", f"{len(damaged)} videos decode only in part: {', '.join(list(damaged)[:5])}"))
    lines.append(("next", "abaw pretrain, or abaw extract-audio"))
    data = {"store": str(store.path), "tracks": len(done), "rows": rows, "reasons": reasons, "damaged": list(damaged)}
    return Summary("align", lines, failed=failed, data=data)
