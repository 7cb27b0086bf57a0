"""The ablation of EMAE: the face alone, and every auxiliary view with every fusion operator, each its own run."""

from __future__ import annotations

from typing import Any

from abaw.config import Config, EmaeConfig, FinetuneConfig
from abaw.console import Summary
from abaw.data.views import VIEWS
from abaw.errors import AbawError, ExitCode
from abaw.models.emae import OPERATORS
from abaw.stages.finetune.job import FinetuneJob
from abaw.tasks import Task

ALONE = "none"


def run_ablation(cfg: Config, task: Task, *, overwrite: bool = False, dry_run: bool = False) -> Summary:
    """Train every variant that is not done yet; a table of their best validation scores."""
    settings = cfg.finetune_for(task.name)
    if settings.model != "emae":
        raise AbawError(
            f'--ablate compares variants of emae, and finetune.model is "{settings.model}"',
            where="finetune.model",
            fix='set finetune.model = "emae", whose presets the variants need',
            code=ExitCode.CONFIG,
        )
    rows = []
    for variant in variants(settings.emae):
        job = FinetuneJob(cfg, task, settings=_variant(settings, variant), overwrite=overwrite)
        done = job.run(overwrite=overwrite, dry_run=dry_run)
        rows.append({"view": variant.view, "operator": variant.operator, **done.data})
    return Summary("finetune", [], data={"task": task.name, "variants": rows}, text=_table(task, rows))


def variants(emae: EmaeConfig) -> list[EmaeConfig]:
    """The face alone, then each view with each operator; style and place of the fusion are the configuration's.

    The face alone is fused with nothing: whatever operator is configured, it is the same run.
    """
    pairs = [(ALONE, EmaeConfig().operator), *((view, operator) for view in VIEWS for operator in OPERATORS)]
    return [emae.model_copy(update={"view": view, "operator": operator}) for view, operator in pairs]


def _variant(settings: FinetuneConfig, variant: EmaeConfig) -> FinetuneConfig:
    words = [settings.name or settings.preset, "emae", variant.view.replace("+", "-")]
    words += [variant.operator] if variant.view != ALONE else []
    return settings.model_copy(update={"emae": variant, "name": "-".join(words)})


def _table(task: Task, rows: list[dict[str, Any]]) -> str:
    lines = [f"finetune: ablation of views and operators, task {task.name}", f"  {'view':<12}{'operator':<10}val score"]
    for row in rows:
        operator = row["operator"] if row["view"] != ALONE else "-"
        shown = f"{row['best_score']:.4f}" if row.get("best_score") is not None else str(row.get("state", "-"))
        lines.append(f"  {row['view']:<12}{operator:<10}{shown}")
    return "\n".join(lines)
