"""The record of a measurement: value, limit, ratio, spread, memory, machine, versions, date."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("abaw", "torch", "numpy", "h5py", "typer")


def make_record(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    limit: float | None = None,
    higher_is_better: bool,
    note: str,
    use_mean: bool = False,
    **extra: Any,
) -> dict[str, Any]:
    """Record of repeated measurements: ``value`` is their median or mean, ``spread`` their smallest and largest.

    ``ratio`` is value / limit; ``met`` says whether the value keeps the limit; ``note`` says what was measured and
    what ours does that the limit does not.
    """
    value = statistics.mean(values) if use_mean else statistics.median(values)
    met = None if limit is None else (value >= limit if higher_is_better else value <= limit)
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "limit": limit,
        "ratio": None if not limit else value / limit,
        "met": met,
        "spread": [min(values), max(values)],
        "peak_rss_mb": peak_rss_mb(),
        "note": note,
        **extra,
        "machine": machine(),
        "versions": {package: version_of(package) for package in PACKAGES} | {"python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
    }


def version_of(package: str) -> str:
    """Installed version; a checkout can be run without being installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def peak_rss_mb() -> float:
    """Largest resident memory of this process and of its finished children, MB."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(max(own, children) / 1024, 1)


def machine() -> str:
    """Processor architecture, cores this process may use, and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"
