"""From what a source holds to the rows of a track: the row rule, whose face a row shows, and float16.

A source that numbers its frames may leave some out; those rows are invalid. One that does not must have a row for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from abaw.data.foreign_features.source import Block, Item, Layout, unreadable
from abaw.errors import AbawError
from abaw.store_header import Reason

LARGEST = float(np.finfo(np.float16).max)  # 65504
BLOCK = 4096  # rows
MAX_SHOWN = 5


@dataclass(frozen=True)
class Clock:
    """The rows that a track has: ``num_rows``, which of them show a face, and where (x0 y0 x1 y1; None = unknown)."""

    num_rows: int
    has_face: np.ndarray
    boxes: np.ndarray | None = None


@dataclass(frozen=True)
class Rows:
    """Features float16 [T, D], zeros where reason uint8 [T] is not 0.

    ``difference``: rows given more, or fewer, than T. ``partial``: rows of which some columns hold no number.
    """

    features: np.ndarray
    reason: np.ndarray
    difference: int
    partial: int


def to_rows(block: Block, clock: Clock, item: Item, layout: Layout, *, tolerance: int, of_recording: bool) -> Rows:
    """Put a block onto the rows of its track.

    Up to ``tolerance`` rows more are cut, fewer are invalid. ``of_recording``: the source shows everyone in the
    recording, and only the faces at this track's place count. Raises AbawError for a larger difference, a frame given
    twice, several faces whose places are unknown, and numbers that float16 cannot hold.
    """
    if block.values.shape[1] != layout.dim:
        fix = "make all of them with one model"
        raise unreadable(item, f"has {block.values.shape[1]} columns, the others {layout.dim}", fix)
    block = _own_faces(block, clock, item, of_recording=of_recording)
    frames = np.arange(len(block.values)) if block.frames is None else block.frames
    if len(frames) and frames.min() < 0:
        fix = "number all tracks alike, and sort their rows by frame"
        raise unreadable(item, "has a frame 0, but the source counts from 1", fix)
    difference = _row_difference(block.frames, len(frames), clock, item, tolerance)
    features = np.zeros((clock.num_rows, layout.dim), np.float16)
    reason = np.full(clock.num_rows, Reason.NO_VALUE, np.uint8)
    partial = 0
    for start in range(0, len(frames), BLOCK):  # a block at a time: copies of an hour's rows are large
        part = slice(start, start + BLOCK)
        known = frames[part] < clock.num_rows
        rows, values, stated = frames[part][known], block.values[part][known], block.reason[part][known]
        numbers = np.isfinite(values)
        finite = numbers.all(axis=1)
        valid = finite & (stated == Reason.VALID)
        partial += int((numbers.any(axis=1) & ~finite & (stated == Reason.VALID)).sum())
        _require_room(values[valid], rows[valid], item, layout)
        features[rows[valid]] = values[valid].astype(np.float16)
        reason[rows] = np.where((stated == Reason.VALID) & ~finite, Reason.NO_VALUE, stated)
    if partial and not (reason == Reason.VALID).any():
        raise _never_whole(block, item, layout)
    return Rows(features, reason, difference, partial)


def _never_whole(block: Block, item: Item, layout: Layout) -> AbawError:
    said = block.values[block.reason == Reason.VALID]
    empty = np.flatnonzero(~np.isfinite(said).any(axis=0)).tolist()
    names = [layout.columns[column] if layout.columns else str(column) for column in empty]
    which = f"column {', '.join(names[:MAX_SHOWN])} holds none at all" if names else "each row lacks some"
    fix = "leave it out" + (
        " with --columns, e.g. --columns 'AU*'" if layout.columns else " when the features are saved"
    )
    return unreadable(item, f"has no row whose columns are all numbers: {which}", fix)


def _row_difference(frames: np.ndarray | None, count: int, clock: Clock, item: Item, tolerance: int) -> int:
    """Rows more (or fewer, negative) than the track has. Raises AbawError beyond the tolerance.

    Numbered frames with gaps between them make no claim about how many there are; without a gap they do, unless what
    follows shows no face.
    """
    given = count if frames is None else int(frames.max()) + 1 if count else 0
    difference = given - clock.num_rows
    sparse = frames is not None and (given > count or not clock.has_face[given:].any())
    if difference > tolerance or (difference < -tolerance and not sparse):
        last = f"frame {given - 1} (counted from 0)"
        if frames is None:
            what = f"has {given} rows, the track {clock.num_rows}"
        elif difference > 0:
            what = f"has a {last}, the track {clock.num_rows} rows"
        else:
            what = f"ends with {last}, the track has {clock.num_rows} rows and shows a face after it"
        fix = (
            "extract one vector for every frame that a decoder gives, not by the container's count; where the "
            "difference is known and harmless, raise data.max_row_difference"
        )
        raise unreadable(item, what, fix)
    return 0 if sparse and difference < 0 else difference


def _require_room(values: np.ndarray, rows: np.ndarray, item: Item, layout: Layout) -> None:
    """Raise AbawError for a value that float16 cannot hold, naming its column."""
    large = np.abs(values) > LARGEST
    if not large.any():
        return
    columns = np.flatnonzero(large.any(axis=0)).tolist()
    row = int(np.flatnonzero(large[:, columns[0]])[0])
    names = [layout.columns[column] if layout.columns else str(column) for column in columns]
    more = f" and {len(names) - 1} more columns" if len(names) > 1 else ""
    raise unreadable(
        item,
        f"holds {values[row, columns[0]]:g} in column {names[0]}, row {int(rows[row])}{more}: a store keeps float16, "
        f"up to {LARGEST:.0f}",
        "scale the features before, or leave the column out" + (" with --columns" if layout.columns else ""),
    )


# -- whose face --------------------------------------------------------------------------------------------------------
def _own_faces(block: Block, clock: Clock, item: Item, *, of_recording: bool) -> Block:
    """The block with one row per frame, that of the track's own face. Raises AbawError where it cannot be told."""
    if block.frames is None or not len(block.frames):
        return block
    order = np.argsort(block.frames, kind="stable")
    block = replace(
        block,
        values=block.values[order],
        frames=block.frames[order],
        reason=block.reason[order],
        boxes=None if block.boxes is None else block.boxes[order],
    )
    assert block.frames is not None
    starts = np.flatnonzero(np.diff(block.frames, prepend=block.frames[0] - 1))
    several = np.diff(np.append(starts, len(block.frames))) > 1
    if not several.any() and not of_recording:
        return block
    if block.boxes is None or clock.boxes is None:
        raise _ambiguous(item, int(block.frames[starts[np.argmax(several)]]), of_recording=not several.any())
    distance = _distance(block.boxes, block.frames, clock)
    chosen = [start + int(np.argmin(part)) for start, part in zip(starts, np.split(distance, starts[1:]), strict=True)]
    rows = np.array(chosen)
    own = np.isfinite(distance[rows])
    matters = (several | of_recording) & (block.reason[rows] == Reason.VALID)
    faceless = ~np.append(clock.has_face, False)[np.minimum(block.frames[rows], clock.num_rows)]
    why = np.where(faceless, Reason.NO_FACE, Reason.OTHER_PERSON)
    reason = np.where(matters & ~own, why, block.reason[rows]).astype(np.uint8)
    return Block(block.values[rows], block.frames[rows], reason)


def _distance(boxes: np.ndarray, frames: np.ndarray, clock: Clock) -> np.ndarray:
    """Distance of each face from the track's own, in pixels; infinite where its middle lies outside that one's box."""
    assert clock.boxes is not None
    distance = np.full(len(frames), np.inf)
    known = frames < clock.num_rows
    known[known] = clock.has_face[frames[known]]
    own = clock.boxes[frames[known]].astype(np.float64)
    middle = (boxes[known, :2] + boxes[known, 2:]) / 2
    inside = ((middle >= own[:, :2]) & (middle <= own[:, 2:])).all(axis=1)  # False for NaN
    distance[known] = np.where(inside, np.linalg.norm(middle - (own[:, :2] + own[:, 2:]) / 2, axis=1), np.inf)
    return distance


def _ambiguous(item: Item, frame: int, *, of_recording: bool) -> AbawError:
    if of_recording:
        what = "is of a recording with several people, and does not say where its face is"
    else:
        what = f"has several rows of frame {frame} (counted from 0), and which of them is this track's cannot be told"
    fix = (
        "let the program write where the faces are (OpenFace: -2Dfp) and use a faces store of the same videos, or "
        "keep one row per frame"
    )
    return unreadable(item, what, fix)
