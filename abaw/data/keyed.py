"""Labels of an image collection: rows of its faces store are found by their `key`, the image's path.

Three layouts: the folders `<split>/<Class>/<name>` (as of the learning-from-synthetic-data challenge), csv files
`train.csv` and `val.csv`, and s-Aff-Wild2's text files, whose rows name `<track>/00001.jpg`. Knows nothing of pictures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from abaw.config import DataConfig
from abaw.data.annotations import MTL_COLUMNS, Labels, concatenate, read_mtl_file, to_labels
from abaw.data.collection import require_folder
from abaw.data.key_csv import normal_key, read_key_csv
from abaw.data.manifest import MTL_FILES, listed
from abaw.data.splits import group_of
from abaw.errors import AbawError
from abaw.label_spaces import by_name
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Problem, Task

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
CSV_FILES = {"train": "train.csv", "val": "val.csv", "test": "test.csv"}
NOWHERE = (-1, -1)

# An image's split (index of SPLITS) and row of the label table, by key; -1 where it has none.
Place = Callable[[str], tuple[int, int]]


@dataclass
class Layout:
    """A table of labels by head, and the rule from key to split and row of the table."""

    place: Place
    table: dict[str, Labels]
    example: str  # a key it knows, for messages
    notes: list[str] = field(default_factory=list)
    rows_by_key: bool = True  # a row of the table is one image; False: one class


@dataclass(frozen=True)
class _Shard:
    """What the rows of one shard are: split int8 [T], row of the label table int32 [T], folder int32 [T]."""

    split: np.ndarray
    row: np.ndarray
    folder: np.ndarray


class KeyedLabels:
    """Labels of the rows of an image faces store, by key. Every shard's keys are read once, at the first question.

    ``required``: an answer for a store of which the labels name no image at all is an AbawError, since then the paths
    do not agree; False for stores that may be of other images.
    """

    by_track = False

    def __init__(self, data: DataConfig, task: Task, store: FeatureStore, *, required: bool = True) -> None:
        source = task.name
        if source not in data.annotations:
            raise AbawError(
                f"no labels are configured for task {source}",
                where="data.annotations",
                fix=f'add {source} = "FOLDER" to annotations under [data]',
            )
        self.task, self.path, self.store = TASKS[source], data.annotations[source], store
        require_folder(self.path, f"data.annotations.{source}")
        self._layout = _layout(data, self.task, self.path)
        self._required = required
        self._shards: dict[str, _Shard] = {}
        self._folders: dict[str, int] = {}
        self._unmatched: list[str] = []

    # -- the interface of a label source ---------------------------------------------------------------------------
    def track_ids(self, split: str) -> list[str]:
        """Shards that hold at least one image of a split, sorted."""
        code = SPLITS.index(split)
        return [name for name, shard in self._placed().items() if (shard.split == code).any()]

    def rows(self, track_id: str, num_rows: int, split: str) -> np.ndarray:
        """bool [num_rows]: images of a split, labelled or not."""
        return self._shard(track_id, num_rows).split == SPLITS.index(split)

    def labels(self, track_id: str, num_rows: int, split: str) -> dict[str, Labels]:
        """Labels by head of a shard's rows; those of other splits are unlabelled."""
        shard = self._shard(track_id, num_rows)
        known = (shard.split == SPLITS.index(split)) & (shard.row >= 0)
        found = {}
        for name, labels in self._layout.table.items():
            values, mask = labels.values[shard.row], labels.mask[shard.row] & known[:, None]
            found[name] = Labels(np.where(mask, values, 0).astype(np.float32), mask)
        return found

    def count(self, track_id: str) -> int:
        """0: rows are those of the store."""
        return 0

    def recordings(self, track_id: str, num_rows: int) -> np.ndarray:
        """int64 [num_rows]: number of the folder each image lies in, the same in every shard."""
        return self._shard(track_id, num_rows).folder.astype(np.int64)

    def raw_recordings(self, track_id: str, num_rows: int) -> np.ndarray:
        """int64 [num_rows]: as ``recordings``, the same for the people and parts of one raw recording."""
        return merged_folders(self._folders)[self.recordings(track_id, num_rows)]

    def notes(self) -> list[str]:
        """What was left out, in words: classes the task lacks, labels of images that the store lacks."""
        self._placed()
        return [*self._layout.notes, *self._unmatched]

    # -- placing ---------------------------------------------------------------------------------------------------
    def _shard(self, track_id: str, num_rows: int) -> _Shard:
        shard = self._placed()[track_id]
        if len(shard.split) != num_rows:
            raise AbawError(
                f"{track_id} has {len(shard.split)} images now, but had {num_rows} when it was scored",
                where=str(self.store.path),
                fix="score the images again, or name the faces store that was scored: finetune.faces",
            )
        return shard

    def _placed(self) -> dict[str, _Shard]:
        if self._shards:
            return self._shards
        table = next(iter(self._layout.table.values()))
        seen = np.zeros(table.num_rows, bool)
        first = ""
        for track_id in self.store.track_ids():
            keys = self.store.read(track_id, "key").tolist()
            first = first or next(iter(keys), "")
            shard = self._shards[track_id] = self._place(keys)
            seen[shard.row[shard.row >= 0]] = True
        if self._required and not any((shard.split >= 0).any() for shard in self._shards.values()):
            raise AbawError(
                f"the labels of task {self.task.name} name no image of {self.store.path.name}",
                where=f"{self.path}: images like {self._layout.example}\n{self.store.path}: images like {first}",
                fix="paths must agree from data.images on: correct data.annotations, or align the folder above",
            )
        if self._layout.rows_by_key and not seen.all():
            self._unmatched = [f"{(~seen).sum()} of {len(seen)} labelled images are not in {self.store.path}"]
        return self._shards

    def _place(self, keys: list[str]) -> _Shard:
        place, folders = self._layout.place, self._folders
        pairs = np.array([place(key) for key in keys], np.int32).reshape(-1, 2)
        numbers = [folders.setdefault(key.rpartition("/")[0], len(folders)) for key in keys]
        return _Shard(pairs[:, 0].astype(np.int8), pairs[:, 1], np.array(numbers, np.int32))


def merged_folders(folders: Iterable[str]) -> np.ndarray:
    """int64 [F]: a number for each folder of images, the same where their last parts are of one raw recording."""
    groups: dict[str, int] = {}
    raw = [f"{above}/{group_of(name)}" for above, _, name in (folder.rpartition("/") for folder in folders)]
    return np.array([groups.setdefault(name, len(groups)) for name in raw], np.int64)


def _layout(data: DataConfig, task: Task, path: Path) -> Layout:
    """The layout that a folder of labels has. Raises AbawError for one that has none for the task."""
    if any((path / name).is_file() for name in CSV_FILES.values()):
        return _csv_layout(path, task)
    if task.name == "mtl":
        return _mtl_layout(path, data.test.get("mtl"))
    if len(task.heads) == 1 and task.heads[0].problem is Problem.MULTICLASS:
        return _folder_layout(data, task, path)
    raise AbawError(
        f"images of task {task.name} have no labels in {path}",
        where=f"data.annotations.{task.name}",
        fix=f"write {CSV_FILES['train']} and {CSV_FILES['val']} there, path,{','.join(task.heads[0].labels[:2])} ... "
        "in their first line",
    )


def split_word(folder: str) -> int:
    """Index in SPLITS of the split that a folder's name says, as "Train_Set" or "LSD_validation_set"; -1 for none."""
    words = set(re.split(r"[^a-z]+", folder.lower()))
    found = [SPLITS.index(split) for split, names in SPLIT_WORDS.items() if words & set(names)]
    return found[0] if len(found) == 1 else -1


def _folder_layout(data: DataConfig, task: Task, path: Path) -> Layout:
    """`<split>/<Class>/<name>` below the folder of labels; class names in any case, without regard to punctuation."""
    head, above = task.heads[0], _below(path, data.images)
    splits: dict[str, int] = {}
    classes: dict[str, int] = {}
    notes: list[str] = []

    def place(key: str) -> tuple[int, int]:
        parts = key[len(above) :].split("/")
        if not key.startswith(above) or len(parts) < 2:
            return NOWHERE
        if parts[0] not in splits:
            splits[parts[0]] = split_word(parts[0])
        split = splits[parts[0]]
        if split < 0 or SPLITS[split] == "test" or len(parts) < 3:
            return split, -1
        if parts[1] not in classes:
            classes[parts[1]] = int(by_name([parts[1]], head.labels)[0])
            if classes[parts[1]] < 0:
                notes.append(f"images in folders {parts[1]} are left out: {head.name} has no such class")
        return split, classes[parts[1]]

    values = np.arange(head.output_dim, dtype=np.float32)[:, None]
    table = {head.name: Labels(values, np.ones_like(values, bool))}
    return Layout(place, table, f"{above}train/{head.labels[0]}/1.jpg", notes, rows_by_key=False)


def _below(path: Path, images: Path | None) -> str:
    """What the keys of images in ``path`` begin with: "" where it is the collection's folder, or lies elsewhere."""
    if images is None or not path.resolve().is_relative_to(images.resolve()):
        return ""
    relative = path.resolve().relative_to(images.resolve()).as_posix()
    return "" if relative == "." else f"{relative}/"


def _csv_layout(path: Path, task: Task) -> Layout:
    """`train.csv`, `val.csv` and, without labels, `test.csv`."""
    places: dict[str, tuple[int, int]] = {}
    parts: list[dict[str, Labels]] = []
    notes: list[str] = []
    count = 0
    for split, name in CSV_FILES.items():
        if not (path / name).is_file():
            continue
        if split == "test":
            _add(places, {normal_key(key): (2, -1) for _, key in listed(path / name, task.name)}, path / name)
            continue
        table = read_key_csv(path / name, task.heads, where=f"data.annotations.{task.name}")
        code = SPLITS.index(split)
        _add(places, {key: (code, count + number) for number, key in enumerate(table.keys)}, path / name)
        count += len(table.keys)
        parts.append(table.labels)
        notes += table.notes
    if not parts:
        fix = f"write {CSV_FILES['train']} and {CSV_FILES['val']} beside it"
        raise AbawError(f"no image of task {task.name} has a label: there is only test.csv", where=str(path), fix=fix)
    pooled = {head.name: concatenate([labels[head.name] for labels in parts]) for head in task.heads}
    return Layout(lambda key: places.get(key, NOWHERE), pooled, next(iter(places)), notes)


def _add(places: dict[str, tuple[int, int]], more: dict[str, tuple[int, int]], file: Path) -> None:
    """Join the images of another file. Raises AbawError for one that another split has already."""
    both = places.keys() & more.keys()
    if both:
        raise AbawError(
            f"{len(both)} images are in two splits, {min(both)} among them",
            where=str(file),
            fix="remove them from one of the files",
        )
    places |= more


def _mtl_layout(path: Path, test: Path | None) -> Layout:
    """The organisers' text files; a key is found by its last folder (the track) and its number, whatever is above."""
    heads = TASKS["mtl"].heads
    places: dict[str, tuple[int, int]] = {}
    tables: list[np.ndarray] = []
    count = 0
    for name, split in MTL_FILES.items():
        if not (path / name).is_file():
            continue
        more: dict[str, tuple[int, int]] = {}
        for track_id, rows in read_mtl_file(path / name).items():
            for row in rows[:, 0].astype(np.int64).tolist():
                more[f"{track_id}/{row}"] = SPLITS.index(split), count
                count += 1
            tables.append(rows[:, 1:])
        _add(places, more, path / name)
    if not tables:
        raise AbawError(
            f"there are no labels of task mtl in {path}",
            where="data.annotations.mtl",
            fix=f"it must hold {' or '.join(list(MTL_FILES)[:2])}, and the same for validation",
        )
    tests = {key.strip("/") for _, key in listed(test, "mtl")} if test is not None else set()
    tests |= {f"{key.rpartition('/')[0]}/{row}" for key in tests if (row := _row(key)) is not None}
    values = np.concatenate(tables)
    table = {head.name: to_labels(values[:, MTL_COLUMNS[head.name]], head) for head in heads}

    def place(key: str) -> tuple[int, int]:
        track_id, row = key.rpartition("/")[0].rpartition("/")[2], _row(key)
        if row is None:
            return NOWHERE
        name = f"{track_id}/{row}"
        return places.get(name, (2, -1) if track_id in tests or name in tests else NOWHERE)

    return Layout(place, table, f"{next(iter(places)).rpartition('/')[0]}/00001.jpg")


def _row(key: str) -> int | None:
    """0-based row that an image's name gives, as 0 of "video5/00001.jpg"; None where it gives none."""
    folder, _, name = key.rpartition("/")
    number = name.partition(".")[0]
    return int(number) - 1 if folder and number.isascii() and number.isdigit() and int(number) else None
