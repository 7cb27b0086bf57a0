"""The masked autoencoder, step by step."""

import pytest
import torch

from abaw.models.mae import MaskedAutoencoder, encoder_weights
from abaw.models.vit import VitPreset, build_vit
from abaw.training.optim import adamw, parameter_groups

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


@pytest.mark.parametrize("preset", [CONV, LINEAR])
def test_without_masking_the_encoder_equals_timms_own_forward(preset: VitPreset) -> None:
    model = build(preset)
    plain = build_vit(preset, pooling="cls").eval()
    plain.load_state_dict(encoder_weights(model.state_dict()))
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
    assert set(encoder_weights(build().state_dict())) == set(build_vit(CONV).state_dict())


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
