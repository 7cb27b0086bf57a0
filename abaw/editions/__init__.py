"""The challenge's editions: which tasks each has, which rows it asks for, how its files are written and checked.

Add an edition by adding an entry of EDITIONS in registry.py. Knows nothing of stores or models.
"""

from __future__ import annotations

from pathlib import Path

from abaw.editions.image_samples import read_images
from abaw.editions.lines import BLOCK_BYTES
from abaw.editions.registry import EDITIONS, Edition, Submission
from abaw.editions.rows import format_rows
from abaw.editions.sample_rows import SampleRows
from abaw.editions.validation import Offence, Verdict, check_submission
from abaw.editions.video_lists import read_videos

__all__ = [
    "EDITIONS",
    "Edition",
    "Offence",
    "SampleRows",
    "Submission",
    "Verdict",
    "check_submission",
    "format_rows",
    "read_sample",
]


def read_sample(path: Path, submission: Submission, *, block_bytes: int = BLOCK_BYTES) -> SampleRows:
    """Read a sample file leniently: any line ends, byte order mark, blank lines at the end, any values behind it.

    Where the edition wants a file per video, the sample is the list of videos and their rows, or a folder of sample
    files. ``block_bytes`` are read at once.

    Raises AbawError, at the first bad row, for another task's or edition's file, a row that names no image, a repeated
    image, an empty file, or one that is no text.
    """
    read = read_videos if submission.layout == "videos" else read_images
    return read(path, submission, block_bytes=block_bytes)
