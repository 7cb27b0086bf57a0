"""`abaw synth OUT`: a small set in the organisers' layout, made from portraits.

Real portraits are morphed into identities whose faces move by twelve action units; expression, valence and arousal
follow from these (`activations`), and a synthesised voice tells a part of arousal that no picture shows (`voice`).
The same seed gives the same bytes on one machine, whatever the number of workers. Truth lies in OUT/truth, which no
stage reads. Every class and unit is in at least three validation tracks, and track means tell nothing, from 12 videos
of 8 seconds on; smaller sets hold all special cases but are for trying things out.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from abaw.console import Summary, progress
from abaw.errors import AbawError, ExitCode
from abaw.executors import num_workers
from abaw.stages.synth import layout
from abaw.stages.synth.lsd import LsdJob, make_lsd
from abaw.stages.synth.photos import load_photos, photos_sha256
from abaw.stages.synth.plan import MIN_VIDEOS, Video, plan_videos
from abaw.stages.synth.portraits import Portrait
from abaw.stages.synth.settings import data_toml
from abaw.stages.synth.sheet import write_sheet
from abaw.stages.synth.track import Job, make_video

logger = logging.getLogger(__name__)

MARKER = "synth.json"
VERSION = 1


def run(
    out: Path,
    *,
    videos: int = 40,
    seconds: float = 8.0,
    seed: int = 0,
    portraits: Path | None = None,
    sheet: bool = False,
    workers: int = 0,
) -> Summary:
    """Make the set in the new folder ``out``; a finished set of the same parameters is left as it is.

    ``workers`` = 0 is one process per core. Raises AbawError for an ``out`` that holds something else, too few videos,
    and unusable portraits.
    """
    parameters = _parameters(videos, seconds, seed, portraits)
    sheet_path = out / "truth" / "sheet.png"
    if _is_there(out, parameters):
        if sheet and not sheet_path.is_file():
            write_sheet(sheet_path, _cast(parameters), _photos(portraits))
        return _summary(out, parameters, "already there")
    photos = _photos(portraits)
    partial = out.resolve().with_name(f".{uuid.uuid4().hex}.partial")  # two runs at once stay out of each other's way
    try:
        _make_folder(partial)
        _build(partial, parameters, photos, workers=num_workers(workers))
        if sheet:
            write_sheet(partial / "truth" / "sheet.png", _cast(parameters), photos)
        (partial / MARKER).write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _summary(out, parameters, "made")


def _make_folder(partial: Path) -> None:
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise AbawError(
            f"the set cannot be made there: {error}",
            where=str(partial.parent),
            fix="name a folder whose parent you may write to",
        ) from error


def _parameters(videos: int, seconds: float, seed: int, portraits: Path | None) -> dict[str, Any]:
    if videos < MIN_VIDEOS:
        raise AbawError(
            f"{videos} videos are too few to hold every special case",
            where="abaw synth, --videos",
            fix=f"--videos {MIN_VIDEOS} or more",
            code=ExitCode.USAGE,
        )
    if not 1 <= seconds <= 3600:
        raise AbawError(
            f"videos of {seconds} seconds cannot be made",
            where="abaw synth, --seconds",
            fix="--seconds between 1 and 3600",
            code=ExitCode.USAGE,
        )
    photos = photos_sha256(portraits) if portraits else "built-in"
    return {"version": VERSION, "videos": videos, "seconds": float(seconds), "seed": seed, "portraits": photos}


def _photos(folder: Path | None) -> tuple[Portrait, ...] | None:
    if folder is None:
        return None
    portraits, left_out = load_photos(folder)
    for line in left_out:
        logger.warning("photograph left out: %s", line)
    return tuple(portraits)


def _plan(parameters: dict[str, Any]) -> list[Video]:
    return plan_videos(videos=parameters["videos"], seconds=parameters["seconds"], seed=parameters["seed"])


def _is_there(out: Path, parameters: dict[str, Any]) -> bool:
    """True for a finished set of these parameters; False for nothing; AbawError for anything else."""
    if not out.exists():
        return False
    if out.is_dir() and not any(out.iterdir()):
        return False
    marker = out / MARKER
    if marker.is_file():
        found = _read_marker(marker)
        if found == parameters:
            return True
        differing = [key for key in parameters if found.get(key) != parameters[key]]
        what = ", ".join(f"{key} = {found.get(key)} (asked for {parameters[key]})" for key in differing)
        raise AbawError(
            f"{out} holds a synthetic set made with other parameters",
            where=what,
            fix="give a new folder, or remove this one first",
        )
    raise AbawError(
        f"{out} exists and is not a synthetic set",
        where="abaw synth OUT",
        fix="give a new or an empty folder",
    )


def _read_marker(marker: Path) -> dict[str, Any]:
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise AbawError(
            f"{marker.name} cannot be read, so it is unclear what set this is",
            where=str(marker),
            fix="give a new folder, or remove this one first",
        )
    return found


def _build(out: Path, parameters: dict[str, Any], photos: tuple[Portrait, ...] | None, *, workers: int) -> None:
    plan, seed = _plan(parameters), parameters["seed"]
    (out / layout.ROOT / "videos").mkdir(parents=True)
    jobs: list[tuple[Callable[[Any], Any], Any]] = [(make_video, Job(out, seed, video, photos)) for video in plan]
    jobs += [(make_lsd, job) for job in _lsd_jobs(out, seed, plan, photos)]
    mtl: dict[str, dict[int, list[str]]] = {"train": {}, "val": {}, "test": {}}
    for index, rows in progress(_done(jobs, workers=workers), desc="synth", total=len(jobs), unit="video"):
        for split, lines in (rows or {}).items():
            mtl[split][index] = lines
    ordered = {split: [line for index in sorted(rows) for line in rows[index]] for split, rows in mtl.items()}
    layout.write_mtl(out, ordered)
    layout.write_test_files(out, plan)
    (out / "data.toml").write_text(data_toml(), encoding="utf-8")


def _cast(parameters: dict[str, Any]) -> tuple[int, list[tuple[str, int]]]:
    """Seed, and name and identity number of every track, for the contact sheet."""
    people = [(person.track_id, person.identity) for video in _plan(parameters) for person in video.people]
    return parameters["seed"], people


def _lsd_jobs(out: Path, seed: int, plan: list[Video], portraits: Any) -> list[LsdJob]:
    """Identities of the folder set's splits come from the same split of the videos."""
    cast: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for video in plan:
        for person in video.people:
            splits = set(person.splits.values())
            if len(splits) == 1:
                cast[splits.pop()].append(person.identity)
    counts = {"train": max(2, len(plan) // 2), "val": max(1, len(plan) // 4), "test": max(1, len(plan) // 4)}
    size = 2 if len(plan) < 16 else 4
    return [
        LsdJob(out, seed, split, tuple(numbers[:size]), counts[split], portraits) for split, numbers in cast.items()
    ]


def _done(jobs: list[tuple[Callable[[Any], Any], Any]], *, workers: int) -> Iterator[tuple[int, Any]]:
    """Index and result of every job, in the order they finish."""
    if workers <= 1:
        for index, (work, job) in enumerate(jobs):
            yield index, work(job)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, job): index for index, (work, job) in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _summary(out: Path, parameters: dict[str, Any], state: str) -> Summary:
    lines = [
        ("set", f"{out} ({state})"),
        ("videos", f"{parameters['videos']} of {parameters['seconds']:g} s, seed {parameters['seed']}"),
        ("next", f"cd {out} && abaw align"),
    ]
    return Summary("synth", lines, data={"out": str(out), "state": state, **parameters})
