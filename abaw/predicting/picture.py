"""The timeline of a video as a PNG: valence and arousal, expressions, action units, and where the face is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from abaw.predicting.people import HeadScores, Person
from abaw.predicting.words import SHORT_NOTICE
from abaw.tasks import Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 1500  # columns that the picture has room for
MAX_PEOPLE = 4
COLOURS = ("#56b4e9", "#e69f00")
HEIGHTS = {Problem.REGRESSION: 1.6, Problem.MULTICLASS: 1.3, Problem.MULTILABEL: 2.0}


def write_timeline(path: Path, video: str, people: Sequence[Person]) -> None:
    """Draw the people that are seen most, four at most, one below the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted(people, key=lambda person: -int(person.valid.sum()))[:MAX_PEOPLE]
    shown = sorted(shown, key=lambda person: person.number)
    plots: list[tuple[float, Callable[[Axes], None]]] = []
    for person in shown:
        cuts = _cuts(len(person.valid))
        name = f"person {person.number}" if len(people) > 1 else ""
        for one in person.heads:
            plots.append((HEIGHTS[one.head.problem], _plot(person, one, cuts, name)))
        plots.append((0.3, _seen(person, cuts)))
    heights = [height for height, _ in plots]
    figure = Figure(figsize=(12, 0.9 + sum(heights) + 0.15 * len(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(plots), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (_, draw) in zip(axes, plots, strict=True):
        draw(axis)
    left = f" ({len(people) - len(shown)} more people are not drawn)" if len(people) > len(shown) else ""
    axes[0].set_title(f"{_plain(video)}{left}: {SHORT_NOTICE}", fontsize=9, loc="left")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, format="png", dpi=100)


def _plain(text: str) -> str:
    """A file's name as letters that are printed as they are: a dollar sign would begin a formula."""
    return text.replace("$", r"\$").encode("utf-8", "replace").decode()


# -- fewer points ------------------------------------------------------------------------------------------------------
def _cuts(num_rows: int) -> np.ndarray:
    """First rows of the columns of the picture, and the end."""
    return np.unique(np.linspace(0, num_rows, min(num_rows, MAX_POINTS) + 1).astype(int))


def binned(values: np.ndarray, valid: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Means float64 [columns, L] of the valid rows of values [T, L] between cuts; NaN where there is none."""
    starts = cuts[:-1]
    counts = np.add.reduceat(valid.astype(np.int64), starts)
    sums = np.add.reduceat(np.where(valid[:, None], values, 0).astype(np.float64), starts, axis=0)
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts[:, None], out=means, where=counts[:, None] > 0)
    return means


def _edges(person: Person, cuts: np.ndarray) -> np.ndarray:
    """Times at which the columns begin, and the end."""
    time = person.time
    step = float(np.median(np.diff(time))) if len(time) > 1 else 1 / 25
    return np.append(time[cuts[:-1]], time[-1] + step)


# -- what is drawn -----------------------------------------------------------------------------------------------------
def _plot(person: Person, one: HeadScores, cuts: np.ndarray, name: str) -> Callable[[Any], None]:
    edges, label = _edges(person, cuts), f"{name}\n{one.head.name}".strip()

    def values(axis: Any) -> None:
        means = binned(one.decisions, one.valid, cuts)
        for column, colour in enumerate(COLOURS):
            axis.plot((edges[:-1] + edges[1:]) / 2, means[:, column], color=colour, label=one.head.labels[column])
        axis.axhline(0, color="#999999", linewidth=0.5)
        axis.set_ylim(-1, 1)
        axis.legend(loc="upper right", fontsize=7, ncols=2)
        axis.set_ylabel(label, fontsize=8)

    def shares(axis: Any) -> None:
        is_class = one.head.problem is Problem.MULTICLASS
        own = one.decisions[:, 0][:, None] == np.arange(one.head.output_dim) if is_class else one.scores
        means = binned(own, one.valid, cuts)
        count = one.head.output_dim
        axis.pcolormesh(edges, np.arange(count + 1), means.T, cmap="Greys" if is_class else "Blues", vmin=0, vmax=1)
        axis.set_yticks(np.arange(count) + 0.5, one.head.labels, fontsize=6)
        axis.invert_yaxis()
        axis.set_ylabel(label, fontsize=8)

    return values if one.head.problem is Problem.REGRESSION else shares


def _seen(person: Person, cuts: np.ndarray) -> Callable[[Any], None]:
    edges = _edges(person, cuts)

    def draw(axis: Any) -> None:
        means = binned(person.valid[:, None], np.ones(len(person.valid), bool), cuts)
        axis.pcolormesh(edges, [0, 1], means.T, cmap="Greens", vmin=0, vmax=1)
        axis.set_yticks([0.5], ["face"], fontsize=7)

    return draw
