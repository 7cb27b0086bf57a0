"""Which stored row each row of the sample is: by track and number, or by the image's path (`key`).

Knows nothing of what the rows hold or how they are written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from abaw.data.key_csv import normal_key
from abaw.data.keyed import SPLITS, split_word
from abaw.editions import SampleRows
from abaw.errors import AbawError, closest
from abaw.scored import Predictions
from abaw.store import FeatureStore

MAX_NAMED = 10
TWICE = (-1, -1)
NOT_TEST = {SPLITS.index("train"), SPLITS.index("val")}


@dataclass(frozen=True)
class Places:
    """Where the sample's rows are: ``tracks`` of the store, ``track_index`` int64 [N] into them, ``rows`` int64 [N].

    ``differences``: rows that the sample asks of a track minus the rows it has, where they differ; ``by_key``: rows
    found by the image's path, and ``example`` one of them in words.
    """

    tracks: list[str]
    track_index: np.ndarray
    rows: np.ndarray
    differences: dict[str, int] = field(default_factory=dict)
    by_key: int = 0
    example: str = ""

    def by_track(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Track, its places int64 [n] in the sample, in order, and its rows int64 [n], for each track."""
        order = np.argsort(self.track_index, kind="stable")
        ends = np.cumsum(np.bincount(self.track_index, minlength=len(self.tracks)))
        for track_id, end, start in zip(self.tracks, ends, [0, *ends[:-1]], strict=True):
            places = order[start:end]
            yield track_id, places, self.rows[places]


def find_places(scored: Predictions, sample: SampleRows, *, faces: Path, tolerance: int, scored_as: str = "") -> Places:
    """The stored row of each row of the sample; ``faces``: the store whose `key` names the images of a collection.

    ``scored_as``: the task that the scores were made for, where it is another one.

    Raises AbawError for tracks and images that there are no predictions of, an image that is there twice, and a track
    that lacks more than ``tolerance`` of the rows asked for.
    """
    known = np.array([track_id in scored for track_id in sample.tracks], bool)
    if not sample.keyed and known.all():
        differences = _row_differences(scored, sample, tolerance=tolerance)
        return Places(sample.tracks, sample.track_index, sample.rows, differences)
    keyed = _keyed_store(faces) if sample.keyed or not known.any() else None
    if keyed is None and sample.keyed:
        raise AbawError(
            f"the sample names images alone, such as {sample.images[0]}, and no store here says which row is which",
            where=f"{faces}: {'no faces store' if not (faces / 'store.json').is_file() else 'faces of videos'}",
            fix="name the configuration of the collection (-c), or its faces store: --set finetune.faces=FOLDER",
        )
    if keyed is None:
        missing = [track_id for track_id, is_known in zip(sample.tracks, known, strict=True) if not is_known]
        raise _unknown_tracks(scored, sample, missing, scored_as or scored.task.name)
    return _by_key(scored, sample, keyed)


# -- by track ----------------------------------------------------------------------------------------------------------
def _row_differences(scored: Predictions, sample: SampleRows, *, tolerance: int) -> dict[str, int]:
    """Sample rows minus stored rows of tracks where they differ; of a track with single rows, only those too many."""
    found = {}
    highest, counts = np.zeros(len(sample.tracks), np.int64), np.bincount(sample.track_index)
    np.maximum.at(highest, sample.track_index, sample.rows + 1)
    for track_id, asked, count in zip(sample.tracks, highest.tolist(), counts.tolist(), strict=True):
        difference = asked - scored.num_rows(track_id)
        if difference > tolerance:
            raise AbawError(
                f"the sample asks for row {asked} of track {track_id}, which has {asked - difference} frames",
                where=str(scored.path),
                fix="check that sample and videos belong together, or raise data.max_row_difference",
            )
        if difference > 0 or (difference and count == asked):
            found[track_id] = difference
    return found


def _unknown_tracks(scored: Predictions, sample: SampleRows, missing: list[str], task: str) -> AbawError:
    known = scored.track_ids()
    named = [(name, closest(name, known)) for name in missing[:MAX_NAMED]]
    more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
    listed = ", ".join(f"{name} (nearest to {name}: {near})" if near else name for name, near in named)
    return AbawError(
        f"{len(missing)} of {len(sample.tracks)} tracks of the sample have no predictions: {listed}{more}",
        where=str(scored.path),
        fix=_fix_of_missing(scored, task),
    )


def _fix_of_missing(scored: Predictions, task: str) -> str:
    settings, path = scored.settings, scored.path
    whole = path.with_name(path.name.removesuffix("-folds"))
    if "members" in settings:
        if "held_out" in settings:
            return f"these are out-of-fold scores of labelled tracks; name the ensemble itself: {whole}"
        return "list them under data.test, run the stages behind every member again, then make the ensemble again"
    if "held_out" in settings and "fold" not in settings:
        return (
            "these are scores of folds on what they held out; let all folds score the test tracks together:\n"
            f"abaw fuse --task {task} --ensemble {path.name}\n"
            f"or name those of one fold, e.g. {whole}-fold-0"
        )
    return "list them under data.test, then run align, the extractions and fuse again"


# -- by key ------------------------------------------------------------------------------------------------------------
def _keyed_store(path: Path) -> FeatureStore | None:
    """The faces store of an image collection; None where there is none, or one of videos."""
    if not (path / "store.json").is_file():
        return None
    store = FeatureStore.open(path, kind="faces")
    return store if "key" in store.header.arrays else None


def _by_key(scored: Predictions, sample: SampleRows, faces: FeatureStore) -> Places:
    """Places by the images' paths: the whole path, else the only path that ends so outside of training folders."""
    tracks = [track_id for track_id in scored.track_ids() if track_id in faces]
    images = [normal_key(image) for image in sample.images]
    keys = _read_keys(scored, faces, tracks)
    found = _Index(keys).places(images)
    missing = [number for number, place in enumerate(found) if place is None]
    if missing:
        raise _unknown_images(scored, faces, [images[number] for number in missing], keys, len(images))
    twice = next((number for number, place in enumerate(found) if place == TWICE), None)
    if twice is not None:
        raise _ambiguous(images[twice], keys, faces)
    pairs = np.array(found, np.int64).reshape(-1, 2)
    used, index = np.unique(pairs[:, 0], return_inverse=True)
    first = f"{images[0]} is {keys[pairs[0, 0]][pairs[0, 1]]}"
    return Places([tracks[number] for number in used], index, pairs[:, 1], by_key=len(images), example=first)


def _read_keys(scored: Predictions, faces: FeatureStore, tracks: Sequence[str]) -> list[list[str]]:
    """Images of each shard. Raises AbawError for one whose rows are not those that were scored."""
    keys = []
    for track_id in tracks:
        own = [normal_key(key) for key in faces.read(track_id, "key").tolist()]
        if len(own) != scored.num_rows(track_id):
            raise AbawError(
                f"{track_id} has {len(own)} images now, but had {scored.num_rows(track_id)} when it was scored",
                where=f"{faces.path}\n{scored.path}",
                fix="score the images again, or name the faces store that was scored: finetune.faces",
            )
        keys.append(own)
    faces.close()
    return keys


class _Index:
    """Images by their path and by its end."""

    def __init__(self, keys: list[list[str]]) -> None:
        self._keys = keys
        self._whole = {key: (shard, row) for shard, own in enumerate(keys) for row, key in enumerate(own)}
        self._ends: dict[int, dict[str, tuple[int, int]]] = {}
        self._depths = sorted({key.count("/") + 1 for key in self._whole}, reverse=True)

    def places(self, images: list[str]) -> list[tuple[int, int] | None]:
        """Shard and row of each image; None where there is none, `TWICE` where several paths end so."""
        return [self._place(image) for image in images]

    def _place(self, image: str) -> tuple[int, int] | None:
        place = self._whole.get(image)
        if place is None:
            place = self._ending(image.count("/") + 1).get(image)
        if place is None and "/" in image:  # the sample counts from a folder above
            parts = image.split("/")
            ends = ("/".join(parts[-depth:]) for depth in self._depths if depth < len(parts))
            place = next((self._whole[end] for end in ends if end in self._whole), None)
        return place

    def _ending(self, depth: int) -> dict[str, tuple[int, int]]:
        """Images by the last ``depth`` parts of their path, without those of folders for training."""
        if depth not in self._ends:
            found: dict[str, tuple[int, int]] = {}
            trains: dict[str, bool] = {}
            for key, place in self._whole.items():
                parts = key.rsplit("/", depth)
                folder = parts[0] if len(parts) > depth else ""
                if folder not in trains:
                    trains[folder] = any(split_word(part) in NOT_TEST for part in folder.split("/"))
                if folder and not trains[folder]:
                    end = key[len(folder) + 1 :]
                    found[end] = TWICE if end in found else place
            self._ends[depth] = found
        return self._ends[depth]


def _unknown_images(
    scored: Predictions, faces: FeatureStore, missing: list[str], keys: list[list[str]], total: int
) -> AbawError:
    # difflib looks at every name: the images of a large collection would take minutes
    known = list(itertools.islice((key for own in keys for key in own), 5_000))
    alike = {key.rpartition("/")[2]: key for own in keys for key in own}
    named = [(name, alike.get(name.rpartition("/")[2]) or closest(name, known)) for name in missing[:3]]
    listed = ", ".join(f"{name} (nearest to {name}: {near})" if near else name for name, near in named)
    return AbawError(
        f"{len(missing)} of {total} images of the sample have no predictions: {listed}"
        + (", ..." if len(missing) > len(named) else ""),
        where=f"{scored.path}\n{faces.path}: images like {known[0] if known else 'none'}",
        fix="align the test images with the others (data.images = the folder above them), then score them again; "
        "paths of the sample and of the collection must end alike",
    )


def _ambiguous(image: str, keys: list[list[str]], faces: FeatureStore) -> AbawError:
    ends = [key for own in keys for key in own if key.endswith(f"/{image}")]
    return AbawError(
        f"several images end in {image}: {', '.join(ends[:3])}",
        where=str(faces.path),
        fix="align the test images into a store of their own, score them, and name that store: finetune.faces",
    )
