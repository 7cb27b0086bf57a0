"""Which provenance an edition's rules allow behind a submission."""

import pytest

from abaw.provenance import trained_on_record, undeclared_record
from abaw.rules import RULES, findings

SHA = "0123456789abcdef" * 4


def record(dataset="aff-wild2", labels="va", **more):
    own = {"dataset": dataset, "edition": "10", "labels": labels, "split_file": "official", "track_ids": ["a"]}
    return trained_on_record(**{**own, **more})


def kinds(records, rule, task="va"):
    return [finding.kind for finding in findings(records, RULES[rule], task)]


def test_own_labels_are_allowed_on_a_uni_task_track():
    assert findings([record()], RULES["uni-task"], "va") == []


@pytest.mark.parametrize("name", ["Aff-Wild2", "aff_wild 2", "AFFWILD2", "s-Aff-Wild2", "Aff-Wild2 crops", "ABAW10"])
def test_other_labels_of_aff_wild2_are_found_in_any_spelling(name):
    assert kinds([record(name, "expr")], "uni-task") == ["labels"]


def test_labels_of_all_tasks_are_other_labels_too():
    assert kinds([record("s-Aff-Wild2", "mtl")], "uni-task") == ["labels"]


def test_the_seven_classes_of_early_editions_are_labels_of_the_same_kind():
    assert kinds([record(labels="expr7")], "uni-task", "expr") == []


def test_pretraining_on_aff_wild2_without_labels_is_found():
    (found,) = findings([record(labels="none")], RULES["uni-task"], "va")
    assert found.refuses
    assert found.message == "weights were pretrained on pictures of aff-wild2 (edition 10), without labels"


@pytest.mark.parametrize("labels", ["expr", "none", "affectnet8"])
def test_other_data_sets_are_free(labels):
    for rule in RULES:
        assert kinds([record("AffectNet", labels)], rule, "mtl") == []


@pytest.mark.parametrize("rule", ["uni-task", "multi-task", "static", "synthetic"])
def test_undeclared_weights_refuse(rule):
    (found,) = findings([undeclared_record(SHA)], RULES[rule], "va")
    assert (found.kind, found.refuses, SHA[:12] in found.message) == ("undeclared", True, True)


def test_undeclared_weights_are_a_note_where_nothing_is_forbidden():
    (found,) = findings([undeclared_record(SHA)], RULES["open"], "ce")
    assert (found.kind, found.refuses) == ("note", False)


def test_weights_declared_to_know_other_data_are_free():
    assert kinds([undeclared_record(SHA, ["AffectNet", "RAF-DB"])], "uni-task") == []


def test_weights_declared_to_know_aff_wild2_among_others_are_found():
    (found,) = findings([undeclared_record(SHA, ["AffectNet", "Aff-Wild2"])], RULES["uni-task"], "va")
    assert found.kind == "weights"
    assert "Aff-Wild2" in found.message
    assert "AffectNet" not in found.message


def test_weights_declared_without_labels_are_a_note():
    assert kinds([undeclared_record(SHA, ["none"])], "uni-task") == ["note"]


def test_other_tasks_labels_are_free_where_the_edition_says_so_but_pretraining_is_not():
    assert kinds([record(labels="expr"), record()], "multi-task") == []
    assert kinds([record(labels="none")], "multi-task") == ["weights"]


def test_the_static_track_takes_s_aff_wild2_alone():
    own = record("s-Aff-Wild2", "mtl")
    assert kinds([own, record("s-Aff-Wild2", "none")], "static", "mtl") == []
    assert kinds([own, record("Aff-Wild2", "va")], "static", "mtl") == ["data"]
    assert kinds([own, record("Aff-Wild2", "none")], "static", "mtl") == ["data"]


@pytest.mark.parametrize("name", ["frames-Aff-Wild2", "faces_affwild2", "crops of Aff-Wild2", "videosABAW"])
def test_a_name_that_ends_in_s_before_aff_wild2_is_not_the_static_images(name):
    assert kinds([record(name, "none")], "static", "mtl") == ["data"]


@pytest.mark.parametrize("name", ["s-Aff-Wild2", "sAffWild2", "my_s_aff_wild2", "static images of Aff-Wild2"])
def test_the_static_images_are_found_in_any_spelling(name):
    assert kinds([record(name, "none")], "static", "mtl") == []


def test_multi_task_labels_are_of_the_static_images_whatever_their_user_called_them():
    assert kinds([record("aff-wild2", "mtl")], "static", "mtl") == []


def test_the_synthetic_track_takes_no_aff_wild2():
    assert kinds([record("LSD", "lsd"), record("aff-wild2", "lsd")], "synthetic", "lsd") == []
    assert kinds([record("s-Aff-Wild2", "mtl")], "synthetic", "lsd") == ["data"]


def test_nothing_recorded_is_as_good_as_undeclared():
    assert kinds([], "uni-task") == ["undeclared"]


def test_a_garbled_record_is_as_good_as_undeclared():
    assert kinds([{"dataset": None}], "uni-task") == ["undeclared"]


def test_folds_of_one_training_are_one_finding():
    folds = [record(labels="au", track_ids=[name]) | {"fold": number} for number, name in enumerate("abc")]
    assert kinds(folds, "uni-task") == ["labels"]


def test_refusals_come_before_notes():
    records = [undeclared_record(SHA, ["none"]), record(labels="au")]
    assert kinds(records, "uni-task") == ["labels", "note"]
