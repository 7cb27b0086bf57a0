"""Scores of new tracks by trained runs: those of each model, then one predictions store for each task.

The models are asked as `fuse` and `finetune` ask them. Every track is published on its own, so that a second run goes
on where the first one stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from abaw.checkpoint import load_checkpoint, load_weights
from abaw.config import Config, FuseConfig
from abaw.console import progress
from abaw.data.frames import FrameRef
from abaw.data.views import auxiliary_view
from abaw.data.windows import FeatureStreams
from abaw.ensembles import combine
from abaw.models.classifier import FrozenClassifier, load_classifier
from abaw.models.face_model import preset_of
from abaw.models.fusion import fusion_from_header
from abaw.models.systems import SYSTEMS, ModelOptions, model_from_header
from abaw.postprocess import FILE_NAME, save_post
from abaw.predicting.behind import Behind
from abaw.predicting.trained import Choice, Trained
from abaw.provenance import combine_trained_on
from abaw.stages.finetune.model import Built
from abaw.stages.finetune.scoring import Scorer as FaceScorer
from abaw.stages.fuse.scoring import Scorer as WindowScorer
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.training.device import resolve_precision

Scored = Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]

WINDOWS = ("window", "stride", "score_stride", "stitch", "batch_size")  # how a run's tracks are scored


def score(derived: Config, choice: Choice, behind: Behind, tracks: Sequence[str], device: torch.device) -> FeatureStore:
    """The predictions store of a task, with all of these tracks in it.

    Raises AbawError for weights that do not fit, and for a classifier of a model that is not here.
    """
    folder = derived.run.output
    parts = [
        _score_one(derived, model, behind, tracks, folder / "scores" / f"{choice.task.name}-{number}", device)
        for number, (_, model) in enumerate(choice.parts)
    ]
    shares = [share for share, _ in choice.parts]
    settings = {"out_of_fold": False, **choice.describe()}
    path = folder / "predictions" / choice.task.name
    store = FeatureStore.create(path, _header(choice, [one.header for one in parts], settings, name=path.name))
    if choice.post.is_raw:
        (path / FILE_NAME).unlink(missing_ok=True)
    else:
        save_post(path, choice.post)
    for track in [track for track in tracks if track not in store]:
        valid = [one.valid(track) for one in parts]
        arrays = {"valid": np.any(valid, axis=0)}
        for head in choice.task.heads:
            name = f"scores/{head.name}"
            arrays[name] = combine(head, [one.read(track, name) for one in parts], valid, shares, choice.combine)
        store.write(track, arrays, fps=parts[0].fps(track))
        for one in parts:
            one.close()
    return store


def _header(choice: Choice, headers: Sequence[StoreHeader], settings: dict[str, Any], *, name: str) -> StoreHeader:
    return StoreHeader(
        kind="predictions",
        name=name,
        arrays={f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in choice.task.heads},
        settings=settings,
        recipe=headers[0].recipe,
        trained_on=combine_trained_on(header.trained_on for header in headers),
        label_order={head.name: list(head.labels) for head in choice.task.heads},
    )


# -- one model ---------------------------------------------------------------------------------------------------------
def _score_one(
    derived: Config, model: Trained, behind: Behind, tracks: Sequence[str], path: Path, device: torch.device
) -> FeatureStore:
    """Scores of one training's weights, in a store of their own."""
    recorded = str(model.inputs.get("precision", "fp32"))
    precision = recorded if recorded != "bf16" else resolve_precision("auto", device)
    settings = {"run": model.name, "weights": model.sha256, "precision": precision}
    header = _header(
        Choice(model.name, model.task, ()),
        [StoreHeader("predictions", path.name, {}, {}, model.header["recipe"], model.header["trained_on"])],
        settings,
        name=path.name,
    )
    store = FeatureStore.create(path, header)
    lacking = [track for track in tracks if track not in store]
    scorer = _by_windows if model.is_fusion else _by_faces
    found = scorer(derived, model, behind, lacking, device, precision) if lacking else iter(())
    for track, valid, scores in progress(found, desc=f"score {model.name}", total=len(lacking)):
        blocks = {f"scores/{name}": np.where(valid[:, None], block, 0) for name, block in scores.items()}
        store.write(track, {"valid": valid, **blocks}, fps=_faces(derived).fps(track))
    return store


def _faces(derived: Config) -> FeatureStore:
    return FeatureStore.open(derived.faces_store, kind="faces")


def _by_windows(
    derived: Config, model: Trained, behind: Behind, tracks: Sequence[str], device: torch.device, precision: str
) -> Scored:
    """By a fusion: every row with data in any stream."""
    weights, header = load_checkpoint(model.weights, kind="fusion")
    network = fusion_from_header(header, where=str(model.weights))
    load_weights(network, weights, where=str(model.weights))
    network.to(device)
    streams = _streams(derived, model, behind)
    streams.check(tracks, accept_recipe_mismatch=derived.run.accept_recipe_mismatch)
    told = {key: model.settings[key] for key in WINDOWS if key in model.settings}
    own = FuseConfig.model_validate({**told, "window": header["window"], "stride": header["stride"]})
    for track, scores in WindowScorer(streams, model.task, own, device, precision).scores(network, tracks):
        yield track, np.asarray(streams.valid(track).any(axis=1)), scores
    streams.close()


def _streams(derived: Config, model: Trained, behind: Behind) -> FeatureStreams:
    """The new features in the order in which the model was trained on them, gaps filled as then."""
    named = [behind.features[str(one["name"])] for one in model.header["streams"]]
    paths = {one.name: derived.features_store(one.kind, one.key) for one in named}
    visual, audio = ([paths[one.name] for one in named if one.kind == kind] for kind in ("visual", "audio"))
    gap = model.header.get("gap", "hold")
    if not isinstance(gap, str):  # named after the store, whichever fold's it was
        by_table = {f"{one.kind}-{one.table}": paths[one.name].name for one in named}
        by_table |= {one.name: paths[one.name].name for one in named}
        gap = {by_table[name]: policy for name, policy in gap.items() if name in by_table}
    return FeatureStreams(visual, audio, gap=gap)


def _by_faces(
    derived: Config, model: Trained, behind: Behind, tracks: Sequence[str], device: torch.device, precision: str
) -> Scored:
    """By a model of single faces: every row that shows one."""
    weights, header = load_checkpoint(model.weights)
    classifier = _classifier(derived, header)
    network = model_from_header(header, where=str(model.weights), classifier=classifier)
    load_weights(network, weights, where=str(model.weights))
    network.to(device)
    constants = header["normalisation"]
    built = _built(model, header, classifier)
    scorer = FaceScorer(built, constants["mean"], constants["std"], device=device, precision=precision)
    store = _faces(derived)
    for track in tracks:
        valid = store.valid(track)
        rows = np.flatnonzero(valid)
        found = scorer.scores(network, scorer.faces([FrameRef(store, track, rows)], cached=False), shared=False)
        scores = {}
        for name, values in found.items():
            scores[name] = np.zeros((len(valid), values.shape[1]), np.float32)
            scores[name][rows] = values
        yield track, valid, scores
        store.close()


def _classifier(derived: Config, header: dict[str, Any]) -> FrozenClassifier | None:
    """The frozen classifier that EMMA looks at, from where the run's configuration had it."""
    recorded = header["architecture"].get("options", {}).get("classifier")
    if recorded is None:
        return None
    return load_classifier(recorded.get("spec", ""), recorded.get("label_space", ""), root=derived.root)


def _built(model: Trained, header: dict[str, Any], classifier: FrozenClassifier | None) -> Built:
    """What a scorer asks of a system: which tensors go in, and the auxiliary view where it takes one."""
    shape = header["architecture"]
    name = shape.get("model", "static")
    recorded = {key: value for key, value in shape.get("options", {}).items() if key != "classifier"}
    options = ModelOptions(pooling=header["pooling"], classifier=classifier, **recorded)
    has_view = name == "emae" and "none" not in (options.view, options.operator)
    return Built(
        system=SYSTEMS[name],
        preset=preset_of(header),
        task=model.task,
        options=options,
        architecture=shape,
        settings={},
        view=partial(auxiliary_view, view=options.view, style=options.style) if has_view else None,
    )
