"""The masked autoencoder against that of transformers, on the same weights, images and noise, in double precision."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from abaw._compat import prepare_timm, prepare_torchaudio
from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import VitPreset

if importlib.util.find_spec("transformers") is None:
    pytest.skip('transformers is missing: pip install -e ".[parity]"', allow_module_level=True)

PRESET = VitPreset(32, 8, 32, 3, 4, "linear", 16, 2, 2)
# Ours -> theirs: names of transformers 5 first, then those of version 4.
RENAMED = (
    (r"^cls_token$", "vit.embeddings.cls_token", ""),
    (r"^pos_embed$", "vit.embeddings.position_embeddings", ""),
    (r"^patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection.", ""),
    (r"^blocks\.(\d+)\.", r"vit.layers.\1.", r"vit.encoder.layer.\1."),
    (r"^norm\.", "vit.layernorm.", ""),
    (r"^mask_token$", "decoder.mask_token", ""),
    (r"^decoder_blocks\.(\d+)\.", r"decoder.decoder_layers.\1.", ""),
    (r"^decoder_", "decoder.decoder_", ""),
    (r"\.norm1\.", ".layernorm_before.", ""),
    (r"\.norm2\.", ".layernorm_after.", ""),
    (r"\.attn\.proj\.", ".attention.o_proj.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".mlp.fc1.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".mlp.fc2.", ".output.dense."),
)
PARTS = (("q_proj", "attention.query"), ("k_proj", "attention.key"), ("v_proj", "attention.value"))


def theirs(ours: dict[str, Tensor], *, old: bool) -> dict[str, Tensor]:
    """Our tensors (weights or gradients) under the names of transformers; its attention keeps q, k and v apart."""
    found = {}
    for name, value in ours.items():
        for pattern, new, before in RENAMED:
            name = re.sub(pattern, before if old and before else new, name)
        if ".attn.qkv." in name:
            for part, names in zip(value.chunk(3), PARTS, strict=True):
                found[name.replace("attn.qkv", f"attention.{names[old]}")] = part
        else:
            found[name] = value
    return found


def pair(*, norm_pix_loss: bool) -> tuple[MaskedAutoencoder, Any, bool]:
    """Our model and theirs with the same random weights, biases and norms included; whether its names are old."""
    prepare_timm()
    prepare_torchaudio()
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        layer_norm_eps=1e-6,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        mask_ratio=0.75,
        norm_pix_loss=norm_pix_loss,
        attn_implementation="sdpa",
    )
    other = ViTMAEForPreTraining(config).double().eval()
    model = MaskedAutoencoder(PRESET, norm_pix_loss=norm_pix_loss).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    old = any(".attention.query." in name for name in other.state_dict())
    other.load_state_dict(theirs(model.state_dict(), old=old))
    return model, other, old


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(3, 3, 32, 32, generator=generator, dtype=torch.float64)
    return images, torch.rand(3, 16, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_loss_reconstruction_and_mask_equal_those_of_transformers(norm_pix_loss: bool) -> None:
    model, other, _ = pair(norm_pix_loss=norm_pix_loss)
    images, noise = inputs()
    loss, patches, mask = model(images, noise)
    expected = other(pixel_values=images, noise=noise)
    assert torch.equal(mask.long(), expected.mask.long())
    assert mask.sum(1).tolist() == [12, 12, 12]
    torch.testing.assert_close(patches, expected.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-10, atol=0)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_every_gradient_equals_that_of_transformers(norm_pix_loss: bool) -> None:
    model, other, old = pair(norm_pix_loss=norm_pix_loss)
    images, noise = inputs()
    model(images, noise)[0].backward()
    other(pixel_values=images, noise=noise).loss.backward()
    ours = theirs({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, old=old)
    expected = {name: p.grad for name, p in other.named_parameters() if p.grad is not None}
    for name in ("decoder.decoder_pos_embed", "vit.embeddings.position_embeddings"):
        expected.pop(name, None)  # theirs are fixed in name alone where the library sets their flag later
    assert set(ours) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-8, atol=1e-11, msg=name)
    still = [name for name, gradient in expected.items() if gradient.abs().max() < 1e-8]
    assert all(name.endswith(("k_proj.bias", "key.bias")) for name in still)  # a shift of all keys changes nothing


def test_the_table_of_positions_equals_that_of_transformers() -> None:
    _, other, _ = pair(norm_pix_loss=True)
    fresh = type(other.vit.embeddings)(other.config)
    fresh.initialize_weights()
    torch.testing.assert_close(fresh.position_embeddings.data, MaskedAutoencoder(PRESET).pos_embed.data)
