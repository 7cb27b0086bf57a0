"""Checks of Python and of the installed packages against the ranges that this program asks for."""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from abaw.config import Config
from abaw.errors import ExitCode
from abaw.stages.doctor.findings import Finding, good, note, problem

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PROGRAM = "abaw"
NAME = re.compile(r"^[A-Za-z0-9._-]+")
# Distributions that give the same modules.
ALTERNATIVES = {
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "onnxruntime": ("onnxruntime-gpu",),
}
# Each of their releases is built for one release of torch, which some of them say.
BUILT_FOR_TORCH = ("torchvision", "torchaudio")


def python() -> Iterator[Finding]:
    """The interpreter's version."""
    wanted, _ = requirements()
    running = platform.python_version()
    text = f"{running}, {sys.executable}"
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        yield good("python", text, version=running)
        return
    if SpecifierSet(wanted).contains(running, prereleases=True):
        yield good("python", text, version=running)
    else:
        fix = f'make an environment with Python {wanted}: python3.11 -m venv .venv && .venv/bin/pip install "{PROGRAM}"'
        yield problem("python", f"{text}, but {wanted} is needed", fix=fix, code=ExitCode.MISSING, version=running)


def requirements() -> tuple[str, list[str]]:
    """The range of Python versions and the packages that are needed, without extras.

    From pyproject.toml where this runs in a checkout, whose installed metadata may be older; else from the metadata.
    """
    pyproject = Path(__file__).resolve().parents[3] / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == PROGRAM:
            return project["requires-python"], list(project["dependencies"])
    listed = [line for line in metadata.requires(PROGRAM) or [] if "extra ==" not in line]
    return metadata.metadata(PROGRAM)["Requires-Python"], listed


def packages() -> Iterator[Finding]:
    """Installed versions; those that are missing, out of range, or not built for this torch."""
    _, needed = requirements()
    versions = {line: installed(_name(line)) for line in needed}
    there = {_name(line): version for line, version in versions.items() if version}
    lost = [line for line, version in versions.items() if not version]
    if lost:
        names = ", ".join(map(_name, lost))
        yield problem("packages", f"not installed: {names}", fix=_install(lost), code=ExitCode.MISSING)
    try:
        wrong = [(line, version) for line, version in versions.items() if version and not _fits(line, version)]
        unfit = list(_not_built_for(there.get("torch")))
    except ImportError:
        yield note("packages", f"{len(there)} are there; their versions were not compared", "pip install packaging")
        return
    if wrong:
        shown = "\n".join(f"{_name(line)} {version}, needed is {line}" for line, version in wrong)
        text = f"{len(wrong)} of another version than needed:\n{shown}"
        yield problem("packages", text, fix=_install([line for line, _ in wrong]), code=ExitCode.MISSING)
    if unfit:
        fix = _install([line for line in needed if _name(line) in ("torch", *BUILT_FOR_TORCH)])
        yield problem("packages", "\n".join(unfit), fix=fix, code=ExitCode.MISSING)
    if not (lost or wrong or unfit):
        shown = ", ".join(f"{name} {there[name]}" for name in ("torch", "numpy", "h5py", "av") if name in there)
        yield good("packages", f"all {len(there)} in range: {shown}, ...", versions=there)


def ray(cfg: Config) -> Iterator[Finding]:
    """The package of the cluster engine, where the configuration wants it."""
    version = installed("ray")
    if str(cfg.run.executor) != "ray":
        return
    if version is None:
        fix = f'{sys.executable} -m pip install "abaw[ray]"'
        yield problem("ray", 'it is not installed, but run.executor = "ray"', fix=fix, code=ExitCode.MISSING)
    else:
        yield good("ray", f"{version} is installed", version=version)


def installed(name: str) -> str | None:
    """Version of a package, or of another that takes its place; None where neither is there."""
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return None


def _name(line: str) -> str:
    found = NAME.match(line)
    return found.group() if found else line


def _requirement(line: str) -> Requirement:
    from packaging.requirements import Requirement

    return Requirement(line)


def _fits(line: str, version: str) -> bool:
    requirement = _requirement(line)
    applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return not applies or requirement.specifier.contains(version, prereleases=True)


def _not_built_for(torch: str | None) -> Iterator[str]:
    for name in BUILT_FOR_TORCH:
        version = installed(name)
        if torch is None or version is None:
            continue
        for line in metadata.requires(name) or []:
            if _name(line) == "torch" and not _fits(line, torch):
                yield f"{name} {version} wants {line}, and torch {torch} is installed"


def _install(lines: list[str]) -> str:
    quoted = " ".join(f'"{line}"' for line in lines)
    return f"{sys.executable} -m pip install {quoted}"
