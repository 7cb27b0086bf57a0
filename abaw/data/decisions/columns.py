"""The header of a csv table of decisions: which column says what.

Owns the names of columns, and how the task is told from them. Knows nothing of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from abaw.data.decisions.headers import CLASS_COLUMNS, IMAGE_COLUMNS, plain
from abaw.errors import AbawError
from abaw.tasks import TASKS, Head, Problem, Task

TRACK_COLUMNS = ("track", "trackid", "video", "videoname", "stem")
FRAME_COLUMNS = {"frame": 0, "framenumber": 1}  # the number of the first frame
VALID = "valid"
FIX = (
    "a row is told by frame (from 0) or frame_number (from 1), with track unless the file is named after it, or by "
    "image (stem/00001.jpg); its decisions are in valence and arousal, AU1 ..., expression, or a column per class"
)


@dataclass(frozen=True)
class HeadColumns:
    """Where a head's decisions are: ``named`` for one column of classes, else one of ``places`` for each label."""

    head: Head
    places: tuple[int, ...]
    named: bool


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are, by number; None where there is none. ``first``: the number of frame 0."""

    task: Task
    heads: tuple[HeadColumns, ...]
    width: int
    track: int | None = None
    frame: int | None = None
    first: int = 0
    image: int | None = None
    valid: int | None = None


def read_columns(fields: Sequence[str], task: Task | None, *, where: str) -> Columns:
    """The columns of a header.

    Raises AbawError for a column that is there twice, for none that says which row it is, and where ``task``, or any
    one task, has no columns.
    """
    where = f"{where}, line 1"
    names = [plain(field) for field in fields]
    twice = [field for field, name in zip(fields, names, strict=True) if name and names.count(name) > 1]
    if twice:
        fix = "remove or rename one of them: which one holds the decisions cannot be told"
        raise AbawError(f"the table has a column twice: {' and '.join(twice[:5])}", where=where, fix=fix)
    heads, found = _heads_of(names, fields, task, where)
    width, valid = len(names), _place(names, (VALID,))
    track, frame = _place(names, TRACK_COLUMNS), _place(names, tuple(FRAME_COLUMNS))
    image = _place(names, [plain(name) for name in IMAGE_COLUMNS])
    if image is not None and (track is None or frame is None):
        return Columns(found, heads, width, image=image, valid=valid)
    if frame is None:
        what = f"the table says no frame or image: its header is {','.join(fields)[:80]!r}"
        raise AbawError(what, where=where, fix=FIX)
    first = FRAME_COLUMNS[names[frame]]
    return Columns(found, heads, width, track=track, frame=frame, first=first, valid=valid)


def _place(names: list[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _heads_of(
    names: list[str], fields: Sequence[str], task: Task | None, where: str
) -> tuple[tuple[HeadColumns, ...], Task]:
    """Columns of the task's heads; of the task that has most of the columns where none is given."""
    candidates = [task] if task is not None else list(TASKS.values())
    found = [(heads, other) for other in candidates if (heads := _of_task(names, other)) is not None]
    if not found:
        kind = f"task {task.name}" if task is not None else "any task"
        hint = "separate the columns by commas; " if len(fields) == 1 and ";" in fields[0] else ""
        what = f"the table has no columns of {kind}: its header is {','.join(fields)[:80]!r}"
        raise AbawError(what, where=where, fix=hint + FIX)
    most = max(_size(heads) for heads, _ in found)
    best = [(heads, other) for heads, other in found if _size(heads) == most]
    if len(best) > 1:
        kinds = ", ".join(other.name for _, other in best)
        raise AbawError(f"the table may be of several tasks: {kinds}", where=where, fix="say which one: --task TASK")
    return best[0]


def _size(heads: tuple[HeadColumns, ...]) -> int:
    return sum(len(columns.places) for columns in heads)


def _of_task(names: list[str], task: Task) -> tuple[HeadColumns, ...] | None:
    heads = [_of_head(names, head) for head in task.heads]
    return None if None in heads else tuple(columns for columns in heads if columns is not None)


def _of_head(names: list[str], head: Head) -> HeadColumns | None:
    """A head's columns, as `valence` or, where heads share names, `va.valence`."""
    if head.problem is Problem.MULTICLASS:
        one = _place(names, CLASS_COLUMNS)
        if one is not None:
            return HeadColumns(head, (one,), named=True)
    places = [_place(names, (plain(label), f"{head.name}.{plain(label)}")) for label in head.labels]
    if None in places:
        return None
    return HeadColumns(head, tuple(place for place in places if place is not None), named=False)
