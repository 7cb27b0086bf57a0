"""`abaw predict`: any video, no labels: faces, features and the scores of trained runs, as a table, a film, a picture.

Calls the stages `align`, `extract-visual` and `extract-audio` in a folder of its own, with what the runs were trained
with, then scores the new tracks as `fuse` and `finetune` do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.console import Failure, Summary, progress
from abaw.data.manifest import split_person
from abaw.errors import AbawError, ExitCode
from abaw.predicting import words
from abaw.predicting.behind import Behind, look_behind
from abaw.predicting.choosing import find_choices
from abaw.predicting.people import Person, people_of
from abaw.predicting.prepared import prepare
from abaw.predicting.results import Made, Wanted, write_results
from abaw.predicting.scoring import score
from abaw.predicting.trained import Choice
from abaw.predicting.workplace import Video, Workplace
from abaw.publish import publish_text
from abaw.scored import Predictions
from abaw.store import FeatureStore
from abaw.training.device import resolve_device, use_threads

__all__ = ["run"]

logger = logging.getLogger(__name__)

ABOUT = "about.txt"


def run(
    cfg: Config,
    videos: Sequence[Path],
    *,
    runs: Sequence[str] = (),
    out: Path,
    overlay: bool = False,
    timeline: bool = False,
    all_faces: bool = False,
    raw: bool = False,
    overwrite: bool = False,
) -> Summary:
    """Score videos with trained ``runs`` (names or folders of runs, of their folds, or of ensembles).

    Without ``runs`` each task's best configured run is taken. Writes <video>.csv into ``out``, with ``overlay`` also
    <video>-overlay.mp4, with ``timeline`` <video>-timeline.png. ``raw`` leaves post.json aside. What is there already
    is not made again, unless ``overwrite``. Raises AbawError before any work for runs, features, weights or alignments
    that are not to be had, and for a folder with scores of other models; videos that fail are in the summary.
    """
    started = time.monotonic()
    choices = find_choices(cfg, runs, raw=raw)
    behind = look_behind(cfg, choices)
    given, missing = _given(videos)
    device = resolve_device(cfg.run.device)
    place = Workplace.open(out, _about(choices, behind, all_faces=all_faces), overwrite=overwrite)
    publish_text(out / ABOUT, words.about(choices, all_faces=all_faces))
    place.link(given)
    use_threads(cfg.run.threads)
    derived, failed = prepare(cfg, behind, place.work, all_faces=all_faces, device=device)
    faces = FeatureStore.open(derived.faces_store, kind="faces")
    tracks = {video.track: _tracks(faces, video, all_faces=all_faces) for video in given}
    done = [video for video in given if tracks[video.track] and video.track not in failed]
    wanted = [name for video in done for name, _ in tracks[video.track]]
    stores = {choice.task.name: Predictions(score(derived, choice, behind, wanted, device).path) for choice in choices}
    outcome = _Outcome([Failure(str(path), _why_missing(path)) for path in missing])
    for video in given:
        if video not in done:
            outcome.failed.append(Failure(str(video.path), failed.get(video.track, "it gave no track")))
    results = Wanted(place, overlay=overlay, timeline=timeline, all_faces=all_faces, overwrite=overwrite)
    for video in progress(done, desc="write", unit="video"):
        outcome.add(results, video, people_of(tracks[video.track], faces, stores))
        faces.close()
    return _summary(choices, outcome, out, seconds=time.monotonic() - started)


@dataclass
class _Outcome:
    failed: list[Failure]
    made: list[Made] = field(default_factory=list)

    def add(self, wanted: Wanted, video: Video, people: Sequence[Person]) -> None:
        """Write the results of one video; what goes wrong with it must not end the others."""
        try:
            self.made.append(write_results(wanted, video, people))
        except AbawError as error:
            self.failed.append(Failure(str(video.path), f"{error.what} (fix: {error.fix})"))
        except Exception as error:
            logger.exception("internal error in %s", video.path.name)
            self.failed.append(Failure(str(video.path), f"{type(error).__name__}: {error}", bug=True))


def _about(choices: Sequence[Choice], behind: Behind, *, all_faces: bool) -> dict[str, Any]:
    """What every score follows from, in plain JSON values."""
    return {
        "models": {choice.task.name: {**choice.describe(), "post": _post(choice)} for choice in choices},
        "recipe": behind.recipe,
        "faces": behind.faces.settings if behind.faces else {},
        "all_faces": all_faces,
    }


def _given(videos: Sequence[Path]) -> tuple[list[Video], list[Path]]:
    """The files that are there, each once, and the others."""
    there = [path for path in dict.fromkeys(path.resolve() for path in videos) if path.is_file()]
    missing = [path for path in videos if not path.is_file()]
    if not there:
        what = f"{missing[0]}: {_why_missing(missing[0])}" if missing else "no video is given"
        raise AbawError(what, where="VIDEO...", fix="name one video file or more", code=ExitCode.DATA)
    return [Video.of(path) for path in there], missing


def _why_missing(path: Path) -> str:
    return "a folder; name its files, FOLDER/*.mp4" if path.is_dir() else "there is no such file"


def _post(choice: Choice) -> dict[str, Any]:
    """What changes decisions, in plain JSON values."""
    post = choice.post
    kept = ("half_width", "filter", "thresholds", "min_run", "clip")
    return {} if post.is_raw else {key: getattr(post, key) for key in kept}


def _tracks(faces: FeatureStore, video: Video, *, all_faces: bool) -> list[tuple[str, int]]:
    """Tracks of a video and the numbers of its people."""
    if not all_faces:
        return [(video.track, 1)] if video.track in faces else []
    people = [
        (number, name) for name in faces.track_ids() for base, number in [split_person(name)] if base == video.track
    ]
    return [(name, number) for number, name in sorted((number, name) for number, name in people if number)]


def _summary(choices: Sequence[Choice], outcome: _Outcome, out: Path, *, seconds: float) -> Summary:
    lines = [("model", f"{choice.task.name}: {choice.in_words()}") for choice in choices]
    seen = dict.fromkeys(line for choice in choices for line in words.trained_on(choice))
    lines += [("trained on", line) for line in seen]
    rows, faces = sum(one.rows for one in outcome.made), sum(one.faces for one in outcome.made)
    people = sum(one.people for one in outcome.made)
    shown = f", {people} people" if people > len(outcome.made) else ""
    lines.append(("videos", f"{len(outcome.made)} scored{shown}, {len(outcome.failed)} failed"))
    lines.append(("rows", f"{rows} in {seconds:.1f} s, {faces} with a face"))
    for one in outcome.made:
        lines += [(path.suffix[1:], f"{path}{'' if is_new else ' (there already)'}") for path, is_new in one.files]
        lines += [("note", text) for text in one.notes]
    lines += [("about", str(out / ABOUT)), ("notice", words.NOTICE)]
    data = {
        "out": str(out),
        "models": {choice.task.name: choice.describe() for choice in choices},
        "trained_on": {choice.task.name: words.records_of(choice) for choice in choices},
        "videos": [one.to_dict() for one in outcome.made],
        "rows": rows,
        "notice": words.NOTICE,
    }
    return Summary("predict", lines, failed=outcome.failed, data=data)
