"""Which of the given feature stores help: every stream alone, every one left out, and all of them, each its own run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abaw.config import Config, FuseConfig
from abaw.console import Summary
from abaw.errors import AbawError, ExitCode
from abaw.models.fusion import DUAL_BRANCH
from abaw.stages.fuse.inputs import stores
from abaw.stages.fuse.job import FuseJob
from abaw.tasks import Task


@dataclass(frozen=True)
class Variant:
    """A choice of the given stores; ``name`` is what is said of it, "" for all of them."""

    name: str
    visual: list[Path]
    audio: list[Path]


def run_ablation(cfg: Config, task: Task, *, overwrite: bool = False, dry_run: bool = False) -> Summary:
    """Train every variant that is not done yet; a table of their best validation scores.

    The run with all streams is the one that `abaw fuse` makes. Raises AbawError for a single store and for a
    second stage.
    """
    settings = cfg.fuse_for(task.name)
    if settings.model == DUAL_BRANCH:
        raise AbawError(
            "--ablate-streams trains each choice of streams on its own, and a second stage has the streams of its "
            "first one",
            where=f'fuse.model = "{DUAL_BRANCH}"',
            fix='compare streams with a single model, e.g. fuse.model = "netease"',
            code=ExitCode.CONFIG,
        )
    rows = []
    for variant in variants(*stores(cfg, settings)):
        job = FuseJob(cfg, task, settings=_settings(settings, variant), overwrite=overwrite)
        done = job.run(overwrite=overwrite, dry_run=dry_run)
        rows.append({"streams": variant.name or "all", **done.data})
    return Summary("fuse", [], data={"task": task.name, "variants": rows}, text=_table(task, rows))


def variants(visual: Sequence[Path], audio: Sequence[Path]) -> list[Variant]:
    """All streams; each alone; of three or more each left out; all of one kind, where that is something else."""
    streams = [(path, "visual") for path in visual] + [(path, "audio") for path in audio]
    if len(streams) < 2:
        raise AbawError(
            f"--ablate-streams compares feature stores, and there is only {streams[0][0].name}",
            where="fuse.visual, fuse.audio",
            fix="name two stores or more",
            code=ExitCode.CONFIG,
        )
    names = [path.name for path, _ in streams]
    if len(set(names)) < len(names):
        raise AbawError(
            f"two of the stores have one name: {', '.join(sorted(names))}",
            where="fuse.visual, fuse.audio",
            fix="rename a folder: the runs of the comparison are called after them",
            code=ExitCode.CONFIG,
        )
    chosen: dict[frozenset[Path], str] = {frozenset(path for path, _ in streams): ""}
    for kind, paths in (("visual", visual), ("audio", audio)):
        chosen.setdefault(frozenset(paths), f"only-{kind}") if len(paths) > 1 else None
    for path, _ in streams:
        chosen.setdefault(frozenset([path]), f"only-{path.name}")
    for path, _ in streams:
        chosen.setdefault(frozenset(other for other, _ in streams if other != path), f"without-{path.name}")
    return [
        Variant(name, [path for path in visual if path in kept], [path for path in audio if path in kept])
        for kept, name in chosen.items()
    ]


def _settings(settings: FuseConfig, variant: Variant) -> FuseConfig:
    changed: dict[str, Any] = {"visual": variant.visual, "audio": variant.audio}
    if variant.name:
        changed["name"] = f"{settings.run_name}-{variant.name}"
    if len(variant.visual) + len(variant.audio) == 1:
        changed |= {"attention": "none", "modality_dropout": 0.0}  # there is nothing to attend to, or to be left with
    if not isinstance(settings.gap, str):
        kept = {path.name for path in (*variant.visual, *variant.audio)}
        changed["gap"] = {name: policy for name, policy in settings.gap.items() if name in kept}
    return settings.model_copy(update=changed)


def _table(task: Task, rows: list[dict[str, Any]]) -> str:
    """Best validation score of each variant and its difference to all streams."""
    width = max(len(row["streams"]) for row in rows) + 2
    lines = [f"fuse: streams, task {task.name}", f"  {'streams':<{width}}{'val score':<11}against all"]
    whole = rows[0].get("best_score")
    for row in rows:
        own = row.get("best_score")
        if own is None:
            lines.append(f"  {row['streams']:<{width}}{row.get('state', '-')}")
        else:
            against = f"{own - whole:+.4f}" if whole is not None and row is not rows[0] else ""
            lines.append(f"  {row['streams']:<{width}}{own:<11.4f}{against}".rstrip())
    return "\n".join(lines)
