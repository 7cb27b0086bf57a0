"""Labels of single images for a list of their paths, as of a submission file, without a store of faces.

Two layouts: csv files, and folders named after classes, as of the learning-from-synthetic-data challenge. An image is
found by its whole path, or by the end of it where only one image ends like that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from abaw.data.annotations import CLASS_INVALID, Labels, concatenate, to_labels
from abaw.data.collection import PICTURE_SUFFIXES, walk_files
from abaw.data.decisions.rows import IMAGES
from abaw.data.key_csv import normal_key, read_key_csv
from abaw.data.keyed import CSV_FILES, SPLITS, merged_folders, split_word
from abaw.errors import AbawError
from abaw.label_spaces import by_name
from abaw.tasks import Problem, Task

VAL = SPLITS.index("val")


class ImageLabels:
    """Labels of images of no video, one of the kinds of ``label_sources.LabelSource``; all of them are one track.

    ``keys``: the images' paths, row by row.
    """

    by_track = False

    def __init__(self, path: Path, task: Task, keys: Sequence[str]) -> None:
        self.task, self.path = task, path
        names, splits, table, self._notes = _listed(path, task)
        place = PathEnds(names)
        row = np.array([place.find(key) for key in keys], np.int64)
        known = row >= 0
        if not known.any():
            raise AbawError(
                f"the labels of task {task.name} name none of the {len(keys)} images",
                where=f"{path}: images like {names[0] if names else 'none'}\ndecisions: images like {keys[0]}",
                fix="give the labels of these images: their paths must agree, or the ends of their paths",
            )
        self._split = np.where(known, np.array(splits, np.int8)[row], -1)
        self._labels = {
            name: Labels(np.where(known[:, None], own.values[row], 0), own.mask[row] & known[:, None])
            for name, own in table.items()
        }
        folders: dict[str, int] = {}
        self._folder = np.array([folders.setdefault(key.rpartition("/")[0], len(folders)) for key in keys], np.int64)
        self._raw = merged_folders(folders)
        if not known.all():
            first = keys[int(known.argmin())]
            self._notes.append(f"{int((~known).sum())} images have no label of their own, as {first}")
        wanted = np.array(splits, np.int8) == VAL
        wanted[row[known]] = False
        if wanted.any():
            self._notes.append(
                f"{int(wanted.sum())} labelled images have no decision, as {names[int(wanted.argmax())]}"
            )

    def track_ids(self, split: str) -> list[str]:
        """The one track, where it holds an image of the split."""
        return [IMAGES] if (self._split == SPLITS.index(split)).any() else []

    def rows(self, track_id: str, num_rows: int, split: str) -> np.ndarray:
        """bool [num_rows]: images of a split."""
        return self._split == SPLITS.index(split)

    def labels(self, track_id: str, num_rows: int, split: str) -> dict[str, Labels]:
        """Labels by head; images of other splits, and those without a label, are unlabelled."""
        inside = self.rows(track_id, num_rows, split)[:, None]
        return {name: Labels(own.values * inside, own.mask & inside) for name, own in self._labels.items()}

    def count(self, track_id: str) -> int:
        """0: rows are those of the images asked for."""
        return 0

    def recordings(self, track_id: str, num_rows: int) -> np.ndarray:
        """int64 [num_rows]: number of the folder each image lies in."""
        return self._folder

    def raw_recordings(self, track_id: str, num_rows: int) -> np.ndarray:
        """int64 [num_rows]: as ``recordings``, the same for the people and parts of one raw recording."""
        return self._raw[self._folder]

    def notes(self) -> list[str]:
        """What was left out, in words."""
        return list(self._notes)


class PathEnds:
    """Finds paths by their ends: "val/Anger/7.jpg" by itself, by "Anger/7.jpg" or by "7.jpg", where that is unique."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)
        self._whole = {path: number for number, path in enumerate(paths)}
        self._by_name: dict[str, list[int]] = {}
        for number, path in enumerate(paths):
            self._by_name.setdefault(path.rpartition("/")[2], []).append(number)

    def find(self, key: str) -> int:
        """Number of the path that is meant; -1 for none, or more than one."""
        key = normal_key(key)
        whole = self._whole.get(key)
        if whole is not None:
            return whole
        same = self._by_name.get(key.rpartition("/")[2], [])
        found = [n for n in same if self._paths[n].endswith(f"/{key}") or key.endswith(f"/{self._paths[n]}")]
        return found[0] if len(found) == 1 else -1


def _listed(path: Path, task: Task) -> tuple[list[str], list[int], dict[str, Labels], list[str]]:
    """Labelled images, the split of each, their labels by head, and what was left out."""
    if path.is_file():
        files = {"val": path}
    else:
        files = {split: path / name for split, name in CSV_FILES.items() if split != "test" and (path / name).is_file()}
    if files:
        tables = {split: read_key_csv(file, task.heads, where="--labels") for split, file in files.items()}
        names = [key for table in tables.values() for key in table.keys]
        splits = [SPLITS.index(split) for split, table in tables.items() for _ in table.keys]
        pooled = {head.name: concatenate([table.labels[head.name] for table in tables.values()]) for head in task.heads}
        return names, splits, pooled, [note for table in tables.values() for note in table.notes]
    if len(task.heads) > 1 or task.heads[0].problem is not Problem.MULTICLASS:
        raise AbawError(
            f"{path} holds no labels of single images for task {task.name}",
            where="--labels",
            fix=f"give a csv file with path,{','.join(task.heads[0].labels[:2])} ... in its first line, or a folder "
            f"with {CSV_FILES['train']} and {CSV_FILES['val']}",
        )
    return _class_folders(path, task)


def _class_folders(path: Path, task: Task) -> tuple[list[str], list[int], dict[str, Labels], list[str]]:
    """Images below folders that are named after classes; those of no split's folder are of "val"."""
    head = task.heads[0]
    names, splits, classes = list[str](), list[int](), list[int]()
    left = dict[str, int]()
    for name, folder in _in_folders(path):
        found = int(by_name([folder], head.labels)[0])
        if found < 0:
            left[folder] = left.get(folder, 0) + 1
            continue
        split = split_word(name.partition("/")[0])
        names.append(name)
        splits.append(split if split >= 0 else VAL)
        classes.append(found)
    if not names:
        fix = f"it must hold a folder of images for each class: {', '.join(head.labels)}"
        raise AbawError(f"{path} holds no images in folders of classes", where="--labels", fix=fix)
    table = np.array(classes, np.float32)[:, None]
    assert (table > CLASS_INVALID).all()
    notes = [f"{count} images in folders {name} are left out" for name, count in left.items()]
    return names, splits, {head.name: to_labels(table, head)}, notes


def _in_folders(path: Path) -> Iterator[tuple[str, str]]:
    """Images below a folder, and the name of the folder each lies in."""
    for name in walk_files(path, PICTURE_SUFFIXES, key="--labels"):
        if "/" in name:
            yield name, name.rpartition("/")[0].rpartition("/")[2]
