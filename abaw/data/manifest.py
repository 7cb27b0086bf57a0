"""Which tracks exist, where their media are, and which split of which task each belongs to.

Owns the rule from track name to video file (``_left``/``_right``, the numbers in the stem) and the names of people
(``_person1``). Knows nothing of frames, labels' contents or stores.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from abaw.config import DataConfig
from abaw.crop_names import crop_number
from abaw.data.collection import list_shards, require_folder, unreadable, walk_files
from abaw.data.mtl_files import mtl_tracks
from abaw.errors import AbawError, ExitCode
from abaw.store_header import check_track_id

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".gif", ".m4v", ".ts", ".wmv", ".flv"),
    *(".mts", ".m2ts", ".3gp", ".3g2", ".vob", ".ogv", ".mxf", ".asf", ".m2v", ".divx", ".dv"),
)
SPLIT_FOLDERS = {"Train_Set": "train", "Validation_Set": "val"}
MTL_FILES = {
    "training_set_annotations.txt": "train",
    "train_set.txt": "train",
    "validation_set_annotations.txt": "val",
    "validation_set.txt": "val",
}
SIDES = ("left", "right")
# <id>-<fps>-<width>x<height>, the organisers' pattern
STEM = re.compile(r"^.+-(?P<fps>\d+(?:\.\d+)?)-(?P<width>\d+)x(?P<height>\d+)$")
DEFAULT_FPS = 30.0
PERSON = re.compile(r"^(?P<video>.+)_person(?P<number>[1-9]\d*)$")
MAX_NAMED = 5  # folders of one warning that are named


@dataclass(frozen=True, slots=True)
class Track:
    """One person in one video: the unit of everything.

    ``splits`` maps task -> "train" | "val" | "test"; ``side`` says which of two people, when the name does.
    """

    track_id: str
    video: Path | None
    splits: dict[str, str]
    side: str | None = None


def split_side(track_id: str) -> tuple[str, str | None]:
    """Name without its ``_left`` or ``_right``, and the side: ("video5", "left") of "video5_left"."""
    for side in SIDES:
        if track_id.endswith(f"_{side}"):
            return track_id.removesuffix(f"_{side}"), side
    return track_id, None


def split_person(track_id: str) -> tuple[str, int | None]:
    """Name without its ``_person<N>``, and N: ("video5", 2) of "video5_person2"; N is None where there is none.

    Only tracks of a store that holds all faces have such names; a video's own name may end like that too.
    """
    match = PERSON.match(track_id)
    return (match["video"], int(match["number"])) if match else (track_id, None)


def nominal_fps(track_id: str) -> float:
    """Frames per second written in the stem; 30 where the name does not say, or says 0."""
    match = STEM.match(split_side(track_id)[0])
    return float(match["fps"]) or DEFAULT_FPS if match else DEFAULT_FPS


class Manifest(Sequence[Track]):
    """Ordered, immutable list of tracks, built from [data]."""

    def __init__(self, tracks: Sequence[Track]) -> None:
        self._tracks = tuple(sorted(tracks, key=lambda track: track.track_id))
        self._by_id = {track.track_id: track for track in self._tracks}

    @classmethod
    def from_config(cls, data: DataConfig, *, need_media: bool = True) -> Manifest:
        """All tracks that the labels, the test lists and the media folders name.

        Without ``need_media`` the recordings may be elsewhere, as on a machine that trains on cached features: tracks
        then have no ``video``, and those without labels are unknown. Of an image collection the tracks are its shards,
        with the collection's folder as ``video``; its labels name images, not tracks, so that none is known without
        media. Raises AbawError for a folder that is missing or may not be read, an unusable name, or two files of one
        name.
        """
        if data.kind == "images":
            shards = list_shards(media_folder(data)[0]) if need_media else []
            return cls([Track(shard.track_id, shard.folder, {}) for shard in shards])
        splits: dict[str, dict[str, str]] = {}
        for task, path in data.annotations.items():
            for track_id, split, where in _annotated(path, task):
                _add(splits, track_id, task, split, where)
        for task, path in data.test.items():
            for number, track_id in listed(path, task):
                _add(splits, track_id, task, "test", f"{path}, line {number}")
        media = _spelled_as(splits, _media(data, named=splits)) if need_media else {}
        taken = {split_side(track_id)[0] for track_id in splits if data.kind == "videos"} | set(splits)
        for stem in media:
            if stem not in taken:
                splits[stem] = {}
        shared = data.kind == "videos"  # two people share a video, but each has crops of their own
        return cls([_track(track_id, own, media, shared=shared) for track_id, own in splits.items()])

    def __len__(self) -> int:
        return len(self._tracks)

    def __iter__(self) -> Iterator[Track]:
        return iter(self._tracks)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._tracks[index]

    def get(self, track_id: str) -> Track | None:
        """The track of that name."""
        return self._by_id.get(track_id)

    def select(self, *, task: str | None = None, split: str | None = None) -> list[Track]:
        """Tracks of a task's split, in order; without ``task``, all."""
        return [
            track
            for track in self._tracks
            if task is None or (track.splits.get(task) == split if split else task in track.splits)
        ]


def _spelled_as(named: Collection[str], media: dict[str, Path]) -> dict[str, Path]:
    """Recordings under the spelling of labels and lists: some systems take letters with marks apart in file names."""
    spelling = {normalize("NFC", name): name for track_id in named for name in (split_side(track_id)[0], track_id)}
    spelled: dict[str, Path] = {}
    for stem, path in media.items():
        name = spelling.get(normalize("NFC", stem), stem)
        spelled[stem if name in media or name in spelled else name] = path
    return spelled


def _track(track_id: str, splits: dict[str, str], media: dict[str, Path], *, shared: bool) -> Track:
    base, side = split_side(track_id)
    if track_id in media or not shared:  # a recording of that very name: the suffix is part of it
        return Track(track_id, media.get(track_id), splits, None)
    return Track(track_id, media.get(base), splits, side)


def _add(splits: dict[str, dict[str, str]], track_id: str, task: str, split: str, where: str) -> None:
    check_track_id(track_id, where=where)
    previous = splits.setdefault(track_id, {}).setdefault(task, split)
    if previous != split:
        raise AbawError(
            f"track {track_id} is in two splits of task {task}: {previous} and {split}",
            where=where,
            fix="remove it from one of them",
        )


def _annotated(path: Path, task: str) -> Iterator[tuple[str, str, str]]:
    """Track name, split, and the file (and line) that says so."""
    require_folder(path, f"data.annotations.{task}")
    if task == "mtl":
        yield from _mtl_tracks(path)
        return
    found = False
    for folder, split in SPLIT_FOLDERS.items():
        for file in _label_files(path / folder):
            found = True
            yield file.stem, split, str(file)
    if not found:
        raise AbawError(
            f"no label files for task {task} in {path}",
            where=f"data.annotations.{task}",
            fix=f"it must hold {' and '.join(SPLIT_FOLDERS)} with one <track>.txt each",
        )


def _label_files(folder: Path) -> list[Path]:
    """The label files of a split, sorted; none where it has no folder. Hidden ones are what other systems leave."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".txt" and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def _mtl_tracks(path: Path) -> Iterator[tuple[str, str, str]]:
    for name, split in MTL_FILES.items():
        file = path / name
        if not file.is_file():
            continue
        for track_id, number in sorted(mtl_tracks(file).items()):
            yield track_id, split, f"{file}, line {number}"


def listed(path: Path, task: str) -> Iterator[tuple[int, str]]:
    """Line number and track name: what stands before a comma, without spaces around it and a video's suffix."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AbawError(
            f"the list of test tracks of task {task} cannot be read ({error})",
            where=f"data.test.{task} = {path}",
            fix="correct the path, or remove the key",
        ) from error
    for number, line in enumerate(lines, start=1):
        name = line.split(",")[0].strip()
        suffix = next((suffix for suffix in VIDEO_SUFFIXES if name.lower().endswith(suffix)), "")
        if line.strip():
            yield number, name[: len(name) - len(suffix)]


def media_folder(data: DataConfig) -> tuple[Path, str]:
    """The folder of the recordings, and its key. Raises AbawError (configuration) where it is not set."""
    folder, key = {
        "videos": (data.videos, "data.videos"),
        "crops": (data.crops, "data.crops"),
        "images": (data.images, "data.images"),
    }[data.kind]
    if folder is None:
        raise AbawError(
            f'{key} is not set, but data.kind is "{data.kind}"',
            where="[data]",
            fix=f'add {key.partition(".")[2]} = "FOLDER"',
            code=ExitCode.CONFIG,
        )
    return folder, key


def _media(data: DataConfig, *, named: Collection[str]) -> dict[str, Path]:
    """stem -> file or folder of every recording; ``named`` are the tracks that labels and lists name."""
    folder, key = media_folder(data)
    if data.kind == "crops":
        require_folder(folder, key)
        return _crop_folders(folder, named)
    media: dict[str, Path] = {}
    for name in walk_files(folder, VIDEO_SUFFIXES, key=key):
        path = folder / name
        check_track_id(path.stem, where=str(path))
        if path.stem in media:
            raise AbawError(
                f'two files would both be track "{path.stem}"',
                where=f"{media[path.stem]}\n{path}",
                fix="rename or move one of them",
            )
        media[path.stem] = path
    return media


def _crop_folders(folder: Path, named: Collection[str]) -> dict[str, Path]:
    """Folders of crops by name; those that no label names and no numbered picture is in are left out with a warning."""
    try:
        folders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        media = {entry.name: entry for entry in folders if entry.name in named or _holds_crops(entry)}
    except OSError as error:
        raise unreadable(error.filename or folder, error) from error
    for name, entry in media.items():
        check_track_id(name, where=str(entry))
    others = [entry.name for entry in folders if entry.name not in media]
    if others:
        shown = ", ".join(others[:MAX_NAMED]) + (", ..." if len(others) > MAX_NAMED else "")
        logger.warning("%d folders in %s hold no crops (00001.jpg, ...): %s", len(others), folder, shown)
    return media


def _holds_crops(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(crop_number(entry.name) for entry in entries)
