"""Folds of fuse: features by fold, what leaks, and the split file that it shares with finetune."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abaw.config import Config
from abaw.data.dealing import make_split
from abaw.data.splits import group_of, read_split, write_split
from abaw.errors import AbawError
from abaw.stages import finetune, fuse, tune
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from tests.unit.stages.labelled_set import EXPR_HEADER, ROWS, TEST, TRAIN, VAL, config, make_labelled, write_lines

RUN = "fuse-va-netease"
ALL = [*TRAIN, *VAL]
TOML = """
[fuse]
steps = 2
batch_size = 2
window = 4
stride = 2
validate_every = 1
visual = ["features/visual-own"]
audio = []
"""
OFFICIAL = {"dataset": "aff-wild2", "edition": "10", "labels": "va", "split_file": "official", "tracks_sha256": "t"}
PRETRAINED = {**OFFICIAL, "labels": "none"}


def features(root: Path, name: str, *, seed: int = 1, trained_on: Sequence[dict[str, Any]] = ()) -> None:
    """A feature store of three random columns, by an encoder that was trained on what is told."""
    arrays = {"features": ArraySpec("float16", (3,)), "reason": ArraySpec("uint8")}
    header = StoreHeader("visual", name, arrays, {"seed": seed}, trained_on=list(trained_on))
    store = FeatureStore.create(root / "features" / f"visual-{name}", header)
    for number, track_id in enumerate([*ALL, *TEST]):
        values = np.random.default_rng([seed, number]).normal(size=(ROWS, 3)).astype(np.float16)
        store.write(
            track_id, {"features": values, "reason": np.zeros(ROWS, np.uint8), "valid": np.ones(ROWS, bool)}, fps=25
        )


def make_root(folder: Path) -> Path:
    root = make_labelled(folder)
    with (root / "data.toml").open("a") as file:
        file.write(TOML)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds beside a hold-out, on features of an encoder that saw no labels; not to be changed."""
    folder = make_root(tmp_path_factory.mktemp("whole"))
    features(folder, "own", trained_on=[PRETRAINED])
    fuse.run(config(folder, "folds.holdout=0.2"), task="va", folds="3")
    return folder


def scores(root: Path, name: str) -> FeatureStore:
    return FeatureStore.open(root / f"predictions/{RUN}-{name}", kind="predictions")


def two_folds(root: Path, *overrides: str) -> Config:
    return config(root, "fuse.select=last", "fuse.steps=1", *overrides)


# -- scores ------------------------------------------------------------------------------------------------------------
def test_every_labelled_track_is_scored_by_the_fold_that_never_saw_it(whole: Path) -> None:
    split = read_split(whole / "splits/folds3.json")
    joined, spared = scores(whole, "folds"), [name for name in ALL if group_of(name) in split.holdout]
    assert spared
    for number in range(3):
        store = scores(whole, f"fold-{number}")
        held = [name for name in ALL if split.folds.get(group_of(name)) == number]
        assert set(store.track_ids()) == {*held, *spared, *TEST}
        assert store.header.settings["holdout"] == spared
        for name in held:
            assert np.array_equal(store.read(name, "scores/va"), joined.read(name, "scores/va"))
    assert sorted([*joined.track_ids(), *spared]) == sorted(ALL)


def test_pretraining_without_labels_leaves_the_scores_out_of_fold_and_is_recorded(whole: Path) -> None:
    for name in ("fold-0", "fold-1", "fold-2", "folds"):
        header = scores(whole, name).header
        assert header.settings["out_of_fold"] is True
        assert PRETRAINED in header.trained_on


def test_folds_that_are_done_are_skipped(whole: Path) -> None:
    again = fuse.run(config(whole, "folds.holdout=0.2"), task="va", folds="3")
    assert [fold["skipped"] for fold in again.data["folds"]] == [True] * 3


def test_the_joined_scores_come_with_the_last_fold(whole: Path, tmp_path: Path) -> None:
    root = shutil.copytree(whole, tmp_path / "copy")
    joined = root / f"predictions/{RUN}-folds"
    before = {path.name: path.read_bytes() for path in joined.iterdir()}
    fuse.run(config(root), task="va", folds="3", fold=1, overwrite=True)
    assert {path.name: path.read_bytes() for path in joined.iterdir()} == before, "the same training, joined again"
    shutil.rmtree(root / f"runs/{RUN}/fold-2")
    waiting = fuse.run(config(root), task="va", folds="3", fold=0)
    assert dict(waiting.lines)["scores"] == "joined once fold 2 is done too"


# -- features by fold --------------------------------------------------------------------------------------------------
def features_by_fold(root: Path) -> None:
    """Features of encoders that were trained by fold, on the split that fuse will take."""
    split = make_split([group_of(name) for name in ALL], folds=2, seed=0, name="folds2")
    write_split(root / "splits/folds2.json", split)
    for number in range(2):
        own = {**OFFICIAL, "split_file": split.sha256, "fold": number}
        features(root, f"own-fold-{number}", seed=number, trained_on=[own])


def test_each_fold_reads_the_features_of_its_own_encoder(root: Path) -> None:
    features(root, "own", trained_on=[OFFICIAL])
    features_by_fold(root)
    done = fuse.run(two_folds(root), task="va", folds="2")
    for number in range(2):
        inputs = json.loads((root / f"runs/{RUN}/fold-{number}/run.json").read_text())["inputs"]
        assert [stream["name"] for stream in inputs["streams"]] == [f"visual-own-fold-{number}"]
        assert scores(root, f"fold-{number}").header.settings["out_of_fold"] is True
    assert done.data["joined"]
    assert scores(root, "folds").header.settings["out_of_fold"] is True


def test_the_official_split_does_not_read_the_features_of_folds(root: Path) -> None:
    features_by_fold(root)
    with pytest.raises(AbawError, match="there are features of folds alone") as caught:
        fuse.run(config(root), task="va")
    assert "`abaw extract-visual --encoder own`" in caught.value.fix
    assert "--folds 2" in caught.value.fix


def test_folds_that_read_stores_of_other_names_are_not_joined(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    features(root, "own")
    features_by_fold(root)
    fuse.run(two_folds(root), task="va", folds="2", fold=0)
    features(root, "other")
    given = f'fuse.visual=["{root}/features/visual-other"]'
    done = fuse.run(two_folds(root, given), task="va", folds="2", fold=1)
    assert done.data["joined"] == ""
    assert "fold 1 differs from fold 0 in inputs.streams" in caplog.text
    assert "visual-own" in caplog.text.split("in fold 0")[0]
    assert dict(done.lines)["scores"].startswith("not joined: the folds differ")


def test_folds_of_a_second_stage_start_from_one_first_stage(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    features(root, "own")
    for model in ("static", "linear"):
        fuse.run(two_folds(root, f"fuse.model={model}"), task="va", folds="2")
    dual = ("fuse.model=dual_branch", "fuse.name=dual", "fuse.dual.first=static")
    summary = fuse.run(two_folds(root, *dual), task="va", folds="2")
    assert summary.data["joined"]
    shutil.rmtree(root / "runs/fuse-va-dual/fold-1")
    summary = fuse.run(two_folds(root, *dual[:2], "fuse.dual.first=linear"), task="va", folds="2", fold=1)
    assert not summary.data["joined"]
    assert "the folds are not joined: fold 1 differs from fold 0 in inputs.first.name" in caplog.text


def test_features_that_a_fold_lacks_are_named_before_any_fold_is_trained(root: Path) -> None:
    features_by_fold(root)
    shutil.rmtree(root / "features/visual-own-fold-1")
    with pytest.raises(AbawError, match="none of fold 1"):
        fuse.run(two_folds(root), task="va", folds="2")
    assert not (root / "runs").exists()
    fuse.run(two_folds(root), task="va", folds="2", fold=0)
    assert (root / f"runs/{RUN}/fold-0/done").is_file()


# -- what leaks --------------------------------------------------------------------------------------------------------
def test_an_encoder_that_was_chosen_on_labels_of_the_folds_marks_every_fold(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features(root, "own", trained_on=[OFFICIAL])
    fuse.run(two_folds(root), task="va", folds="2")
    for number in range(2):
        assert scores(root, f"fold-{number}").header.settings["out_of_fold"] is False
        record = json.loads((root / f"runs/{RUN}/fold-{number}/run.json").read_text())
        told = f"not out-of-fold: the encoder of visual-own may hold labels of fold {number} (va of aff-wild2)"
        assert any(text.startswith(told) for text in record["warnings"])
        assert told in caplog.text
    assert scores(root, "folds").header.settings["out_of_fold"] is False


def test_tuning_and_weighting_on_scores_with_a_leak_are_refused(root: Path) -> None:
    features(root, "own", trained_on=[OFFICIAL])
    fuse.run(two_folds(root), task="va", folds="2")
    with pytest.raises(AbawError, match="not out-of-fold") as caught:
        tune.run(config(root), predictions=root / f"predictions/{RUN}-folds")
    assert "--acknowledge" in caught.value.fix
    with pytest.raises(AbawError, match="out-of-fold") as caught:
        fuse.run(config(root, "fuse.ensemble.weights=fitted"), task="va", ensemble=[f"{RUN}-folds"])
    assert "--acknowledge" in caught.value.fix


def test_an_encoder_of_another_fold_marks_the_fold_that_reads_it(root: Path) -> None:
    features_by_fold(root)
    for path in (root / "features").glob("visual-own-fold-*"):
        path.rename(path.with_name(path.name.replace("fold-", "was-")))
    for number in range(2):  # each fold is given the other one's
        shutil.copytree(root / f"features/visual-own-was-{1 - number}", root / f"features/visual-own-fold-{number}")
    fuse.run(two_folds(root), task="va", folds="2")
    assert [scores(root, name).header.settings["out_of_fold"] for name in ("fold-0", "fold-1", "folds")] == [False] * 3


@pytest.mark.parametrize("clean_first", [True, False])
def test_what_is_found_out_about_an_encoder_later_marks_scores_that_are_done(root: Path, *, clean_first: bool) -> None:
    features(root, "own", trained_on=[PRETRAINED if clean_first else OFFICIAL])
    fuse.run(two_folds(root), task="va", folds="2")
    shutil.rmtree(root / "features/visual-own")
    features(root, "own", trained_on=[OFFICIAL if clean_first else PRETRAINED])
    again = fuse.run(two_folds(root), task="va", folds="2")
    assert [scores(root, name).header.settings["out_of_fold"] for name in ("fold-0", "fold-1", "folds")] == (
        [not clean_first] * 3
    )
    assert (OFFICIAL in scores(root, "folds").header.trained_on) == clean_first
    assert again.data["joined"]


# -- the split file ----------------------------------------------------------------------------------------------------
def test_finetune_and_fuse_deal_the_same_folds_whichever_is_first(tmp_path: Path) -> None:
    roots = [make_root(tmp_path / name) for name in ("one", "two", "three")]
    for root in roots:
        features(root, "own")
    finetune.run(config(roots[0], "finetune.select=last", "finetune.steps=1"), task="va", folds="2", fold=0)
    fuse.run(two_folds(roots[1]), task="va", folds="2", fold=0)
    shutil.rmtree(roots[2] / "features/faces")  # a machine that has features alone
    fuse.run(two_folds(roots[2]), task="va", folds="2", fold=0)
    assert len({(root / "splits/folds2.json").read_bytes() for root in roots}) == 1


def test_a_fold_that_lacks_a_class_says_which_fold_and_class(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    features(root, "own")
    for name in ALL:
        split = "Validation_Set" if name in VAL else "Train_Set"
        shown = [EXPR_HEADER, *["3" if name == "a" else "0"] * ROWS]
        write_lines(root / "expr" / split / f"{name}.txt", shown)
    fuse.run(two_folds(root), task="expr", folds="2")
    lacking = read_split(root / "splits/folds2.json").folds["a"]
    lines = [line for line in caplog.messages if "Fear" in line]
    assert lines
    assert all(f"of fold {lacking} of split folds2 shows" in line for line in lines)
    assert all("folds.stratify = true, with another split name" in line for line in lines)


def test_a_class_in_too_few_recordings_for_the_folds_is_not_blamed_on_the_dealing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features(root, "own")
    for name in ALL:
        split = "Validation_Set" if name in VAL else "Train_Set"
        shown = [EXPR_HEADER, *["3" if name == "a" else "0"] * ROWS]
        write_lines(root / "expr" / split / f"{name}.txt", shown)
    fuse.run(two_folds(root, "folds.stratify=true"), task="expr", folds="2")
    lines = [line for line in caplog.messages if "Fear" in line]
    assert lines
    assert all("too few recordings show it" in line and "stratify = true" not in line for line in lines)


def test_two_folds_leave_none_to_choose_on(root: Path) -> None:
    features(root, "own")
    with pytest.raises(AbawError, match="with two folds") as caught:
        fuse.run(config(root), task="va", folds="2")
    assert 'fuse.select = "last"' in caught.value.fix
