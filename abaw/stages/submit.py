"""`abaw submit`: the challenge's file, row for row as the organisers' sample asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from abaw.config import Config
from abaw.console import Summary
from abaw.editions import EDITIONS, SampleRows, Submission, format_rows, read_sample
from abaw.errors import AbawError, ExitCode, choose, closest
from abaw.postprocess import Post
from abaw.publish import publish_text
from abaw.scored import Predictions


def run(
    cfg: Config,
    *,
    task: str | None = None,
    edition: str | None = None,
    sample: Path | None = None,
    predictions: Path | None = None,
    overwrite: bool = False,
) -> Summary:
    """Write one task's submission file; arguments override [submit].

    Raises AbawError for an edition without the task, a missing or foreign sample file, a track without predictions,
    or a file that is already there, unless ``overwrite`` or its content is the same.
    """
    task_name = task or cfg.submit.task
    table = cfg.submit_for(task_name)
    chosen = choose(EDITIONS, edition or table.edition, what="edition", where="submit.edition")
    where = f"submit.task, edition {chosen.name}"
    submission = choose(chosen.submissions, task_name, what="task of this edition", where=where)
    sample_path = sample or table.sample
    if sample_path is None:
        raise AbawError(
            f"no sample file is given for task {task_name}",
            where=f"submit.sample, [submit.{task_name}] sample",
            fix="name the organisers' sample file there, or pass --sample FILE",
            code=ExitCode.CONFIG,
        )
    rows = read_sample(sample_path, submission)
    fuse_name = cfg.fuse_for(task_name).name or cfg.fuse_for(task_name).model
    store = predictions or table.predictions or cfg.predictions_store(cfg.run_dir("fuse", fuse_name, task_name))
    scored = Predictions(store)
    if scored.task.name != task_name:
        raise AbawError(
            f"{store.name} holds scores of task {scored.task.name}, not {task_name}",
            where=str(store),
            fix=f"give the predictions of task {task_name}",
        )
    differences = _row_differences(scored, rows, tolerance=cfg.data.max_row_difference)
    lines, filled = build_lines(scored, rows, gap=table.gap)
    folder = (table.output or cfg.run.output / "submissions") / f"{chosen.name}-{task_name}"
    text = "\n".join([submission.header, *lines]) + "\n"
    _require_same_rows(text, rows, submission)
    path = folder / submission.filename
    write_file(path, text, overwrite=overwrite)
    shown = [
        ("edition", f"{chosen.name} ({chosen.year}), task {task_name}"),
        ("predictions", str(store)),
        ("after", _describe_post(scored)),
        ("rows", f"{len(lines)} in {len(rows.tracks)} tracks, as in {sample_path.name}"),
        ("filled", f"{sum(filled.values())} rows without a prediction of their own, policy {table.gap}"),
        ("unlike", _describe_differences(differences)),
        ("written", str(path)),
    ]
    return Summary("submit", shown, data={**dict(shown), "filled_by_track": filled})


def _describe_post(scored: Predictions) -> str:
    """What is done to the scores before they become decisions, in words."""
    if scored.post == Post():
        return "no post.json: the scores as they are"
    changes = " changes nothing" if scored.post.is_raw else ""
    return f"post.json{changes}, fitted on {scored.post.fitted_on or 'unknown'}"


def build_lines(scored: Predictions, sample: SampleRows, *, gap: str) -> tuple[list[str], dict[str, int]]:
    """The file's rows in the sample's order, and how many rows of each track had to be filled."""
    _require_tracks(scored, sample)
    suffixes = np.empty(len(sample.images), object)
    filled: dict[str, int] = {}
    for index, track_id in enumerate(sample.tracks):
        places = np.flatnonzero(sample.track_index == index)
        rows = sample.rows[places]
        decided = scored.decide(track_id, gap=gap, num_rows=int(rows.max()) + 1)
        texts = np.array(format_rows(scored.task, decided.decisions), object)
        suffixes[places] = texts[rows]
        missing = int((~decided.valid[rows]).sum())
        if missing:
            filled[track_id] = missing
    return [f"{image},{suffix}" for image, suffix in zip(sample.images, suffixes, strict=True)], filled


def _require_tracks(scored: Predictions, sample: SampleRows) -> None:
    missing = [track_id for track_id in sample.tracks if track_id not in scored.store]
    if missing:
        known = scored.store.track_ids()
        near = closest(missing[0], known)
        hint = f" (nearest to {missing[0]}: {near})" if near else ""
        raise AbawError(
            f"{len(missing)} of {len(sample.tracks)} tracks of the sample have no predictions: "
            f"{', '.join(missing[:5])}{hint}",
            where=str(scored.store.path),
            fix=_fix_of_missing(scored),
        )


def _fix_of_missing(scored: Predictions) -> str:
    settings, path = scored.store.header.settings, scored.store.path
    whole = path.with_name(path.name.removesuffix("-folds"))
    if "members" in settings:
        if "held_out" in settings:
            return f"these are out-of-fold scores of labelled tracks; name the ensemble itself: {whole}"
        return "list them under data.test, run the stages behind every member again, then make the ensemble again"
    if "held_out" in settings and "fold" not in settings:
        return (
            "these are scores of folds on what they held out; let all folds score the test tracks together:\n"
            f"abaw fuse --task {scored.task.name} --ensemble {path.name}\n"
            f"or name those of one fold, e.g. {whole}-fold-0"
        )
    return "list them under data.test, then run align, the extractions and fuse again"


def _row_differences(scored: Predictions, sample: SampleRows, *, tolerance: int) -> dict[str, int]:
    """Sample rows minus frames of tracks where they differ. Raises AbawError beyond the tolerance."""
    found = {}
    for index, track_id in enumerate(sample.tracks):
        if track_id not in scored.store:
            continue  # named by the next check
        asked, frames = int(sample.rows[sample.track_index == index].max()) + 1, scored.store.num_rows(track_id)
        if asked != frames:
            found[track_id] = asked - frames
        if asked - frames > tolerance:
            raise AbawError(
                f"the sample asks for row {asked} of track {track_id}, which has {frames} frames",
                where=str(scored.store.path),
                fix="check that sample and videos belong together, or raise data.max_row_difference",
            )
    return found


def _describe_differences(differences: dict[str, int]) -> str:
    if not differences:
        return "none: the sample's rows are the tracks' frames"
    shown = ", ".join(f"{name} {number:+d}" for name, number in list(differences.items())[:5])
    return f"{len(differences)} tracks have sample rows unlike their frames: {shown}"


def _require_same_rows(text: str, sample: SampleRows, submission: Submission) -> None:
    """The written text must name exactly the sample's images in its order."""
    images = [line.partition(",")[0] for line in text.splitlines()[1:]]
    if images != sample.images or text.partition("\n")[0] != submission.header:
        msg = "the submission's rows differ from the sample's"
        raise RuntimeError(msg)


def write_file(path: Path, text: str, *, overwrite: bool) -> None:
    """Publish the file. Raises AbawError when it is there with other content, unless ``overwrite``."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    if path.is_dir() or (path.exists() and not overwrite):
        raise AbawError(
            f"{path} is there {'as a folder' if path.is_dir() else 'with other content'}",
            where="abaw submit",
            fix="move it away, pass --overwrite, or name another folder in submit.output",
        )
    publish_text(path, text)
