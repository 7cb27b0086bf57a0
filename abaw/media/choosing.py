"""Tracklets become people, and people become the person a track is about.

Knows nothing of detectors, crops or stores, nor of what a descriptor is made of.

Who is who (`group_people`): tracklets seen at the same time are different people; otherwise those that look alike are
one, strongest first, by the mean cosine of all pairs of their descriptors (average linkage).

Which person (``side`` of a track):
- ``left`` / ``right``: the side in the picture as seen (left = smaller x), decided over the whole video from mean x,
  not frame by frame, so that a turn of the head or a lost face never swaps people;
- none: the dominant face, by time times size.

Where descriptors are sure enough (``by_identity``) people compete for that, and a track shows one person only. Where
they are not, tracklets compete: whatever face is not seen beside a stronger one stays, and ``Chosen.person`` tells
where it may be somebody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from abaw.media.tracklet import Tracklet

SHARED_TIME = 0.2  # tracklets that share more of the shorter one's rows are two people
APART = 0.5  # people are side by side when their mean x differ by this share of a face's side
MIN_PERSON_S = 0.5  # who is seen for less is no track of its own among all faces
MAX_COMPARED = 200  # people that a tracklet is compared with: the strongest; bounds the work for crowds
MAX_PEOPLE = 100  # tracks among all faces: the strongest people

SETTINGS = {
    "shared_time": SHARED_TIME,
    "apart": APART,
    "min_person_s": MIN_PERSON_S,
    "max_compared": MAX_COMPARED,
    "max_people": MAX_PEOPLE,
    "linkage": "average, strongest first",
}


class Chosen(NamedTuple):
    """Per row of a video: ``picked`` int64 [T] is the chosen detection or -1; ``other`` bool [T] tells where only
    another person's face was seen; ``weak`` int64 [T] is the detection below the score where nothing else was seen,
    or -1; ``person`` uint16 [T] is who was picked, numbered from 1 in order of appearance, 0 where nobody was or people
    were never grouped."""

    picked: np.ndarray
    other: np.ndarray
    weak: np.ndarray
    person: np.ndarray


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Tracklets that are chosen together."""

    tracklets: list[Tracklet]

    @property
    def num_rows(self) -> int:
        return sum(len(tracklet.rows) for tracklet in self.tracklets)

    @property
    def weight(self) -> float:
        return sum(tracklet.weight for tracklet in self.tracklets)

    @property
    def mean_x(self) -> float:
        return sum(tracklet.sum_x for tracklet in self.tracklets) / self.num_rows

    @property
    def mean_side(self) -> float:
        return self.weight / self.num_rows

    @property
    def strength(self) -> tuple[float, int, float]:
        """Sorts the strongest first, and equals always alike."""
        return (-self.weight, min(tracklet.rows[0] for tracklet in self.tracklets), self.mean_x)


def group_people(tracklets: Sequence[Tracklet], *, same: float, min_score: float) -> None:
    """Set ``person`` of every tracklet: 1, 2, ... in order of appearance, 0 where no score reaches ``min_score``.

    ``same`` is the mean cosine from which tracklets are one person. One without descriptors belongs to the person
    seen last before it. The time taken grows with the number of rows, and of tracklets times `MAX_COMPARED`.
    """
    for tracklet in tracklets:
        tracklet.person = 0
    faces = sorted(_faces(tracklets, min_score), key=lambda tracklet: (tracklet.rows[0], tracklet.mean_x))
    apart = _seen_together(faces)
    group = _by_looks(faces, apart, same=same)
    _by_time(faces, apart, group)
    numbers: dict[int, int] = {}
    for tracklet, own in zip(faces, group, strict=True):
        tracklet.person = numbers.setdefault(own, len(numbers) + 1)


def _faces(tracklets: Sequence[Tracklet], min_score: float) -> list[Tracklet]:
    return [tracklet for tracklet in tracklets if tracklet.best_score >= min_score]


def _seen_together(faces: list[Tracklet]) -> list[list[int]]:
    """For each tracklet the places of those that are somebody else's, because both are seen at once."""
    apart: list[list[int]] = [[] for _ in faces]
    if not faces:
        return apart
    lengths = np.array([len(tracklet.rows) for tracklet in faces])
    rows = np.concatenate([np.asarray(tracklet.rows) for tracklet in faces])
    owners = np.repeat(np.arange(len(faces)), lengths)
    seen = csr_array((np.ones(len(rows), dtype=np.int32), (owners, rows)))
    shared = (seen @ seen.T).tocoo()
    one, two = shared.coords
    together = (shared.data > SHARED_TIME * np.minimum(lengths[one], lengths[two])) & (one != two)
    for place, other in zip(one[together].tolist(), two[together].tolist(), strict=True):
        apart[place].append(other)
    return apart


def _by_looks(faces: list[Tracklet], apart: list[list[int]], *, same: float) -> list[int]:
    """Group of each tracklet, or -1 for one without descriptors; a tracklet joins the likest group that it may."""
    group = [-1] * len(faces)
    described = [place for place, tracklet in enumerate(faces) if tracklet.descriptors]
    if not described:
        return group
    means = np.zeros((MAX_COMPARED, len(faces[described[0]].descriptors[0])))
    counts = np.zeros(MAX_COMPARED)
    num_groups = 0
    for place in sorted(described, key=lambda place: (-faces[place].weight, place)):
        looks = np.mean(faces[place].descriptors, axis=0)
        # Not `@`: BLAS may split its sums over the cores, so that their last bit would depend on how many there are.
        alike = np.einsum("nd,d->n", means[: min(num_groups, MAX_COMPARED)], looks)
        alike[[group[other] for other in apart[place] if 0 <= group[other] < MAX_COMPARED]] = -np.inf
        best = int(alike.argmax()) if len(alike) else -1
        if best < 0 or alike[best] < same:
            best, num_groups = num_groups, num_groups + 1
        group[place] = best
        if best < MAX_COMPARED:
            number = len(faces[place].descriptors)
            counts[best] += number
            means[best] += (looks - means[best]) * (number / counts[best])
    return group


def _by_time(faces: list[Tracklet], apart: list[list[int]], group: list[int]) -> None:
    """Fill the -1 in ``group``; ``faces`` are in order of their first row."""
    running: list[tuple[int, int]] = []  # last row and place of the tracklets begun so far
    before: dict[int, tuple[int, float]] = {}  # last row and mean x of a group's ended ones; the latest comes last
    num_groups = max(group, default=-1) + 1
    for place, tracklet in enumerate(faces):
        while running and running[0][0] < tracklet.rows[0]:
            end, other = heappop(running)
            before.pop(group[other], None)
            before[group[other]] = (end, faces[other].mean_x)
        if group[place] < 0:
            taken = {group[other] for other in apart[place]}
            group[place] = _last_before(before, taken, tracklet.mean_x, default=num_groups)
            num_groups = max(num_groups, group[place] + 1)
        heappush(running, (tracklet.rows[-1], place))


def _last_before(before: dict[int, tuple[int, float]], taken: set[int], x: float, *, default: int) -> int:
    """The group seen last; of several that ended in one row, the nearest."""
    best, latest, nearest = default, -1, np.inf
    for own, (end, place) in reversed(before.items()):
        if end < latest:
            break
        if own not in taken and abs(place - x) < nearest:
            best, latest, nearest = own, end, abs(place - x)
    return best


def choose_person(
    tracklets: Sequence[Tracklet],
    *,
    num_rows: int,
    width: int,
    side: str | None,
    min_score: float,
    by_identity: bool = False,
) -> Chosen:
    """The detections of one person over a whole video; see the module for the rule.

    Tracklets whose best score stays below ``min_score`` are no faces. ``width`` of the picture decides the side
    where only one person is ever seen. ``by_identity`` needs `group_people` first.
    """
    faces = _faces(tracklets, min_score)
    candidates = _people(faces) if by_identity else [_Candidate([tracklet]) for tracklet in faces]
    if side is not None:
        border = _border(candidates, width=width)
        candidates = [candidate for candidate in candidates if (candidate.mean_x < border) == (side == "left")]
    candidates.sort(key=lambda candidate: candidate.strength)
    kept = candidates[:1] if by_identity else _never_together(candidates, num_rows=num_rows)
    mine = [tracklet for candidate in kept for tracklet in candidate.tracklets]
    return _chosen(mine, *_sightings(tracklets, num_rows=num_rows, min_score=min_score))


def choose_people(tracklets: Sequence[Tracklet], *, num_rows: int, min_score: float, min_rows: int = 1) -> list[Chosen]:
    """Everyone seen, as `group_people` told them apart, strongest (time times size) first; [] where nobody is.

    Left out are people seen in fewer than ``min_rows`` rows (unless nobody is seen longer), and all but the
    `MAX_PEOPLE` strongest.
    """
    people = sorted(_people(_faces(tracklets, min_score)), key=lambda person: person.strength)
    enough = min(min_rows, max((person.num_rows for person in people), default=0))
    seen, weak = _sightings(tracklets, num_rows=num_rows, min_score=min_score)
    stay = [person for person in people if person.num_rows >= enough]
    return [_chosen(person.tracklets, seen, weak) for person in stay[:MAX_PEOPLE]]


def _people(faces: list[Tracklet]) -> list[_Candidate]:
    people: dict[int, _Candidate] = {}
    for tracklet in faces:
        people.setdefault(tracklet.person, _Candidate([])).tracklets.append(tracklet)
    return list(people.values())


def _sightings(tracklets: Sequence[Tracklet], *, num_rows: int, min_score: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows with any face, bool [T]; and the detection below the score where there is no other, int64 [T], or -1."""
    seen, weak = np.zeros(num_rows, dtype=bool), np.full(num_rows, -1, dtype=np.int64)
    for tracklet in sorted(tracklets, key=lambda t: t.best_score):
        if tracklet.best_score >= min_score:
            seen[np.asarray(tracklet.rows)] = True
        else:
            weak[np.asarray(tracklet.rows)] = np.asarray(tracklet.indices)
    return seen, np.where(seen, -1, weak)


def _chosen(tracklets: list[Tracklet], seen: np.ndarray, weak: np.ndarray) -> Chosen:
    """The rows of ``tracklets``; of several in one row the strongest."""
    picked = np.full(len(seen), -1, dtype=np.int64)
    person = np.zeros(len(seen), dtype=np.int64)
    for tracklet in sorted(tracklets, key=lambda t: (-t.weight, t.rows[0], t.mean_x)):
        rows = np.asarray(tracklet.rows)
        free = picked[rows] < 0
        picked[rows[free]] = np.asarray(tracklet.indices)[free]
        person[rows[free]] = tracklet.person
    return Chosen(picked, seen & (picked < 0), weak, _by_appearance(person))


def _by_appearance(person: np.ndarray) -> np.ndarray:
    """Numbers of people, 0 for none, as 1, 2, ... in the order in which they first come; uint16."""
    numbers, first, place = np.unique(person, return_index=True, return_inverse=True)
    order = np.zeros(len(numbers), dtype=np.uint16)
    somebody = np.flatnonzero(numbers > 0)
    order[somebody[np.argsort(first[somebody])]] = np.arange(1, len(somebody) + 1)
    return order[place]


def _never_together(candidates: list[_Candidate], *, num_rows: int) -> list[_Candidate]:
    """From the strongest on, all that are never there at the same time as a stronger one."""
    taken = np.zeros(num_rows, dtype=bool)
    kept = []
    for candidate in candidates:
        rows = np.concatenate([np.asarray(tracklet.rows) for tracklet in candidate.tracklets])
        if taken[rows].mean() <= SHARED_TIME:
            taken[rows] = True
            kept.append(candidate)
    return kept


def _border(candidates: list[_Candidate], *, width: int) -> float:
    """The x between the two people: the split of the candidates' mean x with the least weighted spread within.

    Where the two sides would be less than half a face apart there is one person, and the middle of the picture
    says on which side.
    """
    middle = width / 2
    if len(candidates) < 2:
        return middle
    ordered = sorted(candidates, key=lambda candidate: candidate.mean_x)
    x = np.array([candidate.mean_x for candidate in ordered])
    weight = np.array([candidate.weight for candidate in ordered])
    total, moment = np.cumsum(weight), np.cumsum(weight * x)
    low = moment[:-1] / total[:-1]
    high = (moment[-1] - moment[:-1]) / np.maximum(total[-1] - total[:-1], 1e-9)
    between = total[:-1] * (total[-1] - total[:-1]) * (high - low) ** 2
    best = int(between.argmax())
    side = float(np.average([candidate.mean_side for candidate in ordered], weights=weight))
    return float(x[best] + x[best + 1]) / 2 if high[best] - low[best] >= APART * side else middle
