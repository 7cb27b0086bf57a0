"""The split file: which fold each recording belongs to, the same for every stage that trains on folds.

Owns the rule from track name to group, the file's form, and what a track is to the model of a fold. Knows nothing of
labels or stores; `dealing` makes the folds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abaw.data.manifest import split_person, split_side
from abaw.errors import AbawError, ExitCode
from abaw.provenance import canonical_json, not_out_of_fold
from abaw.publish import publish_text

FORMAT_VERSION = 1
KEYS = ("format_version", "name", "num_folds", "seed", "folds", "holdout")
PART = re.compile(r"^(?P<video>video\d+)_\d+$")  # the organisers cut some recordings into video45_1 ... video45_7
MAX_NAMED = 8


@dataclass(frozen=True)
class Split:
    """Groups of tracks and their folds; ``holdout`` groups are in none: nothing is trained or chosen on them."""

    name: str
    folds: dict[str, int]
    num_folds: int
    holdout: tuple[str, ...] = ()
    seed: int = 0

    def content(self) -> dict[str, Any]:
        """What the file holds."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "num_folds": self.num_folds,
            "seed": self.seed,
            "folds": dict(sorted(self.folds.items())),
            "holdout": sorted(self.holdout),
        }

    @property
    def sha256(self) -> str:
        """Hash of the content, whatever the file's spaces and order."""
        return hashlib.sha256(canonical_json(self.content()).encode()).hexdigest()


@dataclass(frozen=True)
class FoldTracks:
    """What the labelled tracks are to the model of a fold; ``holdout``: those that are in no fold, which all score."""

    train: list[str]
    select: list[str]
    held_out: list[str]
    holdout: list[str]


@dataclass(frozen=True)
class Fold:
    """One fold of a split file: its groups are held out.

    ``is_first``: no other fold ran before it in this command, so that it says what is odd about the labels of all.
    """

    split: Split
    number: int
    is_first: bool = True

    def __str__(self) -> str:
        return f"fold {self.number} of split {self.split.name}"

    def tracks(self, track_ids: Sequence[str], *, select: str) -> FoldTracks:
        """Sort labelled tracks by their role; ``select`` "best": the next fold chooses the checkpoint, "last": none.

        Raises AbawError as `roles` does.
        """
        found = roles(self.split, self.number, track_ids, select="next" if select == "best" else "last")
        spared = set(self.split.holdout)
        return FoldTracks(**found, holdout=[track_id for track_id in track_ids if group_of(track_id) in spared])

    def describe(self) -> dict[str, Any]:
        """What the record of a run says of its fold."""
        return {"name": self.split.name, "sha256": self.split.sha256, "fold": self.number}

    def scored(self, *, held_out: Sequence[str], holdout: Sequence[str], out_of_fold: bool) -> dict[str, Any]:
        """Settings of the predictions store of its run: tracks that its model never saw, by why it did not."""
        return {
            "split_file": self.split.sha256,
            "fold": self.number,
            "out_of_fold": out_of_fold,
            "held_out": list(held_out),
            "holdout": list(holdout),
        }

    def leak(self, records: Iterable[Mapping[str, Any]], *, dataset: str, behind: str, fix: str) -> str:
        """Why scores are not out-of-fold, given what was trained before (``trained_on``); "" where they are.

        ``behind``: what the records are of; ``fix``: what the user may do.
        """
        found = not_out_of_fold(records, dataset=dataset, split_file=self.split.sha256, fold=self.number)
        seen = "; ".join(sorted({self._seen(record) for record in found}))
        return f"not out-of-fold: {behind} may hold labels of fold {self.number} ({seen}); {fix}" if found else ""

    def _seen(self, record: Mapping[str, Any]) -> str:
        """Which labels a record tells of."""
        words = [f"{record['labels']} of {record['dataset']}"]
        if record.get("fold") is not None:
            is_own = record.get("split_file") == self.split.sha256
            words.append(f"all but fold {record['fold']}" + ("" if is_own else " of another split file"))
        return ", ".join(words)


def group_of(track_id: str) -> str:
    """The raw recording of a track: its name without person, side and part.

    "video45_3_left_person2" and "video45_1" are both of group "video45", so people and parts of one recording never
    lie on both sides of a split.
    """
    name, before = track_id, ""
    while name != before:
        before = name
        name = split_side(split_person(name)[0])[0]
        part = PART.match(name)
        name = part["video"] if part else name
    return name


def write_split(path: Path, split: Split) -> None:
    """Publish a split as JSON, whole or not at all."""
    publish_text(path, json.dumps(split.content(), indent=1, ensure_ascii=False) + "\n")


def read_split(path: Path) -> Split:
    """Read and check a split file. Raises AbawError where it is missing, garbled or contradicts itself."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise AbawError(
            f"there is no split file {path.name}",
            where=str(path),
            fix="make it first, or correct the name; it lies in the folder splits/ beside the configuration",
            code=ExitCode.MISSING,
        ) from error
    except (OSError, ValueError) as error:
        raise _bad_file(path, f"cannot be read ({error})") from error
    fault = _fault(content)
    if fault:
        raise _bad_file(path, fault)
    folds = {group: int(fold) for group, fold in content["folds"].items()}
    return Split(content["name"], folds, content["num_folds"], tuple(content["holdout"]), content["seed"])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the file; ValueError where it has a key twice, as after a careless edit."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        msg = f"{next(key for key in names if names.count(key) > 1)!r} is there twice"
        raise ValueError(msg)
    return found


def _bad_file(path: Path, fault: str) -> AbawError:
    return AbawError(
        f"split file {path.name} {fault}",
        where=str(path),
        fix="restore it from a copy, or delete it and make it again; runs made with another split do not go with it",
    )


def _fault(content: Any) -> str:
    """What is wrong with a split file's content; empty where nothing is."""
    if not isinstance(content, dict) or set(content) != set(KEYS):
        return f"does not hold exactly {', '.join(KEYS)}"
    version, num_folds, folds, holdout = (content[key] for key in ("format_version", "num_folds", "folds", "holdout"))
    if version != FORMAT_VERSION:
        return f"has format version {version!r}, this program reads {FORMAT_VERSION}"
    if not isinstance(content["name"], str) or not _is_count(content["seed"]):
        return "has a name that is no text, or a seed that is no number"
    if not _is_count(num_folds) or num_folds < 2:
        return f"has num_folds = {num_folds!r}, not a number from 2 on"
    if not isinstance(folds, dict) or not isinstance(holdout, list):
        return "has folds that are no table, or a holdout that is no list"
    bad = [group for group, fold in folds.items() if not _is_count(fold) or fold >= num_folds]
    if bad:
        return f"puts {_named(bad)} into a fold that is not 0 to {num_folds - 1}"
    if any(not isinstance(group, str) for group in holdout) or len(set(holdout)) < len(holdout):
        return "names a holdout group twice, or not as text"
    both = sorted(set(holdout) & set(folds))
    if both:
        return f"has {_named(both)} in a fold and in the holdout"
    empty = sorted(set(range(num_folds)) - set(folds.values()))
    return f"has no recording in fold {empty[0]}" if empty else ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def roles(
    split: Split, fold: int, track_ids: Iterable[str], *, select: str, where: str = "the split file"
) -> dict[str, list[str]]:
    """What the tracks are to the model of a fold: "train", "select" (chooses the checkpoint) and "held_out".

    The model never sees a label of ``held_out``, the fold itself. ``select`` "next": the fold after it chooses the
    checkpoint and is not trained on; "last": none does. Tracks of the split's holdout have no role. Raises AbawError
    for tracks the split does not know, a fold it has not, and a role without any track.
    """
    _check_fold(split, fold, select, where)
    holdout, group = set(split.holdout), _grouped(split, track_ids, where)
    chooser = (fold + 1) % split.num_folds if select == "next" else -1
    found: dict[str, list[str]] = {"train": [], "select": [], "held_out": []}
    for track_id, own in group.items():
        if own not in holdout:
            place = split.folds[own]
            found["held_out" if place == fold else "select" if place == chooser else "train"].append(track_id)
    empty = [role for role, tracks in found.items() if not tracks and (role != "select" or select == "next")]
    if empty:
        raise AbawError(
            f"fold {fold} of split {split.name} leaves no track to {empty[0]} ({len(group)} labelled tracks)",
            where=where,
            fix="make the split from the labelled tracks of this data set, with fewer folds",
        )
    return found


def _check_fold(split: Split, fold: int, select: str, where: str) -> None:
    if not 0 <= fold < split.num_folds:
        fix = f"choose one of 0 to {split.num_folds - 1}"
        raise AbawError(f"split {split.name} has no fold {fold}", where=where, fix=fix, code=ExitCode.CONFIG)
    if select == "next" and split.num_folds < 3:
        raise AbawError(
            f"split {split.name} has {split.num_folds} folds: with one held out and one to select on, none is left",
            where=where,
            fix='make a split of at least 3 folds, or set select = "last"',
            code=ExitCode.CONFIG,
        )


def _grouped(split: Split, track_ids: Iterable[str], where: str) -> dict[str, str]:
    """Group of each track; AbawError for tracks of groups that the split lacks."""
    group = {track_id: group_of(track_id) for track_id in track_ids}
    known = {*split.folds, *split.holdout}
    unknown = [track_id for track_id, own in group.items() if own not in known]
    if unknown:
        raise AbawError(
            f"{len(unknown)} of {len(group)} tracks are not in split {split.name}: {_named(unknown)}",
            where=where,
            fix="make the split again with these tracks (delete the file first), or name the split that they belong to",
        )
    return group
