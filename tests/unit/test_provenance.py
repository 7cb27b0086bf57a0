"""Records of what something was trained on."""

import pytest

from abaw.provenance import combine_trained_on, not_out_of_fold, undeclared_record


@pytest.mark.parametrize(
    ("declared", "dataset", "labels"),
    [
        ([], "undeclared", "undeclared"),
        (["none"], "undeclared", "none"),
        (["AffectNet"], "AffectNet", "declared"),
        (["AffectNet", "RAF-DB"], "AffectNet, RAF-DB", "declared"),
    ],
)
def test_foreign_weights_have_seen_what_their_user_declares(declared, dataset, labels) -> None:
    assert undeclared_record("ab12", declared) == {
        "dataset": dataset,
        "edition": "undeclared",
        "labels": labels,
        "split_file": "undeclared",
        "tracks_sha256": "undeclared",
        "weights_sha256": "ab12",
    }


def test_records_of_different_files_stay_apart_and_equal_ones_fall_together() -> None:
    one, other = undeclared_record("a"), undeclared_record("b")
    assert combine_trained_on([[one], [other], [one]]) == [one, other]


@pytest.mark.parametrize(
    ("record", "leaks"),
    [
        ({"dataset": "aff-wild2", "labels": "none", "split_file": "official"}, False),
        ({"dataset": "aff-wild2", "labels": "va", "split_file": "official"}, True),
        ({"dataset": "aff-wild2", "labels": "va", "split_file": "s", "fold": 1}, False),
        ({"dataset": "aff-wild2", "labels": "va", "split_file": "s", "fold": 2}, True),
        ({"dataset": "aff-wild2", "labels": "va", "split_file": "other", "fold": 1}, True),
        ({"dataset": "AffectNet", "labels": "expr", "split_file": "c"}, False),
        ({"dataset": "named otherwise", "labels": "va", "split_file": "s", "fold": 2}, True),
        (undeclared_record("w"), True),
        (undeclared_record("w", ["none"]), False),
        (undeclared_record("w", ["AffectNet"]), False),
        (undeclared_record("w", ["AffectNet", "aff-wild2"]), True),
        (undeclared_record("w", ["s-Aff-Wild2"]), True),
        ({"dataset": "Aff_Wild2", "labels": "mtl", "split_file": "c"}, True),
    ],
)
def test_labels_of_a_fold_may_be_behind_some_records(record: dict[str, object], leaks: bool) -> None:
    found = not_out_of_fold([record], dataset="aff-wild2", split_file="s", fold=1)
    assert bool(found) is leaks


@pytest.mark.parametrize(
    ("name", "leaks"), [("Aff-Wild2, cropped", True), ("Aff-Wild2", True), ("RAF-DB, AffectNet", False)]
)
def test_a_comma_in_the_name_of_a_data_set_hides_nothing(name: str, leaks: bool) -> None:
    record = {"dataset": name, "labels": "va", "split_file": "official"}
    for dataset in ("Aff-Wild2, cropped", "aff-wild2"):
        assert bool(not_out_of_fold([record], dataset=dataset, split_file="s", fold=1)) is leaks
