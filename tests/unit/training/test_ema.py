"""The running average of weights."""

import torch
from torch import nn

from abaw.training.ema import WeightAverage


def layer(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    return put(model, value)


def put(model: nn.Linear, value: float) -> nn.Linear:
    with torch.no_grad():
        model.weight.fill_(value)
    return model


def test_the_average_follows_the_decay_of_each_step() -> None:
    model = layer(1.0)
    average = WeightAverage(model, 0.15)
    put(model, 2.0)
    average.update(0)  # decay (1 + 0) / (10 + 0) = 0.1
    assert average.state_dict()["weight"].item() == 1.0 * torch.tensor(0.1) + torch.tensor(2.0) * 0.9
    put(model, 3.0)
    average.update(1)  # decay min(0.15, 2 / 11) = 0.15
    torch.testing.assert_close(average.state_dict()["weight"].item(), 1.9 * 0.15 + 3.0 * 0.85, rtol=1e-6, atol=0)


def test_the_model_holds_the_average_meanwhile_and_its_own_weights_afterwards() -> None:
    model = layer(1.0)
    average = WeightAverage(model, 0.9)
    put(model, 0.3)
    with average.applied():
        assert model.weight.item() == 1.0
    assert torch.equal(model.weight, torch.tensor([[0.3]]))


def test_frozen_weights_are_not_averaged() -> None:
    model = nn.Sequential(layer(1.0), layer(2.0).requires_grad_(requires_grad=False))
    assert list(WeightAverage(model, 0.9).state_dict()) == ["0.weight"]
