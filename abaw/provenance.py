"""Where a result comes from: fingerprints of settings, alignment recipes, and which labels something was trained on.

Knows nothing of stores, checkpoints or tensors; it works on plain JSON values.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from abaw.errors import AbawError

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
UNDECLARED = "undeclared"

Recipe = dict[str, Any]
Settings = Mapping[str, Any]


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(settings: Settings) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the settings' canonical JSON."""
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flatten(settings: Settings, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(recorded: Settings, wanted: Settings, said: tuple[str, str] = ("recorded", "now")) -> list[str]:
    """One line per setting that differs, as ``key: 112 recorded, 224 now``; ``said``: what stands behind each value."""
    old, new = flatten(recorded), flatten(wanted)
    missing = "nothing"
    return [
        f"{key}: {json.dumps(old[key]) if key in old else missing} {said[0]}, "
        f"{json.dumps(new[key]) if key in new else missing} {said[1]}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]


def make_recipe(settings: Settings) -> Recipe:
    """Alignment recipe: the fingerprint of the alignment's settings and their readable form."""
    return {"fingerprint": fingerprint(settings), "settings": dict(settings)}


def unknown_recipe() -> Recipe:
    """Recipe of faces or weights whose alignment nobody recorded (organisers' crops, foreign weights)."""
    return {"fingerprint": UNKNOWN, "settings": {}}


def check_recipe(theirs: Recipe, ours: Recipe, *, what: str, where: str, accept: bool = False) -> list[str]:
    """Compare the recipe an input was made with against the one in use.

    Returns warnings to record (empty when equal). Raises AbawError when both sides are known and differ, unless
    ``accept``; an unknown side warns.
    """
    left, right = theirs.get("fingerprint", UNKNOWN), ours.get("fingerprint", UNKNOWN)
    if UNKNOWN in (left, right):
        message = f"{what}: the alignment of one side is unknown; results may suffer if it differs"
        logger.warning(message)
        return [message]
    if left == right:
        return []
    difference = "; ".join(differences(theirs.get("settings", {}), ours.get("settings", {})))
    if accept:
        message = f"{what}: alignment differs ({difference}), accepted by accept_recipe_mismatch"
        logger.warning(message)
        return [message]
    raise AbawError(
        f"{what} was made from faces aligned another way ({difference})",
        where=where,
        fix="use inputs made from one faces store, or set run.accept_recipe_mismatch = true",
    )


def combine_trained_on(sources: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Union of the ``trained_on`` records of all inputs, without repeats, in a fixed order."""
    seen = {canonical_json(record): record for source in sources for record in source}
    return [seen[key] for key in sorted(seen)]


def trained_on_record(
    *, dataset: str, edition: str, labels: str, split_file: str, track_ids: Iterable[str]
) -> dict[str, Any]:
    """One record of which labelled tracks something was trained on."""
    listing = "\n".join(sorted(track_ids))
    return {
        "dataset": dataset,
        "edition": edition,
        "labels": labels,
        "split_file": split_file,
        "tracks_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def undeclared_record(sha256: str, declared: Sequence[str] = ()) -> dict[str, Any]:
    """Record of foreign weights: which labels they have seen, as far as their user says.

    `declared`: names of data sets whose labels they saw; ["none"] = no labels; empty = nobody said.
    """
    named = ", ".join(declared)
    labels = UNDECLARED if not named else "none" if list(declared) == ["none"] else "declared"
    return {
        "dataset": UNDECLARED if labels != "declared" else named,
        "edition": UNDECLARED,
        "labels": labels,
        "split_file": UNDECLARED,
        "tracks_sha256": UNDECLARED,
        "weights_sha256": sha256,
    }


def _plain_words(dataset: str) -> str:
    """A data set's name as it is compared: "Aff-Wild2", "aff_wild2" and "s-Aff-Wild2" hold the same videos."""
    plain = "".join(letter for letter in dataset.lower() if letter.isalnum())
    return plain.removeprefix("s") if plain.endswith("affwild2") else plain


def _names(datasets: str) -> set[str]:
    """What data sets may be meant: the name as a whole, since one may hold a comma, and its parts."""
    return {_plain_words(name) for name in (datasets, *datasets.split(", "))}


def not_out_of_fold(
    records: Iterable[Mapping[str, Any]], *, dataset: str, split_file: str, fold: int
) -> list[Mapping[str, Any]]:
    """Those of the records that may hold labels of a fold: the reason why its scores are not out-of-fold.

    To be chosen on labels counts as being trained on them: a record of a fold means that neither was done with the
    fold's labels (its checkpoint was chosen on the next fold), while the official split chooses on the validation set,
    which folds deal out too. A record is harmless when it holds no labels (as of pretraining), is of other data sets,
    or of the same fold of the same split. Undeclared labels may be any.
    """
    found, own = [], _names(dataset)
    for record in records:
        same_split = record.get("split_file") == split_file
        same_fold = same_split and record.get("fold") == fold
        # one split file is of one data set, whatever it was called then
        elsewhere = record["labels"] != UNDECLARED and not same_split and not own & _names(str(record["dataset"]))
        if record["labels"] != "none" and not same_fold and not elsewhere:
            found.append(record)
    return found
