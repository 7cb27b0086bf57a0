"""One pass over labelled tracks: decisions and labels of a track become a few sums, and are let go of."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from abaw.config import Config
from abaw.data.annotations import Labels
from abaw.data.label_sources import LabelSource
from abaw.data.scored_labels import SPLIT, describe_tracks, labelled_tracks
from abaw.data.splits import group_of
from abaw.errors import AbawError
from abaw.evaluation.results import COUNTINGS, Evaluation, RowCounts
from abaw.pooled import Statistics, Tables, of_decisions, stacked, usable
from abaw.postprocess import in_words
from abaw.scored import Predictions, Scored
from abaw.store import FeatureStore
from abaw.tasks import Head, Problem, Task

MAX_NAMED = 5


@dataclass
class _Sums:
    """What was found so far, one entry for each piece; statistics by head of rows with and without a face."""

    task: Task
    with_face: dict[str, list[Statistics]] = field(init=False)
    without: dict[str, list[Statistics]] = field(init=False)
    tracks: list[int] = field(default_factory=list)
    recordings: list[Hashable] = field(default_factory=list)
    rows: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.with_face = {head.name: [] for head in self.task.heads}
        self.without = {head.name: [] for head in self.task.heads}

    def statistics(self) -> dict[str, dict[str, Statistics]]:
        """By counting and head: the annotated rows are those with a face and those without."""
        places = np.tile(np.arange(len(self.rows)), 2)
        found: dict[str, dict[str, Statistics]] = {counting: {} for counting in COUNTINGS}
        for name, own in self.with_face.items():
            found["with_face"][name] = stacked(own)
            found["annotated"][name] = stacked([*own, *self.without[name]]).merge(places, len(self.rows))
        return found


@dataclass(frozen=True)
class _Track:
    """One track's decisions and labels by head [T, target_dim], labels that count bool [T, target_dim], and bool [T]:
    rows with any of those, with a face, with a score of their own."""

    decisions: Mapping[str, np.ndarray]
    labels: Mapping[str, Labels]
    masks: Mapping[str, np.ndarray]
    labelled: np.ndarray
    face: np.ndarray
    own: np.ndarray


@dataclass
class _Pass:
    """The one pass over the tracks, and what it noticed: tracks without any score, how many the faces store knows,
    label rows past the end of the scores."""

    cfg: Config
    scored: Scored
    source: LabelSource
    faces: FeatureStore | None
    hollow: list[str] = field(default_factory=list)
    known: int = 0
    longer: dict[str, int] = field(default_factory=dict)

    @property
    def gap(self) -> str:
        """The policy of `submit` for rows without a score."""
        return self.cfg.submit_for(self.scored.task.name).gap

    def read(self, track_id: str) -> _Track:
        """A track's decisions, labels and masks."""
        num_rows, task = self._num_rows(track_id), self.scored.task
        labels = self.source.labels(track_id, num_rows, SPLIT)
        fits = num_rows == self.scored.num_rows(track_id)
        decided = self.scored.decide(track_id, gap=self.gap, num_rows=None if fits else num_rows)
        by_element = self.cfg.evaluate.au_mask == "element"
        masks = {head.name: usable(head, labels[head.name], element_mask=by_element) for head in task.heads}
        labelled = np.any([mask.any(axis=1) for mask in masks.values()], axis=0)
        face = self._face_rows(track_id, num_rows)
        self.known += face is not None
        if not decided.valid.any():
            self.hollow.append(track_id)
        self._close()
        return _Track(
            decided.decisions, labels, masks, labelled, decided.valid if face is None else face, decided.valid
        )

    def _close(self) -> None:
        """No track is read twice, and many open files slow down the opening of others."""
        if isinstance(self.scored, Predictions):
            self.scored.store.close()
        if self.faces is not None:
            self.faces.close()

    def _num_rows(self, track_id: str) -> int:
        """Rows that a track is measured on: all that have scores or labels. More label rows than frames by more than
        is tolerated are left to the source to refuse; a file made elsewhere may lack any row."""
        own, named = self.scored.num_rows(track_id), self.source.count(track_id)
        of_frames = isinstance(self.scored, Predictions)
        if not own or (of_frames and named - own > self.cfg.data.max_row_difference):
            return own
        if of_frames and named > own:
            self.longer[track_id] = named - own
        return max(own, named)

    def _face_rows(self, track_id: str, num_rows: int) -> np.ndarray | None:
        """bool [num_rows]: rows with a face, where the faces store knows the track; a row past its end has none."""
        faces, tolerance = self.faces, self.cfg.data.max_row_difference
        if faces is None or track_id not in faces or abs(faces.num_rows(track_id) - num_rows) > tolerance:
            return None
        found = np.zeros(num_rows, bool)
        valid = faces.valid(track_id)[:num_rows]
        found[: len(valid)] = valid
        return found

    def notes(self, tracks: Collection[str]) -> list[str]:
        """What did not fit, in words, when these tracks were measured."""
        found = self.source.notes()
        others = [name for name in self.scored.track_ids() if name not in tracks]
        if others and not isinstance(self.scored, Predictions):
            found = [*found, f"{len(others)} tracks without labels are left out: {', '.join(others[:MAX_NAMED])}"]
        if self.longer:
            shown = ", ".join(f"{name} +{rows}" for name, rows in list(self.longer.items())[:MAX_NAMED])
            found = [
                *found,
                f"{len(self.longer)} tracks have label rows past the end of their scores, which count too: {shown}",
            ]
        return found


def evaluate_tracks(cfg: Config, scored: Scored, source: LabelSource, *, faces: FeatureStore | None) -> Evaluation:
    """Hold the decisions of the measured tracks against their labels.

    A labelled row past the end of the scores counts too: it repeats the last one. ``faces``: the store that tells rows
    with a face; without it, or for a track that it lacks, they are those with a score of their own. Raises AbawError
    where a labelled track has no decisions, labels and rows do not belong together, or no row is labelled.
    """
    task, tracks = scored.task, sorted(labelled_tracks(scored, source))
    reading, sums = _Pass(cfg, scored, source, faces), _Sums(task)
    for place, track_id in enumerate(tracks):
        one = reading.read(track_id)
        for recording, rows in _pieces(source, track_id, one.labelled):
            sums.tracks.append(place)
            sums.recordings.append(recording)
            _add(sums, one, rows)
    counts = np.array(sums.rows, np.int64).reshape(-1, 3)
    if not counts[:, 0].any():
        raise _no_label(scored, source)
    found = sums.statistics()
    return Evaluation(
        name=scored.name,
        task=task,
        tracks=tracks,
        about=_about(scored),
        statistics=found,
        piece_tracks=np.array(sums.tracks),
        recordings=_numbered(sums.recordings),
        rows=RowCounts(*counts.T),
        gap=reading.gap,
        faces_from=_faces_from(reading.known, len(tracks)),
        post=None if scored.post.is_raw else scored.post.fitted_on or "unknown",
        treatment={head.name: _treatment(scored, head) for head in task.heads},
        hollow=reading.hollow,
        notes=reading.notes(set(tracks)) + _folders_of_classes(source, found["annotated"]),
    )


def _pieces(source: LabelSource, track_id: str, labelled: np.ndarray) -> Iterator[tuple[Hashable, np.ndarray | None]]:
    """Recording, and rows int [N] of the track that are of it; None for all of them."""
    if source.by_track:
        yield group_of(track_id), None
        return
    rows = np.flatnonzero(labelled)
    if not len(rows):
        return
    numbers = source.raw_recordings(track_id, len(labelled))[rows]
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    yield from zip(found.tolist(), np.split(rows[order], starts[1:]), strict=True)


def _add(sums: _Sums, one: _Track, rows: np.ndarray | None) -> None:
    """Add a piece: all rows of a track, or some."""
    labelled, face, own = (part if rows is None else part[rows] for part in (one.labelled, one.face, one.own))
    seen = labelled & face
    sums.rows.append((int(labelled.sum()), int(seen.sum()), int((labelled & ~own).sum())))
    places = np.arange(len(labelled)) if rows is None else rows
    groups = ((sums.with_face, seen), (sums.without, labelled & ~face))
    for head in sums.task.heads:
        for found, chosen in groups:
            # An index of all rows would copy them.
            whole = rows is None and bool(chosen.all())
            taken = slice(None) if whole else places[chosen]
            values, mask = one.labels[head.name].values[taken], one.masks[head.name][taken]
            found[head.name].append(of_decisions(head, one.decisions[head.name][taken], values, mask))


def _numbered(names: list[Hashable]) -> np.ndarray:
    """int64 [P]: the same number for the same name."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _folders_of_classes(source: LabelSource, statistics: Mapping[str, Statistics]) -> list[str]:
    """A warning where the images of every folder are of one class: folders are then no recordings."""
    if source.by_track:
        return []
    tables = [own.tables.sum(axis=2) for own in statistics.values() if isinstance(own, Tables)]
    if not tables or any((((own > 0).sum(axis=1)) > 1).any() for own in tables):
        return []
    return ["every folder holds images of one class only: intervals by folders say little of the images"]


def _about(scored: Scored) -> str:
    kind = describe_tracks(scored)
    if not scored.settings.get("out_of_fold", True):
        kind += " (not out-of-fold: a model behind the scores may have seen their labels)"
    return kind


def _treatment(scored: Scored, head: Head) -> str:
    return in_words(scored.post, head.name, values=head.problem is Problem.REGRESSION)


def _faces_from(known: int, total: int) -> str:
    if known == total:
        return "the faces store"
    if known:
        return f"the faces store for {known} of {total} tracks, scores of their own for the others"
    return "scores of their own"


def _no_label(scored: Scored, source: LabelSource) -> AbawError:
    return AbawError(
        f"no row of the {describe_tracks(scored)} has a label of task {scored.task.name}",
        where=str(source.path),
        fix="check data.annotations: every row is marked as not annotated",
    )
