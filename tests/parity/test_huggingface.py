"""Weights of transformers' ViTMAE and ViT give, through our reader, the outputs that transformers gives."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from abaw._compat import prepare_timm, prepare_torchaudio
from abaw.errors import AbawError
from abaw.models.dialects import frozen_encoder, load_autoencoder, read_pretrained
from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import VitPreset

if importlib.util.find_spec("transformers") is None:
    pytest.skip('transformers is missing: pip install -e ".[parity]"', allow_module_level=True)

SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "layer_norm_eps": 1e-6,
    "image_size": 32,
    "patch_size": 8,
}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 128,
}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def randomised(model: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def build(name: str, **settings: Any) -> Any:
    prepare_timm()
    prepare_torchaudio()
    import transformers

    config = getattr(transformers, "ViTMAEConfig" if "MAE" in name else "ViTConfig")
    return randomised(getattr(transformers, name)(config(**{**SHAPE, **settings})))


@pytest.fixture(scope="module")
def mae() -> Any:
    return build("ViTMAEForPreTraining", **DECODER)


def files(mae: Any, folder: Path, layout: str) -> Path:
    """The model's file as saved by this version, with the names of models in memory, or with those of version 4."""
    mae.save_pretrained(folder / "saved")
    if layout == "saved":
        return folder / "saved" / "model.safetensors"
    (folder / layout).mkdir()
    shutil.copy(folder / "saved" / "config.json", folder / layout)
    if layout == "memory":
        torch.save(mae.state_dict(), folder / layout / "pytorch_model.bin")
        return folder / layout / "pytorch_model.bin"
    saved = load_file(folder / "saved" / "model.safetensors")
    published = {name.replace("decoder_encoder.layer.", "decoder_layers."): value for name, value in saved.items()}
    assert "vit.encoder.layer.0.attention.attention.query.weight" in published
    assert "decoder.decoder_layers.1.attention.output.dense.bias" in published
    save_file(published, folder / layout / "model.safetensors")
    return folder / layout / "model.safetensors"


@pytest.mark.parametrize("layout", ["saved", "memory", "version 4"])
def test_a_masked_autoencoder_gives_the_same_reconstruction_and_loss(mae: Any, tmp_path: Path, layout: str) -> None:
    source = read_pretrained(files(mae, tmp_path, layout))
    assert source.dialect == "hf-vitmae"
    assert source.preset == VitPreset(32, 8, 48, 3, 4, "linear", 32, 2, 2)  # heads from config.json
    model = MaskedAutoencoder(source.preset, norm_pix_loss=False).eval()
    assert load_autoencoder(model, source, where="x").fresh == []
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        theirs = mae(pixel_values=IMAGES, noise=noise)
        loss, patches, mask = model(IMAGES, noise)
    assert torch.equal(mask, theirs.mask)
    assert torch.allclose(patches, theirs.logits, atol=1e-5)
    assert loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)


def test_the_target_and_pixel_constants_come_from_the_files_beside_it(mae: Any, tmp_path: Path) -> None:
    path = files(mae, tmp_path, "saved")
    images = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.5]}
    (path.parent / "preprocessor_config.json").write_text(json.dumps(images))
    header = read_pretrained(path).header
    assert header["target"] == "pixels"
    assert header["normalisation"] == {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.5]}


@pytest.mark.parametrize("name", ["ViTMAEModel", "ViTModel", "ViTForImageClassification"])
def test_an_encoder_alone_gives_the_same_class_token(tmp_path: Path, name: str) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    source = read_pretrained(tmp_path / "model.safetensors")
    assert source.dialect == "hf-vit"
    assert not source.decoder
    encoder, pooling = frozen_encoder(source)
    assert pooling == "cls"
    with torch.inference_mode():
        if name == "ViTMAEModel":
            model.config.mask_ratio = 0.0
            model.embeddings.config.mask_ratio = 0.0
        tower = getattr(model, "vit", model)
        expected = tower(pixel_values=IMAGES).last_hidden_state[:, 0]
        assert torch.allclose(encoder.eval()(IMAGES), expected, atol=1e-5)


def test_the_usual_configuration_of_norms_makes_no_difference_that_matters(tmp_path: Path) -> None:
    model = build("ViTModel", layer_norm_eps=1e-12)
    model.save_pretrained(tmp_path)
    source = read_pretrained(tmp_path / "model.safetensors")
    assert "layer norms run with eps 1e-06; beside model.safetensors stands 1e-12" in source.notes
    encoder, _ = frozen_encoder(source)
    with torch.inference_mode():
        expected = model(pixel_values=IMAGES).last_hidden_state[:, 0]
        assert torch.allclose(encoder.eval()(IMAGES), expected, atol=1e-4)


def test_a_missing_projection_is_named(mae: Any, tmp_path: Path) -> None:
    path = files(mae, tmp_path, "saved")
    weights = load_file(path)
    del weights["vit.encoder.layer.1.attention.attention.key.weight"]
    save_file(weights, path)
    with pytest.raises(
        AbawError, match=r"missing 1: blocks\.1\.attn\.qkv\.weight; unexpected 2: vit\.encoder\.layer\.1"
    ):
        frozen_encoder(read_pretrained(path))
