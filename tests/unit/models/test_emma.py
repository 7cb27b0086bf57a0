"""EMMA: the encoder's logits and a frozen classifier's, and valence and arousal from both."""

import pytest
import torch

from abaw.errors import AbawError
from abaw.models.emma import Emma
from abaw.models.losses import LossSettings, task_loss
from abaw.tasks import TASKS
from tests.unit.models.tiny_models import TINY, overfit, tiny_classifier

MTL = TASKS["mtl"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def emma(*, classifier: bool = True) -> Emma:
    torch.manual_seed(0)
    used = tiny_classifier() if classifier else None
    return Emma(TINY, MTL, classifier=used, num_scores=4, mean=MEAN, std=STD, hidden=24, va_hidden=16)


def pictures(count: int = 8) -> torch.Tensor:
    """Images in [0, 1]."""
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)


def test_layers_have_the_published_widths() -> None:
    model = emma()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if "head." in name}
    assert shapes == {
        "head.0.weight": [24, 32],
        "head.0.bias": [24],
        "head.2.weight": [20, 24],
        "head.2.bias": [20],
        "va_head.0.weight": [16, 24],  # 4 scores of the classifier, 8 classes, 12 units
        "va_head.0.bias": [16],
        "va_head.2.weight": [2, 16],
        "va_head.2.bias": [2],
    }


def test_valence_and_arousal_are_read_from_all_logits_in_the_published_order() -> None:
    model, images = emma().eval(), pictures(3)
    found = model(normalised(images))
    assert list(found) == ["va", "expr", "au"]
    small = torch.nn.functional.interpolate(images, (16, 16), mode="bilinear", antialias=True)
    colours = ((small - 0.5) / 0.25).mean(dim=(2, 3))
    scores = torch.cat([colours, colours.sum(1, keepdim=True)], dim=1)  # an unused batch norm changes nothing
    hidden = torch.cat([scores, found["expr"], found["au"]], dim=1) @ model.va_head[0].weight.T + model.va_head[0].bias
    expected = hidden.clamp(min=0) @ model.va_head[2].weight.T + model.va_head[2].bias
    assert torch.allclose(found["va"], expected, atol=1e-5)


def test_the_va_loss_reaches_the_encoder_and_not_the_classifier() -> None:
    model = emma().train()
    model(normalised(pictures()))["va"].pow(2).sum().backward()
    assert model.vit.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert model.head[2].weight.grad.abs().sum() > 0
    assert model.cnn is not None
    assert all(p.grad is None and not p.requires_grad for p in model.cnn.network.parameters())


def test_training_leaves_the_classifier_and_its_statistics_alone() -> None:
    model = emma()
    assert model.cnn is not None
    before = {name: value.clone() for name, value in model.cnn.network.state_dict().items()}
    images = normalised(pictures())
    overfit(model, lambda: model(images)["va"].pow(2).sum(), steps=2)
    model.train()
    assert not model.cnn.network.training
    after = model.cnn.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_weights_of_the_classifier_are_not_the_models() -> None:
    model = emma()
    assert not [name for name in model.state_dict() if name.startswith("cnn")]
    assert model.load_state_dict(emma(classifier=False).state_dict()).missing_keys == []


def test_without_its_classifier_it_has_a_feature_but_no_scores() -> None:
    model, images = emma(classifier=False), normalised(pictures(2))
    assert model.pooled(images).shape == (2, 32)
    with pytest.raises(AbawError, match="frozen classifier"):
        model(images)


def test_it_overfits_eight_partly_labelled_samples() -> None:
    model, images = emma(), normalised(pictures())
    random = torch.Generator().manual_seed(2)
    targets = {
        "va": torch.rand(8, 2, generator=random) * 2 - 1,
        "expr": torch.arange(8).float()[:, None],
        "au": torch.randint(0, 2, (8, 12), generator=random).float(),
    }
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in targets.items()}
    masks["va"][0], masks["expr"][1], masks["au"][2] = False, False, False
    settings = {"va": LossSettings(mse=0.5)}
    overfit(model, lambda: task_loss(MTL.heads, model(images), targets, masks, settings)[0], steps=150)
    found = model(images)
    assert torch.equal(found["expr"].argmax(-1)[masks["expr"][:, 0]], torch.tensor([0, 2, 3, 4, 5, 6, 7]))
    assert torch.equal((found["au"] > 0)[masks["au"]], targets["au"][masks["au"]].bool())
    assert (found["va"] - targets["va"])[masks["va"]].abs().max() < 0.2
