"""pretrain, finetune and extract-visual on a small store of pictures."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from abaw.checkpoint import read_header
from abaw.encoders.visual import VISUAL_ENCODERS, Entry, Landmarks
from abaw.errors import AbawError, ExitCode
from abaw.stages import extract_visual, finetune, pretrain
from abaw.store import FeatureStore
from tests.unit.faces_store import make_faces, picture
from tests.unit.stages.tiny_set import TOML, config, make_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path)


def test_the_three_stages_meet_on_disk(root: Path) -> None:
    cfg = config(root)
    assert not pretrain.run(cfg).data["skipped"]
    header = read_header(root / "runs/pretrain-vit_tiny_64/best.safetensors")
    assert (header["kind"], header["pooling"]) == ("mae", "cls")
    assert header["trained_on"][0]["labels"] == "none"
    assert finetune.run(cfg, task="va").data["predicted_tracks"] == 2
    header = read_header(root / "runs/finetune-va-vit_tiny_64/best.safetensors")
    assert header["label_order"] == {"va": ["valence", "arousal"]}
    assert {record["labels"] for record in header["trained_on"]} == {"none", "va"}
    assert not extract_visual.run(cfg).failed
    for name, width in (("mae", 192), ("static", 192), ("landmarks", 14)):
        store = FeatureStore.open(root / f"features/visual-{name}", kind="visual")
        assert store.read("v1", "features").shape == (6, width)
        assert store.valid("v1").tolist() == [True, True, False, True, True, True]
        assert not store.read("v1", "features")[2].any()
    assert len(FeatureStore.open(root / "features/visual-static").header.trained_on) == 2


def test_done_runs_are_skipped_and_other_settings_refused(root: Path) -> None:
    pretrain.run(config(root))
    assert pretrain.run(config(root)).data["skipped"]
    with pytest.raises(AbawError, match="settings.base_lr"):
        pretrain.run(config(root, "pretrain.base_lr=1.0"))
    assert not pretrain.run(config(root, "pretrain.base_lr=1e-3"), overwrite=True).data["skipped"]


def test_validation_and_test_faces_are_left_out_of_pretraining(root: Path) -> None:
    assert pretrain.run(config(root)).data["images"] == 12
    assert pretrain.run(config(root, "pretrain.tracks=all", "pretrain.name=all")).data["images"] == 23


def test_pretraining_starts_from_other_weights_when_told(root: Path) -> None:
    pretrain.run(config(root))
    cfg = config(root, "pretrain.name=more", "pretrain.init_from=runs/pretrain-vit_tiny_64")
    assert pretrain.run(cfg).data["first_loss"] > 0
    with pytest.raises(AbawError, match="there is no weights file"):
        pretrain.run(config(root, "pretrain.name=none", "pretrain.init_from=nowhere"))


def test_several_sources_are_drawn_by_weight_and_need_no_labelled_data(root: Path) -> None:
    make_faces(root / "more", {"m": [picture(row) for row in range(5)]})
    (root / "data.toml").write_text(TOML[TOML.index("[run]") :])
    both = 'pretrain.sources=[{store="features/faces"}, {store="more", weight=3.0}]'
    assert pretrain.run(config(root, both)).data["images"] == 23 + 5
    make_faces(root / "empty", {"e": [None, None]})
    with pytest.raises(AbawError, match="holds no face to pretrain on"):
        pretrain.run(config(root, 'pretrain.sources=[{store="empty"}]'))


def test_finetuning_needs_weights_unless_random_is_written_out(root: Path) -> None:
    with pytest.raises(AbawError, match="no weights to start from") as caught:
        finetune.run(config(root), task="va")
    assert caught.value.code is ExitCode.MISSING
    assert finetune.run(config(root, "finetune.init_from=none"), task="va").data["best_step"] > 0


def test_weights_of_faces_aligned_another_way_are_refused(root: Path) -> None:
    pretrain.run(config(root))
    make_faces(root / "other", {name: [picture(row) for row in range(6)] for name in ("t1", "v1")}, recipe="b")
    with pytest.raises(AbawError, match="aligned another way"):
        finetune.run(config(root, "finetune.faces=other"), task="va")
    with pytest.raises(AbawError, match="aligned another way"):
        extract_visual.run(config(root, "extract_visual.faces=other"), encoder="mae")


def test_a_dry_run_writes_nothing(root: Path) -> None:
    pretrain.run(config(root), dry_run=True)
    finetune.run(config(root, "finetune.init_from=none"), task="va", dry_run=True)
    extract_visual.run(config(root), encoder="landmarks", dry_run=True)
    assert not (root / "runs").exists()
    assert sorted(path.name for path in (root / "features").iterdir()) == ["faces", "visual-a", "visual-b"]


def test_a_split_without_labelled_faces_is_named(root: Path) -> None:
    for path in (root / "va" / "Validation_Set").iterdir():
        path.write_text("valence,arousal\n" + "-5,-5\n" * 6)
    with pytest.raises(AbawError, match="no labelled face for task va, split val"):
        finetune.run(config(root, "finetune.init_from=none"), task="va")


def test_features_do_not_depend_on_batches_or_interruption(root: Path) -> None:
    pretrain.run(config(root))
    extract_visual.run(config(root), encoder="mae", limit=2)
    extract_visual.run(config(root), encoder="mae")
    whole = {path.name: path.read_bytes() for path in (root / "features/visual-mae").glob("*.h5")}
    extract_visual.run(config(root), encoder="mae", overwrite=True)
    assert whole == {path.name: path.read_bytes() for path in (root / "features/visual-mae").glob("*.h5")}


def test_a_corrupt_face_fails_its_track_alone(root: Path) -> None:
    faces = [picture(row) for row in range(3)]
    make_faces(root / "bad", {"t1": faces, "t2": [faces[0], b"junk", faces[2]], "v1": faces})
    summary = extract_visual.run(
        config(root, "extract_visual.faces=bad", "encoders.mae.encoder=mae", "encoders.mae.weights=random"),
        encoder="mae",
    )
    assert [failure.track_id for failure in summary.failed] == ["t2"]
    assert "row 1 is not a readable JPEG" in summary.failed[0].message
    assert FeatureStore.open(root / "features/visual-mae").track_ids() == ["t1", "v1"]


def test_scores_of_a_run_are_probabilities_or_values_and_invalid_rows_zero(root: Path) -> None:
    finetune.run(config(root, "finetune.init_from=none"), task="va")
    store = FeatureStore.open(root / "predictions/finetune-va-vit_tiny_64", kind="predictions")
    scores = store.read("v1", "scores/va")
    assert store.track_ids() == ["v1", "x1"]
    assert np.abs(scores).max() <= 1
    assert not scores[2].any()


def test_no_encoder_at_all_is_a_configuration_error(root: Path) -> None:
    with pytest.raises(AbawError, match="extract_visual.encoders is empty") as caught:
        extract_visual.run(config(root, "extract_visual.encoders=[]"))
    assert caught.value.code is ExitCode.CONFIG


def test_a_new_encoder_of_the_registry_needs_no_other_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VISUAL_ENCODERS, "points", Entry(lambda _: Landmarks()))
    assert not extract_visual.run(config(root), encoder="points").failed
    assert FeatureStore.open(root / "features/visual-points").track_ids() == ["t1", "t2", "v1", "x1"]


def test_warnings_about_alignment_are_recorded(root: Path) -> None:
    make_faces(root / "other", {"m": [picture(row) for row in range(4)]}, recipe="b")
    both = 'pretrain.sources=[{store="features/faces"}, {store="other"}]'
    with pytest.raises(AbawError, match="faces store other .* aligned another way"):
        pretrain.run(config(root, both))
    pretrain.run(config(root, both, "run.accept_recipe_mismatch=true"))
    recorded = json.loads((root / "runs/pretrain-vit_tiny_64/run.json").read_text())["warnings"]
    assert "faces store other (beside faces): alignment differs" in recorded[0]
    finetune.run(config(root), task="va")
    recorded = json.loads((root / "runs/finetune-va-vit_tiny_64/run.json").read_text())["warnings"]
    assert "alignment of one side is unknown" in recorded[0]
    extract_visual.run(config(root), encoder="static")
    assert "warnings" not in FeatureStore.open(root / "features/visual-static").notes
    extract_visual.run(config(root), encoder="mae")
    assert "alignment of one side" in FeatureStore.open(root / "features/visual-mae").notes["warnings"][0]


def test_a_model_trained_on_the_organisers_crops_runs_on_own_videos_with_one_warning(root: Path, caplog) -> None:
    make_faces(root / "crops", {"t1": [picture(row) for row in range(6)]}, recipe="unknown")
    pretrain.run(config(root, 'pretrain.sources=[{store="crops"}]'))
    caplog.clear()  # of what pretraining says of itself
    with caplog.at_level(logging.WARNING, logger="abaw"):
        summary = extract_visual.run(config(root), encoder="mae")
    assert not summary.failed
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        'the weights of encoder "mae": the alignment of one side is unknown; results may suffer if it differs'
    ]


def test_people_of_a_held_out_video_are_left_out_of_pretraining(root: Path) -> None:
    faces = {
        name: [picture(row) for row in range(4)] for name in ("t1_person1", "v1_person1", "v1_person2", "x1_person1")
    }
    make_faces(root / "people", faces)
    assert pretrain.run(config(root, 'pretrain.sources=[{store="people"}]')).data["images"] == 4
