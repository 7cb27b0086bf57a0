"""The model that a fusion run trains: a temporal model on its own, or the second stage of one that is trained."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abaw.checkpoint import load_checkpoint, load_weights
from abaw.config import Config, FuseConfig
from abaw.data.splits import Fold
from abaw.data.windows import FeatureStreams
from abaw.errors import AbawError, ExitCode
from abaw.models.fusion import DUAL_BRANCH, DualBranch, FusionModel, FusionOptions, fusion_from_header
from abaw.provenance import file_sha256
from abaw.tasks import Task
from abaw.training.run import FOLD_PREFIX


@dataclass(frozen=True)
class FirstStage:
    """The trained fusion that a second stage freezes and copies."""

    path: Path
    header: dict[str, Any]
    sha256: str

    def describe(self) -> dict[str, str]:
        """What a run records of it: the run's name, with its fold, and the weights' hash."""
        run = self.path.parent
        named = f"{run.parent.name}-{run.name}" if run.name.startswith(FOLD_PREFIX) else run.name
        return {"name": named, "fingerprint": self.sha256}

    def model(self) -> FusionModel:
        """The model with its weights."""
        weights, header = load_checkpoint(self.path, kind="fusion")
        model = fusion_from_header(header, where=str(self.path))
        load_weights(model, weights, where=str(self.path))
        if not isinstance(model, FusionModel):
            raise AbawError(
                f"{self.path.parent.name} is a second stage itself",
                where="fuse.dual.first",
                fix='name the run of a single model, e.g. first = "netease"',
                code=ExitCode.CONFIG,
            )
        return model


def options_of(settings: FuseConfig, streams: FeatureStreams) -> FusionOptions:
    """What shapes a single model."""
    return FusionOptions(
        model=settings.model,
        dims=tuple(streams.dims),
        dropout=settings.dropout,
        positions=settings.positions,
        padding_mask=settings.padding_mask,
        attention=settings.attention,
        modality_dropout=settings.modality_dropout,
        value_heads=settings.value_heads,
    )


def first_stage(
    cfg: Config, settings: FuseConfig, task: Task, streams: FeatureStreams, fold: Fold | None
) -> FirstStage | None:
    """The finished run that a second stage starts from; None for other models.

    Raises AbawError where there is none, or one of another task or of other features.
    """
    if settings.model != DUAL_BRANCH:
        return None
    folder = cfg.run_dir("fuse", settings.dual.first, task.name)
    folder = folder / f"{FOLD_PREFIX}{fold.number}" if fold else folder
    path = folder / "best.safetensors"
    if not (folder / "done").is_file() or not path.is_file():
        raise AbawError(
            f"there is no finished first stage {folder.name if fold is None else folder.parent.name}",
            where=f"fuse.dual.first = {settings.dual.first}, {folder}",
            fix=f'run `abaw fuse --task {task.name} --set fuse.model="netease"'
            + (f" --folds {fold.split.num_folds}`" if fold else "`")
            + " first, or name a run that is there",
            code=ExitCode.MISSING,
        )
    _, header = load_checkpoint(path, kind="fusion")
    what = f"task {header['task']}" if header["task"] != task.name else _other(header["streams"], streams.describe())
    gap = header.get("gap", settings.gap)
    if not what and gap != settings.gap:
        what = f"gaps filled by {json.dumps(gap)}, and here by {json.dumps(settings.gap)}"
    if what:
        raise AbawError(
            f"the first stage was trained on something else: {what}",
            where=f"fuse.dual.first: {path}",
            fix="give both stages the same task, feature stores and fuse.gap, or train the first again (--overwrite)",
        )
    return FirstStage(path, header, file_sha256(path))


def _other(theirs: Sequence[Mapping[str, str]], ours: Sequence[Mapping[str, str]]) -> str:
    """How the streams of a first stage differ from these, in words; "" where they are the same."""
    before, now = (", ".join(stream["name"] for stream in streams) for streams in (theirs, ours))
    if before != now:
        return f"{before}, and here is {now}"
    changed = [new["name"] for old, new in zip(theirs, ours, strict=True) if dict(old) != dict(new)]
    return f"{', '.join(changed)} was made with other settings since" if changed else ""


def build(
    task: Task, settings: FuseConfig, streams: FeatureStreams, first: FirstStage | None
) -> FusionModel | DualBranch:
    """A fresh single model, or the frozen first stage with its trainable copy."""
    if first is None:
        return FusionModel(task, options_of(settings, streams))
    model = first.model()
    return DualBranch(model, copy.deepcopy(model), test_mix=settings.dual.test_mix)
