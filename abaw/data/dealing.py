"""Dealing recordings to folds: as many rows in each, every kind of recording in each, some held out of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from abaw.data.splits import Split
from abaw.errors import AbawError, ExitCode

NO_STRATUM = ("Neutral", "Other")  # most recordings are mostly these, which tells little


def strata_by_class(counts: Mapping[str, np.ndarray], labels: Sequence[str]) -> dict[str, str]:
    """Group -> its most frequent class other than Neutral and Other; "" where it has no other.

    ``counts``: rows of each class by group, [len(labels)]. The rule of the ABAW3 winners' split.
    """
    usable = np.array([label not in NO_STRATUM for label in labels])
    found = {}
    for group, own in counts.items():
        kept = np.where(usable, own, 0)
        found[group] = labels[int(kept.argmax())] if kept.max(initial=0) > 0 else ""
    return found


def make_split(
    groups: Iterable[str] | Mapping[str, int],
    *,
    folds: int,
    seed: int,
    name: str = "folds",
    holdout: float = 0.0,
    strata: Mapping[str, str] | None = None,
) -> Split:
    """Deal groups into folds of about equal numbers of rows; without rows, of about equal numbers of groups.

    ``groups``: names, or rows by name. ``holdout``: share of the groups that no fold gets, the same of each stratum as
    nearly as whole groups allow. ``strata``: group -> kind; each kind is spread over all folds. The same arguments give
    the same folds, whatever the order of the groups. Raises AbawError for fewer groups than folds, and for a hold-out
    of no group at all.
    """
    rows = dict(groups) if isinstance(groups, Mapping) else dict.fromkeys(groups, 1)
    names = sorted(rows)
    if not 0 <= holdout < 1:
        raise _bad_folds(f"a hold-out of {holdout} of the recordings", "give a share from 0 to below 1")
    rng = np.random.default_rng([seed, 0xF01D])
    shuffled = [names[index] for index in rng.permutation(len(names))]
    kinds = sorted({(strata or {}).get(group, "") for group in shuffled})
    by_kind = [[group for group in shuffled if (strata or {}).get(group, "") == kind] for kind in kinds]
    counts = _shares(holdout, [len(own) for own in by_kind])
    if holdout and names and not any(counts):
        raise _bad_folds(
            f"a hold-out of {holdout:g} is less than one of {len(names)} recordings: they",
            f"give folds.holdout = {1 / len(names):.2g} or more, or 0",
        )
    held = [group for own, count in zip(by_kind, counts, strict=True) for group in own[:count]]
    # stable: equal ones stay shuffled
    kept = [sorted(own[count:], key=lambda group: -rows[group]) for own, count in zip(by_kind, counts, strict=True)]
    left = sum(map(len, kept))
    if folds < 2 or left < folds:
        fix = "see that data.annotations names the labelled tracks: folds need two recordings outside the hold-out"
        if left >= 2:
            fix = f"give {f'2 to {left}' if left > 2 else '2'} folds: people of one recording stay together"
        raise _bad_folds(f"{left} recordings in {folds} folds", fix)
    return Split(name, _deal(kept, rows, folds), folds, tuple(sorted(held)), seed)


def _shares(share: float, sizes: Sequence[int]) -> list[int]:
    """How many of each kind: together ``share`` of all, rounded; the kinds with the largest remainders get one more."""
    exact = [share * size for size in sizes]
    found = [int(count) for count in exact]
    left = round(share * sum(sizes)) - sum(found)
    for index in sorted(range(len(sizes)), key=lambda index: (found[index] - exact[index], index))[:left]:
        found[index] += 1
    return found


def _deal(kinds: Sequence[Sequence[str]], rows: Mapping[str, int], folds: int) -> dict[str, int]:
    """Give each group, the largest of a kind first, to the fold with the fewest rows of its kind, then of all."""
    total = np.zeros((folds, 2))  # rows, and groups where rows are equal
    found: dict[str, int] = {}
    for own in kinds:
        mine = np.zeros((folds, 2))
        for group in own:
            fold = min(range(folds), key=lambda number: (*mine[number], *total[number], number))
            found[group] = fold
            for load in (mine, total):
                load[fold] += rows[group], 1
    return found


def _bad_folds(what: str, fix: str) -> AbawError:
    return AbawError(f"{what} cannot be split", where="the split's settings", fix=fix, code=ExitCode.CONFIG)
