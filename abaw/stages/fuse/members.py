"""Members of an ensemble: the predictions stores behind a name, and whether they belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.errors import AbawError, ExitCode, closest
from abaw.provenance import Recipe, check_recipe, unknown_recipe
from abaw.store import FeatureStore
from abaw.tasks import TASKS, Task

FOLDS, FOLD = "-folds", "-fold-"
SHOWN = 5


@dataclass(frozen=True)
class Member:
    """One member: ``parts`` score tracks that no model behind them saw (of a cross-validated run all its folds).

    ``labelled`` scores labelled tracks, named by ``held_out`` (None: the official validation tracks). ``is_clean``: no
    label of a held-out track is behind its score. ``is_joined``: every labelled track has a score in ``labelled``.
    ``holdout``: labelled tracks that all parts score and none has seen; None of models of the official split.
    """

    name: str
    parts: tuple[FeatureStore, ...]
    labelled: FeatureStore
    held_out: tuple[str, ...] | None = None
    holdout: tuple[str, ...] | None = None
    split_file: str = ""
    is_clean: bool = False
    is_joined: bool = False

    @property
    def stores(self) -> list[FeatureStore]:
        """All stores behind it, each once."""
        return list({store.path: store for store in (*self.parts, self.labelled)}.values())

    @property
    def tracks(self) -> set[str]:
        """Tracks that all parts score."""
        scored = [set(part.track_ids()) for part in self.parts]
        return set.intersection(*scored) if scored else set()


@dataclass(frozen=True)
class Common:
    """What members of an ensemble share: tracks that all parts score, the alignment behind them, warnings."""

    tracks: list[str]
    recipe: Recipe
    warnings: list[str]


# -- by name -----------------------------------------------------------------------------------------------------------
def find_members(cfg: Config, names: Sequence[str], *, target: Path) -> list[Member]:
    """The members of those names. Raises AbawError for unknown names, fewer than one and stores named twice."""
    if not names:
        raise AbawError(
            "an ensemble needs members",
            where="[fuse.ensemble] members",
            fix='name predictions stores there, e.g. members = ["fuse-va-netease-folds"], or pass --ensemble STORE',
            code=ExitCode.CONFIG,
        )
    members = [_member(cfg, name) for name in names]
    ensemble = -1
    owner = dict.fromkeys((target.resolve(), _folds_of(target).resolve()), ensemble)
    for number, member in enumerate(members):
        for store in member.stores:
            other = owner.setdefault(store.path.resolve(), number)
            if other != number:
                named = "the ensemble itself" if other == ensemble else members[other].name
                raise AbawError(
                    f"{store.path.name} is there twice: as or in member {member.name}, and {named}",
                    where="[fuse.ensemble] members",
                    fix="name it once; a number in [fuse.ensemble] weights makes a member count more",
                    code=ExitCode.CONFIG,
                )
    return members


def _member(cfg: Config, name: str) -> Member:
    store = FeatureStore.open(_path_of(cfg, name), kind="predictions")
    settings, path = store.header.settings, store.path
    if "members" in settings:
        base = path.with_name(path.name.removesuffix(FOLDS)) if "held_out" in settings else path
        return _ensemble(store, base)
    if "held_out" in settings and "fold" not in settings:
        return _cross_validated(store, _folds_behind(store))
    if "fold" not in settings:
        return Member(path.name, (store,), store)
    unseen = (*settings["held_out"], *settings.get("holdout", []))
    return Member(
        path.name,
        (store,),
        store,
        held_out=tuple(settings["held_out"]),
        holdout=unseen,
        split_file=settings["split_file"],
        is_clean=settings["out_of_fold"],
    )


def _ensemble(named: FeatureStore, base: Path) -> Member:
    """An ensemble as a member: its scores of unseen tracks, and its out-of-fold scores where it has them."""
    crossed = _folds_of(base)
    parts = (FeatureStore.open(base, kind="predictions"),) if _is_store(base) else ()
    labelled = FeatureStore.open(crossed, kind="predictions") if _is_store(crossed) else named
    settings = labelled.header.settings
    held_out, holdout = settings.get("held_out"), parts[0].header.settings.get("holdout") if parts else []
    return Member(
        named.path.name,
        parts,
        labelled,
        held_out=None if held_out is None else tuple(held_out),
        holdout=None if holdout is None else tuple(holdout),
        split_file=settings.get("split_file", ""),
        is_clean=bool(settings.get("out_of_fold")) and held_out is not None,
        is_joined=held_out is not None,
    )


def _cross_validated(joined: FeatureStore, folds: Sequence[FeatureStore]) -> Member:
    settings = joined.header.settings
    spared = [set(fold.header.settings.get("holdout", [])) for fold in folds]
    return Member(
        joined.path.name,
        tuple(folds),
        joined,
        held_out=tuple(settings["held_out"]),
        holdout=tuple(sorted(set.intersection(*spared))),
        split_file=settings["split_file"],
        is_clean=settings["out_of_fold"],
        is_joined=True,
    )


def _folds_behind(joined: FeatureStore) -> list[FeatureStore]:
    """The predictions of all folds behind joined ones. Raises AbawError for one that is gone or was trained again."""
    weights, path = list(joined.header.settings["weights"]), joined.path
    base = path.name.removesuffix(FOLDS)
    found = []
    for number, own in enumerate(weights):
        fold = path.with_name(f"{base}{FOLD}{number}")
        what = "are not there"
        if _is_store(fold):
            found.append(FeatureStore.open(fold, kind="predictions"))
            what = "are of other weights than the joined ones"
            if found[-1].header.settings.get("weights") == own:
                continue
        raise AbawError(
            f"{path.name} joins {len(weights)} folds; the scores of fold {number} {what}",
            where=str(fold),
            fix=f"run the command that made it again, with --folds {len(weights)}",
            code=ExitCode.MISSING,
        )
    return found


def _path_of(cfg: Config, name: str) -> Path:
    """Where a member's store is: a path, a name below predictions/, or a run's folder."""
    below, given = cfg.run.output / "predictions", Path(name).expanduser()
    run = next((root / given for root in (cfg.root, Path.cwd()) if (root / given / "run.json").is_file()), None)
    places = [cfg.root / given, below / name, *([cfg.predictions_store(run)] if run else []), Path.cwd() / given]
    found = next((place for place in places if _is_store(place)), None)
    if found is not None:
        return found
    known = sorted(path.parent.name for path in below.glob("*/store.json"))
    folds = [other for other in known if other.startswith(f"{given.name.removesuffix(FOLDS)}{FOLD}")]
    match = next((one for one in known if one == f"{given.name}{FOLDS}"), None) or closest(given.name, known)
    if folds and match != f"{given.name}{FOLDS}":
        fix = f"train all its folds alike first ({', '.join(folds)} are there), or name these one by one"
    else:
        fix = f'did you mean "{match}"? ' if match else ""
        whole = [one for one in known if FOLD not in one]
        fix += f"choose from {below}: {', '.join(whole) or 'nothing is there yet'}"
    raise AbawError(
        f'there are no predictions "{name}"',
        where="--ensemble, or [fuse.ensemble] members",
        fix=fix,
        code=ExitCode.MISSING,
    )


def _is_store(path: Path) -> bool:
    return (path / "store.json").is_file()


def _folds_of(path: Path) -> Path:
    """Where the out-of-fold scores of an ensemble are."""
    return path.with_name(f"{path.name}{FOLDS}")


# -- together ----------------------------------------------------------------------------------------------------------
def check_members(members: Sequence[Member], task: Task, *, accept: bool) -> Common:
    """What they share; ``accept`` other alignments.

    Raises AbawError for another task, label order or alignment, for tracks of which two members have another number
    of rows, and where no track is scored by all.
    """
    for member in members:
        for store in member.stores:
            _require_labels(store, task)
    recipe, warnings = _recipe(members, accept=accept)
    tracks = sorted(set.intersection(*(member.tracks for member in members)))
    if not tracks and not is_cross_validated(members):
        raise _nothing_common(members)
    _require_rows([part for member in members for part in member.parts], tracks)
    known = {name for member in members for part in member.parts for name in part.track_ids()}
    left = known - set(tracks) - {name for member in members for name in member.held_out or ()}
    if left:
        warnings.append(f"{len(left)} tracks are left out, since not all members score them: {_named(left)}")
    return Common(tracks, recipe, warnings)


def is_cross_validated(members: Sequence[Member]) -> bool:
    """Whether every labelled track has a score by each member that no model with its label is behind, on one split."""
    return all(member.is_joined for member in members) and len({member.split_file for member in members}) == 1


def common_labelled(members: Sequence[Member], val: Sequence[str]) -> list[str]:
    """Labelled tracks that all members score, sorted; ``val``: the official validation tracks, for those of no fold.

    Raises AbawError where there is none, and for tracks of which two members have another number of rows.
    """
    stores = [member.labelled for member in members]
    own = [set(val if member.held_out is None else member.held_out) for member in members]
    found = sorted(set.intersection(*own, *(set(store.track_ids()) for store in stores)))
    if not found:
        raise _nothing_common(members)
    _require_rows(stores, found)
    return found


def _nothing_common(members: Sequence[Member]) -> AbawError:
    return AbawError(
        "there is no track that all members score",
        where="\n".join(f"{member.name}: {_named(member.tracks) or 'none'}" for member in members),
        fix="name members that scored the same tracks: folds score test tracks (data.test) and the split's hold-out",
    )


def _named(tracks: Iterable[str]) -> str:
    names = sorted(tracks)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _require_labels(store: FeatureStore, task: Task) -> None:
    order, wanted = store.header.label_order, _order(task)
    if order == wanted:
        return
    other = next((name for name, one in TASKS.items() if _order(one) == order), None)
    if other is not None:
        what, fix = f"holds scores of task {other}, not {task.name}", f"name predictions of task {task.name}"
    else:
        name = next((name for name in wanted if order.get(name) != wanted[name]), "")
        what = f"has other labels of {name or task.name}: {order.get(name, order)} instead of {wanted.get(name)}"
        fix = "make it again with this version; columns are never reordered by guess"
    raise AbawError(f"{store.path.name} {what}", where=str(store.path / "store.json"), fix=fix)


def _order(task: Task) -> dict[str, list[str]]:
    return {head.name: list(head.labels) for head in task.heads}


def _require_rows(stores: Sequence[FeatureStore], tracks: Sequence[str]) -> None:
    for track_id in tracks:
        rows = [store.num_rows(track_id) for store in stores]
        close(stores)
        odd = next((number for number, own in enumerate(rows) if own != rows[0]), 0)
        if odd:
            first, other = stores[0], stores[odd]
            raise AbawError(
                f"track {track_id} has {rows[0]} rows in {first.path.name} and {rows[odd]} in {other.path.name}",
                where=f"{first.path}\n{other.path}",
                fix="score both from the same faces: run the stages behind one of them again",
            )


def close(stores: Iterable[FeatureStore]) -> None:
    """Close the files of a track that is done: every member holds one, and each costs half a megabyte."""
    for store in stores:
        store.close()


def _recipe(members: Sequence[Member], *, accept: bool) -> tuple[Recipe, list[str]]:
    """The alignment behind all members: the first one that is known; warnings."""
    warnings: list[str] = []
    recipe: dict[str, Any] = unknown_recipe()
    stores = [store for member in members for store in member.stores]
    known = [store for store in stores if store.header.recipe["fingerprint"] != recipe["fingerprint"]]
    for store in known[1:]:
        what = f"{store.path.name} (beside {known[0].path.name})"
        where = f"{known[0].path}\n{store.path}"
        warnings += check_recipe(store.header.recipe, known[0].header.recipe, what=what, where=where, accept=accept)
    if known and len(known) < len(stores):
        warnings.append("the alignment behind some members is unknown; results may suffer if it differs")
    return (known[0].header.recipe if known else recipe), warnings
