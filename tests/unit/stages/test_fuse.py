"""fuse: its models and options, the second stage, and the table of streams."""

import json
import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from abaw.checkpoint import read_header
from abaw.errors import AbawError, ExitCode
from abaw.stages import fuse
from abaw.store import FeatureStore
from tests.unit.stages.tiny_set import ROWS, config, contents, make_features, make_set

DUAL = ("fuse.model=dual_branch", "fuse.name=dual")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path)


def scores(root: Path, run: str, track_id: str = "v1") -> np.ndarray:
    return FeatureStore.open(root / "predictions" / run).read(track_id, "scores/va")


@pytest.mark.parametrize("model", ["netease", "tcn_transformer", "gru", "static", "linear"])
def test_every_model_trains_and_scores_every_row(root: Path, model: str) -> None:
    overrides = (f"fuse.model={model}", "fuse.steps=2", "fuse.score_stride=0")
    assert fuse.run(config(root, *overrides)).data["predicted_tracks"] == 2
    assert scores(root, f"fuse-va-{model}").shape == (ROWS, 2)
    assert np.isfinite(scores(root, f"fuse-va-{model}")).all()
    assert read_header(root / f"runs/fuse-va-{model}/best.safetensors")["architecture"]["model"] == model
    assert fuse.run(config(root, *overrides)).data["skipped"]


def test_options_of_the_model_reach_it(root: Path) -> None:
    options = ("fuse.positions=sincos", "fuse.padding_mask=false", "fuse.attention=cross", "fuse.modality_dropout=0.5")
    fuse.run(config(root, *options))
    found = read_header(root / "runs/fuse-va-netease/best.safetensors")["architecture"]
    assert (found["positions"], found["padding_mask"]) == ("sincos", False)
    assert (found["attention"], found["modality_dropout"]) == ("cross", 0.5)


def test_the_official_split_is_what_no_folds_are(root: Path) -> None:
    assert fuse.run(config(root), folds="official").data["run"] == str(root / "runs/fuse-va-netease")
    assert fuse.run(config(root)).data["skipped"]


def test_the_last_weights_are_kept_when_told(root: Path) -> None:
    assert fuse.run(config(root, "fuse.select=last")).data["best_step"] == 6


@pytest.mark.parametrize("key", ["stride", "score_stride"])
def test_windows_that_would_skip_rows_are_refused(root: Path, key: str) -> None:
    with pytest.raises(AbawError, match=f"{key} 5 is larger than window 4") as caught:
        fuse.run(config(root, f"fuse.{key}=5"))
    assert caught.value.code is ExitCode.CONFIG


def test_windows_longer_than_every_track_are_whole_tracks(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fuse.run(config(root, "fuse.window=50", "fuse.stride=50"))
    said = [text for text in caplog.messages if "fuse.window" in text]
    assert len(said) == 1
    assert said[0].startswith("fuse.window = 50 is longer than every training track")
    recorded = json.loads((root / "runs/fuse-va-netease/run.json").read_text())["warnings"]
    assert any("fuse.window = 50 is longer than every training track" in text for text in recorded)
    assert scores(root, "fuse-va-netease").shape == (ROWS, 2)


def test_features_kept_in_memory_give_the_same_files(root: Path) -> None:
    fuse.run(config(root))
    read = contents(root / "predictions/fuse-va-netease")
    fuse.run(config(root, "fuse.in_memory=true"), overwrite=True)
    kept = contents(root / "predictions/fuse-va-netease")
    assert {name: kept[name] for name in kept if name.endswith(".h5")} == {
        name: read[name] for name in read if name.endswith(".h5")
    }


def test_a_gap_policy_is_of_one_store(root: Path) -> None:
    fuse.run(config(root, 'fuse.gap={visual-a = "linear", visual-b = "mask"}'))
    recorded = json.loads((root / "runs/fuse-va-netease/config.json").read_text())["gap"]
    assert recorded == {"visual-a": "linear", "visual-b": "mask"}
    with pytest.raises(AbawError, match="visual-c"):
        fuse.run(config(root, 'fuse.gap={visual-c = "linear"}', "fuse.name=other"))


def test_a_value_that_is_no_number_is_found_before_training_in_whichever_track(root: Path) -> None:
    with h5py.File(root / "features/visual-b/x1.h5", "r+") as file:  # the test track
        file["features"][4, 1] = np.inf
    with pytest.raises(AbawError, match="visual-b holds NaN or infinity in track x1, first in row 4"):
        fuse.run(config(root))
    assert not (root / "runs/fuse-va-netease/metrics.jsonl").exists()


# -- the second stage --------------------------------------------------------------------------------------------------
def test_a_second_stage_needs_a_finished_first_one(root: Path) -> None:
    with pytest.raises(AbawError, match="no finished first stage fuse-va-netease") as caught:
        fuse.run(config(root, *DUAL))
    assert caught.value.code is ExitCode.MISSING
    assert "abaw fuse --task va --set" in caught.value.fix


def test_a_second_stage_mixes_both_branches(root: Path) -> None:
    fuse.run(config(root))
    fuse.run(config(root, *DUAL, "fuse.dual.test_mix=1.0", "fuse.lr=0.1"))
    np.testing.assert_array_equal(scores(root, "fuse-va-dual"), scores(root, "fuse-va-netease"))
    fuse.run(config(root, *DUAL, "fuse.dual.test_mix=0.5", "fuse.lr=0.1"), overwrite=True)
    assert np.abs(scores(root, "fuse-va-dual") - scores(root, "fuse-va-netease")).max() > 1e-4


def test_a_second_stage_goes_on_with_its_settings_alone(root: Path) -> None:
    fuse.run(config(root))
    fuse.run(config(root, *DUAL))
    assert fuse.run(config(root, *DUAL)).data["skipped"]
    with pytest.raises(AbawError, match="settings.dual.hard_share"):
        fuse.run(config(root, *DUAL, "fuse.dual.hard_share=0.5"))
    fuse.run(config(root, "run.seed=1"), overwrite=True)
    with pytest.raises(AbawError, match="inputs.first"):
        fuse.run(config(root, *DUAL))


def test_a_second_stage_has_the_shape_of_its_first_one(root: Path) -> None:
    fuse.run(config(root))
    fuse.run(config(root, *DUAL, "fuse.dropout=0.9"))
    assert read_header(root / "runs/fuse-va-dual/best.safetensors")["architecture"]["second"]["dropout"] == 0.3
    assert fuse.run(config(root, *DUAL, "fuse.dropout=0.1")).data["skipped"]


def test_a_second_stage_of_other_features_is_refused(root: Path) -> None:
    fuse.run(config(root))
    with pytest.raises(AbawError) as caught:
        fuse.run(config(root, *DUAL, 'fuse.visual=["features/visual-b"]'))
    said = "the first stage was trained on something else: visual-a, visual-b, and here is visual-b"
    assert caught.value.what == said


def test_a_second_stage_of_features_made_anew_is_refused(root: Path) -> None:
    fuse.run(config(root))
    shutil.rmtree(root / "features/visual-b")
    make_features(root / "features/visual-b", seed=7)
    with pytest.raises(AbawError, match="visual-b was made with other settings since"):
        fuse.run(config(root, *DUAL))


def test_a_second_stage_that_fills_gaps_another_way_is_refused(root: Path) -> None:
    fuse.run(config(root))
    with pytest.raises(AbawError, match='gaps filled by "hold", and here by "mask"'):
        fuse.run(config(root, *DUAL, "fuse.gap=mask"))


def test_a_second_stage_of_a_second_stage_is_refused(root: Path) -> None:
    fuse.run(config(root))
    fuse.run(config(root, *DUAL))
    with pytest.raises(AbawError, match="is a second stage itself"):
        fuse.run(config(root, *DUAL, "fuse.name=third", "fuse.dual.first=dual"))


# -- which streams help ------------------------------------------------------------------------------------------------
def test_the_table_of_streams_names_every_choice(root: Path) -> None:
    make_features(root / "features/audio-c", seed=3, kind="audio")
    cfg = config(root, 'fuse.audio=["features/audio-c"]', "fuse.steps=2")
    summary = fuse.run(cfg, ablate_streams=True)
    assert [row["streams"] for row in summary.data["variants"]] == [
        "all",
        "only-visual",
        "only-visual-a",
        "only-visual-b",
        "only-audio-c",
        "without-visual-a",
        "without-visual-b",
    ]
    assert (root / "runs/fuse-va-netease-only-audio-c/done").is_file()
    assert "only-visual-b" in summary.text
    again = fuse.run(cfg, ablate_streams=True)
    assert all(row["skipped"] for row in again.data["variants"])


def test_the_run_with_all_streams_is_the_usual_one(root: Path) -> None:
    fuse.run(config(root))
    first = fuse.run(config(root), ablate_streams=True).data["variants"][0]
    assert (first["streams"], first["skipped"]) == ("all", True)


def test_a_dry_run_of_the_table_writes_nothing(root: Path) -> None:
    summary = fuse.run(config(root), ablate_streams=True, dry_run=True)
    assert [row["state"] for row in summary.data["variants"]] == ["to do"] * 3
    assert not (root / "runs").exists()


def test_streams_of_a_second_stage_cannot_be_compared(root: Path) -> None:
    fuse.run(config(root))
    with pytest.raises(AbawError, match="a second stage has the streams of its first one") as caught:
        fuse.run(config(root, *DUAL), ablate_streams=True)
    assert caught.value.code is ExitCode.CONFIG
    assert not (root / "runs/fuse-va-dual").exists()


def test_a_single_store_cannot_be_compared(root: Path) -> None:
    with pytest.raises(AbawError, match="there is only visual-a"):
        fuse.run(config(root, 'fuse.visual=["features/visual-a"]'), ablate_streams=True)


def test_stores_of_one_name_cannot_be_compared(root: Path) -> None:
    make_features(root / "elsewhere/visual-a", seed=5)
    both = 'fuse.visual=["features/visual-a", "elsewhere/visual-a"]'
    with pytest.raises(AbawError, match="two of the stores have one name"):
        fuse.run(config(root, both), ablate_streams=True)


# -- flags -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"fold": 1}, "--fold belongs to --folds K"),
        ({"folds": "3", "ablate_streams": True}, "--ablate-streams and --folds"),
        ({"folds": "3", "ensemble": ["a"]}, "--ensemble and --folds"),
        ({"ablate_streams": True, "ensemble": ["a"]}, "--ablate-streams and --ensemble"),
        ({"acknowledge": True}, "--acknowledge is about"),
        ({"folds": "one"}, "is no number of folds"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(root: Path, flags: dict, message: str) -> None:
    with pytest.raises(AbawError, match=message) as caught:
        fuse.run(config(root), **flags)
    assert caught.value.code is ExitCode.CONFIG


def test_an_ensemble_of_the_configuration_needs_members_there(root: Path) -> None:
    with pytest.raises(AbawError, match="names no members of an ensemble"):
        fuse.run(config(root), ensemble=["config"])


def test_a_run_does_not_replace_an_ensemble_of_its_name(root: Path) -> None:
    fuse.run(config(root))
    fuse.run(config(root, "fuse.model=linear"))
    members = ["fuse-va-netease", "fuse-va-linear"]
    fuse.run(config(root), ensemble=members)
    before = contents(root / "predictions/fuse-va-ensemble")
    with pytest.raises(AbawError, match="fuse-va-ensemble is an ensemble"):
        fuse.run(config(root, "fuse.name=ensemble"))
    assert contents(root / "predictions/fuse-va-ensemble") == before


# -- several heads -----------------------------------------------------------------------------------------------------
def test_multi_task_labels_train_three_heads(root: Path) -> None:
    folder = root / "mtl"
    folder.mkdir()
    for name, tracks in (("training_set_annotations.txt", ("t1", "t2")), ("validation_set_annotations.txt", ("v1",))):
        lines = ["image,valence,arousal,expression,aus"]
        for number, track_id in enumerate(tracks):
            for row in range(0, ROWS, 2):  # the rows are sparse
                units = ",".join(str((row + unit + number) % 2) for unit in range(12))
                lines.append(f"{track_id}/{row + 1:05d}.jpg,{0.1 * row},{-0.1 * row},{row % 8},{units}")
        (folder / name).write_text("\n".join(lines) + "\n")
    fuse.run(config(root, f'data.annotations.mtl="{folder}"'), task="mtl")
    store = FeatureStore.open(root / "predictions/fuse-mtl-netease")
    assert {name: store.read("v1", f"scores/{name}").shape[1] for name in ("va", "expr", "au")} == {
        "va": 2,
        "expr": 8,
        "au": 12,
    }
