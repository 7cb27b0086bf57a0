"""How numbers are written on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from abaw.stages.report.page import MISSING


def score(value: float | None, digits: int = 3) -> str:
    """A metric with its digits, "0.808"; a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{digits}f}"


def interval(bounds: Sequence[float] | None) -> str:
    """An interval, "0.771 to 0.838"."""
    if bounds is None or not all(math.isfinite(bound) for bound in bounds):
        return MISSING
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def count(number: int) -> str:
    """A whole number with spaces between thousands, which no language reads as a decimal mark."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def share(part: float, whole: float) -> str:
    """A share in percent; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else MISSING


def plural(number: int, noun: str) -> str:
    """A number and its noun, "1 video", "76 videos"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """A time in a video, "1:02.4"."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"
