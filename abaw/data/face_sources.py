"""Where pretraining takes its faces from: stores and folders of crops, with weights; who is held out of them.

Also what is recorded of them: inputs, tracks, alignment. Uses no labels; only which split they give a face to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config import Config, PretrainSource
from abaw.data.frames import FrameRef, Frames, spread
from abaw.data.image_files import ImageFolder, ImageRef, image_refs, listing_sha256
from abaw.data.keyed import KeyedLabels
from abaw.data.manifest import Manifest, split_person, split_side
from abaw.errors import AbawError
from abaw.provenance import Recipe, check_recipe, trained_on_record, unknown_recipe
from abaw.store import FeatureStore
from abaw.tasks import TASKS

FOLDER_KEY = "pretrain.sources.images"
SHOWN_OF_SHARD = 16  # pieces that a shard's validation images are cut into, to look at one of each


@dataclass(frozen=True)
class StoreSource:
    """Faces of a store; `held_out` are those of validation tracks or images, to look at and never to train on.

    `rows_sha256`: of an image collection with labels, hash of the rows that are trained on; `dataset`: whose faces they
    are, "" = those of the data set of `[data]`.
    """

    store: FeatureStore
    weight: float
    refs: list[FrameRef]
    held_out: list[FrameRef]
    rows_sha256: str = ""
    dataset: str = ""

    @property
    def name(self) -> str:
        return f"faces store {self.store.path.name}"

    @property
    def recipe(self) -> Recipe:
        return self.store.header.recipe

    def described(self) -> dict[str, Any]:
        rows = {"rows_sha256": self.rows_sha256} if self.rows_sha256 else {}
        return {"store": self.store.path.name, "fingerprint": self.store.fingerprint, "weight": self.weight, **rows}


@dataclass(frozen=True)
class FolderSource:
    """Images of a folder, each a cropped face; how they were aligned nobody recorded."""

    folder: ImageFolder
    weight: float
    refs: list[ImageRef]
    listing: str  # hash of the names
    dataset: str = ""

    @property
    def name(self) -> str:
        return f"image folder {self.folder.path.name}"

    @property
    def recipe(self) -> Recipe:
        return unknown_recipe()

    def described(self) -> dict[str, Any]:
        return {"images": self.folder.path.name, "names_sha256": self.listing, "weight": self.weight}


@dataclass(frozen=True)
class FaceSources:
    """All sources of a pretraining, in the order of the configuration."""

    sources: list[StoreSource | FolderSource]
    record: list[dict[str, Any]]  # what `trained_on` says of them

    @property
    def refs(self) -> list[Frames]:
        return [ref for source in self.sources for ref in source.refs]

    def __len__(self) -> int:
        return sum(len(ref) for ref in self.refs)

    def weights(self) -> np.ndarray | None:
        """Probability weight of every frame, each source's adding up to its own; None for a single source."""
        if len(self.sources) == 1:
            return None
        counts = [sum(len(ref) for ref in source.refs) for source in self.sources]
        pairs = zip(counts, self.sources, strict=True)
        return np.concatenate([np.full(count, source.weight / count) for count, source in pairs])

    def held_out(self, count: int) -> list[FrameRef]:
        """At most `count` single frames of validation, spread over tracks or images; empty where none is held out."""
        refs = [ref for source in self.sources if isinstance(source, StoreSource) for ref in source.held_out]
        chosen = [refs[k] for k in spread(np.arange(len(refs)), count)]
        return [FrameRef(ref.store, ref.track_id, ref.rows[len(ref) // 2 :][:1]) for ref in chosen]

    def inputs(self) -> dict[str, Any]:
        """What run.json compares when a run is taken up again."""
        inputs: dict[str, Any] = {"tracks": self.record[0]["tracks_sha256"], "frames": len(self)}
        return inputs | {f"source_{number}": source.described() for number, source in enumerate(self.sources)}

    def recipe(self) -> Recipe:
        """The alignment of all sources; unknown where they differ."""
        recipes = {source.recipe.get("fingerprint"): source.recipe for source in self.sources}
        return next(iter(recipes.values())) if len(recipes) == 1 else unknown_recipe()

    def check_recipes(self, *, accept: bool) -> list[str]:
        """Warnings about how the sources were aligned; AbawError for known alignments that differ."""
        first, warnings = self.sources[0], []
        for source in self.sources[1:]:
            what = f"{source.name} (beside {first.name.rpartition(' ')[2]})"
            warnings += check_recipe(source.recipe, first.recipe, what=what, where="pretrain.sources", accept=accept)
        return warnings


def face_sources(cfg: Config) -> FaceSources:
    """Open everything that `[pretrain] sources` names. Raises AbawError for what is missing or holds no face.

    Faces of validation and test are left out, unless `[pretrain] tracks` is "all": the tracks of these splits, and of
    an image collection the images, by whatever labels `[data]` names.
    """
    held_out, validation = _people(cfg, {"val", "test"}), _people(cfg, {"val"})
    wanted = cfg.pretrain.sources or [PretrainSource(store=cfg.faces_store)]
    sources = [
        _store(cfg, source.store, source, held_out, validation)
        if source.store is not None
        else _folder(Path(source.images or ""), source)
        for source in wanted
    ]
    return FaceSources(sources, list(_records(cfg, sources)))


def _store(cfg: Config, path: Path, source: PretrainSource, held_out: _People, validation: _People) -> StoreSource:
    store = FeatureStore.open(path, kind="faces")
    images = _collection(cfg, store)
    if images:
        return _images(store, source, images)
    refs: list[FrameRef] = []
    looked_at: list[FrameRef] = []
    names = store.track_ids()
    for track_id in names:
        if track_id not in held_out:
            refs.append(FrameRef(store, track_id, np.flatnonzero(store.valid(track_id))))
        elif track_id in validation:
            looked_at.append(FrameRef(store, track_id, np.flatnonzero(store.valid(track_id))))
    if not any(len(ref) for ref in refs):
        raise _no_face(store, f"{len(names)} tracks, {len(names) - len(refs)} of them held out")
    shown = [ref for ref in looked_at if len(ref)]
    return StoreSource(store, source.weight, refs, shown, dataset=source.dataset)


def _collection(cfg: Config, store: FeatureStore) -> list[KeyedLabels]:
    """What tells the split of a store's single images; empty where it has none, or where every face is wanted."""
    if cfg.pretrain.tracks == "all" or cfg.data.kind != "images" or "key" not in store.header.arrays:
        return []
    own = store.path.resolve() == cfg.faces_store.resolve()  # other stores may be of images without labels
    return [KeyedLabels(cfg.data, TASKS[name], store, required=own) for name in cfg.data.annotations]


def _images(store: FeatureStore, source: PretrainSource, labels: Sequence[KeyedLabels]) -> StoreSource:
    """The images of a store that no task has in validation or test; those in no split stay."""
    refs: list[FrameRef] = []
    looked_at: list[FrameRef] = []
    digest = hashlib.sha256()
    faces = 0
    for track_id in store.track_ids():
        valid = store.valid(track_id)
        val, test = (np.any([own.rows(track_id, len(valid), s) for own in labels], axis=0) for s in ("val", "test"))
        rows, shown = np.flatnonzero(valid & ~val & ~test), np.flatnonzero(valid & val)
        faces += int(valid.sum())
        digest.update(f"{track_id}:{len(rows)}\n".encode() + rows.astype("<i8").tobytes())
        if len(rows):
            refs.append(FrameRef(store, track_id, rows))
        looked_at += [FrameRef(store, track_id, part) for part in np.array_split(shown, SHOWN_OF_SHARD) if len(part)]
    if not refs:
        raise _no_face(store, f"{faces} images with a face, all of them held out")
    return StoreSource(store, source.weight, refs, looked_at, digest.hexdigest(), source.dataset)


def _no_face(store: FeatureStore, known: str) -> AbawError:
    return AbawError(
        f"faces store {store.path} holds no face to pretrain on",
        where=f"pretrain.sources, {known}",
        fix='run `abaw align` first, or set pretrain.tracks = "all" to use validation and test faces too',
    )


def _folder(path: Path, source: PretrainSource) -> FolderSource:
    folder = ImageFolder(path, FOLDER_KEY)
    refs = image_refs(folder)
    return FolderSource(folder, source.weight, refs, listing_sha256(refs), source.dataset or path.resolve().name)


class _People:
    """Tracks of some splits; a person's track belongs to them when the video does that it comes from."""

    def __init__(self, names: set[str]) -> None:
        self.names, self.videos = names, {split_side(name)[0] for name in names}

    def __contains__(self, track_id: str) -> bool:
        video, person = split_person(track_id)
        return track_id in self.names or (person is not None and video in self.videos)


def _people(cfg: Config, splits: set[str]) -> _People:
    """Tracks of any task's `splits`; nobody where pretraining takes every track or nothing is labelled."""
    if cfg.pretrain.tracks == "all" or not (cfg.data.annotations or cfg.data.test):
        return _People(set())
    tracks = Manifest.from_config(cfg.data, need_media=False)
    return _People({track.track_id for track in tracks if splits & set(track.splits.values())})


def _records(cfg: Config, sources: list[StoreSource | FolderSource]) -> Iterator[dict[str, Any]]:
    """One record for all stores of a data set, by default that of `[data]`, and one for each folder."""
    stores = [source for source in sources if isinstance(source, StoreSource)]
    for dataset in dict.fromkeys(source.dataset for source in stores):
        names = [ref.track_id for source in stores if source.dataset == dataset for ref in source.refs]
        own = {"dataset": cfg.data.name, "edition": cfg.data.edition, "split_file": "official"}
        other = {"dataset": dataset, "edition": "none", "split_file": "none"}
        yield trained_on_record(labels="none", track_ids=names, **(other if dataset else own))
    for source in sources:
        if isinstance(source, FolderSource):
            yield trained_on_record(
                dataset=source.dataset, edition="none", labels="none", split_file="none", track_ids=[source.listing]
            )
