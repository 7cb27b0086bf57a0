"""Stage `import`: features that other programs made -> a store beside ours, row for row on the clock of the faces.

The files are read by `data/foreign_features`; what is here is which track they are for, and what is said about it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from abaw import console, executors
from abaw.config import Config
from abaw.console import Failure, Summary
from abaw.data import foreign_features as foreign
from abaw.data.foreign_features.rows import Clock, to_rows
from abaw.errors import AbawError, ExitCode, choose
from abaw.executors import Resources, TrackResult
from abaw.provenance import undeclared_record, unknown_recipe
from abaw.store import ArraySpec, FeatureStore, StoreHeader, check_track_id

logger = logging.getLogger(__name__)

KINDS = {"visual": "visual", "audio": "audio"}
IMPORTED = "imported"  # the encoder, in the settings of a store of this stage
PLACED = ("openface", "py-feat")  # formats that say where a face is: one file serves all people of a recording
SHOWN = 5


@dataclass(frozen=True)
class Piece:
    """A track and where its features lie. ``of_recording``: among those of everyone in the recording."""

    track_id: str
    item: foreign.Item
    of_recording: bool = False


@dataclass(frozen=True)
class Plan:
    """What a worker needs; small and picklable."""

    faces: Path
    store: Path
    kind: str
    layout: foreign.Layout
    tolerance: int


@dataclass(frozen=True)
class Found:
    """The tracks of a source; ``unknown``: names that fit none, with the closest; ``missing``: tracks that it lacks."""

    pieces: list[Piece]
    unknown: dict[str, str | None]
    missing: list[str]


def run(
    cfg: Config,
    source: Path,
    *,
    name: str,
    kind: str = "visual",
    format: str = "auto",
    columns: Sequence[str] = (),
    trained_on: Sequence[str] = (),
    overwrite: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Import the features in ``source`` as features/<kind>-<name>; tracks that fail are in the summary.

    ``columns``: only those of these names, ``*`` standing for anything. ``trained_on``: data sets whose labels the
    encoder has seen (["none"] = no labels). Raises AbawError for a missing faces store, a source that cannot be read or
    names no track, and a store with other settings.
    """
    choose(KINDS, kind, what="kind", where="--kind")
    check_track_id(name, where="--name")
    path = cfg.features_store(kind, name)
    executors.refuse_overwrite_of_parts(overwrite=overwrite, shard=shard, limit=limit, store=path)
    _require_imported(path)
    table = cfg.extract_visual if kind == "visual" else cfg.extract_audio
    faces = FeatureStore.open(table.faces or cfg.faces_store, kind="faces")
    opened, found = find(source, faces, kind=kind, format=format)
    layout = foreign.layout(opened, [piece.item for piece in found.pieces], columns=columns)
    plan = Plan(faces.path, path, kind, layout, cfg.data.max_row_difference)
    header = build_header(name, plan, opened, faces, trained_on=trained_on)
    pieces = executors.shard(found.pieces[:limit], shard)
    lines = _lines(opened, layout, found)
    if dry_run:
        todo = len({p.track_id for p in pieces} - (set() if overwrite else FeatureStore.finished(path, header)))
        return Summary("import", [*lines, ("to do", f"{todo} tracks into {path}")], data={"to_do": todo})
    store = FeatureStore.create(path, header, overwrite=overwrite)
    started = time.monotonic()
    todo_pieces = [piece for piece in pieces if piece.track_id not in store]
    results = _run(todo_pieces, plan, cfg, reads=(faces.path, source), strict=strict)
    return _summary(store, results, lines, found, known=len(pieces), seconds=time.monotonic() - started)


def _run(pieces: list[Piece], plan: Plan, cfg: Config, *, reads: Sequence[Path], strict: bool) -> list[TrackResult]:
    workers, units = executors.num_workers(cfg.run.workers), [[piece] for piece in pieces]
    resources = Resources.of(cfg.run, writes=plan.store, reads=reads)
    work = partial(import_unit, plan=plan)
    results = executors.iter_units(units, work, workers=workers, strict=strict, resources=resources)
    return list(console.progress(results, desc=f"import {plan.store.name}", total=len(pieces)))


# -- which features are whose ------------------------------------------------------------------------------------------
def find(source: Path, faces: FeatureStore, *, kind: str, format: str) -> tuple[foreign.Source, Found]:
    """The tracks of a source. Raises AbawError for two files of one track, and where no name fits any track."""
    track_ids = faces.track_ids()
    names = foreign.TrackNames(track_ids, people=bool(faces.header.settings.get("all_faces")))
    opened = foreign.open_source(source, format=format, tracks=names)
    if kind == "audio" and opened.format in PLACED:
        raise AbawError(
            f"{opened.format} writes features of faces, not of sound",
            where="--kind audio",
            fix="import them with --kind visual",
            code=ExitCode.USAGE,
        )
    pieces: dict[str, Piece] = {}
    of_recordings: dict[str, Piece] = {}
    unknown: list[str] = []
    for item in opened.items:
        exact = names.exact(item.name)
        people = names.people_of(item.name) if kind == "audio" or opened.format in PLACED else []
        if exact is not None:
            _add(pieces, Piece(exact, item))
        elif people:
            for track_id in people:
                _add(of_recordings, Piece(track_id, item, of_recording=kind == "visual"))
        else:
            unknown.append(item.name)
    pieces = of_recordings | pieces  # a file of a track's own is preferred
    if not pieces:
        raise _nothing_fits(source, unknown, names, faces)
    missing = [track_id for track_id in track_ids if track_id not in pieces]
    nearest = {name: names.nearest(name) for name in sorted(unknown)}
    return opened, Found([pieces[track_id] for track_id in sorted(pieces)], nearest, missing)


def _add(pieces: dict[str, Piece], piece: Piece) -> None:
    other = pieces.setdefault(piece.track_id, piece)
    if other is not piece:
        raise AbawError(
            f"two features would both be track {piece.track_id}",
            where=f"{other.item.where}\n{piece.item.where}",
            fix="remove or rename one of them, or import a folder that holds one",
        )


def _nothing_fits(source: Path, unknown: list[str], names: foreign.TrackNames, faces: FeatureStore) -> AbawError:
    name = min(unknown)
    near = names.nearest(name)
    hint = f"; the closest to {name} is {near}" if near else ""
    return AbawError(
        f"none of the {len(unknown)} names in {source} is a track of {faces.path}{hint}",
        where=f"{source}: {', '.join(sorted(unknown)[:SHOWN])}\n{faces.path}: {', '.join(faces.track_ids()[:SHOWN])}",
        fix="name each file as its track (<track>.npy), each folder of numbered files too; a file per frame lies in "
        "<track>/00001.npy",
    )


def build_header(
    name: str, plan: Plan, source: foreign.Source, faces: FeatureStore, *, trained_on: Sequence[str]
) -> StoreHeader:
    """The store's header. Its fingerprint depends on the content of all files of the source, wherever they lie."""
    layout = plan.layout
    hashes = console.progress(foreign.sha256s(source.items), desc="read sources", unit="file")
    digest = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    settings: dict[str, Any] = {"encoder": IMPORTED, "format": layout.format, "sources_sha256": digest}
    if layout.columns:
        settings["columns"] = list(layout.columns)
    if layout.first is not None:
        settings["first_frame"] = layout.first
    if layout.format in PLACED:  # of several faces in a frame, the one at the place of the track's own
        settings["faces"] = faces.fingerprint
    arrays = {"features": ArraySpec("float16", (layout.dim,)), "reason": ArraySpec("uint8")}
    recipe = unknown_recipe() if plan.kind == "visual" else faces.header.recipe  # sound has no alignment of its own
    return StoreHeader(plan.kind, name, arrays, settings, recipe, [undeclared_record(digest, trained_on)])


def _require_imported(path: Path) -> None:
    """Raise AbawError where a store of that name was extracted: --overwrite must not take it away."""
    if not (path / "store.json").exists():
        return
    if FeatureStore.open(path).header.settings.get("encoder") != IMPORTED:
        raise AbawError(
            f"{path.name} is there already, and was not imported",
            where=str(path),
            fix="choose another --name",
            code=ExitCode.CONFIG,
        )


# -- the work ----------------------------------------------------------------------------------------------------------
def import_unit(unit: list[Piece], *, plan: Plan) -> Iterator[TrackResult]:
    """Read the features of each track and publish them."""
    faces = FeatureStore.open(plan.faces, kind="faces")
    store = FeatureStore.open(plan.store, kind=plan.kind)
    for piece in unit:
        yield executors.attempt(piece.track_id, partial(_import, piece, plan, faces, store))
    faces.close()


def _import(piece: Piece, plan: Plan, faces: FeatureStore, store: FeatureStore) -> TrackResult:
    track_id, item = piece.track_id, piece.item
    own = faces.valid(track_id)
    placed = plan.layout.format in PLACED and faces.header.settings.get("source", "videos") == "videos"
    clock = Clock(len(own), own, faces.read(track_id, "box") if placed else None)
    block = foreign.read(item, plan.layout)
    rows = to_rows(block, clock, item, plan.layout, tolerance=plan.tolerance, of_recording=piece.of_recording)
    valid = rows.reason == 0
    facts: dict[str, Any] = {"source": item.path.name}
    if rows.difference:
        facts["row_difference"] = rows.difference
    store.write(
        track_id,
        {"features": rows.features, "reason": rows.reason, "valid": valid},
        fps=faces.fps(track_id),
        facts=facts,
    )
    info = {
        "reasons": executors.count_reasons(rows.reason),
        "difference": rows.difference,
        "partial": rows.partial,
        "lacking": int((own & ~valid).sum()),
    }
    return TrackResult(track_id, info=info)


# -- what the user reads -----------------------------------------------------------------------------------------------
def _lines(source: foreign.Source, layout: foreign.Layout, found: Found) -> list[tuple[str, str]]:
    shape = f"{layout.dim} columns" + (f" ({_some(layout.columns)})" if layout.columns else "")
    lines = [("source", f"{source.path}: {layout.format}, {len(found.pieces)} tracks, {shape}")]
    if layout.first is not None:
        lines.append(("frames", f"numbered from {layout.first}: {layout.first} is row 0"))
    if layout.left_out:
        lines.append(("left out", f"columns that are no features: {_some(layout.left_out)}"))
    if found.unknown:
        told = [f"{name} (closest: {near})" if near else name for name, near in found.unknown.items()]
        lines.append(("unknown", f"{len(told)} names that are no track: {_some(told)}"))
    if found.missing:
        lines.append(("missing", f"{len(found.missing)} tracks have no features here: {_some(found.missing)}"))
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _summary(
    store: FeatureStore,
    results: list[TrackResult],
    lines: list[tuple[str, str]],
    found: Found,
    *,
    known: int,
    seconds: float,
) -> Summary:
    done = [result for result in results if result.status == "done"]
    failed = [Failure(result.track_id, result.message, bug=result.bug) for result in results if result.status != "done"]
    reasons = executors.sum_reasons(done)
    counts = executors.describe_reasons(reasons, valid="with features") or "nothing new"
    differences = {result.track_id: result.info["difference"] for result in done if result.info["difference"]}
    sums = {name: sum(result.info[name] for result in done) for name in ("partial", "lacking")}
    lines = [
        *lines,
        ("tracks", f"{len(done)} imported, {known - len(results)} already there, {len(failed)} failed"),
        ("rows", f"{sum(reasons.values())} in {seconds:.1f} s: {counts}"),
    ]
    if differences:
        told = [f"{track_id} {number:+d}" for track_id, number in differences.items()]
        lines.append(("settled", f"rows more or fewer than the video, cut or left invalid: {_some(told)}"))
    if sums["partial"]:
        lines.append(("in part", f"{sums['partial']} rows are invalid because some of their columns are no numbers"))
    if sums["lacking"] and store.header.kind == "visual":
        lines.append(("uncovered", f"{sums['lacking']} rows show a face in the faces store and have no features here"))
    lines.append(("store", str(store.path)))
    if len(store):
        lines.append(("next", f'add "features/{store.path.name}" to fuse.{store.header.kind}'))
    data = {
        "store": str(store.path),
        "tracks": len(done),
        "rows": sum(reasons.values()),
        "reasons": reasons,
        "unknown": sorted(found.unknown),
        "missing": found.missing,
        "differences": differences,
        **sums,
    }
    return Summary("import", lines, failed=failed, data=data)
