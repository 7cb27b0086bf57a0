"""What is done to scores before they become labels: smoothing, thresholds, clipping; kept as post.json.

Owns the settings, the arithmetic on scores, and the filter of short runs of a class. Knows nothing of tasks' names or
of labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from abaw.errors import AbawError
from abaw.publish import publish_text

T = TypeVar("T")

FILE_NAME = "post.json"
SAVGOL_ORDER = 3  # of the ABAW3 winners' code, with 15 rows
UNIT = (-1.0, 1.0)  # bounds of valence and arousal
NEIGHBOURHOOD = 2  # rows on each side of a short run, in units of min_run: their 60 for 30, and 40 for 20

Rows = Annotated[int, Field(ge=0)]
Filter = Literal["box", "gaussian", "median", "savgol"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Post:
    """How scores are treated, by head name, and how that was found.

    ``half_width`` rows on each side of a centred ``filter`` (0 = none; a box unless named); ``thresholds`` one per
    unit of a multi-label head; ``min_run`` rows, below which a run of a class is no run (0 = none); ``clip`` bounds of
    values. The others say where these were chosen and what that gains: ``raw_score`` and ``tuned_score`` on
    recordings that the setting was not chosen on (``nested_folds`` parts), ``interval`` 95 % of the gain,
    ``kept_raw`` heads that nothing was gained for, ``acknowledged`` whether the scores were not out-of-fold.
    """

    half_width: dict[str, Rows] = field(default_factory=dict)
    thresholds: dict[str, list[float]] = field(default_factory=dict)
    clip: tuple[float, float] = UNIT
    fitted_on: str = ""
    filter: dict[str, Filter] = field(default_factory=dict)
    min_run: dict[str, Rows] = field(default_factory=dict)
    raw_score: dict[str, float] = field(default_factory=dict)
    tuned_score: dict[str, float] = field(default_factory=dict)
    gain: dict[str, float] = field(default_factory=dict)
    interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    kept_raw: list[str] = field(default_factory=list)
    nested_folds: Rows = 0
    acknowledged: bool = False

    @property
    def is_raw(self) -> bool:
        """Whether decisions are those of the scores as they are."""
        return (
            not (any(self.half_width.values()) or any(self.min_run.values()) or self.thresholds) and self.clip == UNIT
        )

    def of_heads(self, sources: Mapping[str, str]) -> Post:
        """The same treatment for heads that are made of these (new name -> name here); others are left out.

        Thresholds belong to scores as they are, so that a head of another name has none.
        """

        def kept(table: Mapping[str, T]) -> dict[str, T]:
            return {name: table[source] for name, source in sources.items() if source in table}

        thresholds = {
            name: self.thresholds[name] for name, source in sources.items() if source == name in self.thresholds
        }
        return replace(
            self,
            half_width=kept(self.half_width),
            filter=kept(self.filter),
            min_run=kept(self.min_run),
            thresholds=thresholds,
        )


def in_words(post: Post, head: str, *, values: bool = False) -> str:
    """What is done to a head's scores, e.g. "gaussian 10, runs from 20"; "as they are" where it is nothing.

    ``values``: the head's scores are values, which are clipped; told where that is narrower than -1..1.
    """
    width, run, (low, high) = post.half_width.get(head, 0), post.min_run.get(head, 0), post.clip
    parts = [f"{post.filter.get(head, 'box')} {width}"] if width else []
    parts += [f"runs from {run}"] if run else []
    parts += ["thresholds"] if head in post.thresholds else []
    parts += [f"clipped to {low:g}..{high:g}"] if values and post.clip != UNIT else []
    return ", ".join(parts) or "as they are"


def smooth(scores: np.ndarray, half_width: int, kind: str = "box") -> np.ndarray:
    """Centred filter over rows of scores [T, L], column by column; a constant stays what it is, up to both ends.

    "box": mean, "gaussian": weighted mean with a standard deviation of half the half-width; at the ends the window of
    both shrinks to the rows that exist. "median": past the ends stand the first and the last row. "savgol" (Savitzky
    and Golay 1964): a polynomial of third order, at the ends that of the outermost window; a track shorter than the
    window has a smaller one. Computed in float64, returned in the dtype of the scores.
    """
    if half_width == 0 or len(scores) < 2:
        return scores
    return _FILTERS[kind](scores.astype(np.float64), half_width).astype(scores.dtype)


def _box(scores: np.ndarray, half_width: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter1d  # a third of a second that most commands do not need

    size = 2 * half_width + 1
    sums = uniform_filter1d(scores, size, axis=0, mode="constant")
    counts = uniform_filter1d(np.ones(len(scores)), size, mode="constant")
    return np.asarray(sums / counts[:, None])


def _gaussian(scores: np.ndarray, half_width: int) -> np.ndarray:
    from scipy.ndimage import convolve1d

    offsets = np.arange(-half_width, half_width + 1)
    weights = np.exp(-2 * (offsets / half_width) ** 2)
    sums = convolve1d(scores, weights, axis=0, mode="constant")
    return np.asarray(sums / convolve1d(np.ones(len(scores)), weights, mode="constant")[:, None])


def _median(scores: np.ndarray, half_width: int) -> np.ndarray:
    from scipy.ndimage import median_filter

    # One column at a time: scipy has a fast way for one dimension only, thirty times faster at 151 rows.
    padded = np.pad(scores.T, ((0, 0), (half_width, half_width)), mode="edge")
    size, inside = 2 * half_width + 1, slice(half_width, half_width + len(scores))
    return np.stack([median_filter(column, size)[inside] for column in padded], axis=1)


def _savgol(scores: np.ndarray, half_width: int) -> np.ndarray:
    from scipy.ndimage import correlate1d

    half = min(half_width, (len(scores) - 1) // 2)
    if half == 0:
        return scores
    fit, size = _polynomial_fit(half), 2 * half + 1
    smoothed = correlate1d(scores, fit[half], axis=0, mode="constant")
    smoothed[:half], smoothed[-half:] = fit[:half] @ scores[:size], fit[half + 1 :] @ scores[-size:]
    return np.asarray(smoothed)


@cache
def _polynomial_fit(half: int) -> np.ndarray:
    """Matrix [2 half + 1, 2 half + 1] from the values of a window to those of the polynomial fitted to it."""
    powers = np.vander(np.linspace(-1, 1, 2 * half + 1), min(SAVGOL_ORDER, 2 * half) + 1)
    fit = powers @ np.linalg.pinv(powers)
    return np.asarray((fit + fit[::-1, ::-1]) / 2)  # symmetric but for rounding; scipy is twice as fast where it is


_FILTERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "box": _box,
    "gaussian": _gaussian,
    "median": _median,
    "savgol": _savgol,
}


def without_short_runs(classes: np.ndarray, min_run: int, num_classes: int) -> np.ndarray:
    """Class indices [T] of a track in which every run of fewer than ``min_run`` equal rows took another class.

    It takes the most frequent class from 2 ``min_run`` rows before the run to 2 ``min_run`` rows after it, itself
    included; of equally frequent ones its own, else the first. All runs are looked at as they were, at once, so that
    the result does not depend on a direction and may hold short runs still. After the ABAW3 winners' code, which does
    so with 31 rows for the six basic expressions and then with 21 for the others.
    """
    if min_run < 2 or len(classes) < 2:
        return classes
    starts = np.concatenate([[0], np.flatnonzero(classes[1:] != classes[:-1]) + 1])
    lengths, own = np.diff(starts, append=len(classes)), classes[starts]
    short = lengths < min_run
    if not short.any():
        return classes
    low = np.maximum(starts[short] - NEIGHBOURHOOD * min_run, 0)
    high = np.minimum(starts[short] + lengths[short] + NEIGHBOURHOOD * min_run, len(classes))
    before, after = np.split(_rows_before(np.concatenate([low, high]), starts, own, num_classes), 2)
    votes = 2 * (after - before)
    votes[np.arange(len(votes)), own[short]] += 1
    own[short] = votes.argmax(axis=1)
    return np.repeat(own, lengths)


def _rows_before(rows: np.ndarray, starts: np.ndarray, own: np.ndarray, num_classes: int) -> np.ndarray:
    """How many rows of each class lie before some rows [N]: int64 [N, num_classes]; from runs, given by first row and
    class. The last run has no end: a row past it counts as if it went on."""
    lengths = np.zeros((len(starts), num_classes), np.int64)
    lengths[np.arange(1, len(starts)), own[:-1]] = np.diff(starts)
    run = np.searchsorted(starts, rows, side="right") - 1
    found = lengths.cumsum(axis=0)[run]
    found[np.arange(len(rows)), own[run]] += rows - starts[run]
    return np.asarray(found)


def save_post(folder: Path, post: Post) -> None:
    """Write post.json next to store.json, at once."""
    publish_text(folder / FILE_NAME, json.dumps(asdict(post), indent=1) + "\n")


def load_post(folder: Path) -> Post:
    """The post.json of a predictions store, or no post-processing where there is none. Raises AbawError if garbled."""
    path = folder / FILE_NAME
    if not path.is_file():
        return Post()
    try:
        return TypeAdapter(Post).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AbawError(
            f"{path} cannot be read ({reason})",
            where=str(path),
            fix="correct it as docs/formats.md says, or delete it to use the raw scores",
        ) from error
