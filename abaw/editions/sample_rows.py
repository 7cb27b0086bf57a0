"""Which rows a submission has, and in which order, and what is said of a sample file that cannot give them.

Knows nothing of how such files are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.editions.registry import Submission, header_fields, of_header
from abaw.errors import AbawError

MAX_ROWS = 5_000_000  # the largest test set has a million


@dataclass(frozen=True)
class SampleRows:
    """Rows of an organisers' sample file, in their order.

    ``images`` as written, ``tracks`` the distinct track names, ``track_index`` int64 [N] into them and ``rows`` int64
    [N], 0-based. ``keyed``: the images are named alone; then there are no tracks, no index and no rows.
    """

    images: list[str]
    tracks: list[str]
    track_index: np.ndarray
    rows: np.ndarray
    keyed: bool = False

    def __len__(self) -> int:
        return len(self.images)


def unreadable(path: Path, submission: Submission, why: str) -> AbawError:
    """The error for a sample that is no readable text."""
    key = f"submit.sample in the config, or --sample {'PATH' if submission.layout == 'videos' else 'FILE'}"
    return AbawError(
        f"the sample file cannot be read ({why})",
        where=str(path),
        fix=f"give the organisers' sample file of task {submission.task}, edition {submission.edition}: {key}",
    )


def foreign(path: Path, submission: Submission, line: str) -> AbawError:
    """The error for a first line that is not that of the task: says whose it is, where that is known."""
    mine = f"task {submission.task}, edition {submission.edition}"
    found = of_header(line)
    shown = ",".join(header_fields(line))[:100]
    wanted = f"give the file whose header is {submission.header}"
    if submission.layout == "videos":
        wanted = "give the organisers' list of the test videos (rows: video,count), or a folder of sample files"
    if not found and submission.layout == "file" and _is_video_list(line):
        what = f"the sample file does not belong to {mine}: it looks like edition 3's list of videos and their rows"
        return AbawError(what, where=f"{path}, line 1", fix=f"pass --edition 3 for this file, or {wanted}")
    if not found:
        what = f"the sample file does not belong to {mine}: its header is {shown!r}"
        what = what if line.strip() else "the sample file is empty, or begins with an empty line"
        return AbawError(what, where=f"{path}, line 1", fix=wanted)
    task = found[0].task
    editions = [other.edition for other in found]
    nearest = submission.edition if submission.edition in editions else editions[-1]
    names = f"edition{'s' if len(editions) > 1 else ''} {', '.join(editions)}"
    return AbawError(
        f"the sample file does not belong to {mine}: this is the header of task {task}, {names}",
        where=f"{path}, line 1",
        fix=f"pass --task {task} --edition {nearest} for this file, or {wanted}",
    )


def _is_video_list(line: str) -> bool:
    fields = header_fields(line)
    return len(fields) == 2 and "/" not in fields[0] and fields[1].isdigit()
