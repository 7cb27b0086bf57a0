"""abaw pretrain: its sources, constants, initial weights and panels, on stores and folders of pictures."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from abaw.checkpoint import load_checkpoint, read_header
from abaw.config import Config
from abaw.config_file import load_config
from abaw.errors import AbawError, ExitCode
from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import VIT_PRESETS
from abaw.stages import pretrain
from tests.unit.faces_store import jpeg, make_faces, make_images, picture
from tests.unit.models.tiny_models import encoder_part

TOML = """
[data]
name = "set"
annotations = { va = "va" }
[run]
threads = 1
[pretrain]
steps = 4
batch_size = 4
checkpoint_every = 2
precision = "fp32"
"""
BOTH = 'pretrain.sources=[{store="features/faces"}, {images="crops", weight=3.0}]'
FOLDER = 'pretrain.sources=[{images="crops"}]'
RUN = "runs/pretrain-vit_tiny_64"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training tracks and one of validation, six faces each; a folder with seven crops."""
    names = ("t1", "t2", "v1")
    make_faces(tmp_path / "features/faces", {n: [picture(10 * k + r) for r in range(6)] for k, n in enumerate(names)})
    for split, tracks in (("Train_Set", ("t1", "t2")), ("Validation_Set", ("v1",))):
        (tmp_path / "va" / split).mkdir(parents=True)
        for name in tracks:
            (tmp_path / "va" / split / f"{name}.txt").write_text("valence,arousal\n" + "0.1,0.1\n" * 6)
    make_crops(tmp_path / "crops", 7)
    (tmp_path / "data.toml").write_text(TOML)
    return tmp_path


def make_crops(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"p{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(picture(100 + number), cv2.COLOR_RGB2BGR))


def config(root: Path, *overrides: str) -> Config:
    return load_config(root / "data.toml", overrides=list(overrides))


def run(root: Path, *overrides: str, overwrite: bool = False) -> dict[str, Any]:
    return pretrain.run(config(root, *overrides), overwrite=overwrite).data


def recorded(root: Path, name: str = RUN) -> dict[str, Any]:
    return json.loads((root / name / "run.json").read_text())


def constants(root: Path, name: str = RUN) -> dict[str, list[float]]:
    return read_header(root / name / "best.safetensors")["normalisation"]


# -- sources -----------------------------------------------------------------------------------------------------------
def test_stores_and_folders_are_drawn_from_together_by_weight(root: Path) -> None:
    cfg = config(root, BOTH)
    sources = pretrain.face_sources(cfg)
    assert [len(ref) for ref in sources.refs] == [6, 6, 7]
    weights = sources.weights()
    assert weights is not None
    assert weights[:12].sum() == pytest.approx(1)
    assert weights[12:].sum() == pytest.approx(3)
    assert pretrain.run(cfg).data["images"] == 12 + 7


def test_a_folder_alone_needs_no_store_and_is_recorded_by_its_name(root: Path) -> None:
    assert run(root, FOLDER)["images"] == 7
    header = read_header(root / RUN / "best.safetensors")
    assert [(record["dataset"], record["labels"]) for record in header["trained_on"]] == [("crops", "none")]
    assert header["recipe"]["fingerprint"] == "unknown"
    assert recorded(root)["inputs"]["source_0"]["images"] == "crops"


def test_a_folder_that_has_changed_is_another_input(root: Path) -> None:
    run(root, FOLDER)
    make_crops(root / "crops", 8)
    with pytest.raises(AbawError, match=r"names_sha256.*frames|frames.*names_sha256"):
        run(root, FOLDER)


def test_a_folder_beside_a_store_has_an_unknown_alignment(root: Path) -> None:
    run(root, BOTH)
    assert "image folder crops (beside faces): the alignment of one side is unknown" in recorded(root)["warnings"][0]


def test_a_damaged_image_of_a_folder_does_not_end_the_run(root: Path, caplog) -> None:
    (root / "crops/p0/2.png").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING, logger="abaw"):
        assert run(root, FOLDER)["steps"] == 4
    assert caplog.text.count("2.png is not a whole image") == 1


# -- image collections -------------------------------------------------------------------------------------------------
KEYS = ["loose/0.jpg", *(f"test/{n}.jpg" for n in range(2)), *(f"train/Anger/{n}.jpg" for n in range(6))]
KEYS += [f"val/Fear/{n}.jpg" for n in range(3)]


def collection(folder: Path, *, shard_size: int = 5, **annotations: str) -> Path:
    """Twelve images in shards: one in no split, two of test, six to train on, three of validation."""
    names = annotations or {"lsd": "lsd"}
    for name in names.values():
        (folder / name).mkdir(parents=True, exist_ok=True)
    make_images(folder / "features/faces", KEYS, shard_size=shard_size)
    entries = ", ".join(f'{task} = "{name}"' for task, name in names.items())
    toml = TOML.replace(
        'annotations = { va = "va" }', f'kind = "images"\nimages = "lsd"\nannotations = {{ {entries} }}'
    )
    (folder / "data.toml").write_text(toml)
    return folder


def keys_of(refs) -> list[str]:
    return [ref.store.read(ref.track_id, "key")[row] for ref in refs for row in ref.rows]


def test_images_of_validation_and_test_are_not_trained_on(tmp_path: Path) -> None:
    folder = collection(tmp_path)
    sources = pretrain.face_sources(config(folder))
    assert keys_of(sources.refs) == [key for key in KEYS if key.startswith(("loose", "train"))]
    assert run(folder)["images"] == 7
    assert run(folder, "pretrain.tracks=all", "pretrain.name=all")["images"] == 12


def test_panels_of_a_collection_show_different_validation_images(tmp_path: Path) -> None:
    sources = pretrain.face_sources(config(collection(tmp_path, shard_size=12)))
    assert sorted(keys_of(sources.held_out(8))) == [f"val/Fear/{n}.jpg" for n in range(3)]
    assert len(set(keys_of(sources.held_out(2)))) == 2


def test_an_image_is_held_out_by_any_task(tmp_path: Path) -> None:
    folder = collection(tmp_path, lsd="lsd", va="va")
    (folder / "va/val.csv").write_text("path,valence,arousal\ntrain/Anger/4.jpg,0.5,0.5\n")
    (folder / "va/test.csv").write_text("loose/0.jpg\n")
    assert keys_of(pretrain.face_sources(config(folder)).refs) == [f"train/Anger/{n}.jpg" for n in (0, 1, 2, 3, 5)]


def test_as_many_other_images_held_out_are_another_input(tmp_path: Path) -> None:
    folder = collection(tmp_path, va="va")
    rows = [f"{key},0.5,0.5" for key in KEYS if key.startswith("train")]
    for name, chosen in (("train", rows[:5]), ("val", rows[5:])):
        (folder / f"va/{name}.csv").write_text("\n".join(["path,valence,arousal", *chosen]))
    run(folder)
    assert run(folder)["skipped"]
    for name, chosen in (("train", rows[1:]), ("val", rows[:1])):
        (folder / f"va/{name}.csv").write_text("\n".join(["path,valence,arousal", *chosen]))
    with pytest.raises(AbawError, match="rows_sha256"):
        run(folder)


def test_labels_that_name_no_image_of_their_own_store_are_an_error_and_other_stores_are_used_whole(
    tmp_path: Path,
) -> None:
    folder = collection(tmp_path)
    make_images(folder / "others", [f"a/{n}.jpg" for n in range(5)])
    both = 'pretrain.sources=[{store="features/faces"}, {store="others"}]'
    assert run(folder, both)["images"] == 7 + 5
    (folder / "va").mkdir()
    (folder / "va/val.csv").write_text("path,valence,arousal\nnowhere.jpg,0,0\n")
    with pytest.raises(AbawError, match="name no image of faces"):
        run(folder, 'data.annotations={va="va"}')


def test_a_collection_without_training_images_is_an_error(tmp_path: Path) -> None:
    folder = collection(tmp_path, va="va")
    text = "\n".join(["path,valence,arousal", *(f"{key},0.5,0.5" for key in KEYS)])
    (folder / "va/val.csv").write_text(text)
    with pytest.raises(AbawError, match="holds no face to pretrain on") as caught:
        run(folder)
    assert "12 images with a face, all of them held out" in caught.value.where


# -- bad input, before any step ----------------------------------------------------------------------------------------
def test_a_folder_without_images_is_an_error(root: Path) -> None:
    (root / "empty").mkdir()
    with pytest.raises(AbawError, match="there is no image in"):
        run(root, 'pretrain.sources=[{images="empty"}]')
    assert not (root / "runs").exists()


def test_a_folder_that_is_not_there_is_an_error(root: Path) -> None:
    with pytest.raises(AbawError, match="does not exist") as caught:
        run(root, 'pretrain.sources=[{images="nowhere"}]')
    assert "pretrain.sources" in caught.value.where


def test_a_store_without_tracks_is_an_error(root: Path) -> None:
    make_faces(root / "empty", {})
    with pytest.raises(AbawError, match="holds no face to pretrain on"):
        run(root, 'pretrain.sources=[{store="empty"}]')


def test_a_batch_larger_than_the_data_is_an_error(root: Path) -> None:
    with pytest.raises(AbawError, match="a batch of 13 is larger than the data, 12 faces") as caught:
        run(root, "pretrain.batch_size=13")
    assert caught.value.where == "pretrain.batch_size"
    assert not (root / "runs").exists()


@pytest.mark.parametrize(
    ("row", "words"), [(b"junk", "is not a readable JPEG"), (jpeg(picture(0)[:24]), "is 48x24, not square")]
)
def test_a_bad_face_of_a_store_is_named_before_the_first_step(root: Path, row: bytes, words: str) -> None:
    make_faces(root / "bad", {"a": [picture(0), picture(1), row, picture(3), picture(4)]})
    with pytest.raises(AbawError, match=f"track a, row 2 {words}"):
        run(root, 'pretrain.sources=[{store="bad"}]')
    assert not (root / RUN / "metrics.jsonl").exists()


# -- constants ---------------------------------------------------------------------------------------------------------
def test_constants_are_measured_named_or_given_and_stored_with_the_weights(root: Path) -> None:
    flat = np.full((8, 48, 48, 3), (51, 102, 204), np.uint8)
    make_faces(root / "flat", {"a": list(flat)})
    source = 'pretrain.sources=[{store="flat"}]'
    run(root, source)
    assert constants(root)["mean"] == pytest.approx([0.2, 0.4, 0.8], abs=0.01)
    run(root, source, "pretrain.normalization=mae-face", "pretrain.name=m")
    assert constants(root, "runs/pretrain-m")["mean"] == [0.49895, 0.41044, 0.36561]
    given = ("pretrain.normalization=given", "pretrain.mean=[0.5, 0.4, 0.3]", "pretrain.std=[0.3, 0.2, 0.1]")
    run(root, source, *given, "pretrain.name=g")
    assert constants(root, "runs/pretrain-g") == {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.1]}


@pytest.mark.parametrize(
    "overrides",
    [
        ["pretrain.normalization=given"],
        ["pretrain.normalization=given", "pretrain.mean=[0.5, 0.5]", "pretrain.std=[1.0, 1.0, 1.0]"],
        ["pretrain.normalization=given", "pretrain.mean=[0.5, 0.5, 0.5]", "pretrain.std=[1.0, 0.0, 1.0]"],
        ["pretrain.mean=[0.5, 0.5, 0.5]"],
    ],
)
def test_given_constants_must_be_complete_and_asked_for(root: Path, overrides: list[str]) -> None:
    with pytest.raises(AbawError, match="mean and") as caught:
        run(root, *overrides)
    assert caught.value.code is ExitCode.CONFIG


def test_measured_gives_way_to_the_constants_that_initial_weights_expect(root: Path) -> None:
    run(root, "pretrain.normalization=mae-face")
    run(root, f"pretrain.init_from={RUN}", "pretrain.name=more")
    assert constants(root, "runs/pretrain-more") == constants(root)
    assert "as the weights of best.safetensors expect" in recorded(root, "runs/pretrain-more")["warnings"][-1]
    run(root, f"pretrain.init_from={RUN}", "pretrain.name=other", "pretrain.normalization=imagenet")
    assert constants(root, "runs/pretrain-other")["mean"] == [0.485, 0.456, 0.406]
    assert 'normalization = "imagenet" replaces' in recorded(root, "runs/pretrain-other")["warnings"][-1]


# -- initial weights ---------------------------------------------------------------------------------------------------
def test_initial_weights_are_those_of_the_file(root: Path) -> None:
    run(root)
    run(root, f"pretrain.init_from={RUN}", "pretrain.name=more", "pretrain.base_lr=1e-30")
    before, _ = load_checkpoint(root / RUN / "best.safetensors")
    after, _ = load_checkpoint(root / "runs/pretrain-more/best.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def small(root: Path) -> tuple[Path, MaskedAutoencoder]:
    """A foreign file in the published layout, with the encoder of `vit_small_112` alone."""
    torch.manual_seed(5)
    model = MaskedAutoencoder(VIT_PRESETS["vit_small_112"])
    path = root / "published.pth"
    torch.save({"model": encoder_part(model.state_dict())}, path)
    return path, model


def test_an_encoder_alone_gets_a_new_decoder_and_that_is_recorded(root: Path) -> None:
    path, published = small(root)
    settings = ("pretrain.preset=vit_small_112", "pretrain.steps=1", "pretrain.base_lr=1e-30")
    run(root, f"pretrain.init_from={path}", *settings)
    weights, header = load_checkpoint(root / "runs/pretrain-vit_small_112/best.safetensors")
    expected = encoder_part(published.state_dict())
    assert all(torch.allclose(weights[name], value, rtol=0, atol=1e-20) for name, value in expected.items())
    assert not torch.allclose(weights["decoder_pred.weight"], published.state_dict()["decoder_pred.weight"])
    warnings = recorded(root, "runs/pretrain-vit_small_112")["warnings"]
    assert [line for line in warnings if "published.pth has no decoder" in line]
    assert {record["dataset"] for record in header["trained_on"]} > {"set"}


def test_what_foreign_weights_have_seen_can_be_declared(root: Path) -> None:
    path, _ = small(root)
    declared = 'pretrain.init_trained_on=["none"]'
    run(root, f"pretrain.init_from={path}", declared, "pretrain.preset=vit_small_112", "pretrain.steps=1")
    undeclared = [r for r in recorded(root, "runs/pretrain-vit_small_112")["trained_on"] if r["labels"] != "none"]
    assert undeclared == []


def test_weights_of_another_shape_are_refused_before_the_run_begins(root: Path) -> None:
    path, _ = small(root)
    with pytest.raises(AbawError):
        run(root, f"pretrain.init_from={path}")
    assert not (root / "runs").exists()


# -- how long, panels, continuing --------------------------------------------------------------------------------------
def test_a_recipe_far_too_short_is_said_and_recorded(root: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="abaw"):
        run(root, "pretrain.preset=vit_small_112", "pretrain.steps=1", "pretrain.warmup_steps=0")
    (warning,) = recorded(root, "runs/pretrain-vit_small_112")["warnings"]
    assert "1 steps of 4 draw 4 images, far below the 10,240,000" in warning
    assert "init_from" in warning
    assert warning in caplog.text


@pytest.mark.parametrize(("steps", "said"), [(159, True), (160, False)])
def test_a_recipe_is_too_short_below_a_twentieth_of_one_that_works(root: Path, caplog, steps: int, said: bool) -> None:
    cfg = config(root, f"pretrain.steps={steps}", "pretrain.batch_size=10")  # of 500 x 64 images
    with caplog.at_level(logging.WARNING, logger="abaw"):
        pretrain.run(cfg, dry_run=True)
    assert ("far below the 32,000" in caplog.text) is said


def test_panels_show_the_held_out_faces_every_so_many_steps(root: Path) -> None:
    run(root, "pretrain.panel_every=2")
    files = sorted((root / RUN / "panels").iterdir())
    assert [path.name for path in files] == ["step-000002.png", "step-000004.png"]
    sheet = cv2.cvtColor(cv2.imread(str(files[0])), cv2.COLOR_BGR2RGB)
    shown = cv2.resize(sheet[4:132, 108:236], (48, 48), interpolation=cv2.INTER_AREA)  # 64 pixels, shown doubled
    assert np.abs(shown.astype(int) - picture(23)).mean() < 6  # the middle one of v1's six
    run(root, "pretrain.tracks=all", "pretrain.name=all")
    assert [path.name for path in (root / "runs/pretrain-all/panels").iterdir()] == ["step-000004.png"]


def test_panels_change_nothing_of_the_weights_and_need_no_new_run(root: Path) -> None:
    run(root)
    run(root, "pretrain.panel_every=2", "pretrain.name=panels")
    one, other = (load_checkpoint(root / name / "best.safetensors")[0] for name in (RUN, "runs/pretrain-panels"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert run(root, "pretrain.panel_every=1")["skipped"]


def test_a_run_from_before_newer_settings_is_taken_up(root: Path) -> None:
    run(root)
    path = root / RUN / "config.json"
    known = json.loads(path.read_text())
    newer = ("accumulate", "ema_decay", "min_lr", "checkpointing", "compile", "mean", "std", "init_trained_on")
    path.write_text(json.dumps({key: value for key, value in known.items() if key not in newer}))
    assert run(root)["skipped"]
    with pytest.raises(AbawError, match="settings.ema_decay"):
        run(root, "pretrain.ema_decay=0.5")


def test_checkpointing_and_accumulation_leave_the_losses_as_they_are(root: Path) -> None:
    run(root)
    expected = [json.loads(line)["loss"] for line in (root / RUN / "metrics.jsonl").read_text().splitlines()]
    for name, override in (("c", "checkpointing=true"), ("a", "accumulate=2")):
        run(root, f"pretrain.name={name}", f"pretrain.{override}")
        lines = (root / f"runs/pretrain-{name}/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["loss"] for line in lines] == pytest.approx(expected, rel=1e-4)


def test_the_learning_rate_follows_the_recipe_and_stops_at_the_least(root: Path) -> None:
    rates = ("pretrain.base_lr=0.064", "pretrain.warmup_steps=2", "pretrain.steps=6", "pretrain.min_lr=1e-4")
    run(root, *rates, "pretrain.checkpoint_every=1")
    lines = [json.loads(line) for line in (root / RUN / "metrics.jsonl").read_text().splitlines()]
    peak = 0.064 * 4 / 256
    cosine = [1e-4 + (peak - 1e-4) * 0.5 * (1 + np.cos(np.pi * k / 4)) for k in range(4)]
    assert [line["lr"] for line in lines] == pytest.approx([peak / 3, peak * 2 / 3, *cosine])


def test_stores_of_other_data_sets_are_recorded_by_their_names(root: Path) -> None:
    make_faces(root / "more", {"m": [picture(200 + row) for row in range(5)]})
    named = 'pretrain.sources=[{store="features/faces"}, {store="more", dataset="AffectNet"}]'
    run(root, named)
    found = read_header(root / RUN / "best.safetensors")["trained_on"]
    assert {record["dataset"] for record in found} == {"set", "AffectNet"}
