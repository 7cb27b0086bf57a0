"""A running average of a model's weights, which is validated and kept in place of the weights being trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of the trainable parameters; buffers and frozen parameters stay the model's own.

    The decay at a step is the smaller of `decay` and (1 + step) / (10 + step), so that the random first weights are
    soon forgotten (the rule of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._average = {name: value.detach().clone() for name, value in self._weights.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._average.values()), list(self._weights.values()), share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average meanwhile, and its own weights again afterwards, bit for bit."""
        own = {name: value.detach().clone() for name, value in self._weights.items()}
        self._put(self._average)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._average)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a stored average of the same parameters."""
        for name, average in self._average.items():
            average.copy_(state[name])
