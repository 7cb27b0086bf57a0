"""Pictures of the report as data: addresses of SVG, drawn by matplotlib without a screen.

Each is drawn twice, for a wide and for a narrow window. They hold no names but those of labels, which are ours. Colours
are those of Okabe and Ito (2008), told apart by all kinds of colour vision, and differ in lightness too.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

WIDE, MIDDLE, NARROW = 1080, 520, 368  # pixels of a page; the last fits a window of 400
PIXELS_PER_INCH = 96
TRUTH, PREDICTION = "#1b1f24", "#0072b2"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1f24")
DASHES = ("-", "--", ":", "-.")
GAP_FILL, GAP_EDGE, FACELESS, UNLABELLED = "#fbe3a6", "#9a6b00", "#fff0c4", "#e2e5ea"
RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#4a525c",
    "axes.labelcolor": "#1b1f24",
    "xtick.color": "#1b1f24",
    "ytick.color": "#1b1f24",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "abaw",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "hatch.linewidth": 0.6,
    "hatch.color": GAP_EDGE,
}
LONG_NUMBER = re.compile(r"(\d+\.\d)\d+")
PATH = re.compile(r' d="[^"]*"')
LINE_TO, CURVED = re.compile(r"\s+L\s+"), re.compile("[CQ]")
PLACE, COMMENT = re.compile(r'( [xy]="\d+\.\d)\d+(")'), re.compile("<!--.*?-->", re.DOTALL)
FONT = "font-family: 'DejaVu Sans', sans-serif;"  # said once instead of with each text
INDENT = re.compile(r"\n\s*")
MAX_POINTS = 200  # of a curve

Draw = Callable[[Any, int], None]


def pictures(draw: Draw, *, height: int, wide: int = WIDE, narrow_height: int | None = None) -> tuple[str, str]:
    """A picture for wide and for narrow windows; ``draw`` fills a matplotlib figure of so many pixels' width."""
    return _render(draw, wide, height), _render(draw, NARROW, narrow_height or height)


def _render(draw: Draw, width: int, height: int) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(RC):
        figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, width)
        content = BytesIO()
        figure.savefig(content, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = PATH.sub(_short_path, content.getvalue().decode())
    svg = PLACE.sub(r"\1\2", COMMENT.sub("", svg.replace(FONT, ""))).replace("*{", "*{" + FONT)
    svg = INDENT.sub(" ", svg)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _short_path(found: re.Match[str]) -> str:
    """Path data to a tenth of a point; of plain lines without the letter that may be left out (SVG 1.1, 8.3.2)."""
    short = LONG_NUMBER.sub(r"\1", found[0])
    return short if CURVED.search(short) else LINE_TO.sub(" ", short)


def bars(
    labels: Sequence[str], values: Sequence[float], bounds: Sequence[Sequence[float]] | None, *, metric: str
) -> tuple[str, str]:
    """One bar for each label from 0 on, with its interval."""

    def draw(figure: Any, width: int) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(labels))
        axes.barh(places, values, color="#9cc7e4", edgecolor=PREDICTION, linewidth=0.8, height=0.7)
        if bounds is not None:
            # A percentile interval need not hold the value itself.
            low, high = np.asarray(bounds, np.float64).T
            axes.hlines(places, low, high, color=TRUTH, lw=1.2)
            for ends in (low, high):
                axes.plot(ends, places, "|", color=TRUTH, ms=7)
        axes.set_yticks(places, [label.replace("_", " ") for label in labels])
        axes.invert_yaxis()
        lowest = min([0.0, *values, *(bound[0] for bound in bounds or [])])
        axes.set_xlim(max(-1.0, lowest * 1.05), 1)
        axes.set_xlabel(metric)
        axes.grid(axis="x", color="#d5dae0", linewidth=0.6)
        axes.set_axisbelow(True)

    return pictures(draw, height=56 + 26 * len(labels), wide=MIDDLE)


def confusion(labels: Sequence[str], table: np.ndarray) -> tuple[str, str]:
    """Counts [truth, decision] as shares of each truth, in percent."""
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)

    def draw(figure: Any, width: int) -> None:
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        names = [label.replace("_", "\n" if width == NARROW else " ") for label in labels]
        axes.set_xticks(range(len(labels)), names, rotation=90 if width == NARROW else 30, ha="center")
        axes.set_yticks(range(len(labels)), names)
        axes.set_xlabel("decided")
        axes.set_ylabel("truth")
        axes.spines[:].set_visible(False)
        for row, column in np.ndindex(*shares.shape):
            colour = "white" if shares[row, column] > 0.55 else TRUTH
            shown = f"{100 * shares[row, column]:.0f}"
            axes.text(column, row, shown, ha="center", va="center", color=colour, fontsize=8)

    return pictures(draw, height=110 + 40 * len(labels), wide=MIDDLE, narrow_height=120 + 32 * len(labels))


def curves(panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> tuple[str, str]:
    """Panels of curves by step: panel -> run -> (steps, values). Runs keep their colour across panels."""
    runs = list(dict.fromkeys(run for one in panels.values() for run in one))
    look = {run: (COLOURS[k % len(COLOURS)], DASHES[k // len(COLOURS) % len(DASHES)]) for k, run in enumerate(runs)}

    def draw(figure: Any, width: int) -> None:
        shape = (len(panels), 1) if width == NARROW else (1, len(panels))
        for axes, (title, lines) in zip(np.ravel(figure.subplots(*shape, squeeze=False)), panels.items(), strict=True):
            for run, (steps, values) in lines.items():
                few = len(steps) <= 12
                colour, dash = look[run]
                x, y = thinned(steps, values, MAX_POINTS)
                axes.plot(x, y, dash, color=colour, lw=1.4, marker="o" if few else None, ms=4, label=run)
            axes.set_title(title, loc="left")
            axes.set_xlabel("step")
            axes.grid(color="#d5dae0", linewidth=0.6)
        if 1 < len(runs) <= len(COLOURS) * len(DASHES):
            handles, names = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower left", ncols=2 if width == NARROW else 5)

    lines = -(-len(runs) // 2)
    return pictures(draw, height=300, narrow_height=230 * len(panels) + (18 * lines if len(runs) > 1 else 0))


def thinned(steps: np.ndarray, values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about ``most`` points of a long curve: the lowest and the highest of each of equal parts."""
    if len(values) <= most:
        return steps, values
    edges = np.linspace(0, len(values), most // 2 + 1).astype(int)
    kept = {0, len(values) - 1}
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        part = values[start:stop]
        if np.isfinite(part).any():
            kept |= {start + int(np.nanargmin(part)), start + int(np.nanargmax(part))}
        else:
            kept.add(int(start))
    rows = np.array(sorted(kept))
    return steps[rows], values[rows]
