"""Labels that belong to a predictions store: where they come from, and which of its tracks are measured against them.

Shared by whatever holds scores against labels, so that all of them take the same tracks.
"""

from __future__ import annotations

from abaw.config import Config
from abaw.data.annotations import LabelReader
from abaw.data.label_sources import LabelSource, TrackLabels, label_source
from abaw.data.manifest import Manifest
from abaw.errors import AbawError
from abaw.scored import Scored
from abaw.store import FeatureStore

SPLIT = "val"  # the split whose tracks finetune and fuse score and that has labels


def predictions_labels(cfg: Config, predictions: Scored, manifest: Manifest) -> LabelSource:
    """Labels of a store's task: by track, or of an image collection by the paths in its faces store."""
    task = predictions.task
    if cfg.data.kind != "images":
        return TrackLabels(manifest, LabelReader(cfg.data, task))
    faces = FeatureStore.open(cfg.finetune_for(task.name).faces or cfg.faces_store, kind="faces")
    return label_source(cfg.data, task, faces, manifest)


def labelled_tracks(predictions: Scored, source: LabelSource) -> list[str]:
    """The tracks that are measured, sorted or in the split's order.

    Of a fold, or of folds joined, those held out; of an ensemble of folds those of the split's hold-out, which no fold
    has seen; else the validation split. Raises AbawError where there is none, and where the store lacks one.
    """
    if not is_measurable(predictions):
        raise _none_to_measure(predictions)
    settings = predictions.settings
    tracks = list(settings.get("held_out") or settings.get("holdout") or source.track_ids(SPLIT))
    if not tracks:
        raise AbawError(
            f"task {source.task.name} has no tracks in the {SPLIT} split",
            where="data.annotations",
            fix="check that the label folder holds Validation_Set with a file per track",
        )
    missing = [track_id for track_id in tracks if track_id not in predictions]
    if missing:
        kind = describe_tracks(predictions)
        raise AbawError(
            f"{predictions.path.name} lacks {len(missing)} of {len(tracks)} {kind}: {', '.join(missing[:5])}",
            where=str(predictions.path),
            fix=_fix_of_missing(predictions),
        )
    return tracks


def is_measurable(predictions: Scored) -> bool:
    """Whether any labelled track can be in a store: not in one of folds alone whose split has no hold-out."""
    settings = predictions.settings
    of_folds = "held_out" in settings or "holdout" in settings
    return not of_folds or bool(settings.get("held_out") or settings.get("holdout"))


def describe_tracks(predictions: Scored) -> str:
    """What the measured tracks of a store are, in words."""
    settings = predictions.settings
    if settings.get("held_out"):
        return "held-out tracks"
    return "hold-out tracks" if settings.get("holdout") else f"{SPLIT} tracks"


def _fix_of_missing(predictions: Scored) -> str:
    settings = predictions.settings
    if not settings:
        return "give decisions of every labelled track, or name the labels of these tracks with --labels FOLDER"
    if "members" in settings:
        return "run the stages that wrote its members again: they add what is missing; then make the ensemble again"
    if "held_out" in settings:
        return "align and extract them, then run all folds again with --folds: each adds what is missing"
    return "align and extract them, then run the stage that wrote it again: it adds what is missing"


def _none_to_measure(predictions: Scored) -> AbawError:
    path = predictions.path
    joined = path.with_name(f"{path.name}-folds")
    fix = "train the folds on a split with a hold-out ([folds] holdout = 0.2, another split name) to measure this one"
    if (joined / "store.json").exists():
        fix = f"measure the out-of-fold scores: abaw evaluate {joined}\nor {fix}"
    return AbawError(
        f"{path.name} has no labelled track that no model behind it has seen: its folds share no hold-out",
        where=str(path / "store.json"),
        fix=fix,
    )
