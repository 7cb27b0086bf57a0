"""The predictions store that ends a training run: scores of its best weights for validation and test tracks.

Owns the header's form, so that runs of all kinds are evaluated and submitted alike, and which tracks are still to be
scored.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from abaw.data.manifest import Manifest
from abaw.errors import AbawError, ExitCode
from abaw.provenance import combine_trained_on, file_sha256
from abaw.publish import discard
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import Task
from abaw.training.run import RunFolder


def scored_tracks(manifest: Manifest, task: Task, known: Container[str] | FeatureStore) -> list[str]:
    """Validation and test tracks of a task that have faces or features."""
    wanted = [track for split in ("val", "test") for track in manifest.select(task=task.name, split=split)]
    return [track.track_id for track in wanted if track.track_id in known]


def unscored(path: Path, folder: RunFolder, wanted: Sequence[str]) -> list[str]:
    """Those of the wanted tracks that a run's best weights have not scored yet; all of them while it is not done."""
    if not folder.is_done or not _is_of(path, _weights_hash(folder)):
        return list(wanted)
    store = FeatureStore.open(path, kind="predictions")
    return [track_id for track_id in wanted if track_id not in store]


def describe_state(path: Path, folder: RunFolder, wanted: Sequence[str]) -> str:
    """What a run would do: "done", "to do", or how many tracks it would score."""
    left = unscored(path, folder, wanted)
    if folder.is_done and left:
        return f"done, {len(left)} tracks to score"
    return "done" if folder.is_done else "to do"


def discard_outdated(path: Path, folder: RunFolder) -> None:
    """Take away the scores of a run that begins anew, which `evaluate` would report as its own meanwhile."""
    if not folder.has_begun and (path / "store.json").exists():
        discard(path)


def create_predictions(
    path: Path,
    folder: RunFolder,
    task: Task,
    *,
    header: Mapping[str, Any],
    precision: str,
    about: Mapping[str, Any] | None = None,
) -> FeatureStore:
    """The predictions store of a run: continued where its scores are of the same weights, else begun afresh.

    ``header`` is the checkpoint's (recipe, provenance, label order); ``about`` goes into the settings: the split file
    and fold of a cross-validated run.
    """
    weights = _weights_hash(folder)
    return FeatureStore.create(
        path,
        StoreHeader(
            kind="predictions",
            name=path.name,
            arrays={f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in task.heads},
            settings={"run": path.name, "weights": weights, "precision": precision, **(about or {})},
            recipe=header["recipe"],
            trained_on=header["trained_on"],
            label_order=header["label_order"],
        ),
        overwrite=not _is_of(path, weights),
    )


def join_folds(path: Path, folds: Sequence[FeatureStore]) -> FeatureStore:
    """One store of the tracks that each fold's run held out: out-of-fold scores, every track once.

    Begun afresh when any fold's weights changed. Raises AbawError for folds that do not belong together, and for one
    that lacks a track.
    """
    _require_together(path, folds)
    first = folds[0].header
    members = [fold.header.settings["weights"] for fold in folds]
    settings = {"run": path.name, "weights": members, "precision": first.settings["precision"]}
    header = StoreHeader(
        kind="predictions",
        name=path.name,
        arrays=first.arrays,
        settings={
            **settings,
            "split_file": first.settings["split_file"],
            "held_out": sorted(name for fold in folds for name in fold.header.settings["held_out"]),
            "out_of_fold": all(fold.header.settings["out_of_fold"] for fold in folds),
        },
        recipe=first.recipe,
        trained_on=combine_trained_on([fold.header.trained_on for fold in folds]),
        label_order=first.label_order,
    )
    fresh = not (path / "store.json").exists() or FeatureStore.open(path).header.settings != header.settings
    store = FeatureStore.create(path, header, overwrite=fresh)
    for fold in folds:
        for track_id in fold.header.settings["held_out"]:
            if track_id not in store:
                arrays = {name: fold.read(track_id, name) for name in first.arrays}
                store.write(track_id, {"valid": fold.valid(track_id), **arrays}, fps=fold.fps(track_id))
    return store


def _require_together(path: Path, folds: Sequence[FeatureStore]) -> None:
    told = [fold.header.settings for fold in folds]
    names = [name for settings in told for name in settings["held_out"]]
    lacking = [name for fold in folds for name in fold.header.settings["held_out"] if name not in fold]
    if (
        [settings["fold"] for settings in told] != list(range(len(folds)))
        or len({settings["split_file"] for settings in told}) > 1
        or len(set(names)) < len(names)
    ):
        what = "its folds are of different split files"
    elif lacking:
        what = f"its folds lack {len(lacking)} of the tracks they held out: {', '.join(lacking[:5])}"
    else:
        return
    raise AbawError(
        f"{path.name} cannot be joined: {what}",
        where="\n".join(str(fold.path) for fold in folds),
        fix="run `abaw finetune --folds` again for all folds; with --overwrite for those of another split",
    )


def _is_of(path: Path, weights: str) -> bool:
    """Whether a predictions store is there and holds the scores of these weights."""
    if not (path / "store.json").exists():
        return False
    return FeatureStore.open(path, kind="predictions").header.settings.get("weights") == weights


def _weights_hash(folder: RunFolder) -> str:
    if not folder.best_path.is_file():
        raise AbawError(
            f"run {folder.path.name} is done, but its weights are gone",
            where=str(folder.best_path),
            fix="restore the file from a copy, or pass --overwrite to train again",
            code=ExitCode.MISSING,
        )
    return file_sha256(folder.best_path)
