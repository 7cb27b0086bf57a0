"""Stage `export`: a store's arrays as files that any program reads, one per track, with a row per video frame.

The crops of a faces store are left out: `abaw align --export-crops` writes them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from abaw import console, executors
from abaw.console import Failure, Summary
from abaw.data.export_table import WRITERS, read_table
from abaw.errors import AbawError, ExitCode, choose
from abaw.executors import TrackResult
from abaw.publish import publish, publish_text
from abaw.store import FeatureStore

RECORD = "export.json"  # what the files of a folder were made from
SHOWN = 5


@dataclass(frozen=True)
class Exported:
    """The unit of this stage: a track."""

    track_id: str


@dataclass(frozen=True)
class Plan:
    """What a worker needs. ``faces``: the store that knows when each frame is shown, if there is one."""

    store: Path
    out: Path
    format: str
    faces: Path | None


def run(
    path: Path,
    *,
    out: Path,
    format: str = "csv",
    faces: Path | None = None,
    workers: int = 0,
    overwrite: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Write every track of the store at ``path`` into the folder ``out``; what is there of the same store is kept.

    ``faces``: the faces store whose times are written beside; default the one of the same project, if it is there.
    Raises AbawError for what is no store, a folder with an export of another store or format, and parquet without
    pyarrow; tracks that fail are in the summary.
    """
    choose(WRITERS, format, what="format", where="--format")
    if format == "parquet":
        _require_pyarrow()
    store = FeatureStore.open(path)
    clock = _clock(store, faces)
    plan = Plan(path, out, format, clock)
    executors.refuse_overwrite_of_parts(overwrite=overwrite, shard=shard, limit=limit, store=out)
    tracks = [Exported(track_id) for track_id in executors.shard(store.track_ids()[:limit], shard)]
    record = _record(store, plan)
    kept = _finished(out, record, overwrite=overwrite)
    todo = [track for track in tracks if f"{track.track_id}.{format}" not in kept]
    if dry_run:
        return Summary(
            "export", [("to do", f"{len(todo)} of {len(tracks)} tracks into {out}")], data={"to_do": len(todo)}
        )
    _begin(out, record)
    started = time.monotonic()
    work = partial(export_unit, plan=plan)
    workers = executors.num_workers(workers)
    outcomes = executors.iter_units([[track] for track in todo], work, workers=workers, strict=strict)
    results = list(console.progress(outcomes, desc=f"export {path.name}", total=len(todo)))
    return _summary(plan, results, known=len(tracks), seconds=time.monotonic() - started)


# -- the folder --------------------------------------------------------------------------------------------------------
def _clock(store: FeatureStore, faces: Path | None) -> Path | None:
    """The faces store that tells the times: the one that is named, or that of the store's project, if there is one."""
    if store.header.kind == "faces":
        return store.path
    if faces is not None:
        return FeatureStore.open(faces, kind="faces").path
    near = store.path.resolve().parent
    found = next((place for place in (near / "faces", near.parent / "features" / "faces") if _is_store(place)), None)
    return found if found and FeatureStore.open(found).header.kind == "faces" else None


def _is_store(path: Path) -> bool:
    return (path / "store.json").is_file()


def _record(store: FeatureStore, plan: Plan) -> dict[str, Any]:
    """What export.json says: files of one folder are of one store, in one format."""
    header = store.header
    return {
        "store": store.path.name,
        "kind": header.kind,
        "fingerprint": store.fingerprint,
        "format": plan.format,
        "times": FeatureStore.open(plan.faces).fingerprint if plan.faces else None,
        "settings": header.settings,
        "recipe": header.recipe,
        "trained_on": header.trained_on,
    }


def _finished(out: Path, record: Mapping[str, Any], *, overwrite: bool) -> set[str]:
    """Names of files that are there of the same export; none with ``overwrite``.

    Raises AbawError where the folder holds another export, unless ``overwrite``, or anything else.
    """
    if out.exists() and not out.is_dir():
        raise AbawError(f"{out} is a file", where="--out", fix="name a folder", code=ExitCode.USAGE)
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.exists() else set()
    if not names:
        return set()
    if RECORD not in names:
        raise AbawError(f"{out} holds other files", where="--out", fix="name a new folder", code=ExitCode.USAGE)
    if overwrite:
        return set()
    before = _read_record(out)
    words = {"fingerprint": "store", "format": "format", "times": "faces store for the times"}
    wrong = [word for key, word in words.items() if before.get(key) != record[key]]
    if wrong:
        raise AbawError(
            f"{out} holds an export with another {' and another '.join(wrong)}: {before.get('store')} as "
            f"{before.get('format')}",
            where=str(out / RECORD),
            fix="name another folder, or pass --overwrite to replace that export",
        )
    return names


def _read_record(out: Path) -> dict[str, Any]:
    """What export.json says; empty where it is garbled, so that it is like no other."""
    try:
        content = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _begin(out: Path, record: Mapping[str, Any]) -> None:
    """Write export.json; take away the tracks of another export that was there."""
    before = _read_record(out)
    if before == record:
        return
    for old in out.glob(f"*.{before['format']}") if str(before.get("format")) in WRITERS else ():
        old.unlink()
    publish_text(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


# -- the work ----------------------------------------------------------------------------------------------------------
def export_unit(unit: list[Exported], *, plan: Plan) -> Iterator[TrackResult]:
    """Write the file of each track; it appears whole or not at all."""
    store = FeatureStore.open(plan.store)
    faces = FeatureStore.open(plan.faces, kind="faces") if plan.faces else None
    for track in unit:
        yield executors.attempt(track.track_id, partial(_export, track.track_id, plan, store, faces))


def _export(track_id: str, plan: Plan, store: FeatureStore, faces: FeatureStore | None) -> TrackResult:
    table = read_table(store, track_id, faces)
    publish(plan.out / f"{track_id}.{plan.format}", partial(WRITERS[plan.format], table))
    timeless = faces is not None and "time" in table.about and bool(np.isnan(table.about["time"]).all())
    return TrackResult(track_id, info={"rows": len(table.about["frame"]), "timeless": timeless})


def _require_pyarrow() -> None:
    if find_spec("pyarrow") is None:
        raise AbawError(
            "parquet files need pyarrow, which is not installed",
            where="--format parquet",
            fix="pip install pyarrow, or choose --format csv or npz",
            code=ExitCode.MISSING,
        )


def _summary(plan: Plan, results: list[TrackResult], *, known: int, seconds: float) -> Summary:
    done = [result for result in results if result.status == "done"]
    failed = [Failure(result.track_id, result.message, bug=result.bug) for result in results if result.status != "done"]
    rows = sum(result.info["rows"] for result in done)
    timeless = [result.track_id for result in done if result.info["timeless"]]
    lines = [
        ("tracks", f"{len(done)} exported, {known - len(results)} already there, {len(failed)} failed"),
        ("rows", f"{rows} in {seconds:.1f} s"),
        ("times", f"of {plan.faces}" if plan.faces else "none: no faces store is known (--faces)"),
        ("files", f"{plan.out}/<track>.{plan.format}"),
    ]
    if timeless:
        lines.append(
            ("no time", f"{len(timeless)} tracks have other rows in that store: {', '.join(timeless[:SHOWN])}")
        )
    return Summary("export", lines, failed=failed, data={"out": str(plan.out), "tracks": len(done), "rows": rows})
