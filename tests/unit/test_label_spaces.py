"""Named label orders, mapped by name."""

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.label_spaces import LABEL_SPACES, by_name, class_names, label_space, same_class
from abaw.tasks import EXPR_LABELS


def test_affectnet_reaches_aff_wild2_by_name_and_contempt_nothing() -> None:
    # AffectNet: Neutral Happiness Sadness Surprise Fear Disgust Anger Contempt; Aff-Wild2: Neutral Anger Disgust ...
    assert by_name(LABEL_SPACES["affectnet8"].labels, EXPR_LABELS).tolist() == [0, 4, 5, 6, 3, 2, 1, -1]


@pytest.mark.parametrize(
    ("space", "indices"),
    [
        ("rafdb", [6, 3, 2, 4, 5, 1, 0]),  # 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral
        ("fer2013", [1, 2, 3, 4, 5, 6, 0]),
        ("ferplus", [0, 4, 6, 5, 1, 2, 3, -1]),
        ("hsemotion8", [1, -1, 2, 3, 4, 0, 5, 6]),
        ("lsd", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_other_orders_reach_it_too(space: str, indices: list[int]) -> None:
    assert by_name(LABEL_SPACES[space].labels, EXPR_LABELS).tolist() == indices


def test_an_index_counts_from_the_first_of_its_space() -> None:
    where = {"name": '"rafdb"', "where": "x.csv"}
    assert class_names(["1", "7", "4.0"], label_space("rafdb", where="x"), **where) == [
        "Surprise",
        "Neutral",
        "Happiness",
    ]
    for value in ("0", "8", "-3", "1.5", "smile", ""):
        with pytest.raises(AbawError, match="is not in label space"):
            class_names([value], label_space("rafdb", where="x"), **where)


def test_other_words_for_a_class_are_understood() -> None:
    assert same_class("Happy", "happiness")
    assert same_class("non_face", "Non-Face")
    assert not same_class("Fear", "Surprise")
    assert class_names(["angry", "SAD"], LABEL_SPACES["affwild2"], name="", where="") == ["Anger", "Sadness"]


def test_an_unknown_space_is_answered_with_the_closest() -> None:
    with pytest.raises(AbawError, match='unknown label space "affectnet"') as caught:
        label_space("affectnet", where="finetune.extra")
    assert "affectnet8" in caught.value.fix


def test_no_space_names_a_class_twice() -> None:
    for space in LABEL_SPACES.values():
        assert len(np.unique(by_name(space.labels, space.labels))) == len(space.labels)
