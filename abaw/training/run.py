"""The folder of a run: what went in, how it was set up, and how far it came (docs/formats.md).

A run is continued only with the settings and inputs it was started with, and skipped when it is done. Knows nothing
of models or losses.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from abaw import __version__
from abaw.errors import AbawError
from abaw.provenance import differences
from abaw.publish import discard, publish_text
from abaw.training.distributed import is_main, main_first

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
FOLD_PREFIX = "fold-"
NOT_FINITE = "nonfinite.json"
# What may be changed when a run goes on after a step that was not finite
REMEDIES = ("settings.lr:", "settings.base_lr:", "settings.clip_norm:", "inputs.precision:")
REPORTED_PACKAGES = ("torch", "timm", "numpy", "safetensors", "h5py")


@dataclass(frozen=True)
class RunFolder:
    """An opened run folder; make one with `start`."""

    path: Path

    @classmethod
    def start(
        cls,
        path: Path,
        *,
        stage: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
        facts: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
    ) -> RunFolder:
        """Begin a run, or take up the one that is there; `dry_run` compares as usual and writes nothing.

        `settings` (config.json) and `inputs` (run.json: paths with hashes or fingerprints) must equal the recorded
        ones, else AbawError names the difference; `overwrite` starts afresh. `facts` (device, threads, warnings) are
        recorded when the run begins and not compared. `defaults`: values of settings that a run of an older version,
        which did not know them, counts as recorded with.

        Of several processes the first one compares and writes, while the others wait. Raises AbawError where they
        have not joined (`distributed.join`): each would write the same run.
        """
        run = cls(path)
        with main_first():
            if is_main():
                wanted = {"settings": _plain(settings), "inputs": _plain(inputs)}
                if overwrite and path.exists() and not dry_run:
                    run._discard()
                if run.has_begun and not (dry_run and overwrite):
                    run._require_same(wanted, _plain(defaults or {}), dry_run=dry_run)
                elif not dry_run:
                    run._begin(wanted, stage, facts or {})
        return run

    def _discard(self) -> None:
        """Take the run away, but not the runs of folds in its folder, which are their own."""
        if any(self.path.glob(f"{FOLD_PREFIX}*")):
            for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name != "done"):
                if entry.is_dir() and not entry.name.startswith(FOLD_PREFIX):
                    discard(entry)
                elif not entry.is_dir():
                    entry.unlink()
        else:
            discard(self.path)

    def _begin(self, wanted: dict[str, Any], stage: str, facts: Mapping[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "config.json", wanted["settings"])
        record = {"format_version": FORMAT_VERSION, "stage": stage, "inputs": wanted["inputs"]}
        record |= {"versions": versions(), "host": platform.node(), **_plain(facts)}
        write_json(self.path / "run.json", record)

    def _require_same(self, wanted: dict[str, Any], defaults: dict[str, Any], *, dry_run: bool) -> None:
        settings = _filled(self._read("config.json"), defaults)
        recorded = {"settings": settings, "inputs": self._read("run.json").get("inputs", {})}
        changed = differences(recorded, wanted)
        if changed and (self.path / NOT_FINITE).is_file() and all(line.startswith(REMEDIES) for line in changed):
            if not dry_run:
                self._record_remedy(wanted, changed)
        elif changed:
            raise AbawError(
                f"run {self.path.name} was made with other settings: {'; '.join(changed)}",
                where=str(self.path),
                fix="go back to the recorded settings, give the run another name, or pass --overwrite to redo it",
            )

    def _record_remedy(self, wanted: dict[str, Any], changed: list[str]) -> None:
        """Let a run that stopped at a bad step go on with the settings that are to help it."""
        record = self.record()
        warning = f"changed after a step that was not finite: {'; '.join(changed)}"
        record |= {"inputs": wanted["inputs"], "warnings": [*record.get("warnings", []), warning]}
        logger.warning(warning)
        write_json(self.path / "config.json", wanted["settings"])
        write_json(self.path / "run.json", record)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AbawError(
                f"{name} of run {self.path.name} cannot be read ({error})",
                where=str(self.path / name),
                fix="pass --overwrite to redo the run, or give it another name",
            ) from error
        return content if isinstance(content, dict) else {}

    # -- progress --------------------------------------------------------------------------------------------------
    @property
    def is_done(self) -> bool:
        return (self.path / "done").is_file()

    @property
    def has_begun(self) -> bool:
        """Whether there is work to keep: a resume point, or the end."""
        return self.is_done or self.resume_path.exists()

    @property
    def best_path(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def resume_path(self) -> Path:
        return self.path / "resume.pt"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def record(self) -> dict[str, Any]:
        """Content of run.json."""
        return self._read("run.json")

    def add_provenance(self, header: Mapping[str, Any]) -> None:
        """Copy the alignment recipe and the labels seen from the weights' header into run.json."""
        found = _plain({key: header[key] for key in ("recipe", "trained_on") if key in header})
        with main_first():
            record = self.record() if is_main() else found
            if any(record.get(key) != value for key, value in found.items()):
                write_json(self.path / "run.json", {**record, **found})

    def result(self) -> dict[str, Any]:
        """What `finish` recorded; AbawError when the run is not done."""
        return self._read("done")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as done; the first process writes, the others wait for it."""
        with main_first():
            if is_main():
                write_json(self.path / "done", _plain(result))

    def append_metrics(self, line: Mapping[str, Any]) -> int:
        """Add a line to metrics.jsonl; returns the file's new length in bytes."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            return file.tell()

    def cut_metrics(self, length: int) -> None:
        """Drop the lines written after a checkpoint, which the resumed run writes again."""
        if self.metrics_path.exists():
            os.truncate(self.metrics_path, min(length, self.metrics_path.stat().st_size))


def recorded_precision(path: Path) -> str | None:
    """Precision that a run which has begun was computed in; None for a new one."""
    run = RunFolder(path)
    return run.record().get("inputs", {}).get("precision") if run.has_begun else None


def versions() -> dict[str, str]:
    """Versions of this package, Python and the packages that decide a result."""
    found = {"abaw": __version__, "python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(path: Path, content: Any) -> None:
    """Publish a JSON file at once."""
    publish_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _filled(recorded: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings with the defaults of keys that are not there, also within tables."""
    filled = {**defaults, **recorded}
    tables = [key for key in defaults if isinstance(defaults[key], Mapping) and isinstance(filled[key], Mapping)]
    return filled | {key: _filled(filled[key], defaults[key]) for key in tables}


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same through JSON, so that tuples and paths compare equal to what is read back."""
    return json.loads(json.dumps(dict(content), default=str))
