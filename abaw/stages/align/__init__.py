"""Stage `align`: one face crop per frame of every track, into the faces store.

Videos are decoded once, whatever the number of tracks they hold; the organisers' crops are taken as they are; images
of a collection become tracks of many rows. A row without a face is a normal outcome with its reason; only files that
cannot be read, and program errors, fail a track.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from abaw import console, executors
from abaw.config import Config
from abaw.console import Failure, Summary
from abaw.data.collection import Shard, check_keys, list_shards
from abaw.data.export_crops import export_crops, prepare_export
from abaw.data.manifest import Manifest, Track, media_folder, split_person
from abaw.errors import AbawError
from abaw.executors import Resources, TrackResult
from abaw.media.faces import describe_detector
from abaw.stages.align.known_rows import known_rows
from abaw.stages.align.plan import Plan, build_header, make_plan, prepare
from abaw.stages.align.unit import align_unit
from abaw.store import FeatureStore, StoreHeader

logger = logging.getLogger(__name__)

MAX_NAMED = 5  # tracks of one warning that are named
GPU_SHARE = 0.25  # of a unit, where a GPU is asked for: following one face leaves most of it idle

Unit = list[Track] | list[Shard]


@dataclass(frozen=True)
class Work:
    """Units to align, and the tracks that have no recording.

    ``num_shards`` of a collection of images; ``two_people`` are the recordings that hold tracks of two.
    """

    units: list[Unit]
    lost: list[str]
    num_shards: int = 0
    two_people: frozenset[Path] = frozenset()

    def names(self) -> list[str]:
        """Track names of all units."""
        return [item.track_id for unit in self.units for item in unit]


def run(
    cfg: Config,
    *,
    overwrite: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    strict: bool = False,
    dry_run: bool = False,
    export: Path | None = None,
) -> Summary:
    """Align every track of the manifest that is not in the store yet.

    ``limit`` takes the first tracks, ``shard`` "I/N" a part of the recordings; ``export`` also writes the crops there
    in the organisers' layout. Raises AbawError for a store with other settings and for inputs that are missing as a
    whole; tracks that fail are in the summary.
    """
    executors.refuse_overwrite_of_parts(overwrite=overwrite, shard=shard, limit=limit, store=cfg.faces_store)
    work = _work(cfg, limit=limit, shard=shard)
    plan = make_plan(cfg, min_rows=_min_rows(cfg, work), two_people=work.two_people)
    header = build_header(plan)
    finished = set() if overwrite else _finished(plan, header, work)
    if dry_run:
        return _dry_summary(plan, work, finished)
    todo = [left for unit in work.units if (left := [item for item in unit if item.track_id not in finished])]
    if todo:
        prepare(plan)  # before the store is there: what is missing must not tie it to these settings
    if export is not None:
        prepare_export(export)
    store = FeatureStore.create(plan.store, header, overwrite=overwrite)
    _warn_of_short(store, plan)
    started = time.monotonic()
    results = _run(todo, plan, cfg, strict=strict)  # type: ignore[arg-type]
    summary = _summary(store, results, plan=plan, work=work, seconds=time.monotonic() - started)
    return summary if export is None else _exported(summary, store, plan, work, export)


# -- what there is to do -----------------------------------------------------------------------------------------------
def _work(cfg: Config, *, limit: int | None, shard: str | None) -> Work:
    if cfg.data.kind == "images":
        shards = list_shards(media_folder(cfg.data)[0])
        return Work(executors.shard([[one] for one in shards[:limit]], shard), [], num_shards=len(shards))
    everyone = Manifest.from_config(cfg.data)
    tracks = everyone[:limit]
    units = group_by_video([track for track in tracks if track.video is not None])
    if not units:
        _refuse_no_media(cfg)
    if cfg.align.all_faces:
        units = [[_whole_video(unit[0])] for unit in units]
    lost = executors.shard([track.track_id for track in tracks if track.video is None], shard)
    # Whatever part of them is asked for now: a track's rows must not depend on that.
    two_people = frozenset(track.video for track in everyone if track.side is not None and track.video is not None)
    return Work(list(executors.shard(units, shard)), lost, two_people=two_people)


def group_by_video(tracks: Sequence[Track]) -> list[list[Track]]:
    """Units of work: the tracks that share a recording, in order of their first track."""
    units: dict[Path | None, list[Track]] = {}
    for track in tracks:
        units.setdefault(track.video, []).append(track)
    return list(units.values())


def _whole_video(track: Track) -> Track:
    """The recording under its own name: with all faces, sides are only two of the people."""
    assert track.video is not None
    return Track(track.video.stem, track.video, {})


def _refuse_no_media(cfg: Config) -> None:
    folder = cfg.data.crops if cfg.data.kind == "crops" else cfg.data.videos
    raise AbawError(
        f"no track has a recording in {folder}",
        where=f"data.{cfg.data.kind}",
        fix="point it at the folder that holds the recordings; their names must be those of the label files",
    )


def _min_rows(cfg: Config, work: Work) -> dict[str, int]:
    """Rows that files name for tracks of crops; for others the frames decide."""
    if cfg.data.kind != "crops":
        return {}
    return known_rows(cfg, [item for unit in work.units for item in unit if isinstance(item, Track)])


def _finished(plan: Plan, header: StoreHeader, work: Work) -> set[str]:
    """Names of what is done. Raises AbawError for a store of other settings or of a collection that has changed."""
    names = FeatureStore.finished(plan.store, header)
    if not names:
        return set()
    store = FeatureStore.open(plan.store, kind="faces")
    if plan.all_faces:
        names = {video for video, number in map(split_person, names) if number == 1 and _whole(store, video)}
    _require_same_images(store, work, names)
    return names


def _whole(store: FeatureStore, video: str) -> bool:
    """Whether every person of a video is there; a damaged file counts as there, and `abaw check` tells of it."""
    try:
        num_people = store.facts(f"{video}_person1").get("people", 1)
    except AbawError:
        return True
    return all(f"{video}_person{number}" in store for number in range(1, num_people + 1))


def _require_same_images(store: FeatureStore, work: Work, finished: set[str]) -> None:
    """A collection that has changed must not be continued: its rows would be other images'."""
    shards = [item for unit in work.units for item in unit if isinstance(item, Shard)]
    for item in shards:
        if item.track_id in finished:
            check_keys(store, item)
    if shards and len(finished) > work.num_shards:
        raise AbawError(
            f"the collection has shrunk: it has {work.num_shards} shards now, and {len(finished)} are in the store",
            where=f"{store.path}\n{shards[0].folder}",
            fix="bring the images back, delete the store's last files, or pass --overwrite",
        )


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


def _run(units: list[Unit], plan: Plan, cfg: Config, *, strict: bool) -> list[TrackResult]:
    total = sum(len(unit) for unit in units)
    workers = executors.num_workers(cfg.run.workers)
    reads = (media_folder(cfg.data)[0], plan.options.weights, plan.options.pack, plan.options.weights_dir)
    resources = Resources.of(cfg.run, writes=plan.store, reads=reads, device=plan.options.device, gpu_share=GPU_SHARE)
    if resources.is_ray:  # what is to be had was fetched here; a node fetches nothing
        plan = replace(plan, options=plan.options._replace(offline=True))
    work = partial(align_unit, plan=plan)
    results = executors.iter_units(units, work, workers=workers, strict=strict, resources=resources)
    return list(console.progress(results, desc="align", total=total))


# -- what is said of it ------------------------------------------------------------------------------------------------
def _dry_summary(plan: Plan, work: Work, finished: set[str]) -> Summary:
    names = work.names()
    todo = [name for name in names if name not in finished]
    lines = [("to do", f"{len(todo)} tracks"), ("done", f"{len(names) - len(todo)} tracks"), ("store", str(plan.store))]
    return Summary("align", lines, data={"todo": todo, "done": [name for name in names if name in finished]})


def _summary(store: FeatureStore, results: list[TrackResult], *, plan: Plan, work: Work, seconds: float) -> Summary:
    done = [result for result in results if result.status == "done"]
    failed = [Failure(result.track_id, result.message, bug=result.bug) for result in results if result.status != "done"]
    failed += [Failure(name, "no recording of that name") for name in work.lost]
    reasons = executors.sum_reasons(done)
    rows = sum(reasons.values())
    counts = executors.describe_reasons(reasons, valid="with a face") or "nothing new"
    damaged = {r.track_id: r.info["decode_errors"] for r in done if r.info.get("decode_errors")}
    _note(store, results, plan)
    rate = f" ({rows / seconds:.0f} rows/s)" if done and seconds > 0 else ""
    people = sum(result.info.get("tracks", 1) for result in done)
    aligned = f"{len(done)} aligned with {people} people" if plan.all_faces else f"{len(done)} aligned"
    already = len(work.names()) - len(results)
    lines = [
        ("videos" if plan.all_faces else "tracks", f"{aligned}, {already} already there, {len(failed)} failed"),
        ("rows", f"{rows} in {seconds:.1f} s{rate}: {counts}"),
        ("with", _detector_used(plan)),
        ("store", str(store.path)),
    ]
    if damaged:
        lines.append(("damaged", f"{len(damaged)} videos decode only in part: {', '.join(list(damaged)[:5])}"))
    lines.append(("next", "abaw check, then abaw pretrain or abaw extract-audio"))
    data = {"store": str(store.path), "tracks": people, "rows": rows, "reasons": reasons, "damaged": list(damaged)}
    return Summary("align", lines, failed=failed, data=data)


def _note(store: FeatureStore, results: list[TrackResult], plan: Plan) -> None:
    """Keep what `abaw check` and `abaw inspect` tell of tracks that failed or are damaged, until they are not."""
    failures = {result.track_id: result.message if result.status != "done" else None for result in results}
    damaged = {r.track_id: r.info.get("decode_errors") or None for r in results if r.status == "done"}
    try:
        for key, told in (("failures", failures), ("decode_errors", damaged)):
            known = store.notes.get(key, {})
            news = {name: value for name, value in told.items() if value is not None or name in known}
            if news:
                store.note(key, news)
        detector = _detector_used(plan)
        if results and store.notes.get("detector") != detector:
            store.note("detector", detector)
    except AbawError as error:  # a full disk, perhaps: what is done must still be told
        logger.warning("%s", error.what)


def _detector_used(plan: Plan) -> str:
    if plan.kind == "crops" and not plan.detect_on_crops:
        return "no detector"
    return describe_detector(plan.detector, plan.options.device)


def _exported(summary: Summary, store: FeatureStore, plan: Plan, work: Work, folder: Path) -> Summary:
    """Write the crops of this run's finished tracks to ``folder``, and say so; a track that cannot be is a failure."""
    mine = set(work.names())
    written = already = crops = 0
    failed = list(summary.failed)
    for name in store.track_ids():
        if (split_person(name)[0] if plan.all_faces else name) not in mine:
            continue
        try:
            counts = export_crops(store, [name], folder)
        except AbawError as error:
            failed.append(Failure(name, f"{error.what} (fix: {error.fix})"))
            continue
        written, already, crops = written + counts.written, already + counts.already, crops + counts.crops
    text = f"{crops} crops of {written} tracks to {folder}, {already} tracks already there"
    lines = [*summary.lines[:-1], ("export", text), summary.lines[-1]]
    data: dict[str, Any] = {**summary.data, "export": {"folder": str(folder), "tracks": written}}
    return replace(summary, lines=lines, failed=failed, data=data)
