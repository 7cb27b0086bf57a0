"""`abaw finetune`: the published models, folds, the ablation, labelled images from elsewhere, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from abaw.checkpoint import load_checkpoint, read_header
from abaw.data.splits import group_of, read_split
from abaw.errors import AbawError, ExitCode
from abaw.stages import evaluate, finetune, inspect, submit
from abaw.store import FeatureStore
from tests.unit.faces_store import make_faces, make_images, picture
from tests.unit.stages.labelled_set import ROWS, TRAIN, config, make_labelled, write_lines, write_va


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_labelled(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of valence-arousal, trained and joined; not to be changed."""
    folder = make_labelled(tmp_path_factory.mktemp("whole"))
    finetune.run(config(folder), task="va", folds="3")
    return folder


@pytest.fixture
def folded(whole: Path, tmp_path: Path) -> Path:
    """A copy of the trained folds."""
    return shutil.copytree(whole, tmp_path / "folded")


def best(root: Path, run: str) -> Path:
    return root / "runs" / run / "best.safetensors"


# -- models ------------------------------------------------------------------------------------------------------------
def test_sparse_multi_task_rows_train_and_are_scored(root: Path) -> None:
    finetune.run(config(root), task="mtl")
    store = FeatureStore.open(root / "predictions/finetune-mtl-vit_tiny_64")
    assert {name: store.read("v", name).shape for name in store.header.arrays} == {
        "scores/va": (ROWS, 2),
        "scores/expr": (ROWS, 8),
        "scores/au": (ROWS, 12),
    }


def test_emma_trains_beside_a_frozen_run_of_ours_and_inherits_what_that_has_seen(root: Path) -> None:
    finetune.run(config(root), task="expr")
    given = ["finetune.model=emma", "finetune.emma.classifier=runs/finetune-expr-vit_tiny_64"]
    finetune.run(config(root, *given), task="mtl")
    header = read_header(best(root, "finetune-mtl-emma-vit_tiny_64"))
    assert header["pooling"] == "cls"
    assert {record["labels"] for record in header["trained_on"]} == {"mtl", "expr"}
    assert len(header["architecture"]["options"]["classifier"]["labels"]) == 8


def test_emma_without_a_classifier_says_what_to_name(root: Path) -> None:
    with pytest.raises(AbawError, match="EMMA needs a frozen classifier") as caught:
        finetune.run(config(root, "finetune.model=emma"), task="mtl")
    assert caught.value.where == "finetune.emma.classifier"


def test_a_model_for_another_task_is_refused_with_those_that_fit(root: Path) -> None:
    with pytest.raises(AbawError, match='"emma" is for mtl, not for task va') as caught:
        finetune.run(config(root, "finetune.model=emma"), task="va")
    assert "static, emae" in caught.value.fix


def test_cotex_trains_on_two_masked_views(root: Path) -> None:
    finetune.run(config(root, "finetune.model=cotex"), task="expr")
    weights, header = load_checkpoint(best(root, "finetune-expr-cotex-vit_tiny_64"), kind="cotex")
    assert header["architecture"]["options"] == {"views": 2, "mask_ratio": 0.75}
    assert {name.split(".")[1] for name in weights if name.startswith("vits.")} == {"0", "1"}


def test_emae_scores_with_its_auxiliary_view(root: Path) -> None:
    finetune.run(config(root, "finetune.model=emae"), task="expr")
    scores = FeatureStore.open(root / "predictions/finetune-expr-emae-vit_tiny_64").read("v", "scores/expr")
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)


def test_the_ablation_runs_every_view_with_every_operator_once(root: Path) -> None:
    cfg = config(root, "finetune.steps=1", "finetune.model=emae")
    table = finetune.run(cfg, task="expr", ablate=True)
    variants = [(row["view"], row["operator"]) for row in table.data["variants"]]
    assert len(variants) == len(set(variants)) == 1 + 4 * 3
    assert variants[0][0] == "none"
    assert all(row["best_score"] is not None for row in table.data["variants"])
    assert table.text is not None
    assert table.text.count("eyes+mouth") == 3
    other = config(root, "finetune.steps=1", "finetune.model=emae", "finetune.emae.operator=mean")
    again = finetune.run(other, task="expr", ablate=True, dry_run=True)
    assert {row["state"] for row in again.data["variants"]} == {"done"}, "it compares all operators, whichever is set"


def test_the_ablation_wants_the_settings_of_emae(root: Path) -> None:
    with pytest.raises(AbawError, match='finetune.model is "static"'):
        finetune.run(config(root), task="expr", ablate=True)


# -- what is kept ------------------------------------------------------------------------------------------------------
def test_the_last_weights_are_kept_when_asked_for(root: Path) -> None:
    finetune.run(config(root, "finetune.select=last"), task="va")
    assert read_header(best(root, "finetune-va-vit_tiny_64"))["step"] == 2


def test_a_finished_run_is_taken_up_by_a_version_with_more_keys(root: Path) -> None:
    finetune.run(config(root), task="va")
    path = root / "runs/finetune-va-vit_tiny_64/config.json"
    recorded = json.loads(path.read_text())
    for key in ("accumulate", "ema_decay", "stride", "model"):
        del recorded[key]
    path.write_text(json.dumps(recorded))
    assert finetune.run(config(root), task="va").data["skipped"]
    with pytest.raises(AbawError, match="settings.stride: 1 recorded, 2 now"):
        finetune.run(config(root, "finetune.stride=2"), task="va")


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        (["finetune.model=cotex"], "finetune.cotex.consistency=1.0"),
        (["finetune.model=emae"], "finetune.emae.style=dim"),
        (["finetune.model=static"], "finetune.sampling=balanced"),
    ],
)
def test_settings_of_the_model_are_compared(root: Path, given: list[str], changed: str) -> None:
    name = "finetune.name=one"
    finetune.run(config(root, name, "finetune.steps=1", *given), task="expr")
    with pytest.raises(AbawError, match=f"settings.{changed.removeprefix('finetune.').partition('=')[0]}"):
        finetune.run(config(root, name, "finetune.steps=1", *given, changed), task="expr")


def test_settings_of_other_models_are_not(root: Path) -> None:
    finetune.run(config(root, "finetune.steps=1"), task="expr")
    assert finetune.run(config(root, "finetune.steps=1", "finetune.emae.style=dim"), task="expr").data["skipped"]


# -- folds -------------------------------------------------------------------------------------------------------------
def test_every_labelled_track_is_scored_by_the_fold_that_never_saw_it(whole: Path) -> None:
    root, split = whole, read_split(whole / "splits/folds3.json")
    assert set(split.folds) == {"a", "b", "video45", "c", "v"}
    joined = FeatureStore.open(root / "predictions/finetune-va-vit_tiny_64-folds")
    assert sorted(joined.track_ids()) == sorted([*TRAIN, "v"])
    assert joined.header.settings["out_of_fold"] is True
    for number in range(3):
        held = {name for name in [*TRAIN, "v"] if split.folds[group_of(name)] == number}
        store = FeatureStore.open(root / f"predictions/finetune-va-vit_tiny_64-fold-{number}")
        assert set(store.track_ids()) == held | {"x"}
        for name in held:
            assert np.array_equal(store.read(name, "scores/va"), joined.read(name, "scores/va"))
        record = read_header(best(root, f"finetune-va-vit_tiny_64/fold-{number}"))["trained_on"][0]
        assert (record["fold"], record["split_file"]) == (number, split.sha256)


def test_inspect_lists_the_folds_of_a_run(whole: Path) -> None:
    found = inspect.run(whole / "runs/finetune-va-vit_tiny_64")
    assert [name for name, _ in found.lines] == ["fold-0", "fold-1", "fold-2"]
    assert all(text.endswith("(stage finetune, done)") for _, text in found.lines)


def test_scores_of_folds_are_not_taken_for_those_of_test_tracks(whole: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample.txt"
    sample.write_text("image_location,valence,arousal\nunseen/00001.jpg,,\n")
    with pytest.raises(AbawError) as caught:
        submit.run(
            config(whole),
            task="va",
            sample=sample,
            predictions=whole / "predictions/finetune-va-vit_tiny_64-folds",
        )
    assert caught.value.fix.endswith("finetune-va-vit_tiny_64-fold-0")


def test_folds_that_are_done_are_skipped_and_joined_again(folded: Path) -> None:
    joined = folded / "predictions/finetune-va-vit_tiny_64-folds"
    before = sorted((path.name, path.read_bytes()) for path in joined.iterdir())
    shutil.rmtree(joined)
    again = finetune.run(config(folded), task="va", folds="3")
    assert [fold["skipped"] for fold in again.data["folds"]] == [True] * 3
    assert sorted((path.name, path.read_bytes()) for path in joined.iterdir()) == before


def test_a_fold_does_not_depend_on_the_labels_it_holds_out(folded: Path) -> None:
    root = folded
    before = best(root, "finetune-va-vit_tiny_64/fold-0").read_bytes()
    split = read_split(root / "splits/folds3.json")
    for name in [name for name in TRAIN if split.folds[group_of(name)] == 0]:
        write_va(root, "Train_Set", name, shift=2.0)
    finetune.run(config(root), task="va", folds="3", fold=0, overwrite=True)
    assert best(root, "finetune-va-vit_tiny_64/fold-0").read_bytes() == before


def test_the_checkpoint_of_a_fold_is_chosen_on_the_next_one(folded: Path) -> None:
    root = folded
    run = root / "runs/finetune-va-vit_tiny_64/fold-0"
    split = read_split(root / "splits/folds3.json")
    first = json.loads((run / "run.json").read_text())["inputs"]
    chosen = next(name for name in TRAIN if split.folds[group_of(name)] == 1)
    write_va(root, "Train_Set", chosen, shift=2.0)
    with pytest.raises(AbawError, match="inputs.val") as caught:
        finetune.run(config(root), task="va", folds="3", fold=0)
    assert "inputs.train" not in str(caught.value)
    assert first["split"]["fold"] == 0


def test_without_selection_a_fold_trains_on_all_others(root: Path) -> None:
    finetune.run(config(root, "finetune.select=last"), task="va", folds="2", fold=1)
    inputs = json.loads((root / "runs/finetune-va-vit_tiny_64/fold-1/run.json").read_text())["inputs"]
    assert inputs["val"] == "none"


def test_a_fold_that_starts_from_weights_with_its_labels_is_marked(root: Path) -> None:
    finetune.run(config(root), task="expr")
    given = ["finetune.init_from=runs/finetune-expr-vit_tiny_64", "finetune.steps=1"]
    finetune.run(config(root, *given), task="va", folds="3")
    run = json.loads((root / "runs/finetune-va-vit_tiny_64/fold-0/run.json").read_text())
    assert any("not out-of-fold" in text for text in run["warnings"])
    for name in ("fold-0", "folds"):
        store = FeatureStore.open(root / f"predictions/finetune-va-vit_tiny_64-{name}")
        assert store.header.settings["out_of_fold"] is False


def test_redoing_the_official_run_leaves_the_folds_alone(folded: Path) -> None:
    root = folded
    finetune.run(config(root), task="va")
    kept = best(root, "finetune-va-vit_tiny_64/fold-1").read_bytes()
    finetune.run(config(root, "finetune.lr=0.01"), task="va", overwrite=True)
    assert best(root, "finetune-va-vit_tiny_64/fold-1").read_bytes() == kept
    assert finetune.run(config(root), task="va", folds="3", fold=1).data["folds"][0]["skipped"]


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ("finetune.lr=0.01", "lr: 0.001 in fold 0, 0.01 in fold 2"),
        ("finetune.init_from=runs/finetune-va-vit_tiny_64/fold-0", 'inputs.init_from: "none" in fold 0'),
    ],
)
def test_folds_that_were_trained_differently_are_not_joined(
    folded: Path, caplog: pytest.LogCaptureFixture, changed: str, difference: str
) -> None:
    joined = folded / "predictions/finetune-va-vit_tiny_64-folds"
    assert (joined / "store.json").is_file()
    done = finetune.run(config(folded, changed), task="va", folds="3", fold=2, overwrite=True)
    assert done.data["joined"] == ""
    assert f"fold 2 differs from fold 0 in {difference}" in caplog.text
    assert not joined.exists()


def test_folds_of_different_splits_are_not_joined(folded: Path) -> None:
    path = folded / "splits/folds3.json"
    content = json.loads(path.read_text())
    content["folds"] = {group: (fold + 1) % 3 for group, fold in content["folds"].items()}
    path.write_text(json.dumps(content))
    with pytest.raises(AbawError, match="its folds are of different split files"):
        finetune.run(config(folded), task="va", folds="3", fold=0, overwrite=True)


def test_evaluate_wants_every_track_that_a_fold_held_out(folded: Path) -> None:
    store = folded / "predictions/finetune-va-vit_tiny_64-fold-0"
    held_out = FeatureStore.open(store).header.settings["held_out"]
    (store / f"{held_out[0]}.h5").unlink()
    with pytest.raises(AbawError, match=f"lacks 1 of {len(held_out)}"):
        evaluate.run(config(folded), predictions=[store])


def test_image_collections_are_not_cut_into_folds(root: Path) -> None:
    make_images(root / "photos", ["train/Anger/0.jpg"])
    with pytest.raises(AbawError, match="an image collection cannot be cut into folds"):
        finetune.run(config(root, "finetune.faces=photos"), task="va", folds="3")


def test_evaluate_scores_all_tracks_of_a_cross_validated_run(whole: Path) -> None:
    result = evaluate.run(config(whole), predictions=[whole / "predictions/finetune-va-vit_tiny_64-folds"])
    assert result.data["results"][0]["num_tracks"] == len(TRAIN) + 1


def test_two_folds_leave_none_to_choose_on(root: Path) -> None:
    with pytest.raises(AbawError, match="with two folds") as caught:
        finetune.run(config(root), task="va", folds="2")
    assert 'finetune.select = "last"' in caught.value.fix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": "5.5"}, '"5.5" is no number of folds'),
        ({"folds": "²"}, '"²" is no number of folds'),
        ({"folds": "3", "fold": 3}, "there is no fold 3 of 3"),
        ({"fold": 1}, "--fold belongs to --folds"),
        ({"folds": "9"}, "recordings in 9 folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(AbawError, match=message) as caught:
        finetune.run(config(root), task="va", **options)
    assert caught.value.code is ExitCode.CONFIG


def test_a_split_file_of_another_number_of_folds_is_refused(whole: Path) -> None:
    with pytest.raises(AbawError, match="folds3.json has 3 folds, not 4"):
        finetune.run(config(whole, "finetune.split=folds3"), task="va", folds="4")


# -- labelled images from elsewhere ------------------------------------------------------------------------------------
def test_images_from_elsewhere_join_the_training_and_are_recorded(root: Path) -> None:
    make_images(root / "more", ["p/0.jpg", "p/1.jpg", "p/2.jpg"])
    write_lines(root / "more.csv", ["path,label", "p/0.jpg,Happy", "p/1.jpg,Contempt", "p/2.jpg,Fear"])
    extra = 'finetune.expr.extra=[{store="more", csv="more.csv", labels="affectnet8", dataset="AffectNet"}]'
    finetune.run(config(root, extra), task="expr")
    trained_on = read_header(best(root, "finetune-expr-vit_tiny_64"))["trained_on"]
    assert {record["dataset"] for record in trained_on} == {"aff-wild2", "AffectNet"}
    warnings = json.loads((root / "runs/finetune-expr-vit_tiny_64/run.json").read_text())["warnings"]
    assert "AffectNet: more.csv: images of class Contempt, which expr lacks: 1" in warnings
    write_lines(root / "more.csv", ["path,label", "p/0.jpg,Sad", "p/1.jpg,Contempt", "p/2.jpg,Fear"])
    with pytest.raises(AbawError, match="inputs.extra_0.frames"):
        finetune.run(config(root, extra), task="expr")


# -- bad input, before any step ----------------------------------------------------------------------------------------
def test_a_batch_larger_than_the_training_set_is_refused(root: Path) -> None:
    with pytest.raises(AbawError, match="a batch of 100 faces is larger than the training set of 36") as caught:
        finetune.run(config(root, "finetune.batch_size=100"), task="va")
    assert caught.value.where == "finetune.batch_size"
    assert not (root / "runs").exists()


def test_a_class_that_training_never_shows_is_said_and_recorded(root: Path) -> None:
    finetune.run(config(root), task="expr")
    warnings = json.loads((root / "runs/finetune-expr-vit_tiny_64/run.json").read_text())["warnings"]
    assert any("Surprise, Other" in text for text in warnings)


def test_a_store_without_the_labelled_tracks_is_refused(root: Path) -> None:
    make_images(root / "features" / "others", ["p/0.jpg"])
    (root / "expr2/Train_Set").mkdir(parents=True)
    write_lines(root / "expr2/Train_Set/nobody.txt", ["Neutral", "0"])
    with pytest.raises(AbawError, match="1 labelled tracks, 0 of them in the faces store"):
        finetune.run(config(root, 'data.annotations={expr="expr2"}'), task="expr")


def test_a_track_of_crops_that_are_not_square_is_refused_before_any_step(root: Path) -> None:
    rows = [np.zeros((40, 30, 3), np.uint8)] * ROWS
    store = FeatureStore.open(root / "features/faces")
    store.track_path("v").unlink()
    make_faces(root / "odd", {"v": rows})
    (root / "odd/v.h5").rename(store.track_path("v"))
    with pytest.raises(AbawError, match="track v, row 0 is 30x40, not square"):
        finetune.run(config(root), task="va")
    assert not (root / "runs").exists()


def test_rows_that_are_all_marked_are_told_from_missing_faces(root: Path) -> None:
    write_lines(root / "va/Validation_Set/v.txt", ["valence,arousal", *["-5,-5"] * ROWS])
    with pytest.raises(AbawError, match="split val") as caught:
        finetune.run(config(root), task="va")
    assert "marked as not annotated" in caught.value.fix


def test_an_unreadable_face_in_validation_costs_no_training(root: Path) -> None:
    path = FeatureStore.open(root / "features/faces").track_path("v")
    make_faces(root / "bad", {"v": [picture(1), b"no picture", *[picture(2)] * (ROWS - 2)]})
    path.unlink()
    (root / "bad/v.h5").rename(path)
    with pytest.raises(AbawError, match="track v, row 1 is not a readable JPEG"):
        finetune.run(config(root), task="va")
    assert (root / "runs/finetune-va-vit_tiny_64/resume.pt").is_file()
