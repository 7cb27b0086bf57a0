"""Stage `extract-visual`: one feature vector per aligned face.

Reads the faces store and a checkpoint; writes one store per encoder. Batches cross tracks and always have one shape,
so that a row depends on its own face alone.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from abaw import console, executors
from abaw.config import Config, EncoderConfig
from abaw.console import Failure, Summary
from abaw.data.faces import crop_geometry
from abaw.data.frames import READ_ROWS, read_faces
from abaw.data.views import auxiliary_view, views_of
from abaw.encoders.visual import RANDOM, VISUAL_ENCODERS, Faces, VisualEncoder, VisualOptions, build_visual_encoder
from abaw.errors import AbawError, ExitCode, choose
from abaw.executors import TrackResult
from abaw.provenance import check_recipe, combine_trained_on
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.training.device import resolve_device, resolve_precision, use_threads

UNIT_TRACKS = 32


@dataclass(frozen=True)
class Item:
    """A track to do, by its name in the faces store."""

    track_id: str


def run(
    cfg: Config,
    *,
    encoder: str | None = None,
    overwrite: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Extract with ``encoder``, or with every one of ``extract_visual.encoders``.

    Raises AbawError for a missing faces store or weights file, an unknown encoder, a store with other settings, or
    weights trained on faces aligned another way; tracks that fail are in the summary.
    """
    names = _names(cfg, encoder)
    first = cfg.features_store("visual", names[0])
    executors.refuse_overwrite_of_parts(overwrite=overwrite, shard=shard, limit=limit, store=first)
    faces = FeatureStore.open(cfg.extract_visual.faces or cfg.faces_store, kind="faces")
    items = executors.shard([Item(track_id) for track_id in faces.track_ids()][:limit], shard)
    if not items:
        raise AbawError(f"faces store {faces.path} holds no track", where=str(faces.path), fix="abaw align")
    use_threads(cfg.run.threads)
    built = {name: _build(cfg, name) for name in names}
    headers = {name: build_header(name, model, faces) for name, (model, _) in built.items()}
    warnings = {name: _check_recipe(cfg, name, model, faces) for name, (model, _) in built.items()}
    if dry_run:
        return Summary("extract-visual", [line for name in names for line in _dry_lines(cfg, name, headers, items)])
    started, results, stores = time.monotonic(), [], []
    for name, (model, batch_size) in built.items():
        store = FeatureStore.create(cfg.features_store("visual", name), headers[name], overwrite=overwrite)
        if warnings[name] and store.notes.get("warnings") != warnings[name]:
            store.note("warnings", warnings[name])
        todo = [item for item in items if item.track_id not in store]
        units = [todo[start : start + UNIT_TRACKS] for start in range(0, len(todo), UNIT_TRACKS)]
        work = partial(extract_unit, faces=faces, store=store, encoder=model, batch_size=batch_size)
        outcomes = executors.iter_units(units, work, strict=strict)
        results += list(console.progress(outcomes, desc=f"extract-visual {name}", total=len(todo)))
        stores.append(store)
    return _summary(stores, results, known=len(items) * len(names), seconds=time.monotonic() - started)


# -- set-up ------------------------------------------------------------------------------------------------------------
def _names(cfg: Config, encoder: str | None) -> list[str]:
    names = [encoder] if encoder else list(cfg.extract_visual.encoders)
    if not names:
        raise AbawError(
            "there is nothing to extract: extract_visual.encoders is empty",
            where="extract_visual.encoders",
            fix='name at least one encoder, e.g. encoders = ["mae"], or pass --encoder',
            code=ExitCode.CONFIG,
        )
    return names


def _build(cfg: Config, name: str) -> tuple[VisualEncoder, int]:
    if name in cfg.encoders:
        table = cfg.encoders[name]
    else:
        choose({**VISUAL_ENCODERS, **cfg.encoders}, name, what="visual encoder", where="extract_visual.encoders")
        table = EncoderConfig(encoder=name)
    choose(VISUAL_ENCODERS, table.encoder, what="visual encoder", where=f"encoders.{name}.encoder")
    device = resolve_device(cfg.run.device)
    options = VisualOptions(
        weights=_weights(cfg, name, table),
        preset=cfg.pretrain.preset,
        pooling=table.pooling,
        device=str(device),
        precision=_precision(cfg, name, table, resolve_precision(table.precision, device, key="precision")),
        trained_on=tuple(table.trained_on),
        make_view=_view,
    )
    return build_visual_encoder(table.encoder, options), table.batch_size


def _view(images: np.ndarray, points: np.ndarray, *, view: str, style: str) -> np.ndarray:
    """The auxiliary views of some faces, for a model that takes them; made in several threads where they are large."""
    return views_of(partial(auxiliary_view, view=view, style=style), images, points)


def _precision(cfg: Config, name: str, table: EncoderConfig, resolved: str) -> str:
    """ "auto" continues an existing store in that store's precision."""
    path = cfg.features_store("visual", name)
    if table.precision == "auto" and (path / "store.json").exists():
        return str(FeatureStore.open(path).header.settings.get("precision", resolved))
    return resolved


def _weights(cfg: Config, name: str, table: EncoderConfig) -> str:
    """Checkpoint file of an encoder; by default of the run that this configuration describes."""
    stage = VISUAL_ENCODERS[table.encoder].stage
    if not stage or table.weights == RANDOM:
        return table.weights
    if table.weights:
        path = cfg.weights_file(table.weights)
    elif stage == "pretrain":
        path = cfg.run_dir(stage, cfg.pretrain.name or cfg.pretrain.preset)
    else:
        own = cfg.finetune_for(cfg.finetune.task)
        path = cfg.run_dir(stage, own.run_name, cfg.finetune.task)
    path = path if table.weights else path / "best.safetensors"
    if not path.is_file():
        raise AbawError(
            f'encoder "{name}" has no weights: there is no file {path}',
            where=f"encoders.{name}.weights",
            fix=f"run `abaw {stage}` first, or name a run folder or checkpoint there",
            code=ExitCode.MISSING,
        )
    return str(path)


def _check_recipe(cfg: Config, name: str, encoder: VisualEncoder, faces: FeatureStore) -> list[str]:
    """Warnings about the faces behind the weights; refuses those aligned another way."""
    if not encoder.image_size:
        return []
    what, accept = f'the weights of encoder "{name}"', cfg.run.accept_recipe_mismatch
    where = f"encoders.{name}.weights"
    return check_recipe(encoder.recipe, faces.header.recipe, what=what, where=where, accept=accept)


def build_header(name: str, encoder: VisualEncoder, faces: FeatureStore) -> StoreHeader:
    """Header of the feature store."""
    return StoreHeader(
        kind="visual",
        name=name,
        arrays={"features": ArraySpec("float16", (encoder.dim,)), "reason": ArraySpec("uint8")},
        settings={**encoder.settings, "faces": faces.fingerprint},
        recipe=faces.header.recipe,
        trained_on=combine_trained_on([encoder.trained_on, faces.header.trained_on]),
    )


# -- work --------------------------------------------------------------------------------------------------------------
@dataclass
class _Open:
    """A track whose features are being filled: `waiting` rows are in a batch not yet run."""

    track_id: str
    features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    waiting: int = 0
    is_read: bool = False
    error: AbawError | None = None


@dataclass
class _Packer:
    """Fills batches of one fixed shape with faces of any tracks and puts the features where they belong."""

    encoder: VisualEncoder
    batch_size: int
    places: list[tuple[_Open, int]] = field(default_factory=list)
    parts: list[Faces] = field(default_factory=list)

    def add(self, track: _Open, rows: np.ndarray, faces: Faces) -> None:
        start = 0
        while start < len(rows):
            stop = min(len(rows), start + self.batch_size - len(self.places))
            self.parts.append(Faces(*(part[start:stop] for part in faces)))
            self.places += [(track, int(row)) for row in rows[start:stop]]
            track.waiting += stop - start
            start = stop
            if len(self.places) == self.batch_size:
                self.flush()

    def flush(self) -> None:
        """Run what is there; a batch that is not full is padded with its last face."""
        if not self.places:
            return
        fill = np.minimum(np.arange(self.batch_size), len(self.places) - 1)
        batch = Faces(*(np.concatenate(columns)[fill] for columns in zip(*self.parts, strict=True)))
        for (track, row), feature in zip(self.places, self.encoder.encode(batch), strict=False):
            track.features[row] = feature
            track.waiting -= 1
        self.places, self.parts = [], []


def extract_unit(
    unit: Sequence[Item], *, faces: FeatureStore, store: FeatureStore, encoder: VisualEncoder, batch_size: int
) -> Iterator[TrackResult]:
    """Encode the faces of some tracks and publish each track as soon as its last row is done."""
    packer = _Packer(encoder, batch_size)
    opened: list[_Open] = []
    # A store of its own, whose files the reading thread opens; the thread ends before they are closed.
    with (
        closing(FeatureStore.open(faces.path, kind="faces")) as source,
        closing(_ahead(_pieces(source, unit, encoder.image_size))) as pieces,
    ):
        for track_id, rows, part in pieces:
            if not opened or opened[-1].track_id != track_id:
                opened.append(_Open(track_id))
            track = opened[-1]
            if isinstance(part, AbawError):
                track.error = part
            elif isinstance(part, int):
                track.features = np.zeros((part, encoder.dim), np.float16)
            elif part is None:
                track.is_read = True
            else:
                packer.add(track, rows, part)
            yield from _publish(opened, faces, store)
        packer.flush()
        yield from _publish(opened, faces, store)


def _publish(opened: list[_Open], faces: FeatureStore, store: FeatureStore) -> Iterator[TrackResult]:
    for track in [track for track in opened if track.error or (track.is_read and not track.waiting)]:
        opened.remove(track)
        if track.error:
            message = f"{track.error.what} (fix: {track.error.fix})"
            yield TrackResult(track.track_id, "failed", message=message, error=track.error)
            continue
        yield executors.attempt(track.track_id, partial(_write, track, faces, store))


def _write(track: _Open, faces: FeatureStore, store: FeatureStore) -> TrackResult:
    reason = faces.read(track.track_id, "reason")
    arrays = {"features": track.features, "reason": reason, "valid": faces.valid(track.track_id)}
    store.write(track.track_id, arrays, fps=faces.fps(track.track_id))
    return TrackResult(track.track_id, info={"reasons": executors.count_reasons(reason)})


Piece = tuple[str, np.ndarray, "int | Faces | AbawError | None"]


def _pieces(faces: FeatureStore, unit: Sequence[Item], size: int) -> Iterator[Piece]:
    """Of every track its number of rows, then its faces in pieces of bounded size.

    None ends a track, an error ends it early.
    """
    for item in unit:
        name, nothing = item.track_id, np.zeros(0, np.int64)
        try:
            yield name, nothing, faces.num_rows(name)
            rows = np.flatnonzero(faces.valid(name))
            landmarks, box = crop_geometry(faces, name)
            for start in range(0, len(rows), READ_ROWS):
                part = rows[start : start + READ_ROWS]
                images = read_faces(faces, name, part, size) if size else np.zeros((len(part), 0, 0, 3), np.uint8)
                yield name, part, Faces(images, landmarks[part], box[part])
            yield name, nothing, None
        except AbawError as error:
            yield name, nothing, error


def _ahead(pieces: Iterator[Piece]) -> Generator[Piece, None, None]:
    """The same pieces, the next one read while the model works on the last."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield piece


# -- report ------------------------------------------------------------------------------------------------------------
def _dry_lines(cfg: Config, name: str, headers: dict[str, StoreHeader], items: list[Item]) -> list[tuple[str, str]]:
    path = cfg.features_store("visual", name)
    known = FeatureStore.finished(path, headers[name])
    todo = sum(item.track_id not in known for item in items)
    return [("store", str(path)), ("to do", f"{todo} tracks"), ("done", f"{len(items) - todo} tracks")]


def _summary(stores: list[FeatureStore], results: list[TrackResult], *, known: int, seconds: float) -> Summary:
    done = [result for result in results if result.status == "done"]
    failed = [Failure(result.track_id, result.message, bug=result.bug) for result in results if result.status != "done"]
    reasons = executors.sum_reasons(done)
    rows = sum(reasons.values())
    counts = executors.describe_reasons(reasons, valid="with a feature") or "nothing new"
    lines = [
        ("tracks", f"{len(done)} extracted, {known - len(results)} already there, {len(failed)} failed"),
        ("rows", f"{rows} in {seconds:.1f} s: {counts}"),
        *(("store", str(store.path)) for store in stores),
        ("next", "abaw fuse"),
    ]
    data: dict[str, Any] = {"stores": [str(s.path) for s in stores], "tracks": len(done), "rows": rows}
    return Summary("extract-visual", lines, failed=failed, data={**data, "reasons": reasons})
