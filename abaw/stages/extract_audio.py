"""Stage `extract-audio`: one sound vector per video frame, on the clock of the faces store.

Reads the times of every track from the faces store and the sound from its video; writes one store per encoder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from abaw import console, executors, timeline
from abaw.config import Config, EncoderConfig
from abaw.console import Failure, Summary
from abaw.data.manifest import Manifest, Track, split_person
from abaw.encoders.audio import AUDIO_ENCODERS, AudioEncoder, AudioOptions, build_audio_encoder
from abaw.errors import AbawError, ExitCode, choose
from abaw.executors import TrackResult
from abaw.media.audio import Waveform, read_waveform
from abaw.media.video import video_times
from abaw.store import ArraySpec, FeatureStore, Reason, StoreHeader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Everything a worker needs; small and picklable. ``nominal`` when frame times only count frames."""

    faces: Path
    store: Path
    encoder: str
    options: AudioOptions
    silence_db: float
    nominal: bool = False


def run(
    cfg: Config,
    *,
    encoder: str | None = None,
    overwrite: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Extract with ``encoder``, or with every one of ``extract_audio.encoders``.

    Raises AbawError for a missing faces store, an unknown encoder or a store with other settings; tracks that fail,
    and those whose video is gone, are in the summary.
    """
    names = _names(cfg, encoder)
    executors.refuse_overwrite_of_parts(
        overwrite=overwrite, shard=shard, limit=limit, store=cfg.features_store("audio", names[0])
    )
    faces = FeatureStore.open(cfg.extract_audio.faces or cfg.faces_store, kind="faces")
    tracks = _tracks(cfg, faces)[:limit]
    gone = [track for track in tracks if track.video is None] if _has_videos(cfg) else []
    units = executors.shard(group_by_sound([track for track in tracks if track not in gone]), shard)
    plans = [_plan(cfg, name, faces) for name in names]
    stores = {}
    started = time.monotonic()
    results: list[TrackResult] = []
    lines: list[tuple[str, str]] = []
    for name, plan in zip(names, plans, strict=True):
        header = build_header(name, plan, faces.header)
        if dry_run:
            lines += _dry_lines(plan.store, header, units)
            continue
        store = stores[name] = FeatureStore.create(plan.store, header, overwrite=overwrite)
        todo = [left for unit in units if (left := [track for track in unit if track.track_id not in store])]
        results += _run(todo, plan, workers=executors.num_workers(cfg.run.workers), strict=strict)
    if dry_run:
        return Summary("extract-audio", lines)
    known = sum(len(unit) for unit in units) * len(names)
    missing = [track for track in gone if any(track.track_id not in store for store in stores.values())]
    lost = [track.track_id for track in missing] if shard in (None, "1/1") else []
    return _summary(stores, results, known=known, lost=lost, seconds=time.monotonic() - started)


def _names(cfg: Config, encoder: str | None) -> list[str]:
    names = [encoder] if encoder else list(cfg.extract_audio.encoders)
    if not names:
        raise AbawError(
            "no audio encoder is chosen",
            where="extract_audio.encoders",
            fix=f'set encoders = ["{next(iter(AUDIO_ENCODERS))}"], or give --encoder',
            code=ExitCode.CONFIG,
        )
    return names


def group_by_sound(tracks: Sequence[Track]) -> list[list[Track]]:
    """Units of work: the tracks that share a sound track, in order of their first track."""
    units: dict[str, list[Track]] = {}
    for track in tracks:
        units.setdefault(str(track.video or track.track_id), []).append(track)
    return list(units.values())


def build_header(name: str, plan: Plan, faces: StoreHeader) -> StoreHeader:
    """The store's header; recipe and provenance are those of the faces whose clock it uses."""
    encoder = build_audio_encoder(plan.encoder, plan.options)
    settings: dict[str, Any] = {
        **encoder.settings,
        "hop_s": encoder.hop_s,
        "offset_s": encoder.offset_s,
        "window_s": encoder.window_s,
        "silence_db": plan.silence_db,
        "pooling": "mean of the tokens whose centre lies in the frame, else the nearest",
    }
    if plan.nominal:
        settings["time"] = "nominal, on the clock of the video's header"
    arrays = {"features": ArraySpec("float16", (encoder.dim,)), "reason": ArraySpec("uint8")}
    return StoreHeader("audio", name, arrays, settings, recipe=faces.recipe, trained_on=faces.trained_on)


def _plan(cfg: Config, name: str, faces: FeatureStore) -> Plan:
    if name in cfg.encoders:
        table = cfg.encoders[name]
    else:
        choose({**AUDIO_ENCODERS, **cfg.encoders}, name, what="audio encoder", where="extract_audio.encoders")
        table = EncoderConfig(encoder=name)
    choose(AUDIO_ENCODERS, table.encoder, what="audio encoder", where=f"encoders.{name}.encoder")
    options = AudioOptions(table.sample_rate, table.hop_s, table.window_s, table.num_mels)
    store = cfg.features_store("audio", name)
    nominal = faces.header.settings.get("time") == "nominal" and cfg.data.videos is not None
    return Plan(faces.path, store, table.encoder, options, cfg.extract_audio.silence_db, nominal)


def _tracks(cfg: Config, faces: FeatureStore) -> list[Track]:
    """The manifest's tracks that the faces store holds, with the videos that hold their sound.

    Beside the organisers' crops that is `data.videos`, where it is set; ``video`` is None where there is none. Raises
    AbawError when there is no track.
    """
    tracks = _with_people(Manifest.from_config(cfg.data), faces)
    if not tracks:
        raise AbawError(
            f"the faces store {faces.path} holds none of the tracks",
            where="[extract_audio] faces",
            fix="run `abaw align` first",
        )
    if cfg.data.kind == "videos":
        return tracks
    if not _has_videos(cfg):
        logger.warning("data.videos is not set: %d tracks get rows without sound", len(tracks))
        return [replace(track, video=None) for track in tracks]
    videos = Manifest.from_config(cfg.data.model_copy(update={"kind": "videos"}))
    sources = [videos.get(track.track_id) for track in tracks]
    return [
        replace(track, video=source.video if source else None) for track, source in zip(tracks, sources, strict=True)
    ]


def _with_people(tracks: Sequence[Track], faces: FeatureStore) -> list[Track]:
    """The tracks that the store holds; of a video whose every face was kept, one for each person."""
    videos = {track.video.stem: track.video for track in tracks if track.video is not None}
    found = [track for track in tracks if track.track_id in faces]
    if not faces.header.settings.get("all_faces"):  # a name that ends like a person's is a recording's own
        return found
    people = [(name, *split_person(name)) for name in faces.track_ids()]
    known = {track.track_id for track in tracks}
    found += [Track(name, videos.get(base), {}) for name, base, number in people if number and name not in known]
    return found


def _has_videos(cfg: Config) -> bool:
    return cfg.data.kind == "videos" or cfg.data.videos is not None


def _run(units: list[list[Track]], plan: Plan, *, workers: int, strict: bool) -> list[TrackResult]:
    total = sum(len(unit) for unit in units)
    results = executors.iter_units(units, partial(extract_unit, plan=plan), workers=workers, strict=strict)
    return list(console.progress(results, desc=f"extract-audio {plan.store.name}", total=total))


def extract_unit(unit: list[Track], *, plan: Plan) -> Iterator[TrackResult]:
    """Encode the sound of one recording once and publish it for each of its tracks."""
    faces = FeatureStore.open(plan.faces, kind="faces")
    store = FeatureStore.open(plan.store, kind="audio")
    encoder = _encoder(plan.encoder, plan.options)
    shifts = faces.facts(unit[0].track_id).get("clock_shifts_s", [])
    waveform = read_waveform(unit[0].video, encoder.sample_rate, shifts_s=shifts) if unit[0].video else None
    tokens = encoder.encode(waveform.samples) if waveform else np.zeros((0, encoder.dim), dtype=np.float32)
    errors = waveform.errors if waveform else 0

    def publish(track: Track) -> TrackResult:
        times = _times(track, faces, nominal=plan.nominal)
        arrays = frame_arrays(tokens, waveform, times, encoder=encoder, silence_db=plan.silence_db)
        store.write(track.track_id, arrays, fps=faces.fps(track.track_id))
        reasons = executors.count_reasons(arrays["reason"])
        return TrackResult(track.track_id, info={"reasons": reasons, "store": plan.store, "decode_errors": errors})

    for track in unit:
        yield executors.attempt(track.track_id, partial(publish, track))
    faces.close()


def _times(track: Track, faces: FeatureStore, *, nominal: bool) -> np.ndarray:
    times = faces.read(track.track_id, "time")
    if not nominal or track.video is None:
        return times
    return video_times(track.video, times, nominal_fps=faces.fps(track.track_id))


def frame_arrays(
    tokens: np.ndarray, waveform: Waveform | None, times: np.ndarray, *, encoder: AudioEncoder, silence_db: float
) -> dict[str, np.ndarray]:
    """Arrays of a track from the tokens of its sound, [N, D] onto [T, D]; rows without sound are zeros."""
    if waveform is None:
        features = np.zeros((len(times), encoder.dim), dtype=np.float16)
        reason = np.full(len(times), Reason.NO_SOUND, dtype=np.uint8)
        return {"features": features, "reason": reason, "valid": reason == Reason.VALID}
    offset_s = waveform.start_s + encoder.offset_s
    features = timeline.tokens_to_frames(tokens, times, offset_s=offset_s, hop_s=encoder.hop_s)
    reason = np.full(len(times), Reason.VALID, dtype=np.uint8)
    reason[frame_levels(waveform, times, window_s=encoder.window_s) < silence_db] = Reason.SILENT
    reason[timeline.frames_outside(times, start_s=waveform.start_s, stop_s=waveform.stop_s)] = Reason.BEYOND_SOUND
    valid = reason == Reason.VALID
    features = np.where(valid[:, None], features, 0).astype(np.float16)
    return {"features": features, "reason": reason, "valid": valid}


def frame_levels(waveform: Waveform, times: np.ndarray, *, window_s: float) -> np.ndarray:
    """Level of every frame in dB of full scale (RMS), float64 [T]; -inf for digital silence.

    A frame's level is that of all samples its tokens see: the frame widened by half a window on both sides.
    """
    edges = timeline.frame_edges(times) - waveform.start_s
    last = len(waveform.samples)
    low = np.clip(np.round((edges[:-1] - window_s / 2) * waveform.sample_rate), 0, last).astype(np.int64)
    high = np.clip(np.round((edges[1:] + window_s / 2) * waveform.sample_rate), 0, last).astype(np.int64)
    parts = (waveform.samples[start:stop] for start, stop in zip(low.tolist(), high.tolist(), strict=True))
    power = np.array([float(np.dot(part, part)) / max(len(part), 1) for part in parts])
    with np.errstate(divide="ignore"):
        return 10 * np.log10(power)


@lru_cache(maxsize=4)
def _encoder(name: str, options: AudioOptions) -> AudioEncoder:
    return build_audio_encoder(name, options)


def _dry_lines(path: Path, header: StoreHeader, units: list[list[Track]]) -> list[tuple[str, str]]:
    names = [track.track_id for unit in units for track in unit]
    known = FeatureStore.finished(path, header)
    todo = sum(1 for name in names if name not in known)
    return [("store", str(path)), ("to do", f"{todo} tracks"), ("done", f"{len(names) - todo} tracks")]


def _summary(
    stores: dict[str, FeatureStore], results: list[TrackResult], *, known: int, lost: list[str], seconds: float
) -> Summary:
    done = [result for result in results if result.status == "done"]
    failed = [Failure(result.track_id, result.message, bug=result.bug) for result in results if result.status != "done"]
    failed += [Failure(name, "no recording of that name") for name in lost]
    reasons = executors.sum_reasons(done)
    rows = sum(reasons.values())
    counts = executors.describe_reasons(reasons, valid="with sound") or "nothing new"
    lines = [
        ("tracks", f"{len(done)} extracted, {known - len(results)} already there, {len(failed)} failed"),
        ("rows", f"{rows} in {seconds:.1f} s: {counts}"),
        *(("store", str(store.path)) for store in stores.values()),
    ]
    damaged = _note_damage(stores, done)
    if damaged:
        lines.append(("damaged", f"the sound of {len(damaged)} tracks decodes only in part: {', '.join(damaged[:5])}"))
    lines.append(("next", "abaw fuse"))
    data = {
        "stores": [str(s.path) for s in stores.values()],
        "tracks": len(done),
        "rows": rows,
        "reasons": reasons,
        "damaged": damaged,
    }
    return Summary("extract-audio", lines, failed=failed, data=data)


def _note_damage(stores: dict[str, FeatureStore], done: list[TrackResult]) -> list[str]:
    """Write the counts of decoding errors into each store's notes; the names of the tracks that have some."""
    for store in stores.values():
        errors = {
            result.track_id: result.info["decode_errors"]
            for result in done
            if result.info["decode_errors"] and result.info["store"] == store.path
        }
        if errors:
            store.note("decode_errors", {**store.notes.get("decode_errors", {}), **errors})
    return sorted({result.track_id for result in done if result.info["decode_errors"]})
