"""The split file: groups, folds, and the roles of tracks."""

import json
from pathlib import Path

import numpy as np
import pytest

from abaw.data.dealing import make_split, strata_by_class
from abaw.data.splits import Fold, FoldTracks, Split, group_of, read_split, roles, write_split
from abaw.errors import AbawError, ExitCode


@pytest.mark.parametrize(
    ("track_id", "group"),
    [
        ("video45_3", "video45"),
        ("video45_7_left", "video45"),
        ("video45_3_right_person2", "video45"),
        ("10-60-1280x720_right", "10-60-1280x720"),
        ("10-60-1280x720", "10-60-1280x720"),
        ("82-25-854x480_person1", "82-25-854x480"),
        ("video5", "video5"),
        ("clip_7", "clip_7"),  # only the organisers' own names have parts
    ],
)
def test_people_and_parts_of_a_recording_are_one_group(track_id: str, group: str) -> None:
    assert group_of(track_id) == group


def test_folds_hold_equal_numbers_of_groups_and_the_same_ones_each_time() -> None:
    names = [f"v{n}" for n in range(23)]
    split = make_split(names, folds=5, seed=4)
    assert sorted(np.bincount(list(split.folds.values()))) == [4, 4, 5, 5, 5]
    assert make_split(names[::-1], folds=5, seed=4) == split
    assert make_split(names, folds=5, seed=5).folds != split.folds


def test_folds_are_balanced_by_rows() -> None:
    rows = {"a": 900, "b": 500, "c": 400, "d": 450, "e": 450}
    folds = make_split(rows, folds=3, seed=0).folds
    assert sorted(np.bincount(list(folds.values()), weights=[rows[name] for name in folds])) == [900, 900, 900]


def test_every_kind_is_spread_over_the_folds() -> None:
    strata = {f"v{n}": "Anger" if n < 4 else "Fear" for n in range(12)}
    split = make_split(list(strata), folds=4, seed=1, strata=strata)
    for kind in ("Anger", "Fear"):
        own = [split.folds[name] for name in strata if strata[name] == kind]
        assert len(set(np.bincount(own, minlength=4))) == 1


def test_a_stratum_is_the_main_class_besides_neutral_and_other() -> None:
    counts = {"a": np.array([90, 3, 4, 50]), "b": np.array([9, 0, 0, 1])}
    assert strata_by_class(counts, ["Neutral", "Anger", "Fear", "Other"]) == {"a": "Fear", "b": ""}


def test_the_hold_out_is_in_no_fold() -> None:
    split = make_split([f"v{n}" for n in range(20)], folds=3, seed=0, holdout=0.1)
    assert len(split.holdout) == 2
    assert len(split.folds) == 18
    assert not set(split.holdout) & set(split.folds)


def test_the_hold_out_is_a_share_of_all_however_many_kinds_there_are() -> None:
    strata = {f"v{n:02d}": f"kind {n % 7}" for n in range(21)}
    split = make_split(list(strata), folds=3, seed=0, holdout=0.1, strata=strata)
    assert len(split.holdout) == 2, "a tenth of 21, though a tenth of each kind of three is none"
    assert len({strata[group] for group in split.holdout}) == 2


def test_a_hold_out_of_nothing_is_refused() -> None:
    with pytest.raises(AbawError, match="less than one of 4 recordings") as caught:
        make_split([f"v{n}" for n in range(4)], folds=2, seed=0, holdout=0.1)
    assert "folds.holdout = 0.25 or more" in caught.value.fix


@pytest.mark.parametrize("arguments", [{"folds": 1}, {"folds": 4}, {"folds": 2, "holdout": 1.0}])
def test_too_few_recordings_for_the_folds_are_refused(arguments: dict) -> None:
    with pytest.raises(AbawError, match="cannot be split") as caught:
        make_split(["a", "b", "c"], seed=0, **arguments)
    assert caught.value.code is ExitCode.CONFIG


def test_a_split_comes_back_from_its_file_with_its_hash(tmp_path: Path) -> None:
    split = make_split([f"v{n}" for n in range(9)], folds=3, seed=0, name="five", holdout=0.2)
    write_split(tmp_path / "splits" / "five.json", split)
    again = read_split(tmp_path / "splits" / "five.json")
    assert again == split
    assert again.sha256 == split.sha256
    content = json.loads((tmp_path / "splits" / "five.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(dict(reversed(content.items()))))
    assert read_split(tmp_path / "other.json").sha256 == split.sha256  # order and spaces do not count
    content["folds"]["v1"] = (content["folds"].get("v1", 0) + 1) % 3
    content["holdout"] = [name for name in content["holdout"] if name != "v1"]
    (tmp_path / "moved.json").write_text(json.dumps(content))
    assert read_split(tmp_path / "moved.json").sha256 != split.sha256


GOOD = {"format_version": 1, "name": "s", "num_folds": 2, "seed": 0, "folds": {"a": 0, "b": 1}, "holdout": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"name": 3}, "name that is no text"),
        ({"num_folds": 1}, "num_folds = 1"),
        ({"num_folds": True}, "num_folds = True"),
        ({"folds": ["a"]}, "folds that are no table"),
        ({"folds": {"a": 0, "b": 2}}, "puts b into a fold that is not 0 to 1"),
        ({"folds": {"a": 0, "b": "1"}}, "puts b"),
        ({"folds": {"a": 0, "b": 0}}, "no recording in fold 1"),
        ({"holdout": ["a"]}, "a in a fold and in the holdout"),
        ({"holdout": ["c", "c"]}, "holdout group twice"),
        ({"more": 1}, "does not hold exactly"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    (tmp_path / "s.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(AbawError, match=words):
        read_split(tmp_path / "s.json")


def test_a_missing_or_garbled_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="there is no split file") as caught:
        read_split(tmp_path / "s.json")
    assert caught.value.code is ExitCode.MISSING
    for text in ("{", "[]", '{"folds": {"a": 0, "a": 1}}'):
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(AbawError, match=r"split file s\.json"):
            read_split(tmp_path / "s.json")


SPLIT = Split("s", {"a": 0, "b": 1, "c": 2, "video1": 2}, 3, ("h",))
TRACKS = ["a", "b_left", "b_right", "c", "h", "video1_2"]


def test_the_next_fold_chooses_the_checkpoint_and_the_rest_trains() -> None:
    assert roles(SPLIT, 2, TRACKS, select="next") == {
        "train": ["b_left", "b_right"],
        "select": ["a"],
        "held_out": ["c", "video1_2"],
    }


def test_with_the_last_weights_all_other_folds_train() -> None:
    found = roles(SPLIT, 1, TRACKS, select="last")
    assert found == {"train": ["a", "c", "video1_2"], "select": [], "held_out": ["b_left", "b_right"]}


def test_tracks_that_the_split_does_not_know_are_named() -> None:
    with pytest.raises(AbawError, match=r"2 of 8 tracks are not in split s: new, video2_1"):
        roles(SPLIT, 0, [*TRACKS, "new", "video2_1"], select="next")


@pytest.mark.parametrize(
    ("fold", "tracks", "words"),
    [(3, TRACKS, "no fold 3"), (0, ["b_left", "c"], "no track to held_out"), (0, ["a", "b_left"], "no track to train")],
)
def test_a_fold_without_a_role_is_refused(fold: int, tracks: list[str], words: str) -> None:
    with pytest.raises(AbawError, match=words):
        roles(SPLIT, fold, tracks, select="next")


def test_two_folds_leave_none_to_train_on_beside_the_chooser() -> None:
    two = Split("s", {"a": 0, "b": 1}, 2)
    with pytest.raises(AbawError, match="one to select on"):
        roles(two, 0, ["a", "b"], select="next")
    assert roles(two, 0, ["a", "b"], select="last")["train"] == ["b"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "folds need two recordings"), (1, "folds need two recordings"), (2, "give 2 folds"), (4, "give 2 to 4 folds")],
)
def test_too_few_recordings_are_refused_with_what_is_possible(count: int, words: str) -> None:
    with pytest.raises(AbawError, match=f"{count} recordings in 5 folds cannot be split") as caught:
        make_split([f"v{n}" for n in range(count)], folds=5, seed=0)
    assert words in caught.value.fix


def test_tracks_of_the_hold_out_are_told_apart_in_every_fold() -> None:
    found = Fold(SPLIT, 2).tracks(TRACKS, select="best")
    assert found == FoldTracks(["b_left", "b_right"], ["a"], ["c", "video1_2"], ["h"])
    assert [Fold(SPLIT, number).tracks(TRACKS, select="last").holdout for number in range(3)] == [["h"]] * 3


OWN = {"dataset": "aff-wild2", "labels": "va", "split_file": SPLIT.sha256, "fold": 1}


@pytest.mark.parametrize(
    ("record", "leaking"),
    [
        ({}, [0, 2]),  # trained without fold 1, chosen on fold 2: clean for fold 1 alone
        ({"split_file": "official", "fold": None}, [0, 1, 2]),  # chosen on the validation set, which the folds deal too
        ({"labels": "none", "split_file": "official", "fold": None}, []),  # pretrained without labels
        ({"dataset": "AffectNet", "split_file": "official", "fold": None}, []),
        ({"labels": "expr"}, [0, 2]),  # another task's labels of the same recordings
        ({"split_file": "another split's", "fold": 1}, [0, 1, 2]),
    ],
)
def test_an_encoder_is_clean_for_the_fold_that_it_was_trained_without(record: dict, leaking: list[int]) -> None:
    told = [
        Fold(SPLIT, number).leak([{**OWN, **record}], dataset="aff-wild2", behind="the encoder", fix="do this")
        for number in range(3)
    ]
    assert [number for number, text in enumerate(told) if text] == leaking
    for number in leaking:
        assert told[number].startswith(f"not out-of-fold: the encoder may hold labels of fold {number} (")


def test_a_leak_tells_which_labels_it_is_of() -> None:
    fold = Fold(SPLIT, 0)
    records = [OWN, {**OWN, "split_file": "another"}, {**OWN, "split_file": "official", "fold": None}]
    told = fold.leak(records, dataset="aff-wild2", behind="it", fix="do this")
    assert told == (
        "not out-of-fold: it may hold labels of fold 0 (va of aff-wild2; va of aff-wild2, all but fold 1; "
        "va of aff-wild2, all but fold 1 of another split file); do this"
    )
