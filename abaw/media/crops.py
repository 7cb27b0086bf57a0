"""The organisers' ready-made crops of one track, `<folder>/00001.jpg`, as `faces` arrays, taken as they are.

The one-based numbers of the files end here: file k is row k - 1, and a missing number is a row without a face.
Knows nothing of videos, labels or stores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from abaw.errors import AbawError
from abaw.media.warp import encode_jpeg, template
from abaw.store import Reason

NAME = re.compile(r"^0*(?P<number>[1-9]\d*)\.(jpg|jpeg|png|bmp)$", re.IGNORECASE)
JPEG_START = b"\xff\xd8"


def read_crops(folder: Path, *, fps: float, min_rows: int = 0, jpeg_quality: int = 95) -> dict[str, np.ndarray]:
    """Arrays of a track with a row for every number up to the highest crop or ``min_rows``.

    JPEG files are copied byte for byte; other pictures are encoded. ``time`` is nominal (row / fps), ``box`` the
    whole crop, ``landmarks`` the template's points at the crop's size, ``warp`` the identity. A file that is no
    picture is a row with reason DECODE_ERROR. Raises AbawError for a crop that is not square and for a folder
    without any.
    """
    files = _numbered(folder)
    if not files:
        what = f"folder {folder.name} holds no crops"
        raise AbawError(what, where=str(folder), fix="crops are named 00001.jpg, 00002.jpg ...; or remove the folder")
    num_rows = max(max(files) + 1, min_rows)
    arrays = _blank(num_rows, fps=fps)
    pictures = [b""] * num_rows
    for row, data, side in _pictures(files, jpeg_quality=jpeg_quality):
        pictures[row] = data
        _fill(arrays, row, side)
    lengths = np.array([len(data) for data in pictures], dtype=np.int64)
    arrays["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    arrays["jpeg"] = np.frombuffer(b"".join(pictures), dtype=np.uint8)
    return arrays


def _numbered(folder: Path) -> dict[int, Path]:
    """Row -> file; of two files with one number (00001.jpg, 1.png) the first by name."""
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = NAME.match(path.name)
        if match:
            files.setdefault(int(match["number"]) - 1, path)
    return files


def _blank(num_rows: int, *, fps: float) -> dict[str, np.ndarray]:
    return {
        "valid": np.zeros(num_rows, dtype=bool),
        "time": np.arange(num_rows, dtype=np.float64) / fps,
        "reason": np.full(num_rows, Reason.MISSING_CROP, dtype=np.uint8),
        "box": np.zeros((num_rows, 4), dtype=np.float32),
        "landmarks": np.zeros((num_rows, 5, 2), dtype=np.float32),
        "warp": np.zeros((num_rows, 2, 3), dtype=np.float32),
        "score": np.zeros(num_rows, dtype=np.float32),
    }


def _pictures(files: dict[int, Path], *, jpeg_quality: int) -> Iterator[tuple[int, bytes, int]]:
    """Row, encoded picture and its side; side 0 (and no bytes) where the file is no picture."""
    for row, path in sorted(files.items()):
        data = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
        if image is None:
            yield row, b"", 0
            continue
        height, width = image.shape[:2]
        if height != width:
            what = f"crop {path.name} of {path.parent.name} is {width}x{height}, not square"
            raise AbawError(what, where=str(path), fix='give square crops, or align the videos: kind = "videos"')
        kept = data if data.startswith(JPEG_START) else encode_jpeg(image[..., ::-1], jpeg_quality)
        yield row, kept, width


def _fill(arrays: dict[str, np.ndarray], row: int, side: int) -> None:
    if side == 0:
        arrays["reason"][row] = Reason.DECODE_ERROR
        return
    arrays["reason"][row] = Reason.VALID
    arrays["valid"][row] = True
    arrays["box"][row] = (0, 0, side, side)
    arrays["landmarks"][row] = template(side)
    arrays["warp"][row] = ((1, 0, 0), (0, 1, 0))
    arrays["score"][row] = 1
