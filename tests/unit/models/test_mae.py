"""The masked autoencoder, step by step."""

from functools import partial

import pytest
import torch

from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import VIT_PRESETS, VitPreset, build_vit
from abaw.training.optim import adamw, parameter_groups
from tests.unit.models.tiny_models import encoder_part

CONV = VitPreset(32, 8, 32, 2, 2, "conv", 16, 1, 2)
LINEAR = VitPreset(32, 8, 32, 2, 2, "linear", 16, 1, 2)


def build(preset: VitPreset = CONV, **settings: object) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(preset, **settings).eval()  # type: ignore[arg-type]


def noise(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 16, generator=torch.Generator().manual_seed(1))


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def test_patches_are_in_row_order_with_channels_last() -> None:
    picture = torch.arange(3 * 32 * 32, dtype=torch.float32).reshape(1, 3, 32, 32)
    patches = build().patchify(picture)
    # patch 5 = row 1, column 1: its first pixel is (8, 8), its second (8, 9)
    assert patches.shape == (1, 16, 192)
    assert patches[0, 5, :6].tolist() == [264, 1288, 2312, 265, 1289, 2313]
    assert torch.equal(build().unpatchify(patches), picture)


def test_masking_keeps_the_patches_with_the_least_noise() -> None:
    kept, mask, restore = MaskedAutoencoder.random_masking(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), 0.5)
    assert kept.tolist() == [[1, 3]]
    assert mask.tolist() == [[1, 0, 1, 0]]
    assert restore.tolist() == [[3, 0, 2, 1]]  # in order kept 1, 3, then hidden 2, 0


@pytest.mark.parametrize(
    ("patches", "ratio", "hidden"),
    [(196, 0.75, 147), (49, 0.75, 37), (16, 0.75, 12), (16, 0.6, 10), (4, 0.5, 2), (16, 0.0, 0)],
)
def test_the_share_of_hidden_patches_is_rounded_up(patches: int, ratio: float, hidden: int) -> None:
    values = torch.rand(3, patches, generator=torch.Generator().manual_seed(5))
    kept, mask, restore = MaskedAutoencoder.random_masking(values, ratio)
    assert mask.sum(1).tolist() == [hidden] * 3
    assert kept.shape == (3, patches - hidden)
    assert all(sorted(row.tolist()) == list(range(patches)) for row in restore)
    for row in range(3):  # every visible patch has less noise than every hidden one
        visible = values[row][mask[row] == 0]
        assert sorted(kept[row].tolist()) == (mask[row] == 0).nonzero().flatten().tolist()
        assert hidden == 0 or visible.max() < values[row][mask[row] == 1].min()


def test_the_encoder_equals_a_vision_transformer_that_timm_builds() -> None:
    timm = pytest.importorskip("timm", reason="timm is missing")
    model = build(LINEAR)
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    other = timm.models.vision_transformer.VisionTransformer(**shape, num_classes=0, norm_layer=norm).eval()
    other.load_state_dict(encoder_part(model.state_dict()))
    latent, _, _ = model.forward_encoder(images(), torch.arange(16.0).expand(2, -1), 0.0)
    assert torch.allclose(latent, other.forward_features(images()), atol=1e-5)
    shuffled, _, restore = model.forward_encoder(images(), noise(), 0.0)  # in another order, the same tokens
    again = torch.gather(shuffled[:, 1:], 1, restore[:, :, None].expand(-1, -1, 32))
    assert torch.allclose(again, other.forward_features(images())[:, 1:], atol=1e-5)


@pytest.mark.parametrize("preset", [CONV, LINEAR])
def test_gradient_checkpointing_gives_the_same_gradients(preset: VitPreset) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build(preset).train()
        model.set_grad_checkpointing(checkpointing)
        model(images(), noise())[0].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_gradient_checkpointing_computes_the_blocks_of_encoder_and_decoder_twice() -> None:
    model = build().train()
    model.set_grad_checkpointing()
    calls = []
    for block in (*model.blocks, *model.decoder_blocks):
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    model(images(), noise())[0].backward()
    assert len(calls) == 2 * (2 + 1)
    with torch.no_grad():
        model(images(), noise())
    assert len(calls) == 2 * (2 + 1) + 3


def test_the_published_decoder_belongs_to_the_base_and_large_presets() -> None:
    for name in ("vit_base_224", "vit_large_224"):
        preset = VIT_PRESETS[name]
        assert (preset.decoder_width, preset.decoder_depth, preset.decoder_heads) == (512, 8, 16)


@pytest.mark.parametrize("preset", [CONV, LINEAR])
def test_without_masking_the_encoder_equals_timms_own_forward(preset: VitPreset) -> None:
    model = build(preset)
    plain = build_vit(preset, pooling="cls").eval()
    plain.load_state_dict(encoder_part(model.state_dict()))
    sorted_noise = torch.arange(16.0).expand(2, -1)
    latent, mask, _ = model.forward_encoder(images(), sorted_noise, 0.0)
    assert torch.allclose(latent, plain.forward_features(images()), atol=1e-5)
    assert mask.sum() == 0


@pytest.mark.parametrize("preset", [CONV, LINEAR])
def test_hidden_pixels_do_not_change_the_latent(preset: VitPreset) -> None:
    model = build(preset)
    latent, mask, _ = model.forward_encoder(images(), noise(), 0.75)
    hidden = model.unpatchify(mask[:, :, None].expand(-1, -1, 192).contiguous())
    changed, _, _ = model.forward_encoder(images() + 5 * hidden, noise(), 0.75)
    assert torch.equal(latent, changed)
    assert latent.shape == (2, 1 + 4, 32)


def test_the_loss_is_the_squared_error_of_hidden_normalised_patches() -> None:
    model = build()
    target = model.patchify(images())
    scaled = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    mask = torch.zeros(2, 16)
    mask[0, 3] = 1
    wrong_elsewhere = scaled + 7 * (1 - mask)[:, :, None]
    assert model.forward_loss(images(), wrong_elsewhere, mask).item() == pytest.approx(0, abs=1e-6)
    assert model.forward_loss(images(), scaled + 2, mask).item() == pytest.approx(4, rel=1e-4)


def test_positions_are_stored_and_not_trained() -> None:
    model = build()
    fixed = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert fixed == {"pos_embed", "decoder_pos_embed"}
    assert fixed <= set(model.state_dict())


def test_the_encoder_part_fits_the_encoder() -> None:
    assert set(encoder_part(build().state_dict())) == set(build_vit(CONV).state_dict())


@pytest.mark.parametrize("preset", [CONV, LINEAR])
def test_training_on_a_few_images_lowers_the_loss(preset: VitPreset) -> None:
    torch.manual_seed(0)
    line = torch.linspace(-1, 1, 32)
    slopes = torch.randn(2, 8, 3, 1, 1)
    ramps = slopes[0] * line[:, None] + slopes[1] * line
    model = MaskedAutoencoder(preset)
    optimizer = adamw(parameter_groups(model, lr=3e-3, weight_decay=0.0))
    losses = []
    for step in range(120):
        loss, _, _ = model(ramps, torch.rand(8, 16, generator=torch.Generator().manual_seed(step)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0]
