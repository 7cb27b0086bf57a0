"""Weights of an ensemble's members: equal, given, or fitted on scores of tracks that no model behind them has seen."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from abaw.config import Config
from abaw.data.annotations import Labels
from abaw.data.dealing import make_split
from abaw.data.labelled import labels_sha256
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import SPLIT, predictions_labels
from abaw.data.splits import group_of
from abaw.ensembles import WeightFit, normalised
from abaw.errors import AbawError, ExitCode
from abaw.provenance import trained_on_record
from abaw.scored import Predictions
from abaw.stages.fuse.members import Member, close, common_labelled
from abaw.tasks import Task

logger = logging.getLogger(__name__)

WHERE = "[fuse.ensemble] weights"
PARTS = 5  # of the recordings; the weights for each are fitted on the others where their scores are out-of-fold


@dataclass(frozen=True)
class Weighting:
    """Weights that sum to 1.

    ``by_recording``: for the labelled recordings, weights that were fitted without them; empty unless fitted.
    ``facts``: what the fit found, in plain JSON values.
    """

    weights: tuple[float, ...]
    by_recording: tuple[tuple[frozenset[str], tuple[float, ...]], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def of(self, track_id: str) -> tuple[float, ...]:
        """Weights for the out-of-fold scores of a labelled track."""
        own = group_of(track_id)
        return next((weights for groups, weights in self.by_recording if own in groups), self.weights)

    def describe(self) -> list[dict[str, Any]]:
        """``by_recording`` as plain JSON values."""
        return [{"recordings": sorted(groups), "weights": list(weights)} for groups, weights in self.by_recording]

    @classmethod
    def recorded(cls, settings: Sequence[Mapping[str, Any]]) -> Weighting:
        """What the settings of the stores of one ensemble say."""
        parts = [part for one in settings for part in one.get("fitted_without", [])]
        return cls(
            tuple(member["weight"] for member in settings[0]["members"]),
            tuple((frozenset(part["recordings"]), tuple(part["weights"])) for part in parts),
        )


def unfitted(given: Any, names: Sequence[str]) -> Weighting:
    """Equal weights, or those given. Raises AbawError for another number of them than members."""
    return Weighting(normalised([1.0] * len(names) if isinstance(given, str) else given, names, where=WHERE))


def require_out_of_fold(members: Sequence[Member], *, acknowledge: bool) -> list[str]:
    """Names of members whose labelled scores are not out-of-fold, and a warning. Raises AbawError unless acknowledged.

    Weights fitted on scores of tracks that a model was trained or chosen on favour the model that knows them best.
    """
    bad = [member.name for member in members if not member.is_clean]
    if bad and not acknowledge:
        raise AbawError(
            f"weights cannot be fitted: the labelled scores of {', '.join(bad)} are not out-of-fold",
            where=WHERE,
            fix='name cross-validated members (`abaw fuse --folds K` makes <run>-folds), set weights = "equal", '
            "or pass --acknowledge to fit on scores of tracks that models were trained or chosen on",
            code=ExitCode.CONFIG,
        )
    if bad:
        logger.warning("the weights are fitted on scores that are not out-of-fold: %s", ", ".join(bad))
    return bad


class FitData:
    """Labelled tracks that all members score, and their labels."""

    def __init__(self, cfg: Config, task: Task, members: Sequence[Member]) -> None:
        self.task, self.members = task, members
        manifest = Manifest.from_config(cfg.data, need_media=False)
        source = predictions_labels(cfg, Predictions(members[0].labelled.path, raw=True), manifest)
        self.tracks = common_labelled(members, source.track_ids(SPLIT))
        self.labels: dict[str, dict[str, Labels]] = {}
        for track_id in self.tracks:
            num_rows = members[0].labelled.num_rows(track_id)
            self.labels[track_id] = source.labels(track_id, num_rows, SPLIT)
            close([members[0].labelled])
        self.record = trained_on_record(
            dataset=cfg.data.name,
            edition=cfg.data.edition,
            labels=task.name,
            split_file=members[0].split_file or "official",
            track_ids=self.tracks,
        )

    def describe(self) -> dict[str, Any]:
        """What the weights follow from, beside the members' scores."""
        return {"tracks": len(self.tracks), "labels_sha256": labels_sha256(self.labels)}

    def fit(self, how: str) -> Weighting:
        """Weights by greedy selection on the official metric; raises AbawError for one recording, or without a row."""
        rows = Counter[str]()
        for track_id in self.tracks:
            rows[group_of(track_id)] += len(self.labels[track_id][self.task.heads[0].name].mask)
        if len(rows) < 2:
            raise self._refused(f"all labelled tracks are of one recording, {next(iter(rows))}")
        count = min(PARTS, len(rows))
        part = make_split(rows, folds=count, seed=0).folds
        fit = WeightFit(self.task, how, members=len(self.members), parts=count)
        stores = [member.labelled for member in self.members]
        for track_id, labels in self.labels.items():
            valid = [store.valid(track_id) for store in stores]
            for name, own in labels.items():
                scores = [store.read(track_id, f"scores/{name}") for store in stores]
                fit.add(part[group_of(track_id)], name, scores, valid, own)
            close(stores)
        empty = [name for name, found in fit.num_rows.items() if not found]
        if empty:
            raise self._refused(f"no row that all members score has a label of {', '.join(empty)}")
        fitted = fit.fit()
        if fitted.score <= fitted.equal:
            logger.warning(
                f"fitted weights are no better than equal ones on recordings they were not fitted on: "
                f"{fitted.score:.4f}, equal {fitted.equal:.4f}"
            )
        groups = [frozenset(name for name, own in part.items() if own == number) for number in range(count)]
        alone = dict(zip((member.name for member in self.members), fitted.alone, strict=True))
        facts = {"score": fitted.score, "equal": fitted.equal, "alone": alone}
        return Weighting(fitted.weights, tuple(zip(groups, fitted.by_part, strict=True)), facts)

    def _refused(self, why: str) -> AbawError:
        return AbawError(
            f"weights cannot be fitted: {why}",
            where=WHERE,
            fix='set weights = "equal", or name members that scored more labelled tracks',
        )
