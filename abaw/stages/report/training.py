"""Training curves: metrics.jsonl of a run and its folds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw.stages.report import numbers, plots
from abaw.stages.report.page import MISSING, Html, figure, folded, paragraph, table

PANELS = {"loss": "training loss", "val score": "validation score"}
MAX_LINE = 1 << 20  # characters; a line of this program has a few hundred
TABLE_ROWS = 24  # of each run in the table of the curves
LEGIBLE = 28  # letters of a run's name in a picture


@dataclass(frozen=True)
class Curve:
    """Steps [N] and, by name of a column of metrics.jsonl, values [N]; NaN where a line has none."""

    steps: np.ndarray
    columns: dict[str, np.ndarray]
    unread: int = 0


def read_curve(path: Path) -> Curve:
    """Loss and validation score of a run; lines that are no metrics are counted and left out."""
    steps: list[int] = []
    found: dict[str, list[float]] = {name: [] for name in PANELS}
    unread = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while line := file.readline(MAX_LINE):
                entry = _entry(line)
                if entry is None:
                    unread += bool(line.strip())
                    continue
                steps.append(int(entry["step"]))
                for name, values in found.items():
                    values.append(entry.get(name, math.nan))
    except OSError:
        return Curve(np.zeros(0, np.int64), {})
    arrays = {name: np.array(values, np.float64) for name, values in found.items()}
    return Curve(np.array(steps, np.int64), {k: v for k, v in arrays.items() if np.isfinite(v).any()}, unread)


def _entry(line: str) -> dict[str, float] | None:
    """The finite numbers of a line by name, None where it holds no step."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    try:
        numeric = {k: float(v) for k, v in content.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    except OverflowError:
        return None
    kept = {name: value for name, value in numeric.items() if math.isfinite(value)}
    return kept if 0 <= kept.get("step", -1) < 2**53 else None


def shown(runs: Mapping[str, Path]) -> Html:
    """The curves of all runs, one picture and its tables."""
    found = {name: read_curve(path / "metrics.jsonl") for name, path in runs.items()}
    curves = {name: curve for name, curve in found.items() if curve.columns}
    unread = sum(curve.unread for curve in found.values())
    lost = paragraph(f"{numbers.plural(unread, 'line')} of metrics.jsonl could not be read.") if unread else Html("")
    if not curves:
        return Html(paragraph("There are no training curves here: no loss and no score in any metrics.jsonl.") + lost)
    panels = _panels(curves)
    wide, narrow = plots.curves(panels)
    words = "Loss on the training data and official score on the data that chooses the checkpoint, by optimiser step."
    data = folded("Numbers of these curves", *(_numbers(name, curve) for name, curve in curves.items()))
    alt = f"{' and '.join(panels)} by step of {numbers.plural(len(curves), 'run')}. The numbers are in the table below."
    picture = figure(wide, narrow, alt=alt.capitalize(), caption=words, data=data)
    return Html(_overview(curves) + picture + lost)


def _panels(curves: Mapping[str, Curve]) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Title -> run -> steps and values, where there are any."""
    short = _legible(list(curves))
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name, curve in curves.items():
        for key, values in curve.columns.items():
            kept = np.isfinite(values)
            panels.setdefault(PANELS[key], {})[short[name]] = (curve.steps[kept], values[kept])
    return panels


def _legible(names: list[str]) -> dict[str, str]:
    """Names for a picture: of the folds of one run the fold alone; a number where the name is long or unusual."""
    families = {name.rpartition("/")[0] for name in names}
    given = {name: name.rpartition("/")[2] if len(families) == 1 else name for name in names}
    plain = {k: v for k, v in given.items() if len(v) <= LEGIBLE and v.isascii() and v.isprintable() and v[:1] != "_"}
    return {name: plain.get(name, f"run {number}") for number, name in enumerate(names, start=1)}


def _overview(curves: Mapping[str, Curve]) -> Html:
    rows = []
    for name, curve in curves.items():
        loss, score = curve.columns.get("loss"), curve.columns.get("val score")
        last = [numbers.score(None if loss is None else float(loss[np.isfinite(loss)][end]), 4) for end in (0, -1)]
        best = None if score is None else int(np.nanargmax(score))
        told = [MISSING, MISSING]
        if score is not None and best is not None:
            told = [numbers.score(float(score[best])), numbers.count(int(curve.steps[best]))]
        rows.append([name, numbers.count(int(curve.steps[-1])), *last, *told])
    return table("Training runs", ["Run", "Steps", "First loss", "Last loss", "Best score", "At step"], rows)


def _numbers(name: str, curve: Curve) -> Html:
    rows = np.unique(np.linspace(0, len(curve.steps) - 1, TABLE_ROWS).astype(int))
    cells = [
        [numbers.count(int(curve.steps[row])), *(numbers.score(float(v[row]), 4) for v in curve.columns.values())]
        for row in rows
    ]
    return table(f"{name}, every so many steps", ["Step", *(PANELS[key] for key in curve.columns)], cells)
