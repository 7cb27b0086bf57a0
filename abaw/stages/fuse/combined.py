"""A predictions store made of others: what it follows from, what of it is there, and the combining of its tracks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from abaw.console import progress
from abaw.ensembles import combine
from abaw.provenance import Recipe, combine_trained_on, differences
from abaw.stages.fuse.members import close
from abaw.stages.fuse.weighting import Weighting
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import Task

Settings = dict[str, Any]


@dataclass(frozen=True)
class Combined:
    """One store to make. ``parts``: the stores that are averaged, each with the number of its member, which share the
    member's weight. ``about``: all that its scores follow from, but for fitted weights.
    """

    path: Path
    task: Task
    tracks: Sequence[str]
    parts: Sequence[tuple[int, FeatureStore]]
    about: Settings
    recipe: Recipe

    @property
    def exists(self) -> bool:
        """Whether a store is there, finished or not, of these members or of others."""
        return (self.path / "store.json").is_file()

    @property
    def is_out_of_fold(self) -> bool:
        """Whether it holds what folds held out."""
        return "held_out" in self.about

    def recorded(self) -> Settings:
        """Settings of the store that is there."""
        return FeatureStore.open(self.path, kind="predictions").header.settings

    def changes(self) -> list[str]:
        """How the store that is there was made otherwise, in words; nothing where there is none."""
        return differences(_comparable(self.recorded()), _comparable(self.about)) if self.exists else []

    def left(self, *, overwrite: bool) -> int:
        """Tracks to combine."""
        if overwrite or not self.exists:
            return len(self.tracks)
        return len(set(self.tracks) - set(FeatureStore.open(self.path, kind="predictions").track_ids()))

    def write(self, weighting: Weighting, *, labels: Sequence[dict[str, Any]], overwrite: bool) -> None:
        """Combine the tracks that lack, all of them with ``overwrite``. ``labels``: records of those that gave the
        weights."""
        members = [
            {**one, "weight": weight} for one, weight in zip(self.about["members"], weighting.weights, strict=True)
        ]
        settings = {"run": self.path.name, **self.about, "members": members}
        if self.is_out_of_fold and weighting.by_recording:
            settings["fitted_without"] = weighting.describe()
        header = StoreHeader(
            kind="predictions",
            name=self.path.name,
            arrays={f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in self.task.heads},
            settings=settings,
            recipe=self.recipe,
            trained_on=combine_trained_on([*(part.header.trained_on for _, part in self.parts), list(labels)]),
            label_order={head.name: list(head.labels) for head in self.task.heads},
        )
        store = FeatureStore.create(self.path, header, overwrite=overwrite)
        if weighting.facts:
            store.note("fit", weighting.facts)
        lacking = [track_id for track_id in self.tracks if track_id not in store]
        for track_id in progress(lacking, desc=f"combine {self.path.name}"):
            weights = weighting.of(track_id) if self.is_out_of_fold else weighting.weights
            self._write_track(store, track_id, weights)

    def _write_track(self, store: FeatureStore, track_id: str, weights: Sequence[float]) -> None:
        counts = Counter(number for number, _ in self.parts)
        used = [(part, weights[number] / counts[number]) for number, part in self.parts if weights[number] > 0]
        shares, valid = [share for _, share in used], [part.valid(track_id) for part, _ in used]
        arrays = {"valid": np.any(valid, axis=0)}
        for head in self.task.heads:
            name = f"scores/{head.name}"
            scores = [part.read(track_id, name) for part, _ in used]
            arrays[name] = combine(head, scores, valid, shares, self.about["combine"])
        store.write(track_id, arrays, fps=used[0][0].fps(track_id))
        close(part for part, _ in used)


def _comparable(settings: Mapping[str, Any]) -> Settings:
    """Settings by member, without the weights where they were fitted and the names of what was written."""
    fitted = settings["weighting"] == "fitted"
    members = {
        one["name"]: {"stores": one["stores"], **({} if fitted else {"weight": one["weight"]})}
        for one in settings["members"]
    }
    rest = {key: value for key, value in settings.items() if key not in ("run", "members", "fitted_without")}
    return {**rest, "members": members}
