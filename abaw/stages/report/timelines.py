"""One track's truth and decisions over time, drawn and as a table; stretches without data of their own are shaded.

A track of any length is drawn from a bounded number of parts: of values the lowest and highest of each, of classes and
units the share of its frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from abaw.stages.report import numbers, plots
from abaw.stages.report.page import Html, figure, folded, table
from abaw.tasks import Head, Problem

PARTS = 12  # rows of a table of values
POINTS = {plots.NARROW: 160, plots.WIDE: 400}  # of a line
COLUMNS = {plots.NARROW: 200, plots.WIDE: 600}  # of a strip
PREDICTED_RGB, TRUTH_RGB = np.array([0, 114, 178]) / 255, np.array([27, 31, 36]) / 255
PALE_RGB = np.array([246, 248, 250]) / 255  # of a strip where the label is not active


@dataclass(frozen=True)
class HeadView:
    """One head's decisions [T, L] and truth [T, L]; rows bool [T] without a label, or None where nothing is known.

    Of classes both are 0 or 1 for each class.
    """

    head: Head
    decisions: np.ndarray
    truth: np.ndarray
    unlabelled: np.ndarray


@dataclass(frozen=True)
class TrackView:
    """What is drawn of a track: its heads, rows bool [T] without a score of their own and without a face, and frames
    per second."""

    views: list[HeadView]
    missing: np.ndarray
    faceless: np.ndarray
    fps: float

    @property
    def times(self) -> np.ndarray:
        """Seconds [T] at the nominal frame rate."""
        return np.arange(len(self.missing)) / self.fps


def head_view(head: Head, decisions: np.ndarray, values: np.ndarray, mask: np.ndarray) -> HeadView:
    """What is drawn of a head: decisions, labels and their mask, each [T, target_dim]."""
    unlabelled = np.logical_not(mask.all(axis=1))
    if head.problem is Problem.MULTICLASS:
        classes = np.arange(head.output_dim)
        return HeadView(head, np.equal(decisions, classes), np.equal(values, classes), unlabelled)
    return HeadView(head, decisions, values, unlabelled)


def stretches(flags: np.ndarray) -> np.ndarray:
    """int [N, 2]: begin and end (past it) of each run of True in bool [T]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def drawn(view: TrackView, part: HeadView, scores: Mapping[str, float | None], *, name: str) -> Html:
    """The figure of a head with its caption and table; ``name`` of the track goes into the text only.

    ``scores``: metrics of the track by name.
    """
    is_values = part.head.problem is Problem.REGRESSION
    if is_values:
        wide, narrow = plots.pictures(lambda fig, width: _lines(fig, width, view, part), height=330, narrow_height=380)
    else:
        height = 70 + 30 * part.head.output_dim
        wide, narrow = plots.pictures(lambda fig, width: _strips(fig, width, view, part), height=height)
    what = {
        Problem.REGRESSION: "values",
        Problem.MULTICLASS: "classes",
        Problem.MULTILABEL: "units",
    }[part.head.problem]
    alt = f"Timeline of {name}, {len(view.missing)} frames: truth and decided {what} of {', '.join(part.head.labels)}."
    alt += " The numbers are in the table below it."
    rows = _value_rows(view, part) if is_values else _share_rows(part, scores)
    head = ["From", *(f"{label}, {kind}" for label in part.head.labels for kind in ("truth", "decided"))]
    if not is_values:
        head = ["Label", "Truth", "Decided", "Both", "F1"]
    title = f"Means of {PARTS} equal parts, by where they begin" if is_values else "Shares of the labelled frames"
    data = folded("Numbers of this timeline", table(f"{title}, {name}", head, rows))
    return figure(wide, narrow, alt=alt, caption=_caption(view, part), data=data)


def _caption(view: TrackView, part: HeadView) -> str:
    words = "Truth black, decisions blue"
    if part.head.problem is not Problem.REGRESSION:
        words = "For each label, truth above in black and decisions below in blue"
    words += "".join(f"; {shade.words}" for shade in _shades(view, part))
    return words + "."


@dataclass(frozen=True)
class _Shade:
    """Stretches to shade: rows bool [T], how, and what that means."""

    rows: np.ndarray
    colour: str
    hatch: str | None
    name: str
    words: str


def _shades(view: TrackView, part: HeadView) -> list[_Shade]:
    """Invalid stretches of a track, those of which it has any."""
    unlabelled, faceless = part.unlabelled, view.faceless & ~view.missing
    found = [
        _Shade(unlabelled, plots.UNLABELLED, None, "not annotated", "grey: not annotated, these frames do not count"),
        _Shade(
            faceless, plots.FACELESS, None, "no face", "yellow: no face, the score comes from other frames or sound"
        ),
        _Shade(view.missing, plots.GAP_FILL, "////", "no score", "hatched: no score of its own, filled from others"),
    ]
    return [shade for shade in found if shade.rows.any()]


# -- drawing ---------------------------------------------------------------------------------------------------------
def _lines(figure: Any, width: int, view: TrackView, part: HeadView) -> None:
    labels = part.head.labels
    for axes, column in zip(np.ravel(figure.subplots(len(labels), 1, sharex=True)), range(len(labels)), strict=True):
        truth = np.where(part.unlabelled, np.nan, part.truth[:, column])
        decided = part.decisions[:, column]
        for values, colour, line_width in ((truth, plots.TRUTH, 1.7), (decided, plots.PREDICTION, 1.1)):
            x, y = plots.thinned(view.times, np.asarray(values, np.float64), POINTS[width])
            axes.plot(x, y, color=colour, lw=line_width, solid_joinstyle="round")
        alone = _alone(part.unlabelled)
        x, y = plots.thinned(view.times[alone], truth[alone], POINTS[width])
        axes.plot(x, y, ".", color=plots.TRUTH, ms=3.5)
        for shade in _shades(view, part):
            _draw_shade(axes, shade, view.fps, COLUMNS[width], zorder=0.5)
        axes.set_ylim(-1.05, 1.05)
        axes.set_yticks([-1, 0, 1])
        axes.set_title(labels[column], loc="left", pad=3)
        axes.grid(axis="y", color="#d5dae0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlim(0, max(len(view.missing), 1) / view.fps)
    axes.set_xlabel("seconds")
    _legend(figure, width, _shades(view, part))


def _alone(unlabelled: np.ndarray) -> np.ndarray:
    """bool [T]: labelled rows without a labelled neighbour, which no line shows."""
    around = np.concatenate([[True], unlabelled, [True]])
    return np.asarray(~unlabelled & around[:-2] & around[2:])


def _step(total: int, columns: int) -> int:
    """Rows of each part of a picture that has so many parts at most."""
    return max(1, -(-total // columns))


def _draw_shade(axes: Any, shade: _Shade, fps: float, columns: int, **look: Any) -> None:
    """Shade stretches; those closer than a part of the picture are drawn as one."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    total = len(shade.rows)
    step = _step(total, columns)
    spans = stretches(np.logical_or.reduceat(shade.rows, np.arange(0, total, step))) * step
    left, right = spans[:, 0] / fps, np.minimum(spans[:, 1], total) / fps
    low, high = np.zeros(len(spans)), np.ones(len(spans))
    corners = [(left, low), (right, low), (right, high), (left, high), (left, low)]
    vertices = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1).reshape(-1, 2)
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(spans))
    # One outline of all stretches: an element of its own for each would be most of the picture.
    patch = PathPatch(Path(vertices, codes), transform=axes.get_xaxis_transform(), **{**_look(shade), **look})
    axes.add_patch(patch)


def _look(shade: _Shade) -> dict[str, Any]:
    edge = plots.GAP_EDGE if shade.hatch else "none"
    return {"facecolor": shade.colour, "edgecolor": edge, "hatch": shade.hatch, "linewidth": 0}


def _legend(figure: Any, width: int, shades: Sequence[_Shade]) -> None:
    """What the colours mean, above the picture."""
    from matplotlib.patches import Patch

    handles = [Patch(color=plots.TRUTH, label="truth"), Patch(color=plots.PREDICTION, label="decided")]
    handles += [Patch(label=shade.name, **_look(shade)) for shade in shades]
    columns = 3 if width == plots.NARROW else len(handles)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=1.4, borderpad=0.1)


def _strips(figure: Any, width: int, view: TrackView, part: HeadView) -> None:
    axes = figure.add_subplot()
    count, labels = COLUMNS[width], part.head.labels
    truth, decided = _shares(part.truth, ~part.unlabelled, count), _shares(part.decisions, None, count)
    seconds = max(len(view.missing), 1) / view.fps
    step, shades = _step(len(view.missing), count), _shades(view, part)
    ground = np.tile(PALE_RGB, (truth.shape[1], 1))
    for shade in shades:
        ground[np.logical_or.reduceat(shade.rows, np.arange(0, len(shade.rows), step))] = _rgb(shade.colour)
    rows = np.ones((4 * len(labels), *ground.shape))
    for number in range(len(labels)):
        rows[4 * number + 1] = _tinted(truth[number], TRUTH_RGB, ground)
        rows[4 * number + 2] = _tinted(decided[number], PREDICTED_RGB, ground)
    # Thin white rows between the labels keep the strips of one label together.
    image = np.repeat(rows, np.tile([2, 5, 5, 1], len(labels)), axis=0)
    box = (0, step * len(ground) / view.fps, len(labels), 0)
    axes.imshow(image, aspect="auto", interpolation="nearest", extent=box, zorder=1)
    for shade in shades:
        if shade.hatch:
            _draw_shade(axes, shade, view.fps, count, zorder=2, facecolor="none", alpha=0.5)
    axes.set_yticks(np.arange(len(labels)) + 7 / 13, [label.replace("_", " ") for label in labels])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, seconds)
    axes.set_ylim(len(labels), 0)
    axes.set_xlabel("seconds")
    _legend(figure, width, _shades(view, part))


def _rgb(colour: str) -> np.ndarray:
    """A colour "#rrggbb" as float64 [3], 0..1."""
    return np.array(list(bytes.fromhex(colour[1:]))) / 255


def _tinted(shares: np.ndarray, colour: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Shares [N] as colours [N, 3] from ``ground`` [N, 3] to ``colour``; the ground where there is none (NaN)."""
    tone = np.nan_to_num(shares)[:, None]
    # Any active frame is seen, however short: the tone begins at a third.
    tone = np.where(tone > 0, 0.33 + 0.67 * tone, 0.0)
    return ground * (1 - tone) + colour * tone


def _shares(active: np.ndarray, counted: np.ndarray | None, columns: int) -> np.ndarray:
    """Share of active rows [L, parts] of bool [T, L] among those ``counted`` [T]; NaN where none is."""
    flags = np.asarray(active, np.float64)
    if len(flags) == 0:
        return np.full((flags.shape[1], 1), np.nan)
    weights = np.ones(len(flags)) if counted is None else counted.astype(np.float64)
    starts = np.arange(0, len(flags), _step(len(flags), columns))
    number = np.add.reduceat(weights, starts)
    sums = np.add.reduceat(flags * weights[:, None], starts, axis=0)
    return np.divide(sums, number[:, None], out=np.full(sums.shape, np.nan), where=number[:, None] > 0).T


# -- tables ----------------------------------------------------------------------------------------------------------
def _value_rows(view: TrackView, part: HeadView) -> list[list[object]]:
    rows: list[list[object]] = []
    for places in np.array_split(np.arange(len(view.missing)), PARTS):
        if not len(places):
            continue
        known = places[~part.unlabelled[places]]
        cells: list[object] = [numbers.clock(places[0] / view.fps)]
        for column in range(part.head.output_dim):
            truth = float(part.truth[known, column].mean()) if len(known) else None
            cells += [numbers.score(truth, 2), numbers.score(float(part.decisions[places, column].mean()), 2)]
        rows.append(cells)
    return rows


def _share_rows(part: HeadView, scores: Mapping[str, float | None]) -> list[list[object]]:
    known = ~part.unlabelled
    truth, decided = part.truth[known].astype(bool), part.decisions[known].astype(bool)
    total = int(known.sum())
    return [
        [
            label.replace("_", " "),
            numbers.share(int(truth[:, number].sum()), total),
            numbers.share(int(decided[:, number].sum()), total),
            numbers.share(int((truth[:, number] & decided[:, number]).sum()), total),
            numbers.score(scores.get(f"{part.head.name}.{part.head.metric}.{label}")),
        ]
        for number, label in enumerate(part.head.labels)
    ]
