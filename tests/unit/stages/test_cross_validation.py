"""Folds of finetune: the split file, its hold-out, commands at the same time, features by fold, and what leaks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from abaw.checkpoint import read_header
from abaw.data.splits import Fold, group_of, read_split
from abaw.errors import AbawError, ExitCode
from abaw.stages import extract_visual, finetune, fuse
from abaw.store import FeatureStore
from abaw.training.run import RunFolder
from tests.unit.stages.labelled_set import EXPR_HEADER, ROWS, TRAIN, VAL, config, make_labelled, write_lines

RUN = "finetune-va-vit_tiny_64"
QUICK = ("finetune.select=last", "finetune.steps=1")
HOLD_OUT = "folds.holdout=0.2"
ENCODER = """
[encoders.own]
encoder = "finetuned"
weights = "runs/finetune-va-vit_tiny_64"
batch_size = 4
precision = "fp32"
"""
ALL = [*TRAIN, *VAL]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_labelled(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds beside a recording that none of them holds, trained and extracted; not to be changed."""
    folder = make_labelled(tmp_path_factory.mktemp("whole"))
    with (folder / "data.toml").open("a") as file:
        file.write(ENCODER)
    finetune.run(config(folder, *QUICK, HOLD_OUT), task="va", folds="2")
    extract_visual.run(config(folder), encoder="own", folds=2)
    return folder


@pytest.fixture
def folded(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "folded")


def predictions(root: Path, name: str) -> FeatureStore:
    return FeatureStore.open(root / f"predictions/{RUN}-{name}")


# -- the hold-out ------------------------------------------------------------------------------------------------------
def test_every_fold_scores_the_hold_out_and_trains_on_none_of_it(whole: Path) -> None:
    split = read_split(whole / "splits/folds2.json")
    spared = [name for name in ALL if group_of(name) in split.holdout]
    assert len(split.holdout) == 1, "a fifth of the recordings a, b, c, v and video45"
    for number in range(2):
        store = predictions(whole, f"fold-{number}")
        assert store.header.settings["holdout"] == spared
        assert set(spared) <= set(store.track_ids())
        dealt = [name for name in ALL if name not in spared]
        others = [name for name in dealt if split.folds[group_of(name)] != number]
        inputs = Fold(split, number).tracks(ALL, select="last")
        assert sorted(inputs.train) == sorted(others)
        assert sorted(store.header.settings["held_out"]) == sorted(set(dealt) - set(others))


def test_the_joined_scores_leave_the_hold_out_to_the_folds(whole: Path) -> None:
    split, joined = read_split(whole / "splits/folds2.json"), predictions(whole, "folds")
    assert joined.track_ids() == sorted(name for name in ALL if group_of(name) in split.folds)
    assert joined.header.settings["holdout"] == []


@pytest.mark.parametrize(("asked", "words"), [(0.6, "asks for 3.0"), (0.9, "asks for 4.5")])
def test_a_split_file_with_another_hold_out_is_refused(whole: Path, asked: float, words: str) -> None:
    with pytest.raises(AbawError, match=rf"holds 1 of 5 recordings out of all folds, .*{words}") as caught:
        finetune.run(config(whole, *QUICK, f"folds.holdout={asked}"), task="va", folds="2", dry_run=True)
    assert caught.value.code is ExitCode.CONFIG


def test_a_split_file_is_taken_as_it_is_where_no_hold_out_is_asked_for(whole: Path) -> None:
    done = finetune.run(config(whole, *QUICK), task="va", folds="2", dry_run=True)
    assert dict(done.lines)["split"].endswith("2 folds of 4 videos, 1 more held out of all")
    assert [fold["state"] for fold in done.data["folds"]] == ["done", "done"]


def as_written_before(path: Path) -> None:
    """A predictions store as a version wrote it that knew no hold-out."""
    old = FeatureStore.open(path)
    settings = {key: value for key, value in old.header.settings.items() if key != "holdout"}
    store = FeatureStore.create(path.with_name("new"), replace(old.header, settings=settings))
    for track_id in old.track_ids():
        arrays = {"valid": old.valid(track_id), "scores/va": old.read(track_id, "scores/va")}
        store.write(track_id, arrays, fps=old.fps(track_id))
    shutil.rmtree(path)
    store.path.rename(path)


def test_scores_of_folds_that_an_older_version_wrote_are_gone_on_with(root: Path) -> None:
    finetune.run(config(root, *QUICK), task="va", folds="2")
    stores = [root / f"predictions/{RUN}-{name}" for name in ("fold-0", "fold-1", "folds")]
    for path in stores:
        as_written_before(path)
        (path / "post.json").write_text("{}")
        next(path.glob("*.h5")).unlink()
    finetune.run(config(root, *QUICK), task="va", folds="2")
    assert [len(FeatureStore.open(path).track_ids()) for path in stores[2:]] == [len(ALL)]
    assert all((path / "post.json").is_file() for path in stores), "nothing was begun afresh"


# -- strata ------------------------------------------------------------------------------------------------------------
def show_one_expression(root: Path, name: str, expression: int) -> None:
    split = "Validation_Set" if name in VAL else "Train_Set"
    write_lines(root / "expr" / split / f"{name}.txt", [EXPR_HEADER, *[str(expression)] * ROWS])


def test_each_expression_is_spread_over_the_folds(root: Path) -> None:
    main = {"a": 1, "b_left": 1, "b_right": 1, "c": 6, "v": 6, "video45_1": 0, "video45_2": 7}  # Anger, Surprise
    for name, expression in main.items():
        show_one_expression(root, name, expression)
    finetune.run(config(root, *QUICK, "folds.stratify=true"), task="va", folds="2", fold=0)
    folds = read_split(root / "splits/folds2.json").folds
    assert folds["a"] != folds["b"]
    assert folds["c"] != folds["v"]


def test_strata_without_labels_of_expressions_say_so(root: Path) -> None:
    text = (root / "data.toml").read_text()
    (root / "data.toml").write_text(text.replace('expr = "expr", ', ""))
    with pytest.raises(AbawError, match="there are no labels of task expr") as caught:
        finetune.run(config(root, *QUICK, "folds.stratify=true"), task="va", folds="2")
    assert 'add expr = "FOLDER"' in caught.value.fix
    assert not list(root.glob("splits/*"))


def test_a_fold_that_lacks_a_class_says_which_fold_and_class(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ALL:
        show_one_expression(root, name, 3 if name == "a" else 0)
    finetune.run(config(root, *QUICK), task="expr", folds="2")
    lacking = read_split(root / "splits/folds2.json").folds["a"]
    lines = [line for line in caplog.messages if "Fear" in line]
    assert lines
    assert all(line.startswith(f"no training frame of fold {lacking} of split folds2 shows ") for line in lines)
    assert "folds.stratify = true" in lines[0]


# -- what is said ------------------------------------------------------------------------------------------------------
def test_odd_label_rows_are_told_once_and_recorded_in_every_fold(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ALL:
        path = root / "va" / ("Validation_Set" if name in VAL else "Train_Set") / f"{name}.txt"
        path.write_text(path.read_text() + "0.1,0.1\n")
    finetune.run(config(root, *QUICK), task="va", folds="2")
    assert sum("label rows unlike their frames" in line for line in caplog.messages) == 1
    for number in range(2):
        warnings = RunFolder(root / f"runs/{RUN}/fold-{number}").record()["warnings"]
        assert sum("label rows unlike their frames" in text for text in warnings) == 1


# -- at the same time --------------------------------------------------------------------------------------------------
def test_two_commands_with_a_fold_each_end_with_the_files_of_one(root: Path, whole: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from abaw.stages import finetune;"
        "from tests.unit.stages.labelled_set import config;"
        f"cfg = config(Path(sys.argv[1]), *{(*QUICK, HOLD_OUT)!r});"
        "print('ready', flush=True); sys.stdin.readline(); finetune.run(cfg, task='va', folds='2', fold=0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.close()
        finetune.run(config(root, *QUICK, HOLD_OUT), task="va", folds="2", fold=1)
    assert other.returncode == 0
    for folder in ("splits", f"predictions/{RUN}-fold-0", f"predictions/{RUN}-fold-1", f"predictions/{RUN}-folds"):
        found = {path.name: path.read_bytes() for path in (root / folder).iterdir()}
        assert found == {path.name: path.read_bytes() for path in (whole / folder).iterdir()}
    assert not list(root.rglob(".*.tmp"))


# -- features by fold --------------------------------------------------------------------------------------------------
def test_each_fold_has_features_of_its_own_encoder(whole: Path) -> None:
    features = []
    for number in range(2):
        store = FeatureStore.open(whole / f"features/visual-own-fold-{number}", kind="visual")
        weights = whole / f"runs/{RUN}/fold-{number}/best.safetensors"
        assert store.header.name == f"own-fold-{number}"
        assert store.header.trained_on == read_header(weights)["trained_on"]
        assert store.track_ids() == sorted([*ALL, "x"])
        features.append(store.read("x", "features"))
    assert not np.array_equal(*features)


def test_features_of_a_fold_are_clean_for_that_fold_alone(whole: Path) -> None:
    split = read_split(whole / "splits/folds2.json")
    for own in range(2):
        records = FeatureStore.open(whole / f"features/visual-own-fold-{own}").header.trained_on
        told = [Fold(split, k).leak(records, dataset="aff-wild2", behind="the encoder", fix="") for k in range(2)]
        assert [bool(text) for text in told] == [own != number for number in range(2)]


def test_scores_of_a_fusion_on_features_by_fold_are_out_of_fold(folded: Path) -> None:
    given = ["fuse.steps=1", "fuse.batch_size=2", "fuse.select=last", 'fuse.visual=["features/visual-own"]']
    done = fuse.run(config(folded, *given, "fuse.audio=[]"), task="va", folds="2")
    split = read_split(folded / "splits/folds2.json")
    for number in range(2):
        header = FeatureStore.open(folded / f"predictions/fuse-va-netease-fold-{number}").header
        assert header.settings["out_of_fold"] is True
        assert {(one["split_file"], one["fold"]) for one in header.trained_on} == {(split.sha256, number)}
    assert FeatureStore.open(Path(done.data["joined"])).header.settings["out_of_fold"] is True


def test_features_of_the_official_encoder_leak_into_every_fold(folded: Path) -> None:
    finetune.run(config(folded, "finetune.steps=1"), task="va")
    extract_visual.run(config(folded), encoder="own")
    split = read_split(folded / "splits/folds2.json")
    records = FeatureStore.open(folded / "features/visual-own").header.trained_on
    for number in range(2):
        assert Fold(split, number).leak(records, dataset="aff-wild2", behind="the encoder", fix="")


def test_what_is_there_of_a_fold_is_not_extracted_again(folded: Path) -> None:
    (folded / "features/visual-own-fold-1/x.h5").unlink()
    planned = extract_visual.run(config(folded), encoder="own", folds=2, dry_run=True)
    assert [text for name, text in planned.lines if name == "to do"] == ["0 tracks", "1 tracks"]
    done = extract_visual.run(config(folded), encoder="own", folds=2, fold=1)
    assert done.data["tracks"] == 1
    assert dict(done.lines)["next"] == "abaw fuse --folds 2"


@pytest.mark.parametrize(("fold", "words"), [(None, "fold 1 is not trained yet"), (1, "fold 1 is not trained yet")])
def test_a_fold_that_is_not_trained_is_named_with_the_command_that_does(
    folded: Path, fold: int | None, words: str
) -> None:
    (folded / f"runs/{RUN}/fold-1/done").unlink()
    with pytest.raises(AbawError, match=words) as caught:
        extract_visual.run(config(folded), encoder="own", folds=2, fold=fold)
    assert caught.value.fix == "abaw finetune --task va --folds 2" + ("" if fold is None else " --fold 1")
    assert caught.value.code is ExitCode.MISSING


def test_folds_of_different_split_files_are_not_extracted_together(folded: Path) -> None:
    path = folded / f"runs/{RUN}/fold-1/run.json"
    record = json.loads(path.read_text())
    record["inputs"]["split"]["sha256"] = "another"
    path.write_text(json.dumps(record))
    with pytest.raises(AbawError, match="are of different split files"):
        extract_visual.run(config(folded), encoder="own", folds=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "landmarks", "folds": 2}, "has no weights by fold"),
        ({"encoder": "mae", "folds": 2}, "has no weights by fold"),
        ({"encoder": "own", "fold": 0}, "--fold belongs to --folds"),
        ({"encoder": "own", "folds": 2, "fold": 2}, "there is no fold 2 of 2"),
        ({"encoder": "own", "folds": 3}, "folds 2 .*|fold 2 is not trained yet"),
    ],
)
def test_folds_that_an_encoder_does_not_have_are_refused(whole: Path, options: dict, words: str) -> None:
    with pytest.raises(AbawError, match=words):
        extract_visual.run(config(whole), **options)


def test_a_run_of_folds_alone_says_how_its_encoders_are_used(whole: Path) -> None:
    with pytest.raises(AbawError, match='encoder "own" has no weights') as caught:
        extract_visual.run(config(whole), encoder="own")
    assert caught.value.fix.endswith("its folds are there: add --folds 2")


def test_fewer_folds_than_the_run_has_are_refused(folded: Path) -> None:
    shutil.copytree(folded / f"runs/{RUN}/fold-1", folded / f"runs/{RUN}/fold-2")
    with pytest.raises(AbawError, match="has folds that are none of 2: fold-2") as caught:
        extract_visual.run(config(folded), encoder="own", folds=2)
    assert caught.value.fix.startswith("use --folds 3")
