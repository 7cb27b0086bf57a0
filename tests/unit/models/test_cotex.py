"""Masked CoTEX: parallel encoders under independent masks."""

import pytest
import torch

from abaw.models.cotex import Cotex, masked_feature
from abaw.models.losses import divergence
from abaw.models.static import StaticModel
from abaw.models.vit import VitPreset
from abaw.tasks import TASKS
from tests.unit.models.tiny_models import LINEAR, TINY, overfit

LSD = TASKS["lsd"]


def cotex(preset: VitPreset = TINY, **options: float) -> Cotex:
    torch.manual_seed(0)
    return Cotex(preset, LSD, **options).eval()  # type: ignore[arg-type]


def pictures(count: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def noise(count: int = 8, views: int = 2) -> torch.Tensor:
    return torch.rand(count, views, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("preset", [TINY, LINEAR], ids=["conv", "linear"])
def test_a_view_of_a_whole_image_is_the_plain_encoder(preset: VitPreset) -> None:
    model, images = cotex(preset), pictures()
    plain = [StaticModel(preset, LSD, pooling="cls").eval() for _ in range(2)]
    for view, static in enumerate(plain):
        heads = {f"heads.{name}": value for name, value in model.heads[view].state_dict().items()}
        static.load_state_dict({**model.vits[view].state_dict(), **heads})
    by_view = [static(images)["lsd"] for static in plain]
    assert torch.equal(model(images)["lsd"], by_view[0] + by_view[1])
    unmasked = cotex(preset, mask_ratio=0.0)(images, noise())["lsd"]  # the order of patches is of no account
    assert torch.allclose(unmasked, torch.stack(by_view), atol=1e-5)


@pytest.mark.parametrize("preset", [TINY, LINEAR], ids=["conv", "linear"])
def test_a_view_depends_on_the_patches_with_the_least_noise_alone(preset: VitPreset) -> None:
    model, image = cotex(preset), pictures(1)
    order = torch.arange(16.0).flip(0)[None, None].expand(1, 2, 16)  # the last four patches, the bottom row, stay
    changed = image.clone()
    changed[:, :, :24] += 1.0
    assert torch.equal(model(image, order)["lsd"], model(changed, order)["lsd"])
    changed[:, :, 24:, :8] += 1.0
    assert not torch.allclose(model(image, order)["lsd"], model(changed, order)["lsd"])


def test_masks_of_the_views_come_from_their_own_noise() -> None:
    model, images, drawn = cotex(), pictures(), noise()
    first = model(images, drawn)["lsd"]
    assert first.shape == (2, 8, 6)
    assert torch.equal(first, model(images, drawn)["lsd"])
    other = drawn.clone()
    other[:, 1] = 1 - other[:, 1]
    second = model(images, other)["lsd"]
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])


def test_views_have_weights_of_their_own() -> None:
    model = cotex(views=3)
    assert len(model.encoders()) == 3
    weights = [encoder.blocks[0].attn.qkv.weight for encoder in model.encoders()]
    assert not torch.equal(weights[0], weights[1])
    assert model(pictures(2), noise(2, 3))["lsd"].shape == (3, 2, 6)


def test_the_class_token_is_never_masked() -> None:
    encoder, images, drawn = cotex().encoders()[0], pictures(2), noise(2)[:, 0]
    before = masked_feature(encoder, images, drawn, 0.75)
    with torch.no_grad():
        encoder.cls_token += 1.0
    assert not torch.allclose(before, masked_feature(encoder, images, drawn, 0.75))


def test_checkpointing_changes_no_gradient() -> None:
    images, drawn, found = pictures(4), noise(4), []
    for enabled in (False, True):
        model = cotex(drop_path=0.3).train()
        model.set_grad_checkpointing(enabled)
        torch.manual_seed(5)
        model(images, drawn)["lsd"].sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_it_overfits_eight_samples_whatever_is_masked() -> None:
    model, images, classes = cotex(mask_ratio=0.5), pictures(), torch.arange(8) % 6
    random = torch.Generator().manual_seed(3)

    def loss() -> torch.Tensor:
        logits = model(images, torch.rand(8, 2, 16, generator=random))["lsd"]
        labelled = [torch.nn.functional.cross_entropy(view, classes) for view in logits]
        return torch.stack(labelled).mean() + 10 * divergence(logits)

    overfit(model, loss, steps=120)
    assert torch.equal(model(images)["lsd"].argmax(-1), classes)
