"""Labels of any folder or file, to measure decisions against, without a configuration.

Owns how the layout of a folder is told. The files are read by `label_files`, `key_csv` and what lists images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from abaw.config import DataConfig
from abaw.data.annotations import LabelReader
from abaw.data.collection import require_folder, unreadable
from abaw.data.image_labels import ImageLabels
from abaw.data.label_files import begins_with_header, describes_task
from abaw.data.label_sources import LabelSource, TrackLabels
from abaw.data.manifest import MTL_FILES, SPLIT_FOLDERS, Manifest, Track
from abaw.errors import AbawError
from abaw.store_header import check_track_id
from abaw.tasks import Task

WHERE = "--labels"
SPLIT = "val"  # of labels that lie in no folder of a split
MAX_NAMED = 5
MTL_HEADER = ("image", "valence", "arousal")


def folder_labels(path: Path, task: Task, *, tolerance: int, keys: Sequence[str] | None = None) -> LabelSource:
    """Labels of a task from a folder or file.

    One of: `Train_Set` and `Validation_Set` with a file per track; a folder of `<track>.txt`, or one such file (all of
    them are of the split "val"; other texts are passed over and noted); of the multi-task challenge the organisers'
    two files, or one of any name. With ``keys``, the paths of images that are of no video: a csv file, a folder with
    `train.csv` and `val.csv`, or `[<split>/]<Class>/<name>` (see ``image_labels``).

    ``tolerance``: rows that a track's labels may have more or less than what they are held against. Raises AbawError
    for a path that is missing or holds none of these.
    """
    if not path.exists():
        raise AbawError(f"{path} does not exist", where=WHERE, fix="correct the path of the labels")
    if keys is not None:
        return ImageLabels(path, task, keys)
    data = DataConfig(annotations={task.name: path}, max_row_difference=tolerance)
    if any((path / name).is_dir() for name in SPLIT_FOLDERS) or _has_mtl_files(path, task):
        return TrackLabels(Manifest.from_config(data, need_media=False), LabelReader(data, task))
    if task.name == "mtl":
        reader = LabelReader(data, task, files={"": _only_text(path)})
        return TrackLabels(_manifest(task, reader.named_tracks()), reader)
    texts = [path] if path.is_file() else _texts(path)
    files = {file.stem: file for file in texts if describes_task(file)}
    if not files:
        raise _no_labels(path, task)
    left = [file.name for file in texts if file.stem not in files]
    notes = [f"{len(left)} texts in {path} have no header of a task: {', '.join(left[:MAX_NAMED])}"] if left else []
    source = _Flat(_manifest(task, list(files)), LabelReader(data, task, files=files), notes)
    if not any(begins_with_header(file, task.heads[0].labels) for file in files.values()):
        source.count(next(iter(files)))  # says whose labels these are, before tracks are missed
    return source


class _Flat(TrackLabels):
    """Labels of files that lie in no folders of splits."""

    def __init__(self, manifest: Manifest, reader: LabelReader, notes: Sequence[str]) -> None:
        super().__init__(manifest, reader)
        self._notes = list(notes)

    def notes(self) -> list[str]:
        """What was passed over, and what did not fit so far."""
        return [*self._notes, *super().notes()]


def _manifest(task: Task, names: Sequence[str]) -> Manifest:
    for name in names:
        check_track_id(name, where=WHERE)
    return Manifest([Track(name, None, {task.name: SPLIT}) for name in names])


def _has_mtl_files(path: Path, task: Task) -> bool:
    return task.name == "mtl" and any((path / name).is_file() for name in MTL_FILES)


def _texts(path: Path) -> list[Path]:
    require_folder(path, WHERE)
    try:
        return sorted(file for file in path.iterdir() if file.suffix == ".txt" and not file.name.startswith("."))
    except OSError as error:
        raise unreadable(path, error) from error


def _only_text(path: Path) -> Path:
    """The one multi-task file of a folder, or the file itself."""
    if path.is_file():
        return path
    found = [file for file in _texts(path) if begins_with_header(file, MTL_HEADER)]
    if len(found) != 1:
        raise AbawError(
            f"{path} holds {len(found)} text files of the multi-task challenge",
            where=WHERE,
            fix=f"name one of them, or a folder with {' or '.join(MTL_FILES)}",
        )
    return found[0]


def _no_labels(path: Path, task: Task) -> AbawError:
    labels = task.heads[0].labels
    near = [file.parent.parent for name in SPLIT_FOLDERS for file in sorted(path.glob(f"*/{name}/*.txt"))]
    meant = next((folder for folder in dict.fromkeys(near) if _is_of(folder, labels)), None)
    texts = [path] if path.is_file() else sorted(path.glob("*.txt"))
    several = any(begins_with_header(file, MTL_HEADER) for file in texts)
    kind = "is a label file" if path.is_file() else "holds label files"
    return AbawError(
        f"{path} {kind if several else 'holds no label files'} of {'mtl, not of' if several else 'task'} {task.name}",
        where=WHERE,
        fix=f"{f'did you mean {meant}? ' if meant else ''}it must hold {' and '.join(SPLIT_FOLDERS)}, or a <track>.txt "
        f"for each track that begins with {','.join(labels[:3])}{',...' if len(labels) > 3 else ''}",
    )


def _is_of(folder: Path, labels: tuple[str, ...]) -> bool:
    """Whether the first label file of a folder is of these labels."""
    files = [file for name in SPLIT_FOLDERS for file in sorted((folder / name).glob("*.txt"))[:1]]
    return any(begins_with_header(file, labels) for file in files)
