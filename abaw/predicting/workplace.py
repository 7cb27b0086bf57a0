"""The folder that predictions go into: results at its top, and below ``work`` what a second run need not do again.

Owns names and records. Knows nothing of models or of what the results hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abaw.data.manifest import VIDEO_SUFFIXES
from abaw.errors import AbawError
from abaw.provenance import differences
from abaw.publish import discard, publish, publish_text

RECORD = "record.json"
VERSION = 1
MAX_STEM = 60  # letters of a video's name in a track's: in bytes far below what a name may have


@dataclass(frozen=True)
class Video:
    """A given file. ``track``: its name among tracks, safe and unlike any other file's, also of a changed one."""

    path: Path
    track: str

    @classmethod
    def of(cls, path: Path) -> Video:
        """The name of a file that is there."""
        status = path.stat()
        told = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
        digits = hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        safe = re.sub(r"[^\w-]+", "-", path.stem.encode("utf-8", "replace").decode(), flags=re.ASCII).strip("-")
        return cls(path, f"{safe[:MAX_STEM] or 'video'}-{digits}")


@dataclass
class Workplace:
    """The opened folder; ``made``: which video each result is of, by the result's file name."""

    out: Path
    about: dict[str, Any]
    made: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """What stages read and write."""
        return self.out / "work"

    @property
    def videos(self) -> Path:
        """Links to the files that are being scored."""
        return self.work / "videos"

    @classmethod
    def open(cls, out: Path, about: Mapping[str, Any], *, overwrite: bool) -> Workplace:
        """Begin or continue a folder. Raises AbawError where it holds scores of other models or settings, unless
        ``overwrite``, which begins anew."""
        plain = json.loads(json.dumps(about))
        place = cls(out, plain)
        recorded = _read(place.work / RECORD)
        if recorded is not None:
            changed = differences(recorded["about"], plain)
            if changed and not overwrite:
                changed = [line for line in changed if ".run:" in line] or changed  # weights differ with them
                raise AbawError(
                    f"{out} holds scores that were made in another way: {'; '.join(changed)}",
                    where=str(place.work / RECORD),
                    fix="give another folder with --out, or pass --overwrite to make them anew",
                )
            place.made = recorded["made"]
            if overwrite:
                place._begin_anew(results=bool(changed))
        try:
            place.videos.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AbawError(
                f"folder {out} cannot be written: {error.strerror}",
                where="--out",
                fix="name a folder that may be written: --out FOLDER",
            ) from error
        place.save()
        return place

    def _begin_anew(self, *, results: bool) -> None:
        """Take away what was worked out, and ``results`` that would stand beside those of other models."""
        for name in self.made if results else ():
            (self.out / name).unlink(missing_ok=True)
        self.made = {} if results else self.made
        discard(self.work)

    def save(self) -> None:
        """Record what was made."""
        content = {"version": VERSION, "about": self.about, "made": self.made}
        publish_text(self.work / RECORD, json.dumps(content, indent=1) + "\n")

    # -- videos ----------------------------------------------------------------------------------------------------
    def link(self, videos: Sequence[Video]) -> None:
        """Make the folder of videos hold these and no others."""
        wanted = {f"{video.track}{_suffix(video.path)}": video.path.resolve() for video in videos}
        for entry in self.videos.iterdir():
            if entry.name not in wanted:
                entry.unlink()
        for name, path in wanted.items():
            link = self.videos / name
            if link.exists():
                continue
            link.unlink(missing_ok=True)  # a link that leads nowhere any more
            try:
                link.symlink_to(path)
            except OSError:  # a file system without links of that kind
                os.link(path, link)

    # -- results -----------------------------------------------------------------------------------------------------
    def file_for(self, video: Video, ending: str) -> Path:
        """Where a result goes: after the video, and with its hash where another video has taken that name."""
        name = f"{video.path.stem}{ending}"
        owner = self.made.get(name)
        if owner is not None and owner["video"] != str(video.path.resolve()):
            name = f"{video.track}{ending}"
        return self.out / name

    def is_made(self, video: Video, path: Path) -> bool:
        """Whether a result of this very file is there."""
        return path.is_file() and self.made.get(path.name, {}).get("track") == video.track

    def make(self, video: Video, path: Path, write: Callable[[Path], Any], *, overwrite: bool) -> None:
        """Publish a result at once. Raises AbawError where a file of somebody else's has its name."""
        if path.exists() and path.name not in self.made and not overwrite:
            raise AbawError(
                f"{path.name} is there and was not made by this command",
                where=str(path.parent),
                fix="give another folder with --out, or pass --overwrite to replace it",
            )
        publish(path, write)
        self.made[path.name] = {"video": str(video.path.resolve()), "track": video.track}
        self.save()


def _suffix(path: Path) -> str:
    """The file's own ending where it is a known one: what a container is, its content says."""
    suffix = path.suffix.lower()
    return suffix if suffix in VIDEO_SUFFIXES else VIDEO_SUFFIXES[0]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] == VERSION and isinstance(content["about"], dict) and isinstance(content["made"], dict):
            return dict(content)
        reason = "it is of another version"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error)
    raise AbawError(
        f"the record of {path.parent.parent} cannot be read ({reason})",
        where=str(path),
        fix=f"delete {path.parent}, or give another folder with --out",
    )
