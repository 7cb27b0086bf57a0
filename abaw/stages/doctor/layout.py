"""Is the data laid out as [data] and [submit] say? Recordings, labels, test lists, sample files, and how they pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from abaw.config import Config
from abaw.data.annotations import LabelReader
from abaw.data.manifest import Manifest, Track, media_folder
from abaw.editions import EDITIONS, read_sample
from abaw.errors import AbawError, ExitCode, choose
from abaw.stages.doctor.findings import Finding, good, note, of_error, problem
from abaw.tasks import TASKS

SHOWN = 4  # tracks that a finding names
WHAT = {"videos": "recordings", "crops": "folders of crops", "images": "shards of images"}


@dataclass
class Known:
    """What one check found that later ones ask for; empty where it did not get so far.

    ``tracks`` that have a recording; ``told``: errors that were said.
    """

    tracks: list[Track] = field(default_factory=list)
    told: set[str] = field(default_factory=set)


def media(cfg: Config, known: Known) -> Iterator[Finding]:
    """The recordings alone, whatever the labels are like."""
    data = cfg.data
    try:
        folder, key = media_folder(data)
        tracks = Manifest.from_config(data.model_copy(update={"annotations": {}, "test": {}}))
    except AbawError as error:
        if (cfg.faces_store / "store.json").is_file():
            text = f"not here ({error.what}); aligned faces are in {cfg.faces_store}"
            yield note("media", text, "`abaw align` needs the recordings, the other stages do not")
        else:
            yield of_error("media", error)
        return
    known.tracks = list(tracks)
    counted = f"{len(tracks)} {WHAT[data.kind]} in {folder}"
    if tracks:
        yield good("media", counted, kind=data.kind, folder=str(folder), count=len(tracks))
    else:
        yield problem("media", counted, fix=f"put them there, or correct {key}", code=ExitCode.DATA)


def labels(cfg: Config, known: Known) -> Iterator[Finding]:
    """Label files and test lists of each task by itself: tracks by split, and whether a file of each split reads."""
    data = cfg.data
    if data.kind == "images":
        return
    for task in dict.fromkeys([*data.annotations, *data.test]):
        only = {table: {task: path} for table, path in _paths(cfg, task).items()}
        alone = data.model_copy(update={"annotations": {}, "test": {}, **only})
        try:
            tracks = Manifest.from_config(alone, need_media=False).select(task=task)
            counts = Counter(track.splits[task] for track in tracks)
            rows = _try_files(cfg, task, tracks)
        except AbawError as error:
            known.told.add(error.what)
            yield of_error(f"{task} labels", error)
            continue
        shown = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test") if split in counts)
        text = f"{shown or 'no'} tracks" + (f"; {rows} rows in the files that were tried" if rows else "")
        yield good(f"{task} labels", text, splits=dict(counts))
    if not data.annotations:
        yield note("labels", "none are configured", 'to train: annotations = { va = "FOLDER" } in [data]')


def _paths(cfg: Config, task: str) -> dict[str, object]:
    tables = {"annotations": cfg.data.annotations, "test": cfg.data.test}
    return {name: table[task] for name, table in tables.items() if task in table}


def _try_files(cfg: Config, task: str, tracks: Sequence[Track]) -> int:
    """Rows of the first file of each split: AbawError where it is not of this task."""
    if task not in cfg.data.annotations or TASKS[task].train_on is not None:
        return 0
    reader = LabelReader(cfg.data, TASKS[task])
    firsts = [next((one for one in tracks if one.splits[task] == split), None) for split in ("train", "val")]
    return sum(reader.count(track) for track in firsts if track is not None)


def pairs(cfg: Config, known: Known) -> Iterator[Finding]:
    """Tracks that labels and lists name and that have no recording, and the reverse."""
    if cfg.data.kind == "images" or not known.tracks or not (cfg.data.annotations or cfg.data.test):
        return
    try:
        manifest = Manifest.from_config(cfg.data)
    except AbawError as error:
        if error.what not in known.told:
            yield of_error("pairs", error)
        return
    known.tracks = [track for track in manifest if track.video is not None]
    named = [track for track in manifest if track.splits]
    lost = [track.track_id for track in named if track.video is None]
    spare = [track.track_id for track in manifest if not track.splits]
    folder, key = media_folder(cfg.data)
    counts: dict[str, Any] = {"named": len(named), "without_media": lost, "without_labels": spare}
    if lost:
        text = f"{len(lost)} of {len(named)} tracks of labels and test lists have no recording: {_some(lost)}"
        fix = f"put them into {folder} (or correct {key}), or take their label files and lines of lists away"
        if len(lost) == len(named):
            fix = f"names must be equal but for _left and _right; there is for example {_some(spare[:1])}; see {key}"
        yield problem("pairs", text, fix=fix, code=ExitCode.DATA, **counts)
    if spare:
        text = f"{len(spare)} recordings are in no label file and no test list: {_some(spare)}"
        yield note("pairs", text, **counts)
    if not (lost or spare):
        yield good("pairs", f"each of {len(named)} tracks has its recording, and each recording a track", **counts)


def samples(cfg: Config, known: Known) -> Iterator[Finding]:
    """Sample files of the challenge: read whole, and their tracks looked for among the recordings."""
    for task in dict.fromkeys([cfg.submit.task, *cfg.submit_tasks]):
        table = cfg.submit_for(task)
        if table.sample is None:
            continue
        check = f"{task} sample"
        try:
            edition = choose(EDITIONS, table.edition, what="edition", where="submit.edition")
            sample = read_sample(table.sample, choose(edition.submissions, task, what="task", where="submit.task"))
        except AbawError as error:
            yield of_error(check, error)
            continue
        text = f"{len(sample)} rows" + ("" if sample.keyed else f" of {len(sample.tracks)} tracks")
        lost = [] if sample.keyed else _unknown(cfg, sample.tracks)
        numbers = {"rows": len(sample), "tracks": len(sample.tracks), "unknown": lost}
        if lost and known.tracks:
            fix = f"give `data.test.{task}` its list, or put their recordings into the folder of [data]"
            yield note(check, f"{text}, {len(lost)} of which nothing else names: {_some(lost)}", fix, **numbers)
        else:
            yield good(check, f"{text}, edition {table.edition}", **numbers)


def _unknown(cfg: Config, names: Sequence[str]) -> list[str]:
    try:
        manifest = Manifest.from_config(cfg.data)
    except AbawError:
        return []
    return [name for name in names if manifest.get(name) is None]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
