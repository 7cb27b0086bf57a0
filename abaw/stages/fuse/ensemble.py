"""`abaw fuse --ensemble`: one predictions store from several, and one of their out-of-fold scores if all have."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.console import Summary
from abaw.data.splits import group_of
from abaw.ensembles import check_combine
from abaw.errors import AbawError, ExitCode
from abaw.publish import discard
from abaw.stages.fuse.combined import Combined, Settings
from abaw.stages.fuse.members import Member, check_members, common_labelled, find_members, is_cross_validated
from abaw.stages.fuse.weighting import FitData, Weighting, require_out_of_fold, unfitted
from abaw.store import FeatureStore
from abaw.tasks import Task

logger = logging.getLogger(__name__)


def run_ensemble(
    cfg: Config,
    task: Task,
    members: Sequence[str],
    *,
    acknowledge: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Write predictions/fuse-<task>-<name> of the tracks that all members score, as [fuse.ensemble] says.

    Where all are cross-validated on one split, also predictions/fuse-<task>-<name>-folds of the tracks held out.
    Raises AbawError before anything is written for members that do not belong together, for weights that would be
    fitted on scores that are not out-of-fold, and for an ensemble made of other members or with other settings.
    """
    job = _Ensemble(cfg, task, members, acknowledge=acknowledge, overwrite=overwrite)
    left = job.left()
    if left and not dry_run:
        job.write()
    return job.summary(left=left, dry_run=dry_run)


class _Ensemble:
    """Members that belong together and the stores they make; all is checked when it is made."""

    def __init__(self, cfg: Config, task: Task, names: Sequence[str], *, acknowledge: bool, overwrite: bool) -> None:
        self.cfg, self.task, self.overwrite = cfg, task, overwrite
        self.own = cfg.fuse_for(task.name).ensemble
        check_combine(task, self.own.combine, where="[fuse.ensemble] combine")
        run = cfg.run_dir("fuse", self.own.name or "ensemble", task.name)
        self.path = cfg.predictions_store(run)
        self.folds = self.path.with_name(f"{self.path.name}-folds")
        self._refuse_run(run)
        found = find_members(cfg, names, target=self.path)
        given = unfitted(self.own.weights, [member.name for member in found]).weights
        order = sorted(range(len(found)), key=lambda number: found[number].name)  # the same in whatever order named
        self.members, self.given = [found[number] for number in order], tuple(given[number] for number in order)
        self.common = check_members(self.members, task, accept=cfg.run.accept_recipe_mismatch)
        for text in self.common.warnings:
            logger.warning(text)
        is_fitted = self.own.weights == "fitted"
        self.unclean = require_out_of_fold(self.members, acknowledge=acknowledge) if is_fitted else []
        self.data = FitData(cfg, task, self.members) if is_fitted else None
        self.stores = self._stores()
        if not overwrite:
            self._refuse_changes()

    def _stores(self) -> list[Combined]:
        found = []
        if self.common.tracks:
            parts = [(number, part) for number, member in enumerate(self.members) for part in member.parts]
            about = {**self._about(lambda member: member.parts), **self._unseen()}
            found.append(Combined(self.path, self.task, self.common.tracks, parts, about, self.common.recipe))
        if is_cross_validated(self.members):
            labelled = [(number, member.labelled) for number, member in enumerate(self.members)]
            held_out = self.data.tracks if self.data else common_labelled(self.members, val=[])
            about = {
                **self._about(lambda member: [member.labelled]),
                "split_file": self.members[0].split_file,
                "held_out": held_out,
                "holdout": [],
                "out_of_fold": all(member.is_clean for member in self.members),
            }
            found.append(Combined(self.folds, self.task, held_out, labelled, about, self.common.recipe))
        return found

    def _about(self, stores: Callable[[Member], Sequence[FeatureStore]]) -> Settings:
        members = [
            {
                "name": one.name,
                "stores": {store.path.name: store.fingerprint for store in stores(one)},
                "weight": weight,
            }
            for one, weight in zip(self.members, self.given, strict=True)
        ]
        weighting = self.own.weights if isinstance(self.own.weights, str) else "given"
        settings: Settings = {"members": members, "combine": self.own.combine, "weighting": weighting}
        if self.data is not None:
            settings["fitted_on"] = self.data.describe()
        return {**settings, **({"not_out_of_fold": self.unclean} if self.unclean else {})}

    def _unseen(self) -> Settings:
        """Labelled tracks that no model behind any member has seen, where any member is of folds.

        Recordings that the weights were fitted on are not among them.
        """
        if all(member.holdout is None for member in self.members):
            return {}
        fitted = {group_of(track_id) for track_id in self.data.tracks} if self.data else set[str]()
        common = set.intersection(*(set(member.holdout or ()) for member in self.members))
        spared = {track_id for track_id in common if group_of(track_id) not in fitted}
        splits = {member.split_file for member in self.members}
        return {
            **({"split_file": self.members[0].split_file} if len(splits) == 1 else {}),
            "holdout": sorted(spared),
            "out_of_fold": all(member.is_clean for member in self.members),
        }

    # -- what is there ---------------------------------------------------------------------------------------------
    def _refuse_run(self, run: Path) -> None:
        """Never in place of a run's own scores, which --overwrite would delete."""
        there = [path for path in (self.path, self.folds) if (path / "store.json").is_file()]
        if run.exists() or any("members" not in FeatureStore.open(path).header.settings for path in there):
            raise AbawError(
                f"{self.path.name} is the name of a run, whose scores the ensemble would replace",
                where="[fuse.ensemble] name",
                fix='choose another, e.g. name = "ensemble"',
                code=ExitCode.CONFIG,
            )

    def _refuse_changes(self) -> None:
        found = [text for store in self.stores for text in store.changes()]
        found += [f"{path.name} can no longer be made of its members" for path in self._stale()]
        if found:
            raise AbawError(
                f"{self.path.name} was made of other scores or with other settings: {'; '.join(dict.fromkeys(found))}",
                where=str(self.path / "store.json"),
                fix="pass --overwrite to make it anew, or choose another name in [fuse.ensemble]",
            )

    def _stale(self) -> list[Path]:
        """Stores of this name that the members do not make."""
        wanted = {store.path for store in self.stores}
        return [path for path in (self.path, self.folds) if path not in wanted and (path / "store.json").is_file()]

    def left(self) -> int:
        """Tracks to combine."""
        return sum(store.left(overwrite=self.overwrite) for store in self.stores)

    # -- doing -----------------------------------------------------------------------------------------------------
    def write(self) -> None:
        """Combine the tracks that lack; all of them with ``overwrite``."""
        weighting = self._weighting()
        for path in self._stale():
            discard(path)
        for store in self.stores:
            records = [self.data.record] if self.data else []
            store.write(weighting, labels=records, overwrite=self.overwrite)

    def _weighting(self) -> Weighting:
        """The recorded weights where every store is there, made of the same; else those given, or fitted now."""
        if self.data is None:
            return Weighting(self.given)
        if not self.overwrite and all(store.exists for store in self.stores):
            return Weighting.recorded([store.recorded() for store in self.stores])
        return self.data.fit(self.own.combine)

    def summary(self, *, left: int, dry_run: bool) -> Summary:
        """What was made, or would be."""
        weights = () if dry_run else Weighting.recorded([one.recorded() for one in self.stores]).weights
        names = [f"{one.name} ({len(one.parts)} folds)" if len(one.parts) > 1 else one.name for one in self.members]
        shown = [f"{name} {weight:.3f}" for name, weight in zip(names, weights, strict=True)] if weights else names
        state = "done" if not left else f"{left} tracks to combine"
        lines = [("members", ", ".join(shown)), *self._about_fit()]
        for store in self.stores:
            kind = _kind(store.about) if store.is_out_of_fold else ""
            to_do = store.left(overwrite=self.overwrite) if dry_run else 0
            told = f", {to_do} of them to combine" if to_do else "" if left else " (done before)"
            lines.append(("scores", f"{store.path}, {len(store.tracks)} tracks{kind}{told}"))
        if not dry_run:
            lines += self._next()
        data: dict[str, Any] = {
            "stores": [str(store.path) for store in self.stores],
            "members": [member.name for member in self.members],
            "weights": list(weights),
            "skipped": not left,
            "state": state,
            "warnings": self.common.warnings,
        }
        return Summary("fuse", lines, data=data)

    def _about_fit(self) -> list[tuple[str, str]]:
        text = (
            f"mean of {self.own.combine}, weights {self.own.weights if isinstance(self.own.weights, str) else 'given'}"
        )
        notes = FeatureStore.open(self.stores[-1].path).notes.get("fit") if self.stores[-1].exists else None
        if self.data is None or not notes:
            return [("combine", text)]
        best = max(notes["alone"], key=lambda name: notes["alone"][name])
        return [
            ("combine", f"{text} on {len(self.data.tracks)} tracks"),
            (
                "worth",
                f"{notes['score']:.4f} on recordings they were not fitted on; equal {notes['equal']:.4f}, "
                f"best member {notes['alone'][best]:.4f} ({best})",
            ),
        ]

    def _next(self) -> list[tuple[str, str]]:
        root, first = self.cfg.root, self.stores[0].path
        near = [path.relative_to(root) if path.is_relative_to(root) else path for path in (self.stores[-1].path, first)]
        told = [shlex.quote(str(path)) for path in near]
        lines = [("next", f"abaw evaluate {told[0]}")]
        return [*lines, ("then", f"abaw submit --task {self.task.name} {told[1]}")] if first == self.path else lines


def _kind(about: Settings) -> str:
    return f" held out, {'out-of-fold' if about['out_of_fold'] else 'not out-of-fold'}"
