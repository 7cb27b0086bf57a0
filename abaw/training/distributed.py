"""Training in several processes under `torchrun`: who writes, who has which rows, and how they agree.

One process needs none of it: every function here then does the plain thing.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from abaw.errors import AbawError, ExitCode
from abaw.training.device import launched, rank_and_world

# A process may wait long for another (the first one measures, writes or scores); torchrun ends it when one fails.
TIMEOUT = timedelta(hours=24)
# Depth of nested `main_first` blocks: only the outermost one waits.
_depth = 0


class FailedElsewhere(AbawError):
    """What ends a process because another one failed; that one says why, so this is not printed."""

    said_elsewhere = True


def join(device: torch.device) -> None:
    """Join the processes that torchrun started, if it did: gloo for tensors in main memory, nccl on CUDA.

    Leaves them when Python ends.
    """
    rank, world = launched()
    if world == 1 or dist.is_initialized():
        return
    if "MASTER_ADDR" not in os.environ:
        raise AbawError(
            f"this is one of {world} processes, but nothing says where the first one is",
            where=f"environment variables WORLD_SIZE={world} and MASTER_ADDR (not set)",
            fix=f"start it by torchrun --nproc-per-node {world} -m abaw ..., or `unset WORLD_SIZE` for one process",
            code=ExitCode.CONFIG,
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=rank, world_size=world, timeout=TIMEOUT)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        gc.collect()  # a wrapped model that is still around can make leaving hang
        dist.destroy_process_group()


def is_main() -> bool:
    """Whether this is the process that writes and prints: number 0, or the only one. Valid before `join` too."""
    return (rank_and_world() if dist.is_initialized() else launched())[0] == 0


def require_joined() -> None:
    """Raise AbawError where torchrun started several processes of a command that does not divide its work."""
    world = launched()[1]
    if world > 1 and not dist.is_initialized():
        raise AbawError(
            f"this is one of {world} processes, and this command does not divide its work among several",
            where=f"environment variable WORLD_SIZE={world}",
            fix="start the command without torchrun (or `unset WORLD_SIZE`); it uses one device and all cores",
            code=ExitCode.CONFIG,
        )


@contextmanager
def fails_with_others() -> Iterator[None]:
    """Turn the broken connection to a process that ended into `FailedElsewhere`."""
    try:
        yield
    except RuntimeError as error:
        if rank_and_world()[1] == 1 or not _is_connection(error):
            raise
        raise FailedElsewhere(
            "another process of this training ended",
            where=str(error).splitlines()[0],
            fix="see its message, then run the same command again: it continues by itself",
            code=ExitCode.BUG,
        ) from error


def _is_connection(error: RuntimeError) -> bool:
    words = ("gloo", "Connection closed", "Connection reset", "NCCL")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


@contextmanager
def main_first() -> Iterator[None]:
    """Wait for all processes, then let the first one run the block before the others; all fail when it fails.

    So what any process read before is older than what the block writes. A block inside another one does not wait.
    """
    global _depth
    require_joined()
    outermost = _depth == 0 and rank_and_world()[1] > 1
    if outermost:
        sums({"": 0.0})
    if outermost and not is_main():
        _raise_if_failed(from_main(None))
    _depth += 1
    try:
        yield
    except BaseException as error:
        if outermost and is_main():
            with suppress(FailedElsewhere):  # the others may have ended by now
                from_main(_described(error))
        raise
    else:
        if outermost and is_main():
            from_main(None)
    finally:
        _depth -= 1


@fails_with_others()
def from_main(content: Any) -> Any:
    """The first process's value of something small, on every process."""
    if rank_and_world()[1] == 1:
        return content
    box = [content]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _described(failure: BaseException | None) -> tuple[str, ...] | None:
    if failure is None:
        return None
    if isinstance(failure, AbawError):
        return (failure.what, failure.where, failure.fix, str(int(failure.code)))
    if isinstance(failure, KeyboardInterrupt):
        return ("interrupted",)
    return (f"process 0 failed: {failure!r}", "process 0", "see its message", str(int(ExitCode.BUG)))


def _raise_if_failed(described: tuple[str, ...] | None) -> None:
    if described is None:
        return
    if len(described) == 1:
        raise KeyboardInterrupt
    what, where, fix, code = described
    raise FailedElsewhere(what, where=where, fix=fix, code=ExitCode(int(code)))


def own_part(count: int) -> np.ndarray:
    """int64 indices of this process's share of `count` rows: contiguous, unpadded, all shares together arange."""
    rank, world = rank_and_world()
    return np.array_split(np.arange(count), world)[rank]


@fails_with_others()
def sums(values: Mapping[str, float]) -> dict[str, float]:
    """Sums over the processes of named numbers, whose names are the same everywhere."""
    if rank_and_world()[1] == 1:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(values, total.tolist(), strict=True))


def gather_rows(values: Tensor) -> Tensor:
    """[B, ...] of every process -> [processes x B, ...] in their order, on every process; equal shapes.

    Differentiable on the condition that every process computes the same loss of the result: the gradient of the own
    rows is multiplied by the number of processes, so that the mean that DistributedDataParallel takes is the whole
    batch's gradient. Nothing for one process.
    """
    return values if rank_and_world()[1] == 1 else _GatherRows.apply(values)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        # As bytes, since not every backend knows every type.
        own = values.detach().contiguous().view(-1).view(torch.uint8)
        parts = [torch.empty_like(own) for _ in range(rank_and_world()[1])]
        dist.all_gather(parts, own)
        return torch.cat([part.view(values.dtype).view(values.shape) for part in parts])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        rank, world = rank_and_world()
        rows = len(gradients[0]) // world
        return gradients[0][rank * rows : (rank + 1) * rows] * world


@fails_with_others()
def gather_scores(indices: np.ndarray, scores: Mapping[str, np.ndarray], total: int) -> dict[str, np.ndarray]:
    """Rows [n, ...] with their indices from every process -> [total, ...] in order, on every process.

    Raises ValueError unless the indices of all processes together are each of 0..total - 1 exactly once.
    """
    world = rank_and_world()[1]
    parts: list[Any] = [(indices, dict(scores))]
    if world > 1:
        parts = [None] * world
        dist.all_gather_object(parts, (indices, dict(scores)))
    places = np.concatenate([np.asarray(where, np.int64) for where, _ in parts])
    if not np.array_equal(np.sort(places), np.arange(total)):
        message = f"{len(places)} scored rows are not each of {total} rows exactly once"
        raise ValueError(message)
    found = {}
    for name in scores:
        rows = np.concatenate([own[name] for _, own in parts])
        found[name] = np.empty_like(rows)
        found[name][places] = rows
    return found


def piece_size(batch_size: int, accumulate: int, *, where: str) -> int:
    """Samples of one forward pass on one process.

    Raises AbawError when a step's batch cannot be cut into equal pieces, whose mean would not be the batch's.
    """
    world = launched()[1]
    size, rest = divmod(batch_size, accumulate * world)
    if rest == 0 and size > 0:
        return size
    passes = "1 forward pass" if accumulate == 1 else f"{accumulate} forward passes"
    cut = passes + (f" on each of {world} processes" if world > 1 else "")
    raise AbawError(
        f"a batch of {batch_size} cannot be cut into equal pieces for {cut}",
        where=where,
        fix=f"use a multiple of {accumulate * world}, such as {accumulate * world * max(1, size)}",
        code=ExitCode.CONFIG,
    )
