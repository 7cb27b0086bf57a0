"""`abaw doctor`: is this machine, this installation and this configuration fit for the pipeline? Needs no network.

Each check stands for itself: one that fails is a finding, and the next one is done. Whatever could hang or crash in
native code (torch and its drivers, decoders, HDF5 on a network folder) is tried in a process of its own; torch is never
imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

from abaw.config import Config
from abaw.console import Summary
from abaw.errors import AbawError
from abaw.stages.doctor import child, layout, machine, media, room, software, weights
from abaw.stages.doctor import device as devices
from abaw.stages.doctor.findings import Finding, Level, good, isolated, lines_of, note, of_error, worst

TORCH_LIMIT_S = 90.0  # the first import after an installation reads gigabytes
PROBE_LIMIT_S = 45.0


def run(
    cfg: Config | None,
    *,
    config: Path,
    error: AbawError | None = None,
    device: str | None = None,
    torch_limit_s: float = TORCH_LIMIT_S,
) -> Summary:
    """All checks, as lines with fixes; the exit code is that of the worst problem, or 0.

    ``cfg`` None: without a configuration, or with one that cannot be used; ``error`` says why, and where it is not
    given the file ``config`` is read to find out. ``device``: instead of `run.device`. ``torch_limit_s``: seconds that
    torch and its driver get.
    """
    started = monotonic()
    if cfg is None and error is None and config.exists():
        cfg, error = _loaded(config)
    output = cfg.run.output if cfg else config.resolve().parent
    asked = device or (cfg.run.device if cfg else "auto")
    children = {
        "torch": child.start("probe_torch", asked, limit_s=torch_limit_s),
        "folder": child.start("probe_folder", str(machine.nearest(output)), limit_s=PROBE_LIMIT_S),
        "media": child.start("probe_media", limit_s=PROBE_LIMIT_S),
    }
    try:
        found = _checked(_checks(cfg, children, output=output, asked=asked))
    finally:
        for one in children.values():
            one.stop()
    return _summary([_configuration(cfg, config, error), *found], seconds=monotonic() - started)


def _loaded(config: Path) -> tuple[Config | None, AbawError | None]:
    from abaw.config_file import load_config

    try:
        return load_config(config), None
    except AbawError as error:
        return None, error


def _configuration(cfg: Config | None, config: Path, error: AbawError | None) -> Finding:
    if error is not None:
        return of_error("configuration", error)
    if cfg is not None:
        return good("configuration", f"{config} is valid", path=str(config))
    fix = "copy what you need of data.example.toml to data.toml, or make a small set: abaw synth mini"
    return note("configuration", f"there is no {config}: the machine alone was checked", fix)


Check = Callable[[], Iterator[Finding]]
Checks = list[tuple[str, Check, float]]


def _checks(cfg: Config | None, children: dict[str, child.Child], *, output: Path, asked: str) -> Checks:
    """Name, check and time limit, in the order of the screen; a later one may use what an earlier one found."""
    known = layout.Known()
    limit = {name: one.limit_s + child.GRACE_S * 2 for name, one in children.items()}

    def hub() -> Path | None:
        outcome = children["torch"].result()
        return Path(outcome["imported"]["hub"]) if "imported" in outcome else None

    checks: Checks = [
        ("python", software.python, 30),
        ("packages", software.packages, 30),
        ("torch", lambda: devices.findings(children["torch"].result(), asked), limit["torch"]),
        ("codecs", lambda: media.findings(children["media"].result()), limit["media"]),
        ("processors", lambda: machine.processors(cfg), 30),
        ("memory", lambda: machine.memory(cfg), 30),
        ("output", lambda: room.folder(children["folder"].result(), output), limit["folder"]),
        ("cache", lambda: machine.cache(cfg), 30),
    ]
    if cfg is None:
        return [*checks, ("open files", lambda: machine.open_files(None), 30)]
    return [
        *checks,
        ("ray", lambda: software.ray(cfg), 30),
        ("weights", lambda: weights.findings(cfg, hub=hub()), 120),
        ("media", lambda: layout.media(cfg, known), 120),
        ("labels", lambda: layout.labels(cfg, known), 60),
        ("pairs", lambda: layout.pairs(cfg, known), 120),
        ("samples", lambda: layout.samples(cfg, known), 60),
        ("disk", lambda: room.disk(cfg, known.tracks), 120),
        ("open files", lambda: machine.open_files(len(known.tracks) or None), 30),
    ]


def _checked(checks: Checks) -> list[Finding]:
    return [finding for name, check, limit_s in checks for finding in isolated(name, check, limit_s=limit_s)]


def _summary(findings: list[Finding], *, seconds: float) -> Summary:
    problems = [finding for finding in findings if finding.level is Level.PROBLEM]
    notes = sum(finding.level is Level.NOTE for finding in findings)
    code = worst(problems)
    verdict = "ready" if not problems else f"{len(problems)} problem{'s' * (len(problems) > 1)}, exit code {int(code)}"
    verdict += f"; {notes} note{'s' * (notes > 1)}" if notes else ""
    lines = [*lines_of(findings), ("  doctor", f"{verdict} ({seconds:.1f} s)")]
    data = {
        "ready": not problems,
        "code": int(code),
        "seconds": round(seconds, 2),
        "checks": [finding.record() for finding in findings],
    }
    return Summary("doctor", lines, data=data, code=code)
