"""Scores of one task taken as those of another that follows from them, and gaps filled before anything is decided."""

import json

import h5py
import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.scored import Predictions
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import CE_LABELS, EXPR_LABELS, TASKS


@pytest.fixture
def store(tmp_path):
    """Makes a predictions store of a task from scores by head, [T, L]; rows of NaN have no score."""

    def make(task, scores, *, post=None):
        heads = TASKS[task].heads
        arrays = {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in heads}
        order = {head.name: list(head.labels) for head in heads}
        made = FeatureStore.create(tmp_path / task, StoreHeader("predictions", task, arrays, {}, label_order=order))
        blocks = {f"scores/{name}": np.asarray(block, np.float32) for name, block in scores.items()}
        valid = ~np.isnan(next(iter(blocks.values()))).any(axis=1)
        made.write("t", {"valid": valid} | {key: np.nan_to_num(block) for key, block in blocks.items()}, fps=25)
        if post:
            (tmp_path / task / "post.json").write_text(json.dumps(post))
        return Predictions(tmp_path / task)

    return make


def expressions(**probabilities):
    return [probabilities.get(name, 0.0) for name in EXPR_LABELS]


def mtl(rows=1):
    return {
        "va": np.full((rows, 2), 0.25),
        "expr": np.eye(8)[np.arange(rows) + 1],
        "au": np.tile(np.arange(12) % 2, (rows, 1)),
    }


@pytest.mark.parametrize(
    ("scores", "compound"),
    [
        (expressions(Fear=0.3, Surprise=0.3, Happiness=0.2), "Fearfully_Surprised"),
        (expressions(Happiness=0.4, Surprise=0.1, Sadness=0.3), "Happily_Surprised"),  # .5 against .4 and .3
        (expressions(Neutral=0.8, Disgust=0.12, Surprise=0.08), "Disgustedly_Surprised"),
        (expressions(Sadness=0.5, Anger=0.3, Surprise=0.2), "Sadly_Angry"),
        (expressions(Sadness=0.5, Fear=0.3, Surprise=0.2), "Sadly_Fearful"),
        (expressions(Neutral=1.0), "Fearfully_Surprised"),  # all pairs are equal: the first
    ],
)
def test_a_compound_expression_is_the_pair_with_the_largest_sum_of_its_parents(store, scores, compound):
    decided = store("expr", {"expr": [scores]}).for_task("ce").decide("t", gap="hold")
    assert CE_LABELS[int(decided.decisions["ce"][0, 0])] == compound


def test_gaps_of_compound_expressions_are_filled_on_the_expressions(store):
    first, last = expressions(Happiness=0.6, Sadness=0.4), expressions(Anger=0.6, Sadness=0.4)
    # half-way: happiness .3, sadness .4, anger .3; only the last pair has sadness and anger
    predictions = store("expr", {"expr": [first, [np.nan] * 8, last]}).for_task("ce")
    decided = predictions.decide("t", gap="linear")
    assert CE_LABELS[int(decided.decisions["ce"][1, 0])] == "Sadly_Angry"
    assert decided.valid.tolist() == [True, False, True]


def test_a_single_task_of_a_multi_task_model_has_its_scores_as_they_are(store):
    whole = store("mtl", mtl(3))
    for task in ("va", "expr", "au"):
        own = whole.for_task(task)
        assert (own.task.name, list(own.decide("t", gap="hold").decisions)) == (task, [task])
        assert np.array_equal(
            own.decide("t", gap="hold").decisions[task], whole.decide("t", gap="hold").decisions[task]
        )


def test_compound_expressions_follow_from_a_multi_task_model_too(store):
    assert store("mtl", mtl()).for_task("ce").task.name == "ce"


def test_the_same_task_is_the_same_object(store):
    whole = store("mtl", mtl())
    assert whole.for_task("mtl") is whole


def test_a_derived_task_keeps_the_treatment_of_its_scores_but_no_foreign_thresholds(store):
    post = {
        "half_width": {"va": 2, "expr": 3},
        "filter": {"expr": "median"},
        "thresholds": {"au": [0.3] * 12},
        "min_run": {"expr": 4},
        "fitted_on": "somewhere",
    }
    whole = store("mtl", mtl(), post=post)
    compound = whole.for_task("ce").post
    assert (compound.half_width, compound.filter, compound.min_run) == ({"ce": 3}, {"ce": "median"}, {"ce": 4})
    assert compound.thresholds == {}
    assert whole.for_task("au").post.thresholds == {"au": [0.3] * 12}
    assert whole.for_task("va").post.half_width == {"va": 2}


def test_deriving_leaves_the_original_as_it_was(store):
    whole = store("mtl", mtl(), post={"half_width": {"va": 2}})
    whole.for_task("ce")
    assert (whole.task.name, whole.post.half_width) == ("mtl", {"va": 2})


@pytest.mark.parametrize(("stored", "wanted"), [("va", "au"), ("au", "va"), ("expr", "va"), ("lsd", "expr")])
def test_a_task_that_does_not_follow_is_refused(store, stored, wanted):
    heads = TASKS[stored].heads
    scores = {head.name: np.zeros((1, head.output_dim)) for head in heads}
    with pytest.raises(AbawError, match="say nothing about task"):
        store(stored, scores).for_task(wanted)


@pytest.mark.parametrize(
    ("gap", "filled"),
    [("hold", [0.0, 0.0, 0.0, 0.9]), ("nearest", [0.0, 0.0, 0.9, 0.9]), ("linear", [0, 0.3, 0.6, 0.9])],
)
def test_gaps_between_values_are_filled_by_the_policy(store, gap, filled):
    nan = [np.nan, np.nan]
    decided = store("va", {"va": [[0, 0], nan, nan, [0.9, 0]]}).decide("t", gap=gap)
    assert decided.decisions["va"][:, 0] == pytest.approx(filled)
    assert decided.valid.tolist() == [True, False, False, True]


def test_units_between_two_scores_are_decided_after_filling(store):
    low, high = np.full(12, 0.2), np.full(12, 0.9)
    rows = [low, np.full(12, np.nan), np.full(12, np.nan), high]
    decided = store("au", {"au": rows}).decide("t", gap="linear").decisions["au"]
    # .2, .43, .67, .9 against the threshold of .5
    assert decided[:, 0].tolist() == [0, 0, 1, 1]


def test_rows_past_the_end_repeat_the_last_decision_and_count_as_filled(store):
    decided = store("va", {"va": [[0.1, 0], [0.2, 0]]}).decide("t", gap="hold", num_rows=4)
    assert decided.decisions["va"][:, 0] == pytest.approx([0.1, 0.2, 0.2, 0.2])
    assert decided.valid.tolist() == [True, True, False, False]


def test_a_score_that_is_no_number_is_named_with_its_row(store):
    made = store("expr", {"expr": np.eye(8)[:3]})
    with h5py.File(made.store.track_path("t"), "r+") as file:
        file["scores/expr"][1, 4] = np.nan
    with pytest.raises(AbawError, match="row 1 of track t has a score of expr that is not finite"):
        made.decide("t", gap="hold")
