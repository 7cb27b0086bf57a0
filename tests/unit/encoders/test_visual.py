"""Encoders from our own kinds of weights: what they give, record and refuse."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw.checkpoint import load_checkpoint, save_checkpoint
from abaw.data.views import auxiliary_view
from abaw.encoders.visual import Faces, VisualOptions, build_visual_encoder
from abaw.errors import AbawError, ExitCode
from abaw.models.mae import MaskedAutoencoder
from abaw.models.static import StaticModel
from abaw.models.systems import SYSTEMS, ModelOptions, architecture
from abaw.models.vit import VitPreset, build_vit
from abaw.provenance import unknown_recipe
from abaw.tasks import TASKS
from tests.unit.foreign_weights import encoder_only, finetuned, random_weights, save
from tests.unit.models.tiny_models import encoder_part

TINY = VitPreset(32, 8, 32, 2, 2, "conv", 16, 1, 2)
HEADER = {
    "architecture": {"preset": "tiny", **TINY.to_dict()},
    "normalisation": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
    "recipe": unknown_recipe(),
    "trained_on": [{"dataset": "d"}],
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    mae, static = MaskedAutoencoder(TINY), StaticModel(TINY, TASKS["va"])
    save_checkpoint(folder / "mae.st", mae.state_dict(), {**HEADER, "kind": "mae", "pooling": "cls"})
    save_checkpoint(
        folder / "static.st", static.state_dict(), {**HEADER, "kind": "static", "pooling": "mean", "task": "va"}
    )
    return {"mae": str(folder / "mae.st"), "finetuned": str(folder / "static.st"), "landmarks": ""}


def faces(count: int, size: int) -> Faces:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Faces(images, rng.random((count, 5, 2), np.float32), rng.random((count, 4), np.float32))


@pytest.mark.parametrize("name", ["mae", "finetuned"])
def test_settings_name_the_weights_and_change_with_precision(weights: dict[str, str], name: str) -> None:
    settings = [
        build_visual_encoder(name, VisualOptions(weights=weights[name], precision=precision)).settings
        for precision in ("fp32", "bf16")
    ]
    assert len(settings[0]["weights"]) == 64
    assert {key for key in settings[0] if settings[0][key] != settings[1][key]} == {"precision"}


def test_mae_features_equal_timms_forward_on_the_same_weights(weights: dict[str, str]) -> None:
    encoder = build_visual_encoder("mae", VisualOptions(weights=weights["mae"]))
    plain = build_vit(TINY, pooling="cls").eval()
    plain.load_state_dict(encoder_part(load_checkpoint(Path(weights["mae"]))[0]))
    some = faces(3, 32)
    mean, std = (torch.tensor(HEADER["normalisation"][key]) for key in ("mean", "std"))
    images = ((torch.from_numpy(some.images).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = plain(images)
    assert torch.allclose(torch.from_numpy(encoder.encode(some)), expected, atol=1e-4)


def test_missing_weights_are_exit_code_5(tmp_path: Path) -> None:
    with pytest.raises(AbawError) as caught:
        build_visual_encoder("mae", VisualOptions(weights=str(tmp_path / "none.safetensors")))
    assert caught.value.code is ExitCode.MISSING


def test_a_finetuned_model_is_refused_as_mae_with_the_encoder_that_takes_it(weights: dict[str, str]) -> None:
    with pytest.raises(AbawError, match='static\\.st holds a finetuned model \\(kind "static"\\)') as caught:
        build_visual_encoder("mae", VisualOptions(weights=weights["finetuned"]))
    assert 'encoder = "finetuned"' in caught.value.fix


@pytest.mark.parametrize(
    ("kind", "words", "other"),
    [("mae", 'a model of kind "mae"', True), ("fusion", 'a model of kind "fusion"', False), (None, "weights", True)],
)
def test_what_is_no_finetuned_model_is_refused_with_the_kinds_that_are(tmp_path, kind, words, other) -> None:
    path = tmp_path / "w.pth"
    if kind is None:
        save(path, {"model": finetuned()})
    else:
        path = tmp_path / "w.safetensors"
        save_checkpoint(path, {"a": torch.ones(1)}, {**HEADER, "kind": kind})
    with pytest.raises(AbawError, match=f"{path.name} holds {words}.*, no model of `abaw finetune`") as caught:
        build_visual_encoder("finetuned", VisualOptions(weights=str(path)))
    assert "static, emma, cotex, emae" in caught.value.fix
    assert ('encoder = "mae"' in caught.value.fix) is other


def test_a_damaged_file_is_no_foreign_one(tmp_path: Path, weights: dict[str, str]) -> None:
    content = Path(weights["finetuned"]).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:2000])
    with pytest.raises(AbawError, match="not a readable weights file"):
        build_visual_encoder("finetuned", VisualOptions(weights=str(tmp_path / "cut.safetensors")))


@pytest.mark.parametrize(
    ("content", "asked", "pooling"),
    [(encoder_only, "auto", "cls"), (encoder_only, "mean", "mean"), (finetuned, "auto", "mean")],
)
def test_a_foreign_file_gives_features_with_the_pooling_of_its_kind(tmp_path, content, asked, pooling) -> None:
    path = save(tmp_path / "w.pth", {"model": content()})
    encoder = build_visual_encoder("mae", VisualOptions(weights=str(path), pooling=asked, trained_on=("none",)))
    assert (encoder.dim, encoder.image_size, encoder.settings["pooling"]) == (64, 32, pooling)
    assert encoder.settings["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert encoder.recipe == unknown_recipe()
    assert encoder.trained_on[0]["labels"] == "none"
    assert np.isfinite(encoder.encode(faces(2, 32))).all()


@pytest.mark.parametrize(("name", "task"), [("emma", "mtl"), ("cotex", "lsd"), ("emae", "expr")])
def test_larger_models_give_the_feature_under_their_heads(tmp_path: Path, name: str, task: str) -> None:
    options = ModelOptions(num_scores=8)
    model = SYSTEMS[name].build(TINY, TASKS[task], options)
    model.load_state_dict(random_weights(model))
    header = {**HEADER, "kind": name, "pooling": "mean" if name == "emae" else "cls", "task": task}
    header["architecture"] = shape = architecture(name, TINY, options)
    if name == "emma":
        shape["options"]["classifier"] = {"labels": list("abcdefgh")}
    save_checkpoint(tmp_path / "m.safetensors", model.state_dict(), header)
    told = VisualOptions(weights=str(tmp_path / "m.safetensors"), make_view=auxiliary_view)
    some = faces(2, 32)
    inputs = [some.images]
    if name == "emae":
        inputs.append(auxiliary_view(some.images, some.landmarks, view="eyes+mouth", style="crop"))
        with pytest.raises(AbawError, match="cannot be used with encoder"):
            build_visual_encoder("finetuned", VisualOptions(weights=told.weights))
    mean, std = (torch.tensor(HEADER["normalisation"][key]) for key in ("mean", "std"))
    with torch.inference_mode():
        tensors = [((torch.from_numpy(one).float() / 255 - mean) / std).permute(0, 3, 1, 2) for one in inputs]
        expected = model.eval().pooled(*tensors)
    found = build_visual_encoder("finetuned", told).encode(some)
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)


def test_settings_of_our_own_weights_are_those_of_earlier_versions(weights: dict[str, str]) -> None:
    assert build_visual_encoder("mae", VisualOptions(weights=weights["mae"])).settings == {
        "encoder": "mae",
        "weights": hashlib.sha256(Path(weights["mae"]).read_bytes()).hexdigest(),
        "pooling": "cls",
        "precision": "fp32",
        "resize": "bicubic",
        "image_size": 32,
        "normalisation": HEADER["normalisation"],
    }


def test_random_weights_must_be_written_out() -> None:
    encoder = build_visual_encoder("mae", VisualOptions(weights="random"))
    assert encoder.settings["weights"] == "random:vit_tiny_64"
    with pytest.raises(AbawError, match="cannot be used"):
        build_visual_encoder("finetuned", VisualOptions(weights="random"))


def test_a_finetuned_model_keeps_its_own_pooling(weights: dict[str, str]) -> None:
    with pytest.raises(AbawError, match='pooling = "cls" cannot be used'):
        build_visual_encoder("finetuned", VisualOptions(weights=weights["finetuned"], pooling="cls"))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AbawError, match='unknown visual encoder "maee"'):
        build_visual_encoder("maee", VisualOptions())
