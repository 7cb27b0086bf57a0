"""What every source says about the rows of a track, side by side, and whether they agree.

Owns the comparison behind `abaw check`. Reads stores, label and sample files and the names of files, never a picture
or a sound. Knows nothing of printing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config import Config, DataConfig
from abaw.crop_names import crop_number
from abaw.data.annotations import LabelReader
from abaw.data.manifest import Manifest, Track, split_person, split_side
from abaw.editions import EDITIONS, read_sample
from abaw.errors import AbawError, choose
from abaw.store import FeatureStore, Reason
from abaw.tasks import TASKS

OK, TOLERABLE, WRONG = "ok", "tolerable", "wrong"
HEADER_SLACK_S = 1.0  # headers round, and some estimate
SOUND_SLACK_S = 0.5  # sound comes in packets and encoders round at both ends: less is nothing to look at


@dataclass(frozen=True, slots=True)
class Named:
    """Rows of a track that files name: ``highest`` (1-based number of the last, so the rows needed) and ``count``."""

    highest: int
    count: int


@dataclass
class Entry:
    """What is known of one track; None, or no key, where it is not.

    ``frames`` rows of the faces store, ``with_face`` the valid ones, ``labels`` rows by task, ``samples`` and ``crops``
    rows that files name, ``switches`` changes of the person shown, ``sound_s`` and ``video_s`` lengths in seconds.
    ``wrong``, ``tolerable`` and ``remarks`` are findings in words.
    """

    track_id: str
    frames: int | None = None
    with_face: int | None = None
    header_frames: int | None = None
    labels: dict[str, int] = field(default_factory=dict)
    samples: dict[str, Named] = field(default_factory=dict)
    crops: Named | None = None
    switches: int | None = None
    sound: bool | None = None
    sound_s: float | None = None
    video_s: float | None = None
    decode_errors: int | None = None
    wrong: list[str] = field(default_factory=list)
    tolerable: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The worst finding; remarks do not count."""
        return WRONG if self.wrong else TOLERABLE if self.tolerable else OK

    @property
    def reason(self) -> str:
        """Why the verdict is not ok; empty where it is."""
        return "; ".join([*self.wrong, *self.tolerable])


class Ledger:
    """The sources of a configuration, opened once; ``entries`` compares them track by track.

    Raises AbawError where there is no faces store, and for a list or sample file that cannot be read.
    """

    def __init__(self, cfg: Config) -> None:
        self.store = _open_store(cfg.faces_store)
        self._data = cfg.data
        self._images = cfg.data.kind == "images"  # their rows have no numbers that labels or samples could name
        folder = {"videos": cfg.data.videos, "crops": cfg.data.crops}.get(cfg.data.kind)
        self._folder = folder if folder is not None and folder.is_dir() else None
        self._samples = {} if self._images else sample_rows(cfg)
        self._readers = {} if self._images else _readers(cfg.data)

    @property
    def label_tasks(self) -> list[str]:
        """Tasks that have label files."""
        return list(self._readers)

    @property
    def sample_tasks(self) -> list[str]:
        """Tasks that have a sample file."""
        return list(self._samples)

    def entries(self) -> list[Entry]:
        """Every track that the manifest, the faces store or a sample file names, sorted."""
        known = set(self.store.track_ids())
        tracks: dict[str, Track] = {}
        if not self._images:
            manifest = Manifest.from_config(self._data, need_media=self._folder is not None)
            tracks = {track.track_id: track for track in manifest}
        names = known | set(tracks) | {name for rows in self._samples.values() for name in rows}
        found = []
        for name in sorted(names):
            video = tracks[split_person(name)[0]].video if split_person(name)[0] in tracks else None
            track = tracks.get(name, Track(name, video, {}))  # the rest are people of a video, and what only files name
            samples = {task: rows[name] for task, rows in self._samples.items() if name in rows}
            if name in known or track.splits or samples or f"{name}_person1" not in known:
                lost = "" if name in known else self._why_not_aligned(track, listed=name in tracks)
                found.append(self._entry(track, samples, lost=lost))
        return found

    def _entry(self, track: Track, samples: dict[str, Named], *, lost: str) -> Entry:
        """``lost`` says why the track is not in the store; empty where it is."""
        entry = Entry(track.track_id, samples=samples)
        facts: dict[str, Any] = {}
        try:
            if lost:
                entry.wrong.append(lost)
            else:
                facts = _read_rows(entry, self.store)
        except AbawError as error:
            entry.wrong.append(error.what)
        finally:
            self.store.close()  # each file is read once; held open they take half a megabyte each
        self._count_labels(entry, track)
        if self._data.crops is not None and not self._images:
            entry.crops = _count_crops(self._data.crops / track.track_id)
        if entry.crops is None and "highest_crop" in facts:  # the crops are elsewhere now
            entry.crops = Named(facts["highest_crop"], facts["num_crops"])
        elif entry.crops is not None and facts.get("num_crops", entry.crops.count) != entry.crops.count:
            entry.wrong.append(f"{facts['num_crops']} crops were aligned, {entry.crops.count} are there now")
        _compare_with_recording(entry, track, facts)
        if entry.frames:
            self._compare(entry)
        self._remark_on_lists(entry, track)
        return entry

    def _why_not_aligned(self, track: Track, *, listed: bool) -> str:
        base = split_side(track.track_id)[0]
        if f"{track.track_id}_person1" in self.store or f"{base}_person1" in self.store:
            return f"not aligned under this name: the store holds every face of the video ({base}_person1 ...)"
        if not listed:
            return "not aligned: only a sample file names it, no label file and no list of data.test"
        if self._folder is not None and track.video is None:
            return f"not aligned: no recording of that name in {self._folder}"
        failures = self.store.notes.get("failures", {})
        failure = failures.get(track.track_id) or failures.get(base)
        return f"not aligned: {failure}" if failure else "not aligned yet"

    def _count_labels(self, entry: Entry, track: Track) -> None:
        for task, reader in self._readers.items():
            if track.splits.get(task) not in ("train", "val"):
                continue
            try:
                entry.labels[task] = reader.count(track)
            except AbawError as error:
                missing = not reader.sparse and not reader.file(track).is_file()
                text = f"missing ({error.where})" if missing else f"refused: {error.what} ({error.where})"
                entry.wrong.append(f"{task} label file {text}")

    def _compare(self, entry: Entry) -> None:
        """Set what labels, sample files and crops name against the frames."""
        for task, rows in entry.labels.items():
            self._judge(entry, rows, f"{task} has {_plural(rows, 'label row')}", sparse=task == "mtl")
        for task, named in entry.samples.items():
            what = f"the sample file of {task} asks for {_plural(named.highest, 'row')}"
            self._judge(entry, named.highest, what, sparse=task == "mtl")
            if named.count < named.highest and task != "mtl":
                entry.remarks.append(f"the sample file of {task} names {named.count} of {named.highest} rows")
        if entry.crops is not None:
            self._judge(entry, entry.crops.highest, f"the last crop is number {entry.crops.highest}", sparse=True)

    def _judge(self, entry: Entry, rows: int, what: str, *, sparse: bool) -> None:
        """``sparse`` sources name single rows: they may end before the track does."""
        assert entry.frames is not None
        difference = max(0, rows - entry.frames) if sparse else abs(rows - entry.frames)
        if difference:
            findings = entry.tolerable if difference <= self._data.max_row_difference else entry.wrong
            findings.append(f"{what}, {_plural(entry.frames, 'frame')}")

    def _remark_on_lists(self, entry: Entry, track: Track) -> None:
        for task, split in track.splits.items():
            if split == "test" and task in self._samples and task not in entry.samples:
                entry.remarks.append(f"a test track of {task} that its sample file does not name")
        if self._readers and not track.splits and not entry.samples:
            entry.remarks.append("no label file, test list or sample file names it")


def _open_store(path: Path) -> FeatureStore:
    if not (path / "store.json").is_file():
        raise AbawError(
            f"there is no faces store {path}: no track is aligned yet",
            where="align.store",
            fix="run `abaw align` with this configuration first; the check compares what it wrote",
        )
    return FeatureStore.open(path, kind="faces")


def _readers(data: DataConfig) -> dict[str, LabelReader]:
    """Readers of the tasks that have label files of their own."""
    return {task: LabelReader(data, TASKS[task]) for task in data.annotations if TASKS[task].train_on is None}


def sample_rows(cfg: Config) -> dict[str, dict[str, Named]]:
    """Task -> track -> rows, of every sample file that [submit] and [submit.<task>] name and that has tracks.

    Raises AbawError for a file that cannot be read.
    """
    found = {}
    for task in dict.fromkeys([cfg.submit.task, *cfg.submit_tasks]):
        table = cfg.submit_for(task)
        if table.sample is None:
            continue
        edition = choose(EDITIONS, table.edition, what="edition", where="submit.edition")
        sample = read_sample(table.sample, choose(edition.submissions, task, what="task", where="submit.task"))
        if sample.keyed:
            continue  # single images, not rows of tracks
        highest = np.zeros(len(sample.tracks), np.int64)
        np.maximum.at(highest, sample.track_index, sample.rows + 1)
        counts = np.bincount(sample.track_index, minlength=len(sample.tracks))
        found[task] = dict(zip(sample.tracks, map(Named, highest.tolist(), counts.tolist()), strict=True))
    return found


def _read_rows(entry: Entry, store: FeatureStore) -> dict[str, Any]:
    """Fill in what the track's file holds, and return its facts. Raises AbawError for a damaged file."""
    name, arrays = entry.track_id, store.header.arrays
    valid = store.valid(name)
    entry.frames, entry.with_face = len(valid), int(valid.sum())
    facts = store.facts(name)
    if entry.frames == 0:
        entry.wrong.append("no frame decodes")
        return facts
    if not entry.with_face:
        entry.remarks.append("no face in any row")
    undecoded = 0
    if "reason" in arrays:
        undecoded = int((store.read(name, "reason") == Reason.DECODE_ERROR).sum())
        if undecoded:
            entry.remarks.append(f"{_plural(undecoded, 'row')} could not be decoded")
    if "person" in arrays:
        person = store.read(name, "person")[valid]
        entry.switches = int((person[1:] != person[:-1]).sum())
        if entry.switches:
            entry.remarks.append(_plural(entry.switches, "identity switch", "identity switches"))
    entry.header_frames = facts.get("header_frames") or None  # 0: the container does not say
    if entry.header_frames not in (None, entry.frames):
        entry.remarks.append(f"the header says {_plural(entry.header_frames, 'frame')}, {entry.frames} decode")
    entry.decode_errors = facts.get("decode_errors")
    lost = (entry.decode_errors or 0) - undecoded  # a picture that is damaged has its row
    if lost > 0:
        first = f", the first after {_plural(facts['first_error_row'], 'row')}" if "first_error_row" in facts else ""
        complaints = _plural(entry.decode_errors or 0, "decoder complaint")
        entry.tolerable.append(f"{complaints}{first}: what did not decode has no row, so later rows may be early")
    restarts = len(facts.get("clock_shifts_s", []))
    if restarts:
        entry.remarks.append(f"the clock starts anew {_plural(restarts, 'time')}")
    over = facts.get("header_duration_s", 0.0) - facts.get("covered_s", 0.0)
    if "covered_s" in facts and over > HEADER_SLACK_S:
        claimed = facts["header_duration_s"]
        entry.remarks.append(f"the header says {claimed:.1f} s, what decodes is {over:.1f} s shorter")
    if facts.get("sound") is not None:
        _measure_sound(entry, facts, start_s=float(store.read(name, "time", slice(0, 1))[0]))
    return facts


def _measure_sound(entry: Entry, facts: dict[str, Any], *, start_s: float) -> None:
    """Lengths, and where sound and picture (from ``start_s`` on) begin or end apart."""
    entry.sound, entry.video_s = facts["sound"], facts.get("duration_s")
    if not entry.sound:
        entry.remarks.append("no sound track")
        return
    if "sound_end_s" not in facts:
        return
    entry.sound_s = facts["sound_end_s"] - facts["sound_start_s"]
    late = facts["sound_start_s"] - start_s
    if abs(late) > SOUND_SLACK_S:
        entry.remarks.append(f"sound starts {abs(late):.1f} s {'after' if late > 0 else 'before'} the picture")
    if entry.video_s is not None:
        over = facts["sound_end_s"] - (start_s + entry.video_s)
        if abs(over) > SOUND_SLACK_S:
            entry.remarks.append(f"sound ends {abs(over):.1f} s {'after' if over > 0 else 'before'} the picture")


def _compare_with_recording(entry: Entry, track: Track, facts: dict[str, Any]) -> None:
    """Whether a track's recording is still the one that was aligned, by its size."""
    if "bytes" not in facts or track.video is None or not track.video.is_file():
        return
    try:
        size = track.video.stat().st_size
    except OSError:
        return
    if size != facts["bytes"]:
        entry.wrong.append("the recording is another one than was aligned: delete its tracks' files and align again")


def _count_crops(folder: Path) -> Named | None:
    """Crops in a track's folder, by their names; None where there is no folder."""
    try:
        with os.scandir(folder) as listing:
            names = [item.name for item in listing]
    except OSError:
        return None
    numbers = {number for number in map(crop_number, names) if number}
    return Named(max(numbers, default=0), len(numbers))


def _plural(number: int, word: str, words: str = "") -> str:
    return f"{number} {word if number == 1 else words or f'{word}s'}"
