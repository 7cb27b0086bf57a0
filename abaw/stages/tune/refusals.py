"""What `abaw tune` refuses before it reads a score: settings must not be chosen on what the model was chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from abaw.config import Config
from abaw.data.label_sources import LabelSource
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import predictions_labels
from abaw.errors import AbawError, ExitCode
from abaw.scored import Predictions

STAGES = ("finetune", "fuse")


def check(cfg: Config, predictions: Predictions, manifest: Manifest, *, acknowledge: bool) -> LabelSource:
    """The labels of scores that can be tuned on.

    Raises AbawError for others: of images, without labels, or not out-of-fold, the last unless ``acknowledge``.
    """
    _require_recordings(cfg, predictions)
    source = predictions_labels(cfg, predictions, manifest)
    _require_labelled_tracks(predictions, manifest)
    reason = why_not_out_of_fold(predictions)
    if reason and not acknowledge:
        raise AbawError(
            f"{predictions.store.path.name} is not out-of-fold: {reason}",
            where=str(predictions.store.path / "store.json"),
            fix=f"{_how_to_get_better(predictions)}\nor pass --acknowledge: the gain is then likely to be overstated, "
            "and post.json says so",
            code=ExitCode.CONFIG,
        )
    return source


def why_not_out_of_fold(predictions: Predictions) -> str:
    """Why a store's labelled scores are no ground to choose settings on, in words; empty where they are."""
    settings = predictions.store.header.settings
    if "split_file" not in settings:
        return "its scores of the validation tracks come from a checkpoint that was chosen on them"
    if not settings.get("held_out"):
        return "its labelled tracks are the split's hold-out, which is kept to measure the end result"
    if not settings.get("out_of_fold", False):
        return "an encoder, classifier or member behind it may have seen labels of the tracks that were held out"
    return ""


def check_others(predictions: Predictions, others: Sequence[Path]) -> None:
    """Raises AbawError for a store to which the settings do not apply: of another task or label order."""
    for path in others:
        order = Predictions(path, raw=True).store.header.label_order
        if order != predictions.store.header.label_order:
            raise AbawError(
                f"{path.name} holds scores of {_named(order)}, not of {_named(predictions.store.header.label_order)}",
                where="--also",
                fix=f"give stores of task {predictions.task.name} only",
                code=ExitCode.CONFIG,
            )


def _require_recordings(cfg: Config, predictions: Predictions) -> None:
    if cfg.data.kind == "images":
        raise AbawError(
            "an image collection has no recordings: its rows do not follow each other in time, and settings cannot be "
            "measured on other recordings than they were chosen on",
            where=f"data.kind and {predictions.store.path}",
            fix="tune the scores of recordings: finetune or fuse with data.kind = videos or crops",
            code=ExitCode.CONFIG,
        )


def _require_labelled_tracks(predictions: Predictions, manifest: Manifest) -> None:
    store, task = predictions.store, predictions.task.name
    labelled = {track.track_id for split in ("train", "val") for track in manifest.select(task=task, split=split)}
    if not labelled & set(store.track_ids()):
        raise AbawError(
            f"{store.path.name} holds no track with labels of task {task}: its {len(store)} tracks are for testing, "
            "or the labels are of other recordings",
            where=str(store.path),
            fix=f"tune scores of labelled tracks, and name this store behind --also to use the settings for it:\n"
            f"abaw tune STORE --also {store.path}",
        )


def _how_to_get_better(predictions: Predictions) -> str:
    path, task = predictions.store.path, predictions.task.name
    settings = predictions.store.header.settings
    stage = next((one for one in STAGES if path.name.startswith(f"{one}-")), STAGES[-1])
    if "split_file" not in settings:
        better = path.with_name(f"{path.name}-folds")
        return (
            f"make out-of-fold scores, then tune those, and use the settings here too:\nabaw {stage} --task {task} "
            f"--folds 5\nabaw tune {better} --also {path}"
        )
    if not settings.get("held_out"):
        better = path.with_name(f"{path.name}-folds")
        return f"tune the out-of-fold scores, and use the settings here too:\nabaw tune {better} --also {path}"
    return (
        "extract features with encoders of the same folds (`abaw extract-visual --folds K`), or with weights that saw "
        f"no labels, and run again: abaw {stage} --task {task} --folds K"
    )


def _named(order: dict[str, list[str]]) -> str:
    return "; ".join(f"{head}: {', '.join(labels)}" for head, labels in order.items())
