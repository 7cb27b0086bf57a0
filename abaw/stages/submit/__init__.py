"""`abaw submit`: the challenge's file, row for row as the organisers' sample asks, and the check of anybody's."""

from __future__ import annotations

from pathlib import Path

from abaw.config import Config
from abaw.console import Summary
from abaw.editions import Verdict, check_submission
from abaw.errors import AbawError, ExitCode
from abaw.rules import RULES, Finding
from abaw.scored import Predictions
from abaw.stages.submit import folder as folders
from abaw.stages.submit.gate import require_allowed
from abaw.stages.submit.job import Job, make_job, read_asked
from abaw.stages.submit.papers import add_papers, describe_places
from abaw.stages.submit.rows import Filled, write_predictions
from abaw.stages.submit.statement import describe_post, told_findings

THERE = "there already"
MAX_SUBMISSIONS = 5  # the challenge takes as many


def run(
    cfg: Config,
    *,
    task: str | None = None,
    edition: str | None = None,
    sample: Path | None = None,
    predictions: Path | None = None,
    number: int = 1,
    acknowledge: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Write one submission of a task, checked, with its archive, manifest and statement; arguments override [submit].

    Raises AbawError for an edition without the task, a missing or foreign sample file, tracks without predictions,
    models that the edition's rules do not allow (unless ``acknowledge``), and a submission of that number with other
    predictions (unless ``overwrite``). Nothing is written then, nor with ``dry_run``.
    """
    _require_number(number)
    asked = read_asked(cfg, task, edition, sample)
    job = make_job(cfg, asked, predictions, number)
    require_allowed(job.found, RULES[asked.submission.rule], asked.submission, acknowledge=acknowledge)
    scratch = folders.scratch_folder() if dry_run else folders.fresh_folder(job.target)
    with scratch as temporary:
        written, filled = write_predictions(
            temporary, job.scored, asked.sample, job.places, asked.submission, gap=asked.table.gap
        )
        _require_accepted(check_submission(written, asked.submission, asked.sample), job.scored)
        is_same = not overwrite and folders.is_same(job.target, folders.hashes(temporary))
        if not is_same:
            add_papers(cfg, job, temporary, written, filled)
        if not (is_same or dry_run):
            folders.publish(temporary, job.target)
    state = THERE if is_same else "would be written" if dry_run else "written"
    return _summary(job, filled, state)


def _require_number(number: int) -> None:
    if not 1 <= number <= MAX_SUBMISSIONS:
        raise AbawError(
            f"there is no submission {number}: the challenge takes {MAX_SUBMISSIONS}",
            where="--number",
            fix=f"give a number from 1 to {MAX_SUBMISSIONS}",
            code=ExitCode.USAGE,
        )


def check(
    cfg: Config, file: Path, *, task: str | None = None, edition: str | None = None, sample: Path | None = None
) -> Summary:
    """Check a file, folder or zip, whoever made it, against edition, task and sample; exit code 4 for offences.

    A folder that ``run`` wrote is compared with its manifest too. Raises AbawError for an unreadable sample or file.
    """
    asked = read_asked(cfg, task, edition, sample)
    verdict = check_submission(file, asked.submission, asked.sample)
    damaged = folders.damage(file) if file.is_dir() and (file / folders.MANIFEST).is_file() else []
    ok = verdict.ok and not damaged
    count, shown = verdict.count + len(damaged), len(verdict.offences) + len(damaged)
    found = f"{count} offence{'s' if count > 1 else ''}{f', the first {shown}' if count > shown else ''}:"
    lines = [
        ("checked", str(file)),
        ("edition", f"{asked.edition.name} ({asked.edition.year}), task {asked.task}"),
        ("rows", f"{verdict.rows}, the sample {asked.sample_path.name} asks for {len(asked.sample.images)}"),
        ("verdict", "accepted" if ok else found),
        *[(_place(offence.file, offence.line), offence.message) for offence in verdict.offences],
        *[("manifest", text) for text in damaged],
        *[("note", note) for note in verdict.notes],
    ]
    offences = [{"file": one.file, "line": one.line, "message": one.message} for one in verdict.offences]
    data = {
        "path": str(file),
        "edition": asked.edition.name,
        "task": asked.task,
        "ok": ok,
        "rows": verdict.rows,
        "count": count,
        "offences": offences,
        "manifest": damaged,
        "notes": verdict.notes,
    }
    return Summary("submit", lines, data=data, code=ExitCode.OK if ok else ExitCode.DATA)


def _place(file: str, line: int) -> str:
    return " ".join(part for part in (file, f"line {line}" if line else "") if part) or "file"


def _require_accepted(verdict: Verdict, scored: Predictions) -> None:
    """Our own file must pass the check that is independent of its writer."""
    if not verdict.ok:
        listed = "; ".join(f"{_place(one.file, one.line)}: {one.message}" for one in verdict.offences[:3])
        raise AbawError(
            f"the file made of {scored.name} would not be accepted ({verdict.count} offences: {listed})",
            where=str(scored.path),
            fix="look at the sample's names and at the scores; this may be an error of the program, please report it",
        )


def _summary(job: Job, filled: Filled, state: str) -> Summary:
    asked = job.asked
    shown = [
        ("edition", f"{asked.edition.name} ({asked.edition.year}), task {asked.task}, submission {job.number}"),
        ("predictions", str(job.scored.path)),
        *([("derived", job.derived)] if job.derived else []),
        ("after", describe_post(job.scored.post)),
        ("rows", f"{len(asked.sample.images)} in {len(job.places.tracks)} tracks, as in {asked.sample_path.name}"),
        ("filled", filled.in_words()),
        ("sample", describe_places(job.places)),
        ("rules", f"{asked.submission.rule}: {_verdict(job.found)}"),
        ("check", "accepted: header, rows, order and values"),
        (state, f"{job.target}{', unchanged; --overwrite writes its statement anew' if state == THERE else ''}"),
    ]
    data = {
        **dict(shown),
        "state": state,
        "folder": str(job.target),
        "filled": filled.to_dict(),
        "filled_by_track": filled.by_track,
        "row_differences": job.places.differences,
        "findings": [{"kind": one.kind, "message": one.message} for one in job.found],
    }
    return Summary("submit", shown, data=data)


def _verdict(found: list[Finding]) -> str:
    refused = [one for one in found if one.refuses]
    if refused:
        return f"acknowledged: {told_findings(refused)}"
    return f"nothing against it; note: {told_findings(found)}" if found else "nothing against it"
