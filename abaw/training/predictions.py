"""The predictions store that ends a training run: scores of its best weights for validation and test tracks.

Owns the header's form, so that runs of all kinds are evaluated and submitted alike, and which tracks are still to be
scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from abaw.errors import AbawError, ExitCode
from abaw.provenance import combine_trained_on, file_sha256
from abaw.publish import discard, locked
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import Task
from abaw.training.distributed import main_first
from abaw.training.loop import FitResult
from abaw.training.resume import describe_unfinished
from abaw.training.run import FOLD_PREFIX, RunFolder


class ScoredJob(Protocol):
    """A training and the tracks that its model scores; ``facts`` go into its result.

    ``outdated``: predictions stores that are of no use once the training begins anew, its own and those made of it.
    ``is_out_of_fold``: whether no label of the fold is behind its scores, as far as is known now.
    """

    predictions: Path
    is_out_of_fold: bool

    @property
    def scored(self) -> Sequence[str]: ...

    @property
    def outdated(self) -> Sequence[Path]: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def start(self, *, overwrite: bool, dry_run: bool = False) -> RunFolder:
        """The run's folder, compared with the job's settings and inputs."""
        ...

    def train(self, folder: RunFolder) -> FitResult:
        """Fit the model in the run's folder; continues by itself."""
        ...

    def predict(self, folder: RunFolder) -> None:
        """Write the best model's scores of tracks that lack them."""
        ...


def train_and_score(job: ScoredJob, *, overwrite: bool) -> tuple[RunFolder, bool]:
    """Train and score, or what is left of it; the run's folder, and whether there was nothing to do."""
    with main_first():
        folder = job.start(overwrite=overwrite)
        for path in job.outdated:
            discard_outdated(path, folder)
    if folder.is_done and not unscored(job.predictions, folder, job.scored, out_of_fold=job.is_out_of_fold):
        return folder, True
    result = folder.result() if folder.is_done else {**job.train(folder).to_dict(), **job.facts}
    job.predict(folder)
    folder.finish({**result, "predicted_tracks": len(job.scored)})
    return folder, False


def unscored(path: Path, folder: RunFolder, wanted: Sequence[str], *, out_of_fold: bool) -> list[str]:
    """Those of the wanted tracks that a run's best weights have not scored yet.

    All of them while it is not done, and where the store says otherwise whether its scores are out-of-fold.
    """
    if not folder.is_done or not _is_of(path, _weights_hash(folder), out_of_fold=out_of_fold):
        return list(wanted)
    store = FeatureStore.open(path, kind="predictions")
    return [track_id for track_id in wanted if track_id not in store]


def describe_state(
    path: Path, folder: RunFolder, wanted: Sequence[str], *, out_of_fold: bool, overwrite: bool = False
) -> str:
    """What a run would do: "done", "to do", at which step it would continue, or how many tracks it would score."""
    if overwrite:
        return "to do"
    if not folder.is_done:
        return describe_unfinished(folder.resume_path)
    left = unscored(path, folder, wanted, out_of_fold=out_of_fold)
    return f"done, {len(left)} tracks to score" if left else "done"


def refuse_ensemble(path: Path) -> None:
    """Raise AbawError where a run's scores would replace an ensemble."""
    if (path / "store.json").exists() and "members" in FeatureStore.open(path, kind="predictions").header.settings:
        raise AbawError(
            f"{path.name} is an ensemble: the scores of a run of that name would replace it",
            where=str(path),
            fix="give the run another name (fuse.name), or move the ensemble away",
            code=ExitCode.CONFIG,
        )


def discard_outdated(path: Path, folder: RunFolder) -> None:
    """Take away the scores of a run that begins anew, which `evaluate` would report as its own meanwhile."""
    if folder.has_begun or not (path / "store.json").exists():
        return
    with locked(path.parent):  # a fold that runs beside this one may be taking away the same joined scores
        if (path / "store.json").exists():
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

    Afresh too where what is known of the labels behind it has changed, so that no leak stays unmarked.

    ``header`` is the checkpoint's (recipe, provenance, label order); ``about`` goes into the settings: the split file
    and fold of a cross-validated run.
    """
    weights = _weights_hash(folder)
    is_same = _is_of(path, weights, out_of_fold=bool((about or {}).get("out_of_fold", False)))
    settings = {"run": path.name, "weights": weights, "precision": precision, **(about or {})}
    return FeatureStore.create(
        path,
        StoreHeader(
            kind="predictions",
            name=path.name,
            arrays={f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in task.heads},
            settings=_as_recorded(path, settings) if is_same else settings,
            recipe=header["recipe"],
            trained_on=header["trained_on"],
            label_order=header["label_order"],
        ),
        overwrite=not is_same,
    )


def _as_recorded(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a store of an older version has them, which did not record that its split has no hold-out."""
    if settings.get("holdout") != [] or not (path / "store.json").exists():
        return settings
    knows = "holdout" in FeatureStore.open(path, kind="predictions").header.settings
    return settings if knows else {key: value for key, value in settings.items() if key != "holdout"}


def joined_store(predictions: Path) -> Path:
    """Where the joined scores of all folds are, given the predictions store of one: `<run>-folds`."""
    run, _, _ = predictions.name.rpartition(f"-{FOLD_PREFIX}")
    return predictions.with_name(f"{run}-folds")


def join_folds(path: Path, folds: Sequence[FeatureStore], *, stage: str) -> FeatureStore:
    """One store of the tracks that each fold's run held out: out-of-fold scores, every track once.

    Begun afresh when any fold's weights changed. Tracks of the split's hold-out are not in it: no fold holds them
    out, all score them. Raises AbawError for folds that do not belong together, and for one that lacks a track.
    """
    _require_together(path, folds, stage)
    first = folds[0].header
    members = [fold.header.settings["weights"] for fold in folds]
    settings = {
        "run": path.name,
        "weights": members,
        "precision": first.settings["precision"],
        "split_file": first.settings["split_file"],
        "held_out": sorted(name for fold in folds for name in fold.header.settings["held_out"]),
        "holdout": [],
        "out_of_fold": all(fold.header.settings["out_of_fold"] for fold in folds),
    }
    header = StoreHeader(
        kind="predictions",
        name=path.name,
        arrays=first.arrays,
        settings=_as_recorded(path, settings),
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


def _require_together(path: Path, folds: Sequence[FeatureStore], stage: str) -> None:
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
        fix=f"run `abaw {stage} --folds` again for all folds; with --overwrite for those of another split",
    )


def _is_of(path: Path, weights: str, *, out_of_fold: bool) -> bool:
    """Whether a predictions store is there, holds the scores of these weights, and says this of their folds."""
    if not (path / "store.json").exists():
        return False
    settings = FeatureStore.open(path, kind="predictions").header.settings
    return settings.get("weights") == weights and settings.get("out_of_fold", False) == out_of_fold


def _weights_hash(folder: RunFolder) -> str:
    if not folder.best_path.is_file():
        raise AbawError(
            f"run {folder.path.name} is done, but its weights are gone",
            where=str(folder.best_path),
            fix="restore the file from a copy, or pass --overwrite to train again",
            code=ExitCode.MISSING,
        )
    return file_sha256(folder.best_path)
