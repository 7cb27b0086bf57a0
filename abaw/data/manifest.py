"""Which tracks exist, where their media are, and which split of which task each belongs to.

Owns the rule from track name to video file (``_left``/``_right``, the numbers in the stem). Knows nothing of frames,
labels' contents or stores.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from abaw.config import DataConfig
from abaw.errors import AbawError, ExitCode
from abaw.store_header import check_track_id

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".gif", ".m4v", ".ts", ".wmv", ".flv")
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


def nominal_fps(track_id: str) -> float:
    """Frames per second written in the stem; 30 where the name does not say."""
    match = STEM.match(split_side(track_id)[0])
    return float(match["fps"]) if match else DEFAULT_FPS


class Manifest(Sequence[Track]):
    """Ordered, immutable list of tracks, built from [data]."""

    def __init__(self, tracks: Sequence[Track]) -> None:
        self._tracks = tuple(sorted(tracks, key=lambda track: track.track_id))
        self._by_id = {track.track_id: track for track in self._tracks}

    @classmethod
    def from_config(cls, data: DataConfig, *, need_media: bool = True) -> Manifest:
        """All tracks that the labels, the test lists and the media folders name.

        Without ``need_media`` the recordings may be elsewhere, as on a machine that trains on cached features: tracks
        then have no ``video``, and those without labels are unknown. Raises AbawError for a missing folder, an
        unusable name, or two files of one name.
        """
        splits: dict[str, dict[str, str]] = {}
        for task, path in data.annotations.items():
            for track_id, split in _annotated(path, task):
                _add(splits, track_id, task, split, path)
        for task, path in data.test.items():
            for track_id in _listed(path, task):
                _add(splits, track_id, task, "test", path)
        media = _media(data) if need_media else {}
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


def _track(track_id: str, splits: dict[str, str], media: dict[str, Path], *, shared: bool) -> Track:
    base, side = split_side(track_id)
    if track_id in media or not shared:  # a recording of that very name: the suffix is part of it
        return Track(track_id, media.get(track_id), splits, None)
    return Track(track_id, media.get(base), splits, side)


def _add(splits: dict[str, dict[str, str]], track_id: str, task: str, split: str, path: Path) -> None:
    check_track_id(track_id, where=str(path))
    previous = splits.setdefault(track_id, {}).setdefault(task, split)
    if previous != split:
        raise AbawError(
            f"track {track_id} is in two splits of task {task}: {previous} and {split}",
            where=str(path),
            fix="remove it from one of them",
        )


def _annotated(path: Path, task: str) -> Iterator[tuple[str, str]]:
    _require_folder(path, f"data.annotations.{task}")
    if task == "mtl":
        yield from _mtl_tracks(path)
        return
    found = False
    for folder, split in SPLIT_FOLDERS.items():
        for file in sorted((path / folder).glob("*.txt")):
            found = True
            yield file.stem, split
    if not found:
        raise AbawError(
            f"no label files for task {task} in {path}",
            where=f"data.annotations.{task}",
            fix=f"it must hold {' and '.join(SPLIT_FOLDERS)} with one <track>.txt each",
        )


def _mtl_tracks(path: Path) -> Iterator[tuple[str, str]]:
    for name, split in MTL_FILES.items():
        if (path / name).is_file():
            with (path / name).open(encoding="utf-8-sig") as file:
                next(file, None)
                yield from sorted({(line.split("/", 1)[0].strip(), split) for line in file if "/" in line})


def _listed(path: Path, task: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AbawError(
            f"the list of test tracks of task {task} cannot be read ({error})",
            where=f"data.test.{task} = {path}",
            fix="correct the path, or remove the key",
        ) from error
    return [line.split(",")[0].strip() for line in lines if line.strip()]


def _media(data: DataConfig) -> dict[str, Path]:
    """stem -> file or folder of every recording."""
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
    _require_folder(folder, key)
    if data.kind == "crops":
        return {entry.name: entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    media: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file():
            check_track_id(path.stem, where=str(path))
            if path.stem in media:
                raise AbawError(
                    f'two files would both be track "{path.stem}"',
                    where=f"{media[path.stem]}\n{path}",
                    fix="rename or move one of them",
                )
            media[path.stem] = path
    return media


def _require_folder(path: Path, key: str) -> None:
    if not path.is_dir():
        raise AbawError(
            f"folder {path} does not exist" if not path.exists() else f"{path} is not a folder",
            where=key,
            fix="correct the path; relative ones start at the configuration file's folder",
        )
