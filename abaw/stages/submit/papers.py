"""What lies beside the predictions of a submission: its archive, the statement for the paper, and the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from abaw import __version__
from abaw.config import Config
from abaw.stages.submit import folder as folders
from abaw.stages.submit.job import Job
from abaw.stages.submit.lineage import follow
from abaw.stages.submit.places import Places
from abaw.stages.submit.rows import Filled
from abaw.stages.submit.statement import Facts, describe_post, statement

FORMAT_VERSION = 1


def add_papers(cfg: Config, job: Job, temporary: Path, written: Path, filled: Filled) -> None:
    """Archive, statement and manifest beside the predictions."""
    asked = job.asked
    archive = f"{asked.edition.name}-{asked.task}-{job.number}.zip"
    folders.write_zip(temporary / archive, folders.text_files(written))
    folders.require_replaceable(job.target, {*folders.hashes(temporary), folders.STATEMENT})
    sample = asked.sample_path.name, folders.sample_sha256(asked.sample_path)
    facts = Facts(
        edition=asked.edition,
        submission=asked.submission,
        number=job.number,
        scored=job.scored,
        derived=job.derived,
        lineage=follow(cfg, job.scored.path, job.scored.store.header),
        findings=job.found,
        filled=filled,
        num_rows=len(asked.sample.images),
        num_tracks=len(job.places.tracks),
        files=folders.hashes(temporary),
        sample=sample,
        places=describe_places(job.places),
    )
    (temporary / folders.STATEMENT).write_bytes(statement(facts).encode())
    manifest = _manifest(job, filled, sample, temporary)
    (temporary / folders.MANIFEST).write_bytes(folders.to_json(manifest).encode())


def _manifest(job: Job, filled: Filled, sample: tuple[str, str], temporary: Path) -> dict[str, Any]:
    asked, header = job.asked, job.scored.store.header
    return {
        "format_version": FORMAT_VERSION,
        "abaw": __version__,
        "edition": asked.edition.name,
        "task": asked.task,
        "number": job.number,
        "rows": len(asked.sample.images),
        "files": folders.hashes(temporary),
        "sample": {"name": sample[0], "sha256": sample[1]},
        "predictions": {"name": job.scored.name, "fingerprint": header.fingerprint, "derived": job.derived},
        "post": describe_post(job.scored.post),
        "filled": filled.to_dict(),
        "row_differences": job.places.differences,
        "rule": asked.submission.rule,
        "acknowledged": [one.message for one in job.found if one.refuses],
        "notes": [one.message for one in job.found if not one.refuses],
        "trained_on": header.trained_on,
    }


def describe_places(places: Places) -> str:
    if places.by_key:
        return f"found by the images' paths ({places.example})"
    if not places.differences:
        return "the sample's rows are frames of the tracks"
    shown = ", ".join(f"{name} {number:+d}" for name, number in list(places.differences.items())[:5])
    more = ", ..." if len(places.differences) > 5 else ""
    return f"{len(places.differences)} tracks have sample rows unlike their frames: {shown}{more}; the sample decides"
