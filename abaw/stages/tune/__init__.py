"""`abaw tune`: post-processing chosen on out-of-fold scores, written to post.json beside them.

Reads a predictions store and labels; `evaluate` and `submit` apply what it writes.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from abaw.config import Config
from abaw.console import Summary
from abaw.data.dealing import make_split
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import describe_tracks, labelled_tracks
from abaw.errors import AbawError
from abaw.executors import num_workers
from abaw.postprocess import FILE_NAME, Post, in_words, load_post, save_post
from abaw.scored import Predictions
from abaw.stages.tune.recordings import Recording, read_recordings
from abaw.stages.tune.refusals import check, check_others, why_not_out_of_fold
from abaw.stages.tune.search import Tuned, settings_of, tune_head
from abaw.tasks import Head, Problem

logger = logging.getLogger(__name__)

PARTS_PER_LINE = 6


def run(
    cfg: Config,
    *,
    predictions: Path,
    also: Sequence[Path] = (),
    acknowledge: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Search each head's post-processing and write it, where it gains something, beside the scores and those of
    ``also``.

    Raises AbawError for scores that are not out-of-fold, unless ``acknowledge``; for scores without labels or of fewer
    than two recordings; and where a post.json with other content is there, unless ``overwrite``.
    """
    scored = Predictions(predictions, raw=True)
    others = [path for path in dict.fromkeys(also) if path.resolve() != predictions.resolve()]
    check_others(scored, others)
    manifest = Manifest.from_config(cfg.data, need_media=False)
    source = check(cfg, scored, manifest, acknowledge=acknowledge)
    tracks = labelled_tracks(scored, source)
    recordings = read_recordings(cfg, scored, source, tracks)
    about = (
        f"{len(tracks)} {describe_tracks(scored)} of {len(recordings)} recordings, {_rows(recordings)} labelled rows"
    )
    if dry_run:
        return _plan(cfg, scored, about, [predictions, *others])
    fold_of = nested_folds(recordings, cfg.tune.folds, seed=cfg.run.seed)
    by_element = cfg.evaluate.au_mask == "element"
    found = [
        tune_head(
            head,
            recordings,
            cfg.tune,
            fold_of,
            seed=cfg.run.seed,
            element_mask=by_element,
            workers=num_workers(cfg.run.workers),
        )
        for head in scored.task.heads
    ]
    reason = why_not_out_of_fold(scored)
    post = post_of(found, fitted_on=f"{predictions.name}: {about}", folds=int(fold_of.max()) + 1, acknowledged=reason)
    write(post, [predictions, *others], overwrite=overwrite)
    return _summary(cfg, scored, found, post, about=about, reason=reason, paths=[predictions, *others])


def nested_folds(recordings: Sequence[Recording], folds: int, *, seed: int) -> np.ndarray:
    """Fold int [R] of each recording, of about equal labelled rows; fewer folds where there are fewer recordings."""
    rows = {recording.name: recording.num_labelled for recording in recordings}
    split = make_split(rows, folds=min(folds, len(rows)), seed=seed, name="tune")
    return np.array([split.folds[recording.name] for recording in recordings])


def post_of(found: Sequence[Tuned], *, fitted_on: str, folds: int, acknowledged: str = "") -> Post:
    """What post.json says: the settings of heads with a gain, raw ones for the others, and how they were measured."""
    used = [one.setting.post(one.head) for one in found if one.gain > 0]
    return Post(
        half_width={head: width for post in used for head, width in post.half_width.items()},
        thresholds={head: own for post in used for head, own in post.thresholds.items()},
        clip=next((post.clip for post in used if post.clip != Post().clip), Post().clip),
        fitted_on=fitted_on,
        filter={head: kind for post in used for head, kind in post.filter.items()},
        min_run={head: rows for post in used for head, rows in post.min_run.items()},
        raw_score={one.head: one.raw for one in found},
        tuned_score={one.head: one.tuned for one in found},
        gain={one.head: one.gain for one in found},
        interval={one.head: one.interval for one in found},
        kept_raw=[one.head for one in found if one.gain <= 0],
        nested_folds=folds,
        acknowledged=bool(acknowledged),
    )


def write(post: Post, folders: Sequence[Path], *, overwrite: bool) -> None:
    """Publish post.json in every folder. Raises AbawError, before any is written, where one has other content, unless
    ``overwrite``."""
    taken = [path for path in folders if (path / FILE_NAME).exists() and not overwrite and load_post(path) != post]
    if taken:
        raise AbawError(
            f"{taken[0] / FILE_NAME} is there with other content",
            where="abaw tune",
            fix="pass --overwrite to replace it, or move it away",
        )
    for path in folders:
        save_post(path, post)


def _rows(recordings: Sequence[Recording]) -> int:
    return sum(recording.num_labelled for recording in recordings)


def _plan(cfg: Config, scored: Predictions, about: str, paths: Sequence[Path]) -> Summary:
    """What would be searched and where it would be written."""
    tried = {head.name: len(settings_of(head, cfg.tune)) for head in scored.task.heads}
    lines = [
        ("tuned on", about),
        ("would try", ", ".join(f"{count} settings for {head}" for head, count in tried.items())),
        *(("would write", str(path / FILE_NAME)) for path in paths),
    ]
    return Summary("tune", lines, data={"settings": tried, "written": []})


def _summary(
    cfg: Config,
    scored: Predictions,
    found: Sequence[Tuned],
    post: Post,
    *,
    about: str,
    reason: str,
    paths: Sequence[Path],
) -> Summary:
    if reason:
        logger.warning("not out-of-fold: %s; the gain is likely to be overstated", reason)
    if len(post.kept_raw) == len(found):
        logger.warning("nothing was gained: evaluate and submit use the scores as they are")
    lines = [("tuned on", about + (" (not out-of-fold, acknowledged)" if reason else ""))]
    for one in found:
        head = scored.task.head(one.head)
        lines += [(one.head, _line(head, one, post)), *_threshold_lines(head, post)]
    near = shlex.quote(str(paths[0].relative_to(Path.cwd()) if paths[0].is_relative_to(Path.cwd()) else paths[0]))
    lines += [
        (
            "measured",
            f"on recordings a setting was not chosen on ({post.nested_folds} nested folds), 95 % by "
            f"{cfg.tune.resamples} resamples of recordings",
        ),
        *(("written", str(path / FILE_NAME)) for path in paths),
        ("next", f"abaw evaluate {near}"),
        ("compare", f"abaw evaluate {near} --raw"),
    ]
    if len(paths) == 1 and scored.store.header.settings.get("held_out"):
        lines.append(
            ("test set", f"abaw tune {near} --also STORE, the one that `abaw submit` reads, uses it there too")
        )
    heads = {one.head: {**asdict(one), "gain": one.gain, "kept_raw": one.head in post.kept_raw} for one in found}
    return Summary("tune", lines, data={"heads": heads, "post": asdict(post), "written": [str(path) for path in paths]})


def _line(head: Head, one: Tuned, post: Post) -> str:
    """Setting, raw and tuned score, and the gain with its interval."""
    low, high = one.interval
    gain = f"{one.gain:+.4f} ({low:+.4f} to {high:+.4f})"
    if one.head in post.kept_raw:
        return f"kept as they are: {one.raw:.4f} raw, {one.tuned:.4f} tuned, gain {gain}"
    sure = "" if low > 0 else ": may be none"
    setting = in_words(post, one.head, values=head.problem is Problem.REGRESSION)
    return f"{setting}: {one.raw:.4f} raw, {one.tuned:.4f} tuned, gain {gain}{sure}"


def _threshold_lines(head: Head, post: Post) -> list[tuple[str, str]]:
    own = post.thresholds.get(head.name, [])
    shown = [f"{label} {value:.2f}" for label, value in zip(head.labels, own, strict=False)]
    return [("", "  ".join(shown[start : start + PARTS_PER_LINE])) for start in range(0, len(shown), PARTS_PER_LINE)]
