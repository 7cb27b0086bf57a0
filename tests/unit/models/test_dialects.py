"""Weights of every known layout: what they are told to be, and that they arrive whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from abaw.checkpoint import load_checkpoint, save_checkpoint
from abaw.errors import AbawError
from abaw.models.dialects import (
    Pretrained,
    frozen_encoder,
    load_autoencoder,
    load_encoder,
    read_pretrained,
)
from abaw.models.mae import MaskedAutoencoder
from abaw.models.shapes import heads_of, resize_positions
from abaw.models.static import StaticModel
from abaw.models.systems import SYSTEMS, ModelOptions, architecture
from abaw.models.vit import FaceEncoder, VitPreset
from abaw.provenance import unknown_recipe
from abaw.tasks import TASKS
from tests.unit.foreign_weights import TINY, encoder_only, finetuned, random_weights, save, training_save, with_decoder
from tests.unit.models.tiny_models import encoder_part

ENCODER, FULL, FINETUNED = encoder_only(), with_decoder(), finetuned()
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
MAE_FACE = {"mean": [0.49895, 0.41044, 0.36561], "std": [0.29708, 0.26990, 0.26526]}


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


EMMA = {
    **prefixed(ENCODER, "vit."),
    "vit.head.0.weight": torch.ones(512, 64),
    "va_head.0.weight": torch.ones(256, 28),
    "cnn.features.0.weight": torch.ones(64, 3, 7, 7),
}
# file name, content, dialect, what is taken off
LAYOUTS: list[tuple[str, Any, str, tuple[str, ...]]] = [
    ("mae_pretrain_vit_base.pth", {"model": ENCODER}, "mae-encoder", ("model",)),
    ("mae_pretrain_vit_base_full.pth", {"model": FULL}, "mae-full", ("model",)),
    ("mae_visualize_vit_base.pth", {"model": FULL}, "mae-visualize", ("model",)),
    ("mae_finetuned_vit_base.pth", {"model": FINETUNED}, "mae-finetuned", ("model",)),
    ("checkpoint-7.pth", training_save(FULL), "mae-training", ("model",)),
    ("mae_face_pretrain_vit_base.pth", {"model": ENCODER}, "mae-face", ("model",)),
    ("FMAE_ViT_base.pth", {"model": FULL}, "fmae", ("model",)),
    ("bp4d.pth", {"model": {**FINETUNED, "ID_head.weight": torch.ones(41, 64)}}, "fmae", ("model",)),
    ("emma.pth", {"model": EMMA, "epoch": 3}, "emma", ("model",)),
    ("pytorch_model.bin", ENCODER, "timm", ()),
    ("ddp.pt", {"state_dict": prefixed(ENCODER, "module.")}, "timm", ("state_dict", "module.")),
    (
        "lightning.ckpt",
        {"state_dict": prefixed(ENCODER, "model.backbone."), "epoch": 1, "callbacks": {}},
        "timm",
        ("state_dict", "model.", "backbone."),
    ),
    ("deepspeed.pt", {"module": prefixed(ENCODER, "module.encoder.")}, "timm", ("module", "module.", "encoder.")),
    (
        "settings.pt",
        {"model": {"type": "vit"}, "state_dict": {"model": ENCODER}},
        "mae-encoder",
        ("state_dict", "model"),
    ),
    ("vit_alone.pt", prefixed(ENCODER, "vit."), "timm", ("vit.",)),
]


@pytest.mark.parametrize(("name", "content", "dialect", "unwrapped"), LAYOUTS, ids=[row[0] for row in LAYOUTS])
def test_every_layout_is_recognised_and_arrives_whole(
    tmp_path: Path, name: str, content: Any, dialect: str, unwrapped: tuple[str, ...]
) -> None:
    source = read_pretrained(save(tmp_path / name, content))
    assert (source.dialect, source.unwrapped) == (dialect, unwrapped)
    assert source.preset == TINY if source.decoder else source.preset.width == 64
    expected = FINETUNED if "fc_norm.weight" in source.encoder else ENCODER if not source.decoder else FULL
    model, _ = frozen_encoder(source)
    loaded = model.state_dict()
    assert len(loaded) == 4 + 2 * 12 + 2  # tokens and patches, two blocks, one norm
    assert all(torch.equal(loaded[key], expected[key]) for key in loaded)


def test_the_shape_is_told_from_the_tensors(tmp_path: Path) -> None:
    wide = VitPreset(48, 16, 128, 3, 2, "linear", 512, 2, 16)
    source = read_pretrained(save(tmp_path / "full.pth", {"model": with_decoder(wide)}))
    assert source.preset == wide


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)])
def test_heads_are_those_of_the_published_encoders(width: int, heads: int) -> None:
    assert heads_of(width) == heads


def test_the_number_of_heads_is_said_to_be_assumed(tmp_path: Path) -> None:
    source = read_pretrained(save(tmp_path / "w.pth", {"model": ENCODER}))
    assert any("attention heads is not in w.pth: taken as 1" in note for note in source.notes)


# -- header ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("mae_face_pretrain_vit_base.pth", MAE_FACE),
        ("MAE-Face_visualize.pth", MAE_FACE),
        ("mae_pretrain_vit_base.pth", IMAGENET),
    ],
)
def test_pixel_constants_follow_the_name_and_say_so(tmp_path: Path, name: str, constants: dict) -> None:
    source = read_pretrained(save(tmp_path / name, {"model": ENCODER}))
    assert source.header["normalisation"] == constants
    assert any("pixel constants are not in" in note for note in source.notes)


def test_pixel_constants_beside_a_timm_file_are_used(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}}')
    source = read_pretrained(save(tmp_path / "pytorch_model.bin", ENCODER))
    assert source.header["normalisation"] == {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}


@pytest.mark.parametrize(("told", "noted"), [("1e-12", True), ("1e-6", False), ('"x"', False)])
def test_another_constant_of_layer_norms_beside_a_file_is_noted(tmp_path: Path, told: str, noted: bool) -> None:
    (tmp_path / "config.json").write_text(f'{{"layer_norm_eps": {told}}}')
    notes = read_pretrained(save(tmp_path / "pytorch_model.bin", ENCODER)).notes
    line = "layer norms run with eps 1e-06; beside pytorch_model.bin stands 1e-12"
    assert [note for note in notes if "layer norms" in note] == [line] * noted


@pytest.mark.parametrize(
    ("name", "content", "target"),
    [
        ("mae_pretrain_vit_base_full.pth", {"model": FULL}, "normalised pixels"),
        ("mae_visualize_vit_base_ganloss.pth", {"model": FULL}, "pixels"),
        ("w.pth", {"model": FULL}, "unknown"),
        ("checkpoint-1.pth", training_save(FULL, norm_pix_loss=True), "normalised pixels"),
        ("checkpoint-1.pth", training_save(FULL, norm_pix_loss=False), "pixels"),
        ("mae_pretrain_vit_base.pth", {"model": ENCODER}, ""),
    ],
)
def test_what_the_decoder_predicts_is_told_where_it_can_be(tmp_path, name, content, target) -> None:
    assert read_pretrained(save(tmp_path / name, content)).header["target"] == target


def test_foreign_weights_are_undeclared_until_someone_says_what_they_saw(tmp_path: Path) -> None:
    path = save(tmp_path / "w.pth", {"model": ENCODER})
    records = [read_pretrained(path, trained_on=said).header["trained_on"] for said in ((), ("none",), ("A", "B"))]
    assert [(record["dataset"], record["labels"]) for (record,) in records] == [
        ("undeclared", "undeclared"),
        ("undeclared", "none"),
        ("A, B", "declared"),
    ]
    assert read_pretrained(path).header["recipe"] == unknown_recipe()


def test_extra_keys_are_listed_with_the_reason(tmp_path: Path) -> None:
    source = read_pretrained(save(tmp_path / "emma.pth", {"model": {**EMMA, "steps": 3}, "epoch": 3}))
    assert source.ignored == {
        "epoch": "beside the weights",
        "steps": "int, no tensor",
        "cnn.features.0.weight": "part of another network",
    }
    assert set(source.head) == {"head.0.weight", "va_head.0.weight"}


# -- not recognised ----------------------------------------------------------------------------------------------------
OTHERS = {
    "dan": {
        "model_state_dict": dict.fromkeys(
            ["features.0.weight", "cat_head0.sa.conv1x1.0.weight", "fc.weight", "bn.weight"], torch.ones(1)
        )
    },
    "iresnet": dict.fromkeys(
        ["conv1.weight", "prelu.weight", "layer1.0.prelu.weight", "features.weight"], torch.ones(1)
    ),
    "vggish": dict.fromkeys(["features.0.weight", "embeddings.0.weight", "embeddings.4.weight"], torch.ones(1)),
    "vggish-pca": {"pca_eigen_vectors": np.eye(3), "pca_means": np.zeros((3, 1))},
    "hsemotion": dict.fromkeys(["conv_stem.weight", "conv_head.weight", "blocks.0.0.conv_dw.weight"], torch.ones(1)),
}
TITLES = {
    "dan": "DAN",
    "iresnet": "IResNet",
    "vggish": "VGGish, a sound",
    "vggish-pca": "PCA of VGGish",
    "hsemotion": "EfficientNet",
}


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_networks_that_are_no_encoder_are_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(AbawError, match=f"{TITLES[kind]}.* no encoder of faces"):
        read_pretrained(save(tmp_path / "w.pth", OTHERS[kind]))


@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.ones(1)},
        {**prefixed(ENCODER, "model."), "criterion.weight": torch.ones(1)},
        prefixed(ENCODER, "generator."),
    ],
    ids=["other names", "a prefix that not all have", "an unknown prefix"],
)
def test_an_unknown_layout_is_refused_with_its_first_keys(tmp_path: Path, content: dict[str, Tensor]) -> None:
    with pytest.raises(AbawError, match="a layout that is not known") as caught:
        read_pretrained(save(tmp_path / "w.pth", content))
    assert next(iter(content)) in caught.value.what


@pytest.mark.parametrize("content", [3, torch.ones(2), [torch.ones(2)], {}, {"epoch": 3}, {"model": {}}])
def test_files_without_named_weights_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(AbawError, match="holds no named weights"):
        read_pretrained(save(tmp_path / "w.pth", content))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pos_embed", torch.ones(1, 16, 64), "not one class token and a square"),
        ("pos_embed", torch.ones(1, 17, 32), "not one class token and a square"),
        ("pos_embed", torch.ones(17, 64), "pos_embed: shape"),
        ("patch_embed.proj.weight", torch.ones(64, 3, 8, 4), "patches are 8x4"),
        ("patch_embed.proj.weight", torch.ones(64, 1, 8, 8), "of 1 channels"),
        ("blocks.100000.norm1.weight", torch.ones(64), "100001 blocks"),
    ],
)
def test_shapes_that_no_encoder_here_has_are_refused(tmp_path, name, value, message) -> None:
    with pytest.raises(AbawError, match=f"cannot become an encoder here.*{message}"):
        read_pretrained(save(tmp_path / "w.pth", {"model": {**ENCODER, name: value}}))


# -- into a model ------------------------------------------------------------------------------------------------------
def read(tmp_path: Path, weights: dict[str, Tensor], name: str = "w.pth") -> Pretrained:
    return read_pretrained(save(tmp_path / name, {"model": weights}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("blocks.1.attn.proj.bias"), "missing 1: blocks.1.attn.proj.bias"),
        (lambda w: w.pop("cls_token"), "missing 1: cls_token"),
        (lambda w: w.update({"blocks.0.ls1.gamma": torch.ones(64)}), "unexpected 1: blocks.0.ls1.gamma"),
        (lambda w: w.update({"dist_token": torch.ones(1, 1, 64)}), "unexpected 1: dist_token"),
        (
            lambda w: w.update({"blocks.0.mlp.fc1.bias": torch.ones(128)}),
            r"wrong shape 1: blocks.0.mlp.fc1.bias \[128\] for \[256\]",
        ),
    ],
)
def test_an_encoder_that_does_not_match_whole_is_refused_everywhere(tmp_path, change, message) -> None:
    weights = dict(FULL)
    change(weights)
    source = read(tmp_path, weights)
    models = [StaticModel(TINY, TASKS["va"]), StaticModel(TINY, TASKS["va"], pooling="cls")]
    for model in models:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(AbawError, match=message):
            load_encoder(model, source, where="x")
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(AbawError, match=message):
        load_autoencoder(MaskedAutoencoder(TINY), source, where="x")
    with pytest.raises(AbawError, match=message):
        frozen_encoder(source)


def test_an_encoder_of_another_width_is_refused(tmp_path: Path) -> None:
    source = read(tmp_path, encoder_only(VitPreset(32, 8, 128, 2, 2, "linear", 32, 1, 1)))
    with pytest.raises(AbawError, match="wrong shape"):
        load_encoder(StaticModel(TINY, TASKS["va"]), source, where="x")


def test_a_mean_pooling_model_starts_with_a_fresh_norm_and_keeps_its_heads(tmp_path: Path) -> None:
    model = StaticModel(TINY, TASKS["expr"])
    heads = {name: value.clone() for name, value in model.heads.state_dict().items()}
    loaded = load_encoder(model, read(tmp_path, ENCODER), where="x")
    assert sorted(loaded.fresh) == ["fc_norm.bias", "fc_norm.weight", "heads.expr.bias", "heads.expr.weight"]
    assert torch.equal(model.fc_norm.weight, torch.ones(64))
    assert torch.equal(model.blocks[1].attn.qkv.weight, ENCODER["blocks.1.attn.qkv.weight"])
    assert all(torch.equal(value, heads[name]) for name, value in model.heads.state_dict().items())


def test_a_finetuned_file_brings_its_own_norm(tmp_path: Path) -> None:
    model = StaticModel(TINY, TASKS["expr"])
    loaded = load_encoder(model, read(tmp_path, FINETUNED), where="x")
    assert torch.equal(model.fc_norm.weight, FINETUNED["fc_norm.weight"])
    assert all(name.startswith("heads.") for name in loaded.fresh)


def test_a_class_token_model_refuses_a_file_without_the_tokens_norm(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="missing 2: norm.weight, norm.bias"):
        load_encoder(StaticModel(TINY, TASKS["va"], pooling="cls"), read(tmp_path, FINETUNED), where="x")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_our_own_weights_load_as_finetuning_always_loaded_them(tmp_path: Path, pooling: str) -> None:
    save_own(tmp_path / "own.safetensors", FULL)
    model, plain = (StaticModel(TINY, TASKS["va"], pooling=pooling) for _ in range(2))
    plain.load_state_dict(model.state_dict())
    expected = encoder_part(load_checkpoint(tmp_path / "own.safetensors")[0])
    missing = plain.load_state_dict(expected, strict=False).missing_keys
    loaded = load_encoder(model, read_pretrained(tmp_path / "own.safetensors"), where="x")
    assert (sorted(loaded.fresh), loaded.resized, loaded.notes) == (sorted(missing), False, [])
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


def save_own(path: Path, weights: dict[str, Tensor], **header: Any) -> Path:
    normalisation = {"mean": [0.5] * 3, "std": [0.2] * 3}
    own = {"kind": "mae", "architecture": {"preset": "t", **TINY.to_dict()}, "normalisation": normalisation}
    save_checkpoint(path, weights, {**own, "pooling": "cls", **header})
    return path


def test_a_checkpoint_of_ours_keeps_its_header_and_shape(tmp_path: Path) -> None:
    source = read_pretrained(save_own(tmp_path / "own.safetensors", FULL), trained_on=["ignored"])
    assert (source.dialect, source.preset, source.header["trained_on"]) == ("abaw", TINY, [])
    assert set(source.decoder) == {name for name in FULL if name.startswith(("decoder_", "mask_token"))}


def test_another_number_of_heads_than_a_recorded_one_is_refused(tmp_path: Path) -> None:
    source = read_pretrained(save_own(tmp_path / "own.safetensors", FULL))
    other = VitPreset(**{**TINY.to_dict(), "heads": 2})
    with pytest.raises(AbawError, match="1 attention heads in own.safetensors, 2 in the model"):
        load_encoder(StaticModel(other, TASKS["va"]), source, where="x")
    with pytest.raises(AbawError, match="1 attention heads in own.safetensors, 2 in the model"):
        load_autoencoder(MaskedAutoencoder(VitPreset(**{**TINY.to_dict(), "decoder_heads": 2})), source, where="x")
    load_encoder(StaticModel(other, TASKS["va"]), read(tmp_path, ENCODER), where="x")  # assumed ones give way


@pytest.mark.parametrize(("name", "task", "prefix"), [("cotex", "lsd", "vits.0."), ("emae", "expr", "encoder.")])
def test_the_encoder_of_a_larger_model_of_ours_is_found(tmp_path: Path, name: str, task: str, prefix: str) -> None:
    options = ModelOptions()
    model = SYSTEMS[name].build(TINY, TASKS[task], options)
    weights = random_weights(model)
    save_own(tmp_path / "m.safetensors", weights, kind=name, architecture=architecture(name, TINY, options))
    source = read_pretrained(tmp_path / "m.safetensors")
    assert source.unwrapped == (prefix,)
    start = StaticModel(TINY, TASKS["va"], pooling="cls" if name == "cotex" else "mean")
    loaded = load_encoder(start, source, where="x")
    assert all(fresh.startswith("heads.") for fresh in loaded.fresh)
    assert torch.equal(start.blocks[1].mlp.fc2.weight, weights[f"{prefix}blocks.1.mlp.fc2.weight"])
    assert any("holds 2 encoders: the first is taken" in note for note in loaded.notes) == (name == "cotex")


def test_a_static_model_of_ours_brings_its_pooling_norm(tmp_path: Path) -> None:
    weights = random_weights(StaticModel(TINY, TASKS["expr"]))
    save_own(tmp_path / "s.safetensors", weights, kind="static", pooling="mean", task="expr")
    start = StaticModel(TINY, TASKS["va"])
    loaded = load_encoder(start, read_pretrained(tmp_path / "s.safetensors"), where="x")
    assert sorted(loaded.fresh) == ["heads.va.bias", "heads.va.weight"]
    assert torch.equal(start.fc_norm.bias, weights["fc_norm.bias"])


def test_a_fusion_model_of_ours_has_no_encoder(tmp_path: Path) -> None:
    save_own(tmp_path / "f.safetensors", {"head.weight": torch.ones(2)}, kind="fusion", architecture={"model": "tcn"})
    with pytest.raises(AbawError, match='kind "fusion", which has no image encoder'):
        read_pretrained(tmp_path / "f.safetensors")


# -- autoencoders ------------------------------------------------------------------------------------------------------
def test_a_full_file_loads_with_its_decoder(tmp_path: Path) -> None:
    model = MaskedAutoencoder(TINY)
    loaded = load_autoencoder(model, read(tmp_path, FULL), where="x")
    assert loaded.fresh == []
    assert all(torch.equal(value, FULL[name]) for name, value in model.state_dict().items())


def test_an_encoder_only_file_gets_a_fresh_decoder_and_says_so(tmp_path: Path) -> None:
    model = MaskedAutoencoder(TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loaded = load_autoencoder(model, read(tmp_path, ENCODER), where="x")
    decoder = {name for name in FULL if name.startswith(("decoder_", "mask_token"))}
    assert set(loaded.fresh) == decoder
    assert any("has no decoder: starting with a new one" in note for note in loaded.notes)
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in decoder)
    assert torch.equal(model.norm.weight, ENCODER["norm.weight"])


def test_a_finetuned_file_gets_a_fresh_decoder_and_norm(tmp_path: Path) -> None:
    loaded = load_autoencoder(MaskedAutoencoder(TINY), read(tmp_path, FINETUNED), where="x")
    assert {"norm.weight", "norm.bias"} <= set(loaded.fresh)
    assert any("without the tokens' norm: starting with a new one" in note for note in loaded.notes)


def test_half_a_decoder_is_refused(tmp_path: Path) -> None:
    weights = {name: value for name, value in FULL.items() if name != "decoder_pred.bias"}
    with pytest.raises(AbawError, match="missing 1: decoder_pred.bias"):
        load_autoencoder(MaskedAutoencoder(TINY), read(tmp_path, weights), where="x")


@pytest.mark.parametrize(("name", "norm_pix", "warned"), [("visualize", True, True), ("visualize", False, False)])
def test_a_decoder_of_another_target_is_noted(tmp_path: Path, name: str, norm_pix: bool, warned: bool) -> None:
    model = MaskedAutoencoder(TINY, norm_pix_loss=norm_pix)
    notes = load_autoencoder(model, read(tmp_path, FULL, f"mae_{name}.pth"), where="x").notes
    assert any("was trained to predict pixels" in note for note in notes) == warned


# -- positions ---------------------------------------------------------------------------------------------------------
def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, the one torch uses."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def bicubic(table: np.ndarray, size: int) -> np.ndarray:
    """[g, g, D] -> [size, size, D]: four neighbours on each axis, borders repeated, no anti-aliasing."""
    count = len(table)
    weights = np.zeros((size, count))
    for row in range(size):
        centre = (row + 0.5) * count / size - 0.5
        first = int(np.floor(centre)) - 1
        for place in range(first, first + 4):
            weights[row, min(max(place, 0), count - 1)] += cubic(centre - place)
    return np.einsum("ai,bj,ijd->abd", weights, weights, table)


@pytest.mark.parametrize(("old", "new"), [(4, 7), (7, 4), (14, 6)])
def test_positions_are_resized_as_mae_does(old: int, new: int) -> None:
    table = torch.randn(1, 1 + old * old, 8, generator=torch.Generator().manual_seed(1))
    resized = resize_positions(table, new)
    assert torch.equal(resized[:, 0], table[:, 0])
    expected = bicubic(table[0, 1:].double().numpy().reshape(old, old, 8), new).reshape(-1, 8)
    np.testing.assert_allclose(resized[0, 1:].numpy(), expected, atol=1e-5)


def test_encoder_and_decoder_positions_are_resized_and_noted(tmp_path: Path) -> None:
    large = VitPreset(48, 8, 64, 2, 1, "linear", 32, 1, 1)
    model = MaskedAutoencoder(large)
    loaded = load_autoencoder(model, read(tmp_path, FULL), where="x")
    assert loaded.resized
    assert torch.equal(model.pos_embed, resize_positions(FULL["pos_embed"], 6))
    assert torch.equal(model.decoder_pos_embed, resize_positions(FULL["decoder_pos_embed"], 6))
    assert any(note == "pos_embed of w.pth resized from 16 to 36 patches" for note in loaded.notes)
    static = load_encoder(StaticModel(large, TASKS["va"]), read(tmp_path, FULL), where="x")
    assert static.resized


# -- frozen features ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("weights", "asked", "pooling", "norm"),
    [
        (ENCODER, "auto", "cls", "norm"),
        (ENCODER, "mean", "mean", "norm"),
        (FINETUNED, "auto", "mean", "fc_norm"),
        (FINETUNED, "mean", "mean", "fc_norm"),
    ],
)
def test_frozen_features_pass_through_the_norm_that_was_trained(tmp_path, weights, asked, pooling, norm) -> None:
    source = read(tmp_path, weights)
    model, taken = frozen_encoder(source, asked)
    assert taken == pooling
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = model.eval()(images)
        plain = FaceEncoder(TINY).eval()
        plain.norm = torch.nn.Identity()
        plain.load_state_dict({k: v for k, v in weights.items() if k in plain.state_dict()})
        tokens = plain.forward_features(images)
        layer = torch.nn.LayerNorm(64, eps=1e-6)
        layer.load_state_dict({key: weights[f"{norm}.{key}"] for key in ("weight", "bias")})
        mean_first = norm == "fc_norm"
        tokens = tokens if mean_first else layer(tokens)
        pooled = tokens[:, 0] if pooling == "cls" else tokens[:, 1:].mean(1)
        expected = layer(pooled) if mean_first else pooled
    assert torch.allclose(found, expected, atol=1e-5)


def test_class_token_features_of_a_finetuned_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="was finetuned without one"):
        frozen_encoder(read(tmp_path, FINETUNED), "cls")


def test_a_norm_that_never_left_its_start_is_left_aside(tmp_path: Path) -> None:
    untrained = {"fc_norm.weight": torch.ones(64), "fc_norm.bias": torch.zeros(64)}
    source = read(tmp_path, {**ENCODER, **untrained})
    assert source.ignored == dict.fromkeys(untrained, "never trained")
    assert frozen_encoder(source)[1] == "cls"
