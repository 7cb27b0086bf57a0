"""extract-visual on small stores of pictures: rows, batches, precision, settings and what goes wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw.checkpoint import save_checkpoint
from abaw.config_file import load_config
from abaw.console import Summary
from abaw.encoders.visual import VisualOptions, build_visual_encoder
from abaw.errors import AbawError, ExitCode
from abaw.models.mae import MaskedAutoencoder
from abaw.models.static import StaticModel
from abaw.models.vit import VitPreset
from abaw.provenance import make_recipe
from abaw.stages import extract_visual
from abaw.stages.extract_visual.work import Item, extract_unit
from abaw.store import FeatureStore, Reason
from abaw.tasks import TASKS
from tests.unit.faces_store import Tracks, make_faces, picture

TINY = VitPreset(32, 8, 32, 2, 2, "conv", 16, 1, 2)
HEADER = {
    "architecture": {"preset": "tiny", **TINY.to_dict()},
    "normalisation": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
    "recipe": make_recipe({"r": "a"}),
    "trained_on": [],
}
TOML = """
[run]
threads = 1
device = "cpu"
[extract_visual]
encoders = ["mine"]
[encoders.mine]
encoder = "mae"
weights = "mae.safetensors"
batch_size = 4
precision = "fp32"
"""
TRACKS: Tracks = {
    "a": [picture(1), picture(2), picture(3)],
    "b": [None, None],
    "c": [],
    "d": [picture(4)],
    "e": [picture(5), None, picture(6), picture(7), picture(8), picture(9), picture(10)],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    content = MaskedAutoencoder(TINY).state_dict()
    save_checkpoint(tmp_path / "mae.safetensors", content, {**HEADER, "kind": "mae", "pooling": "cls"})
    # A large constant on all channels: the norm takes it out, but in bf16 it has swallowed the digits of all else.
    shifted = {name: value + 3000 if name.endswith("pos_embed") else value for name, value in content.items()}
    save_checkpoint(tmp_path / "shifted.safetensors", shifted, {**HEADER, "kind": "mae", "pooling": "cls"})
    (tmp_path / "data.toml").write_text(TOML)
    return tmp_path


def extract(root: Path, tracks: Tracks | None = None, *overrides: str, **options: object) -> Summary:
    if tracks is not None:
        make_faces(root / "features" / "faces", tracks)
    cfg = load_config(root / "data.toml", overrides=list(overrides))
    return extract_visual.run(cfg, **options)  # type: ignore[arg-type]


def store(root: Path, name: str = "mine") -> FeatureStore:
    return FeatureStore.open(root / "features" / f"visual-{name}", kind="visual")


def contents(root: Path, name: str = "mine") -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in store(root, name).path.glob("*.h5")}


def test_a_track_has_the_same_bytes_whatever_it_shares_its_batches_with(root: Path) -> None:
    assert not extract(root, TRACKS).failed
    together = contents(root)
    assert set(together) == set(TRACKS)
    for name, rows in TRACKS.items():
        alone = root / name
        make_faces(alone / "faces", {name: rows})
        extract(root, None, f"extract_visual.faces={alone / 'faces'}", f"run.output={alone}")
        assert (alone / "features/visual-mine" / f"{name}.h5").read_bytes() == together[name]


def test_rows_are_those_of_the_faces_and_rows_without_one_are_zeros_with_the_reason(root: Path) -> None:
    extract(root, TRACKS)
    for name, rows in TRACKS.items():
        has_face = [row is not None for row in rows]
        features = store(root).read(name, "features")
        assert features.shape == (len(rows), 32)
        assert store(root).valid(name).tolist() == has_face
        assert features.any(axis=1).tolist() == has_face
        assert store(root).read(name, "reason").tolist() == [
            Reason.VALID if one else Reason.NO_FACE for one in has_face
        ]
        assert store(root).fps(name) == 25


def test_reading_ahead_of_a_gpu_gives_the_same_bytes_as_taking_turns_on_the_cpu(root: Path) -> None:
    extract(root, TRACKS)
    faces = FeatureStore.open(root / "features" / "faces")
    options = VisualOptions(weights=str(root / "mae.safetensors"), precision="fp32")
    other = FeatureStore.create(root / "other", store(root).header)
    work = extract_unit(
        [Item(name) for name in TRACKS],
        faces=faces,
        store=other,
        encoder=build_visual_encoder("mae", options),
        batch_size=4,
        on_cpu=False,
    )
    assert {result.status for result in work} == {"done"}
    assert {path.stem: path.read_bytes() for path in other.path.glob("*.h5")} == contents(root)


def test_equal_faces_have_equal_features_in_any_track_and_batch(root: Path) -> None:
    extract(root, {"a": [picture(1), picture(2)], "b": [picture(3), None, picture(2), picture(4), picture(1)]})
    first, second = store(root).read("a", "features"), store(root).read("b", "features")
    assert np.array_equal(first, second[[4, 2]])
    assert not np.array_equal(first[0], first[1])


def test_many_tracks_over_several_units_are_all_there_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_visual, "UNIT_TRACKS", 2)
    summary = extract(root, TRACKS)
    assert summary.data["tracks"] == len(TRACKS)
    cut = contents(root)
    monkeypatch.undo()
    extract(root, overwrite=True)
    assert contents(root) == cut


def test_crops_of_any_side_are_resized_and_the_way_is_recorded(root: Path) -> None:
    extract(root, {"a": [picture(1, 32)], "b": [picture(1, 96)]})
    assert store(root).header.settings["resize"] == "bicubic"
    small, large = store(root).read("a", "features")[0], store(root).read("b", "features")[0]
    assert np.dot(small, large) / np.linalg.norm(small) / np.linalg.norm(large) > 0.95


def test_a_face_that_cannot_be_decoded_fails_its_track_alone_and_says_which_row(root: Path) -> None:
    faces = [picture(row) for row in range(6)]
    bad: Tracks = {"a": faces[:3], "b": [faces[0], b"junk", b"more junk", *faces[3:]], "c": faces[:2], "d": faces}
    summary = extract(root, bad)
    assert [failure.track_id for failure in summary.failed] == ["b"]
    assert summary.exit_code is ExitCode.PARTIAL
    message = summary.failed[0].message
    assert "face of track b, row 1 is not a readable JPEG" in message
    assert "run `abaw align` again" in message
    others = contents(root)
    assert set(others) == {"a", "c", "d"}
    make_faces(root / "good", {name: rows for name, rows in bad.items() if name != "b"})
    extract(root, None, "run.output=other", "extract_visual.faces=good")
    assert {path.stem: path.read_bytes() for path in (root / "other/features/visual-mine").glob("*.h5")} == others


def test_a_damaged_track_of_faces_fails_alone(root: Path) -> None:
    make_faces(root / "features" / "faces", TRACKS)
    path = root / "features" / "faces" / "a.h5"
    path.write_bytes(path.read_bytes()[:200])
    summary = extract(root)
    assert [failure.track_id for failure in summary.failed] == ["a"]
    assert "a.h5 is not a readable track file" in summary.failed[0].message
    assert set(contents(root)) == set(TRACKS) - {"a"}


# -- precision ---------------------------------------------------------------------------------------------------------
def test_the_cosine_of_bf16_is_in_the_notes_once_by_machine_and_not_in_the_track_files(root: Path) -> None:
    extract(root, TRACKS, "encoders.mine.precision=bf16")
    ((place, cosine),) = store(root).notes["bf16_cosine"].items()
    assert place.endswith(", cpu")
    assert 0.999 <= cosine <= 1
    before, track = store(root).notes, (store(root).path / "a.h5").read_bytes()
    (store(root).path / "a.h5").unlink()
    extract(root, None, "encoders.mine.precision=auto")
    assert store(root).notes == before
    assert (store(root).path / "a.h5").read_bytes() == track


def test_in_fp32_nothing_is_compared(root: Path) -> None:
    extract(root, TRACKS)
    assert "bf16_cosine" not in store(root).notes


def test_bf16_that_changes_the_features_is_refused_before_anything_is_written(root: Path) -> None:
    weights = "encoders.mine.weights=shifted.safetensors"
    with pytest.raises(AbawError, match="gives other features in bf16") as caught:
        extract(root, TRACKS, weights, "encoders.mine.precision=bf16")
    assert 'precision = "fp32"' in caught.value.fix
    assert not (root / "features" / "visual-mine").exists()
    assert not extract(root, None, weights, "encoders.mine.precision=fp32").failed


def test_without_any_face_there_is_nothing_to_compare(root: Path) -> None:
    assert not extract(root, {"b": [None], "c": []}, "encoders.mine.precision=bf16").failed
    assert "bf16_cosine" not in store(root).notes


# -- device ------------------------------------------------------------------------------------------------------------
def test_auto_says_which_device_it_took(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="abaw"):
        extract(root, TRACKS, "run.device=auto")
    (line,) = (message for message in caplog.messages if message.startswith("device: "))
    assert ("cuda:0" in line) == torch.cuda.is_available()
    assert any("5 tracks" in message and "fp32" in message for message in caplog.messages)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_asked_for_and_not_there_is_refused_before_anything_is_written(root: Path) -> None:
    with pytest.raises(AbawError, match='device "cuda" is not available') as caught:
        extract(root, TRACKS, "run.device=cuda")
    assert caught.value.code is ExitCode.MISSING
    assert not (root / "features" / "visual-mine").exists()


# -- settings ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "own"), [("timm:resnet18.a1_in1k", "resnet18"), ("onnx:files/my net.onnx", "my-net"), ("timm", "own")]
)
def test_an_encoder_with_a_colon_needs_a_table_which_the_message_shows(root: Path, name: str, own: str) -> None:
    with pytest.raises(AbawError, match="a name of its own") as caught:
        extract(root, TRACKS, encoder=name)
    assert caught.value.code is ExitCode.CONFIG
    assert f'[encoders.{own}]\nencoder = "{name if ":" in name else "timm:<name>"}"' in caught.value.fix


def test_an_encoder_of_sound_without_a_table_is_sent_there_too(root: Path) -> None:
    with pytest.raises(AbawError) as caught:
        extract(root, TRACKS, encoder="wav2vec2")
    assert "abaw extract-audio --encoder wav2vec2" in caught.value.fix


def test_messages_of_an_encoder_name_its_table(root: Path) -> None:
    (root / "data.toml").write_text(TOML + '[encoders.faces]\nencoder = "dan"\nweights = "none.pth"\n')
    with pytest.raises(AbawError) as caught:
        extract(root, TRACKS, encoder="faces")
    assert caught.value.where == "encoders.faces.weights"


def test_an_encoder_of_sound_is_sent_to_the_other_stage(root: Path) -> None:
    (root / "data.toml").write_text(TOML + '[encoders.voice]\nencoder = "logmel"\n')
    with pytest.raises(AbawError, match='"voice" is an encoder of sound') as caught:
        extract(root, TRACKS, encoder="voice")
    assert "abaw extract-audio --encoder voice" in caught.value.fix


def test_flip_is_another_store_and_a_mirrored_face_has_the_same_feature(root: Path) -> None:
    face = np.repeat(np.repeat(picture(1, 8), 8, axis=0), 8, axis=1)
    extract(root, {"a": [face, np.ascontiguousarray(face[:, ::-1])]})
    plain = store(root).read("a", "features")
    assert "flip" not in store(root).header.settings
    with pytest.raises(AbawError, match="flip: nothing recorded, true now"):
        extract(root, None, "encoders.mine.flip=true")
    extract(root, None, "encoders.mine.flip=true", overwrite=True)
    both = store(root).read("a", "features").astype(np.float32)
    assert np.abs(both[0] - both[1]).max() < 0.1 * np.abs(np.float32(plain[0]) - np.float32(plain[1])).max()


def test_scores_are_further_columns_named_in_the_settings(root: Path) -> None:
    header = {**HEADER, "kind": "static", "pooling": "mean", "task": "va"}
    save_checkpoint(root / "static.safetensors", StaticModel(TINY, TASKS["va"]).state_dict(), header)
    change = (
        "encoders.mine.encoder=finetuned",
        "encoders.mine.weights=static.safetensors",
        "encoders.mine.scores=true",
    )
    extract(root, TRACKS, *change)
    assert store(root).read("a", "features").shape == (3, 34)
    assert len(store(root).header.settings["scores"]) == 2


@pytest.mark.parametrize(
    ("encoder", "options", "run"),
    [
        ("mae", [], "pretrain-vit_tiny_64"),
        ("finetuned", ["finetune.task=expr"], "finetune-expr-vit_tiny_64"),
        ("emma", [], "finetune-mtl-emma-vit_tiny_64"),
        ("emma", ["finetune.mtl.model=emma", "finetune.mtl.name=mine"], "finetune-mtl-mine"),
        ("emae", ["finetune.task=expr", "finetune.model=emae"], "finetune-expr-emae-vit_tiny_64"),
    ],
)
def test_weights_that_are_not_named_are_those_of_the_run_of_that_model(
    root: Path, encoder: str, options: list[str], run: str
) -> None:
    with pytest.raises(AbawError, match=f"there is no file .*/runs/{run}/best.safetensors") as caught:
        extract(root, TRACKS, *options, encoder=encoder)
    assert caught.value.code is ExitCode.MISSING


def test_several_encoders_are_several_stores_in_one_run(root: Path) -> None:
    summary = extract(root, TRACKS, 'extract_visual.encoders=["mine","landmarks"]')
    assert summary.data["tracks"] == 2 * len(TRACKS)
    assert store(root, "landmarks").read("a", "features").shape == (3, 14)


def test_a_dry_run_counts_what_is_missing_and_writes_nothing(root: Path) -> None:
    extract(root, TRACKS, limit=2)
    lines = dict(extract(root, dry_run=True).lines)
    assert (lines["to do"], lines["done"]) == ("3 tracks", "2 tracks")
    assert len(contents(root)) == 2
