"""The predictions store that ends a training run: scores of its best weights for validation and test tracks.

Owns the header's form, so that runs of all kinds are evaluated and submitted alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from abaw.data.manifest import Manifest
from abaw.provenance import file_sha256
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import Task
from abaw.training.run import RunFolder


def create_predictions(
    path: Path,
    folder: RunFolder,
    task: Task,
    *,
    header: Mapping[str, Any],
    precision: str,
) -> FeatureStore:
    """A fresh predictions store of a run; ``header`` is its checkpoint's (recipe, provenance, label order)."""
    return FeatureStore.create(
        path,
        StoreHeader(
            kind="predictions",
            name=folder.path.name,
            arrays={f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in task.heads},
            settings={
                "run": folder.path.name,
                "weights": file_sha256(folder.best_path),
                "precision": precision,
            },
            recipe=header["recipe"],
            trained_on=header["trained_on"],
            label_order=header["label_order"],
        ),
        overwrite=True,
    )


def scored_tracks(manifest: Manifest, task: Task, known: Sequence[str] | FeatureStore) -> list[str]:
    """Validation and test tracks of a task that have faces or features."""
    source = task.train_on or task.name
    wanted = [track for split in ("val", "test") for track in manifest.select(task=source, split=split)]
    return [track.track_id for track in wanted if track.track_id in known]
