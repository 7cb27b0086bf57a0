"""One model on several processes: gradients averaged by DistributedDataParallel, buffers as on the first process."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from abaw.training.device import rank_and_world
from abaw.training.distributed import sums


def replicate(model: nn.Module, trial: Callable[[nn.Module], Tensor]) -> DistributedDataParallel:
    """Wrap a model, whose weights become those of the first process.

    `trial(module)` gives the loss of some batch. A backward pass of it shows which trainable parameters get no
    gradient, which only then have to be looked for at every step. One more settles the order in which gradients are
    exchanged: DistributedDataParallel changes it after its first step, and a resumed run would differ in the last
    bits.
    """
    buffers = [value.clone() for value in model.buffers()]
    trial(model).backward()
    unused = sum(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    find_unused = sums({"unused": unused})["unused"] > 0
    model.zero_grad(set_to_none=True)
    wrapped = _wrap(model, find_unused=find_unused)
    trial(wrapped).backward()
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for value, before in zip(model.buffers(), buffers, strict=True):
            value.copy_(before)
    return wrapped


def _wrap(model: nn.Module, *, find_unused: bool) -> DistributedDataParallel:
    device = next(model.parameters()).device
    ids = [device.index] if device.type == "cuda" else None
    # Buffers matter only outside training: `share_buffers` exchanges them once a round instead of at each pass.
    with warnings.catch_warnings():  # newer versions of torch have another name for it, older ones only this
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(
            model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=find_unused
        )


def share_buffers(model: nn.Module) -> None:
    """Give all processes the first one's buffers (running statistics), so that they score alike."""
    if rank_and_world()[1] > 1:
        for value in model.buffers():
            dist.broadcast(value, src=0)
