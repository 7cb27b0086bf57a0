"""The first line of a file of decisions: which task it is of, and what stands in front of each row.

Source: the headers of the challenge's sample files. Knows nothing of rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from abaw.errors import AbawError
from abaw.tasks import TASKS, Problem, Task

IMAGE_COLUMNS = ("image_location", "image", "path", "key", "file", "filename")
CLASS_COLUMNS = ("expression", "label", "class", "emotion")
CLASS_TASK = "lsd"  # the task whose file is headed image,expression


@dataclass(frozen=True)
class Layout:
    """``task`` of the rows; ``image``: each begins with the image's name, else rows are frames in order."""

    task: Task
    image: bool


def plain(name: str) -> str:
    """A column's name without case, spaces and underscores."""
    return re.sub(r"[\s_]", "", name).lower()


def read_header(line: str, task: Task | None, *, where: str) -> Layout:
    """The layout that a first line stands for; ``task``: the one it must be of. Raises AbawError where it fits none."""
    names = [plain(name) for name in line.rstrip().removesuffix(",").split(",")]
    image = names[0] in [plain(name) for name in IMAGE_COLUMNS]
    found = _task_of(names[image:], task)
    if found is None:
        fix = "; ".join(f"{other.name}: {','.join(_columns(other))}" for other in TASKS.values())
        raise AbawError(
            f"the header is of no task: {line[:80]!r}",
            where=f"{where}, line 1",
            fix=f"begin the file with image_location and a task's columns, or with these alone\n{fix}",
        )
    if task is not None and found != task:
        raise AbawError(
            f"the file holds decisions of {found.name}, not of {task.name}",
            where=f"{where}, line 1",
            fix=f"give a file of task {task.name}, or --task {found.name}",
        )
    return Layout(found, image)


def _task_of(names: list[str], task: Task | None) -> Task | None:
    if len(names) == 1 and names[0] in CLASS_COLUMNS:
        single = task is not None and len(task.heads) == 1 and task.heads[0].problem is Problem.MULTICLASS
        return task if single else TASKS[CLASS_TASK]
    for other in TASKS.values():
        if names == [plain(name) for name in _columns(other)]:
            return other
        if len(other.heads) > 1 and names == ["valence", "arousal", "expression", "aus"]:
            return other
    return None


def _columns(task: Task) -> list[str]:
    """A task's columns by name; in a file of several heads the class has one column."""
    if len(task.heads) == 1:
        return list(task.heads[0].labels)
    single = [["expression"] if head.problem is Problem.MULTICLASS else list(head.labels) for head in task.heads]
    return [name for names in single for name in names]
