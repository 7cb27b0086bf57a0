"""What a submission is made from: edition, task, the sample's rows, scores and their places, what the rules say.

Raises what a user gets wrong before anything is computed. Writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from abaw.config import Config, SubmitConfig
from abaw.editions import EDITIONS, Edition, SampleRows, Submission, read_sample
from abaw.errors import AbawError, ExitCode, choose
from abaw.postprocess import UNIT
from abaw.rules import RULES, Finding, findings
from abaw.scored import Predictions
from abaw.stages.submit.places import Places, find_places
from abaw.tasks import TASKS, Problem


@dataclass(frozen=True)
class Asked:
    """What is asked for, and the sample's rows."""

    task: str
    table: SubmitConfig
    edition: Edition
    submission: Submission
    sample_path: Path
    sample: SampleRows


@dataclass(frozen=True)
class Job:
    """A submission about to be written."""

    asked: Asked
    scored: Predictions
    derived: str
    places: Places
    found: list[Finding]
    target: Path
    number: int


def read_asked(cfg: Config, task: str | None, edition: str | None, sample: Path | None) -> Asked:
    """Edition, task and the sample's rows. Raises AbawError where one of them is missing or does not fit."""
    name = task or cfg.submit.task
    table = cfg.submit_for(name)
    chosen = choose(EDITIONS, edition or table.edition, what="edition", where="submit.edition")
    submission = choose(
        chosen.submissions, name, what="task of this edition", where=f"submit.task, edition {chosen.name}"
    )
    path = sample or table.sample
    if path is None:
        raise AbawError(
            f"no sample file is given for task {name}",
            where=f"submit.sample, [submit.{name}] sample",
            fix="name the organisers' sample file there, or pass --sample FILE",
            code=ExitCode.CONFIG,
        )
    return Asked(name, table, chosen, submission, path, read_sample(path, submission))


def make_job(cfg: Config, asked: Asked, predictions: Path | None, number: int) -> Job:
    """Scores of the task, their places and what the rules say. Raises AbawError where rows cannot be found."""
    own = Predictions(predictions or asked.table.predictions or _default_store(cfg, asked.task))
    scored = own.for_task(asked.task)
    _require_unit(scored)
    faces = cfg.finetune_for(own.task.name).faces or cfg.faces_store
    tolerance = cfg.data.max_row_difference
    places = find_places(scored, asked.sample, faces=faces, tolerance=tolerance, scored_as=own.task.name)
    found = findings(own.store.header.trained_on, RULES[asked.submission.rule], asked.task)
    output = asked.table.output or cfg.run.output / "submissions"
    target = output / f"{asked.edition.name}-{asked.task}" / f"submission-{number}"
    return Job(asked, scored, _derivation(own, scored), places, found, target, number)


def _default_store(cfg: Config, task: str) -> Path:
    """Scores that `fuse` writes of the task, or of the one it follows from; of single images those of `finetune`."""
    source = TASKS[task].train_on or task
    if cfg.data.kind == "images":
        return cfg.predictions_store(cfg.run_dir("finetune", cfg.finetune_for(source).run_name, source))
    return cfg.predictions_store(cfg.run_dir("fuse", cfg.fuse_for(source).run_name, source))


def _derivation(own: Predictions, scored: Predictions) -> str:
    """How scores of one task follow from those of another, in words; "" where they are its own."""
    if own.task == scored.task:
        return ""
    if scored.task.name == "ce":
        return (
            f"compound expressions from {own.task.name}: of the seven pairs the one with the largest sum of its two "
            "parents' probabilities (our choice, the challenge names no rule)"
        )
    return f"{scored.task.name} from the same scores of {own.task.name}"


def _require_unit(scored: Predictions) -> None:
    """Refuse bounds that would let values out of -1..1 into the file."""
    values = any(head.problem is Problem.REGRESSION for head in scored.task.heads)
    if values and not (UNIT[0] <= scored.post.clip[0] <= scored.post.clip[1] <= UNIT[1]):
        raise AbawError(
            f"post.json clips values to {list(scored.post.clip)}, the challenge takes -1 to 1",
            where=str(scored.path / "post.json"),
            fix='set "clip" to [-1.0, 1.0] there, or run `abaw tune` again',
        )
