"""Named orders of expression classes, as data sets and published models use them, and their mapping by name.

An index means nothing without the name of its order: the same 3 is Fear here and Surprise there. Knows nothing of
files or models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from abaw.errors import AbawError, ExitCode, choose
from abaw.tasks import TASKS


@dataclass(frozen=True)
class LabelSpace:
    """Class names in the order of their indices; the first has index ``first``."""

    labels: tuple[str, ...]
    first: int = 0


_BASIC_ALPHABETICAL = ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
_AFFECTNET = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
_FER = ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Neutral")

LABEL_SPACES: dict[str, LabelSpace] = {
    "affwild2": LabelSpace(TASKS["expr"].heads[0].labels),
    "lsd": LabelSpace(TASKS["lsd"].heads[0].labels),
    "affectnet7": LabelSpace(_AFFECTNET[:7]),
    "affectnet8": LabelSpace(_AFFECTNET),
    "affectnet11": LabelSpace((*_AFFECTNET, "None", "Uncertain", "Non-Face")),  # as the data set's own files count
    "rafdb": LabelSpace(("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral"), first=1),
    "fer2013": LabelSpace(_FER),
    "expw": LabelSpace(_FER),
    "ferplus": LabelSpace(("Neutral", "Happiness", "Surprise", "Sadness", "Anger", "Disgust", "Fear", "Contempt")),
    "hsemotion7": LabelSpace(_BASIC_ALPHABETICAL),
    "hsemotion8": LabelSpace(tuple(sorted((*_BASIC_ALPHABETICAL, "Contempt")))),
}

# Other words for the names above, in the spelling of `_normal`.
SYNONYMS: dict[str, str] = {
    "angry": "anger",
    "contemptuous": "contempt",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
    "others": "other",
    "noface": "nonface",
}


def _normal(name: str) -> str:
    """Letters and digits alone, in lower case; synonyms become one word."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return SYNONYMS.get(plain, plain)


def same_class(one: str, other: str) -> bool:
    """Whether two names are of one class: case, punctuation and synonyms aside."""
    return _normal(one) == _normal(other)


def by_name(names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Index of each name among ``labels``, int64 [len(names)]; -1 for a name that is not there."""
    places = {_normal(label): index for index, label in enumerate(labels)}
    return np.array([places.get(_normal(name), -1) for name in names], np.int64)


def label_space(name: str, *, where: str) -> LabelSpace:
    """The space of that name. Raises AbawError that lists the known ones."""
    return choose(LABEL_SPACES, name, what="label space", where=where)


def class_names(values: Sequence[str], space: LabelSpace, *, name: str, where: str) -> list[str]:
    """Names in the space of values that are names or indices. Raises AbawError for the first that is neither."""
    places = by_name(values, space.labels)
    found = []
    for value, place in zip(values, places.tolist(), strict=True):
        index = place
        if index < 0 and re.fullmatch(r"\d+(\.0*)?", value.strip()):
            index = int(value.strip().partition(".")[0]) - space.first
        if not 0 <= index < len(space.labels):
            last = space.first + len(space.labels) - 1
            raise AbawError(
                f'label "{value}" is not in label space {name}',
                where=where,
                fix=f"give {space.first} to {last} or one of {', '.join(space.labels)}; or name another space: "
                f"{', '.join(LABEL_SPACES)}",
                code=ExitCode.DATA,
            )
        found.append(space.labels[index])
    return found
