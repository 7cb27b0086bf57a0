"""Checks of the machine: processors, memory, open files, and the folder of downloaded weights."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from abaw.config import Config
from abaw.errors import ExitCode
from abaw.executors import num_workers
from abaw.open_files import MAX_OPEN_FILES, RESERVED_DESCRIPTORS, open_files_allowed
from abaw.stages.doctor.findings import Finding, good, note, problem
from abaw.weights import DEFAULT_FOLDER, WEIGHTS

GB = 1e9
# Peak of `align` in a worker process on an hour of 720p, measured (README, python -m bench align-long).
WORKER_BYTES = 0.45 * GB
# Peak of the largest thing that a default configuration does in one process, measured: extract-audio (README).
LEAST_BYTES = 1.3 * GB
ENOUGH_FILES = 256  # below, training opens and closes its files all the time


def processors(cfg: Config | None, *, root: Path = Path("/")) -> Iterator[Finding]:
    """Cores of the machine and of this process, and what `run.workers` and `run.threads` make of them."""
    allowed, quota = num_workers(0), cpu_quota(root)
    workers = num_workers(cfg.run.workers if cfg else 0)
    threads = cfg.run.threads if cfg else 0
    text = f"{allowed} of {os.cpu_count()} cores; {workers} workers, {threads or allowed} threads of torch"
    numbers = {"cores": os.cpu_count(), "allowed": allowed, "quota": quota, "workers": workers}
    if quota is not None and quota + 0.5 < workers:
        fair = max(1, int(quota))
        fix = f"set workers = {fair} and threads = {fair} in [run]"
        yield note("processors", f"{text}, but this container may use {quota:g} cores", fix, **numbers)
    elif workers > allowed:
        yield note("processors", f"{text}: they get in each other's way", "set workers = 0 in [run]", **numbers)
    else:
        yield good("processors", text, **numbers)


def memory(cfg: Config | None, *, root: Path = Path("/")) -> Iterator[Finding]:
    """Memory that is free, within the limits of the container and of the shell, against what the stages take."""
    total, free = physical(root)
    limits = {"container": cgroup_memory(root), "shell (ulimit -v)": address_space()}
    lowest = {name: limit for name, limit in limits.items() if limit is not None and (not total or limit < total)}
    usable = min([free or float("inf"), *lowest.values()])
    workers = num_workers(cfg.run.workers if cfg else 0)
    needed = max(LEAST_BYTES, workers * WORKER_BYTES)
    text = f"{_gb(free)} free of {_gb(total)}" if total else "not known"
    text += "".join(f", limit of the {name} {_gb(limit)}" for name, limit in lowest.items())
    numbers = {"total": total, "free": free, **{name.split(" ")[0]: limit for name, limit in limits.items()}}
    if usable < LEAST_BYTES:
        text += f"; extraction takes up to {_gb(LEAST_BYTES)}"
        fix = "end other programs, raise the limit, or use a machine with more memory"
        yield note("memory", text, fix, **numbers)
    elif usable < needed:
        fair = max(1, int(usable / WORKER_BYTES))
        text += f"; {workers} workers take up to {_gb(needed)}"
        yield note("memory", text, f"set workers = {fair} in [run]", **numbers)
    else:
        yield good("memory", text, **numbers)


def open_files(num_tracks: int | None) -> Iterator[Finding]:
    """The limit of open files, after it was raised as far as allowed, against the tracks that training reads."""
    allowed = open_files_allowed()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    text = f"{allowed} store files at once (limit {shown})"
    numbers = {"allowed": allowed, "soft": soft, "hard": hard, "tracks": num_tracks}
    fix = f"ulimit -n {MAX_OPEN_FILES}, or let the administrator raise `nofile` in /etc/security/limits.conf"
    if soft != resource.RLIM_INFINITY and soft < RESERVED_DESCRIPTORS:
        text += ": stages of several processes will run out of them"
        yield problem("open files", text, fix=fix, code=ExitCode.MISSING, **numbers)
    elif allowed < min(num_tracks or ENOUGH_FILES, MAX_OPEN_FILES):
        files = f"{num_tracks} tracks" if num_tracks else "large sets"
        yield note("open files", f"{text}: training on {files} closes and opens them anew", fix, **numbers)
    else:
        yield good("open files", text, **numbers)


def cache(cfg: Config | None) -> Iterator[Finding]:
    """Whether downloaded weights can be kept: their folder, or the nearest that is there, takes a file."""
    named = cfg.run.weights_dir if cfg and cfg.run.weights_dir else DEFAULT_FOLDER
    try:
        folder = named.expanduser()
        with tempfile.TemporaryFile(dir=nearest(folder)):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        why = getattr(error, "strerror", None) or str(error)
        text, fix = f"{named} takes no file ({why})", 'name a folder that does: weights_dir = "FOLDER" in [run]'
        if cfg and cfg.align.detector in WEIGHTS and cfg.align.weights is None:
            yield problem("cache", text, fix=fix, code=ExitCode.MISSING)
        else:
            yield note("cache", f"{text}; nothing that is configured needs it", fix)
        return
    yield good("cache", f"{folder} is writable" if folder.is_dir() else f"{folder} can be made", folder=str(folder))


def nearest(folder: Path) -> Path:
    """A folder, or the nearest above it that is there."""
    return next((place for place in (folder, *folder.parents) if place.exists()), Path.cwd())


# -- what the system says ----------------------------------------------------------------------------------------------
def physical(root: Path = Path("/")) -> tuple[float | None, float | None]:
    """Bytes of memory, in all and free for a new program; None where the system does not say."""
    found = {}
    for line in _text(root / "proc" / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if value.strip().endswith(" kB"):
            found[name] = float(value.split()[0]) * 1024
    return found.get("MemTotal"), found.get("MemAvailable", found.get("MemFree"))


def cgroup_memory(root: Path = Path("/")) -> float | None:
    """The lowest memory limit of the container or the job, in bytes; None where there is none."""
    return min(
        (float(text) for text in _cgroup_values(root, "memory.max", "memory/memory.limit_in_bytes")), default=None
    )


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores that the container or the job may use, a fraction where it is one; None where there is no limit."""
    found = []
    for text in _cgroup_values(root, "cpu.max", ""):
        share, _, period = text.partition(" ")
        if period:
            found.append(float(share) / float(period))
    return min(found, default=None)


def _cgroup_values(root: Path, name: str, first_version: str) -> Iterator[str]:
    """What a file says in the group of this process and in those above it, as far as they can be seen; not "max"."""
    base = root / "sys" / "fs" / "cgroup"
    own = next((line[4:] for line in _text(root / "proc/self/cgroup").splitlines() if line.startswith("0::/")), "")
    place = base / own
    files = [folder / name for folder in (place, *place.parents) if folder == base or base in folder.parents]
    if first_version:
        files.append(base / first_version)
    for file in files:
        text = _text(file).strip()
        if text and not text.startswith("max"):
            yield text


def address_space() -> float | None:
    """`ulimit -v` in bytes; None where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else float(soft)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gb(size: float | None) -> str:
    return "?" if size is None else f"{size / GB:.1f} GB"
