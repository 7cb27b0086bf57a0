"""Stage `extract-visual`: one feature vector per aligned face.

Reads the faces store and a checkpoint; writes one store per encoder, or for each fold of an encoder that was
cross-validated. Batches cross tracks and always have one shape, so that a row depends on its own face alone.
"""

from __future__ import annotations

import logging
import platform
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from abaw import console, executors
from abaw.config import Config
from abaw.console import Failure, Summary
from abaw.errors import AbawError
from abaw.executors import TrackResult
from abaw.extraction import check_bf16
from abaw.stages.extract_visual import on_nodes
from abaw.stages.extract_visual.folds import targets
from abaw.stages.extract_visual.setup import Plan, Target, names_of, plan
from abaw.stages.extract_visual.work import Item, encode_exactly, extract_unit, first_faces
from abaw.store import FeatureStore
from abaw.training.device import keep_freed_memory, resolve_device, use_threads

logger = logging.getLogger(__name__)

UNIT_TRACKS = 256  # batches end with a unit


def run(
    cfg: Config,
    *,
    encoder: str | None = None,
    folds: int | None = None,
    fold: int | None = None,
    overwrite: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Extract with ``encoder``, or with every one of ``extract_visual.encoders``.

    ``folds``: a store for each fold (or for ``fold`` alone) by the weights of that fold: visual-<name>-fold-<k>.
    Raises AbawError for a missing faces store or weights file, an unknown encoder, a device that is not there, a store
    with other settings, weights trained on faces aligned another way, or features that bf16 changes; tracks that fail
    are in the summary.
    """
    wanted = targets(cfg, names_of(cfg, encoder), folds=folds, fold=fold)
    first = cfg.features_store("visual", wanted[0].store)
    executors.refuse_overwrite_of_parts(overwrite=overwrite, shard=shard, limit=limit, store=first)
    faces = FeatureStore.open(cfg.extract_visual.faces or cfg.faces_store, kind="faces")
    items = executors.shard([Item(track_id) for track_id in faces.track_ids()][:limit], shard)
    if not items:
        raise AbawError(f"faces store {faces.path} holds no track", where=str(faces.path), fix="abaw align")
    device = resolve_device(cfg.run.device)
    use_threads(cfg.run.threads)
    plans: Iterable[Plan] = (plan(cfg, target, faces, device, overwrite=overwrite) for target in wanted)
    if folds is None:  # what is wrong with any encoder is said at once; of folds, one is in memory at a time
        plans = list(plans)
    if dry_run:
        return Summary("extract-visual", _dry_lines(plans, items, overwrite=overwrite))
    started, results = time.monotonic(), list[TrackResult]()
    for target, one in zip(wanted, plans, strict=True):
        results += _extract(cfg, target, one, faces, items, device=str(device), overwrite=overwrite, strict=strict)
    paths = [cfg.features_store("visual", target.store) for target in wanted]
    following = "abaw fuse" if folds is None else f"abaw fuse --folds {folds}"
    known, seconds = len(items) * len(wanted), time.monotonic() - started
    return _summary(paths, results, known=known, seconds=seconds, following=following)


def _extract(
    cfg: Config,
    target: Target,
    one: Plan,
    faces: FeatureStore,
    items: Sequence[Item],
    *,
    device: str,
    overwrite: bool,
    strict: bool,
) -> list[TrackResult]:
    """Do what is missing of one store."""
    todo = _todo(one, items, overwrite=overwrite)
    place = f"{platform.node()}, {device}"
    cosine = _new_cosine(one, faces, todo, place, overwrite=overwrite)
    store = FeatureStore.create(one.path, one.header, overwrite=overwrite)
    _note(store, one, {} if cosine is None else {place: cosine})
    logger.info("extract-visual %s: %d tracks, %s in %s", one.name, len(todo), device, one.encoder.precision)
    keep_freed_memory()  # not before: what building the model and its twin in fp32 took is to go back
    resources = on_nodes.resources_of(cfg, target, faces, device=device)
    if resources.is_ray:
        kind = device.partition(":")[0]
        there = on_nodes.NodePlan(cfg, target, faces.path, kind, started=uuid.uuid4().hex)
        work, count = partial(on_nodes.extract_on_node, plan=there), on_nodes.UNIT_TRACKS
    else:
        work, count = _work(one, faces, store, device=device), UNIT_TRACKS
    units = [todo[start : start + count] for start in range(0, len(todo), count)]
    outcomes = executors.iter_units(units, work, strict=strict, resources=resources)
    return list(console.progress(outcomes, desc=f"extract-visual {one.name}", total=len(todo)))


def _work(one: Plan, faces: FeatureStore, store: FeatureStore, *, device: str) -> partial[Iterator[TrackResult]]:
    """What this process does with a unit."""
    return partial(
        extract_unit,
        faces=faces,
        store=store,
        encoder=one.encoder,
        batch_size=one.batch_size,
        on_cpu=device == "cpu",
    )


def _todo(one: Plan, items: Sequence[Item], *, overwrite: bool) -> list[Item]:
    known = set() if overwrite else FeatureStore.finished(one.path, one.header)
    return [item for item in items if item.track_id not in known]


def _new_cosine(one: Plan, faces: FeatureStore, todo: Sequence[Item], place: str, *, overwrite: bool) -> float | None:
    """Lowest cosine of the first batch's features in bf16 to those in fp32, where it is not known yet of this place.

    Raises AbawError when it is too low; nothing has been written then.
    """
    if one.encoder.precision != "bf16" or not todo:
        return None
    has_notes = (one.path / "store.json").exists() and not overwrite
    if has_notes and place in FeatureStore.open(one.path).notes.get("bf16_cosine", {}):
        return None
    batch = first_faces(faces, todo, one.encoder, batch_size=one.batch_size)
    if batch is None:
        return None
    cosine = check_bf16(one.encoder.encode(batch), encode_exactly(one.encoder, batch), encoder=one.name)
    logger.info("extract-visual %s: lowest cosine of the first batch in bf16 to fp32 is %.6f", one.name, cosine)
    return round(cosine, 6)


def _note(store: FeatureStore, one: Plan, cosines: dict[str, float]) -> None:
    """What may vary between runs, and so is in no track file."""
    if one.warnings and store.notes.get("warnings") != one.warnings:
        store.note("warnings", one.warnings)
    if one.encoder.notes and store.notes.get("encoder") != list(one.encoder.notes):
        store.note("encoder", list(one.encoder.notes))
    if cosines:
        store.note("bf16_cosine", cosines)


# -- report ------------------------------------------------------------------------------------------------------------
def _dry_lines(plans: Iterable[Plan], items: Sequence[Item], *, overwrite: bool) -> list[tuple[str, str]]:
    lines = []
    for one in plans:
        todo = len(_todo(one, items, overwrite=overwrite))
        lines += [("store", str(one.path)), ("to do", f"{todo} tracks"), ("done", f"{len(items) - todo} tracks")]
    return lines


def _summary(
    paths: Sequence[Path], results: list[TrackResult], *, known: int, seconds: float, following: str
) -> Summary:
    done = [result for result in results if result.status == "done"]
    failed = [Failure(result.track_id, result.message, bug=result.bug) for result in results if result.status != "done"]
    reasons = executors.sum_reasons(done)
    rows = sum(reasons.values())
    counts = executors.describe_reasons(reasons, valid="with a feature") or "nothing new"
    lines = [
        ("tracks", f"{len(done)} extracted, {known - len(results)} already there, {len(failed)} failed"),
        ("rows", f"{rows} in {seconds:.1f} s: {counts}"),
        *(("store", str(path)) for path in paths),
        ("next", following),
    ]
    data: dict[str, Any] = {"stores": [str(path) for path in paths], "tracks": len(done), "rows": rows}
    return Summary("extract-visual", lines, failed=failed, data={**data, "reasons": reasons})
