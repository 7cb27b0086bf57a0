"""Stage `extract-audio`: one sound vector per video frame, on the clock of the faces store.

Reads the times of every track from the faces store and the sound from its video; writes one store per encoder.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from abaw import console, executors
from abaw.config import Config
from abaw.console import Failure, Summary
from abaw.data.manifest import Track
from abaw.encoders.audio import RANDOM
from abaw.executors import Resources, TrackResult
from abaw.extraction import check_bf16
from abaw.stages.extract_audio.setup import Plan, build_header, make_plans, names_of
from abaw.stages.extract_audio.tracks import group_by_sound, has_videos, tracks_of
from abaw.stages.extract_audio.work import extract_unit, first_sounds
from abaw.store import FeatureStore, StoreHeader
from abaw.training.device import use_threads

logger = logging.getLogger(__name__)

UNIT_RECORDINGS = 64  # batches end with a unit
SPREAD_RECORDINGS = 8  # of a unit on a cluster, where there are many nodes to have some

Groups = Sequence[list[Track]]


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

    Raises AbawError for a missing faces store or weights file, an unknown encoder, a device that is not there, a store
    with other settings, or features that bf16 changes; tracks that fail, and those whose video is gone, are in the
    summary.
    """
    names = names_of(cfg, encoder)
    first = cfg.features_store("audio", names[0])
    executors.refuse_overwrite_of_parts(overwrite=overwrite, shard=shard, limit=limit, store=first)
    faces = FeatureStore.open(cfg.extract_audio.faces or cfg.faces_store, kind="faces")
    tracks = tracks_of(cfg, faces)[:limit]
    gone = [track for track in tracks if track.video is None] if has_videos(cfg) else []
    groups = executors.shard(group_by_sound([track for track in tracks if track not in gone]), shard)
    plans = make_plans(cfg, names, faces, overwrite=overwrite)
    headers = [build_header(plan, faces.header) for plan in plans]  # all of them before the first is begun
    if dry_run:
        pairs = zip(plans, headers, strict=True)
        lines = [_dry_lines(plan, header, groups, overwrite=overwrite) for plan, header in pairs]
        return Summary("extract-audio", [line for part in lines for line in part])
    started, results, stores = time.monotonic(), list[TrackResult](), list[FeatureStore]()
    for plan, header in zip(plans, headers, strict=True):
        store, found = _extract(cfg, plan, header, groups, overwrite=overwrite, strict=strict)
        stores.append(store)
        results += found
    known = sum(len(group) for group in groups) * len(names)
    missing = [track for track in gone if any(track.track_id not in store for store in stores)]
    lost = [track.track_id for track in missing] if shard in (None, "1/1") else []
    return _summary(stores, results, known=known, lost=lost, seconds=time.monotonic() - started)


def _extract(
    cfg: Config, plan: Plan, header: StoreHeader, groups: Groups, *, overwrite: bool, strict: bool
) -> tuple[FeatureStore, list[TrackResult]]:
    """Do what is missing in one store."""
    encoder = plan.build()
    todo = _todo(plan, header, groups, overwrite=overwrite)
    resources = resources_of(cfg, plan)
    if encoder.parallel:
        units, workers = todo, executors.num_workers(cfg.run.workers)
    else:
        use_threads(cfg.run.threads)
        count = SPREAD_RECORDINGS if resources.is_ray else UNIT_RECORDINGS
        parts = [todo[start : start + count] for start in range(0, len(todo), count)]
        units, workers = [[track for group in part for track in group] for part in parts], 1
    place = f"{platform.node()}, {plan.options.device}"
    cosine = _checked_cosine(plan, todo, place, overwrite=overwrite)
    store = FeatureStore.create(plan.store, header, overwrite=overwrite)
    if encoder.notes and store.notes.get("encoder") != list(encoder.notes):
        store.note("encoder", list(encoder.notes))
    if cosine is not None:
        store.note("bf16_cosine", {place: cosine})
    for note in encoder.notes:
        level = logging.WARNING if plan.options.weights == RANDOM else logging.INFO
        logger.log(level, "extract-audio %s: %s", plan.name, note)
    total = sum(len(group) for group in todo)
    if not encoder.parallel:
        on = plan.options.device
        logger.info("extract-audio %s: %d tracks on %s in %s", plan.name, total, on, encoder.precision)
    work = partial(extract_unit, plan=plan)
    outcomes = executors.iter_units(units, work, workers=workers, strict=strict, resources=resources)
    return store, list(console.progress(outcomes, desc=f"extract-audio {plan.store.name}", total=total))


def resources_of(cfg: Config, plan: Plan) -> Resources:
    """What one unit takes on a cluster, and the folders it needs there."""
    weights = plan.options.weights
    named = [cfg.weights_file(weights)] if weights and weights != RANDOM else []
    reads = [plan.faces, cfg.data.videos, cfg.run.weights_dir, *(path for path in named if path.exists())]
    cpus = 1 if plan.build().parallel else max(1, cfg.run.threads)
    return Resources.of(cfg.run, writes=plan.store, reads=reads, device=plan.options.device, cpus=cpus)


def _todo(plan: Plan, header: StoreHeader, groups: Groups, *, overwrite: bool) -> list[list[Track]]:
    known = set() if overwrite else FeatureStore.finished(plan.store, header)
    return [left for group in groups if (left := [track for track in group if track.track_id not in known])]


def _checked_cosine(plan: Plan, groups: Groups, place: str, *, overwrite: bool) -> float | None:
    """Lowest cosine of the first batch's tokens in bf16 to those in fp32, where it is not known yet of this place.

    Raises AbawError when it is too low; nothing is written then.
    """
    encoder = plan.build()
    if encoder.precision != "bf16" or not groups:
        return None
    is_continued = (plan.store / "store.json").exists() and not overwrite
    if is_continued and place in FeatureStore.open(plan.store).notes.get("bf16_cosine", {}):
        return None
    sounds = first_sounds(groups, plan)
    if sounds is None:
        return None
    exact = encoder.exact()
    parts = np.concatenate([exact.encode(sound[None]) for sound in sounds])  # one by one: it takes less memory
    flat = (-1, encoder.dim)
    cosine = check_bf16(encoder.encode(sounds).reshape(flat), parts.reshape(flat), encoder=plan.name)
    logger.info("extract-audio %s: lowest cosine of the first batch in bf16 to fp32 is %.6f", plan.name, cosine)
    return round(cosine, 6)


# -- report ------------------------------------------------------------------------------------------------------------
def _dry_lines(plan: Plan, header: StoreHeader, groups: Groups, *, overwrite: bool) -> list[tuple[str, str]]:
    todo = sum(len(group) for group in _todo(plan, header, groups, overwrite=overwrite))
    done = sum(len(group) for group in groups) - todo
    return [("store", str(plan.store)), ("to do", f"{todo} tracks"), ("done", f"{done} tracks")]


def _summary(
    stores: list[FeatureStore], results: list[TrackResult], *, known: int, lost: list[str], seconds: float
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
        *(("store", str(store.path)) for store in stores),
    ]
    damaged = _note_damage(stores, done)
    if damaged:
        lines.append(("damaged", f"the sound of {len(damaged)} tracks decodes only in part: {', '.join(damaged[:5])}"))
    lines.append(("next", "abaw fuse"))
    data: dict[str, Any] = {
        "stores": [str(s.path) for s in stores],
        "tracks": len(done),
        "rows": rows,
        "reasons": reasons,
        "damaged": damaged,
    }
    return Summary("extract-audio", lines, failed=failed, data=data)


def _note_damage(stores: list[FeatureStore], done: list[TrackResult]) -> list[str]:
    """Write the counts of decoding errors into each store's notes; the names of the tracks that have some."""
    for store in stores:
        errors = {
            result.track_id: result.info["decode_errors"]
            for result in done
            if result.info["decode_errors"] and result.info["store"] == store.path
        }
        if errors:
            store.note("decode_errors", errors)
    return sorted({result.track_id for result in done if result.info["decode_errors"]})
