"""A whole temporal model: one network, or the two branches of a second stage; both from a checkpoint's header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from abaw.errors import AbawError, ExitCode, choose
from abaw.models.fusion.bodies import FUSION_BODIES, Body
from abaw.models.fusion.options import ATTENTION, POSITIONS, VALUE_HEADS, FusionOptions
from abaw.models.fusion.streams import CrossAttention, StreamScale, drop_streams
from abaw.tasks import TASKS, Head, Problem, Task

DUAL_BRANCH = "dual_branch"  # the name of a second stage in a header; it is no body
HARD = "@hard"  # behind the names of heads: logits of the second branch in training


class FrameHead(nn.Module):
    """Linear to a hidden layer, batch normalisation over rows, linear to the outputs (Netease ABAW5, CtyunAI ABAW6)."""

    def __init__(self, width: int, output_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, output_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, width] -> [N, output_dim]."""
        return self.out(self.norm(self.hidden(tokens)))


class SeparateHeads(nn.ModuleList):
    """A `FrameHead` for every output (Netease ABAW5: one for valence, one for arousal)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, width] -> [N, output_dim]."""
        return torch.cat([head(tokens) for head in self], dim=-1)


def _head(head: Head, body: Body, value_heads: str) -> nn.Module:
    if value_heads == "separate" and head.problem is Problem.REGRESSION:
        return SeparateHeads(FrameHead(body.width, 1, body.hidden) for _ in head.labels)
    return FrameHead(body.width, head.output_dim, body.hidden)


class FusionModel(nn.Module):
    """Features of all streams over a window -> logits per row and head.

    Raises AbawError (configuration) for names it does not know, and for cross-attention with a single stream.
    """

    def __init__(self, task: Task, options: FusionOptions) -> None:
        super().__init__()
        _check(options)
        self.options = options
        self.scale = StreamScale(options.dims)
        self.cross = CrossAttention(options) if options.attention == "cross" else None
        self.body = FUSION_BODIES[options.model](self.cross.width if self.cross else sum(options.dims), options)
        self.heads = nn.ModuleDict({head.name: _head(head, self.body, options.value_heads) for head in task.heads})

    def describe(self) -> dict[str, Any]:
        """`architecture` of a header, from which `fusion_from_header` makes the model again."""
        return self.options.describe()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only what enters each layer of the body, and compute the rest again for the gradient."""
        self.body.grad_checkpointing = enable

    def forward(self, features: Tensor, present: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """One window a batch row -> logits float32 [B, W, L] by head; padding gets zeros.

        features float16 or float32 [B, W, D], present bool [B, W, streams], rows bool [B, W] (False = padding; real
        rows come first). Only real rows enter the batch normalisation.
        """
        present = present & rows[..., None]  # what stands in padding never matters
        if self.training and self.options.modality_dropout:
            present = drop_streams(present, self.options.modality_dropout)
        values = self.scale(features, present)
        if self.cross is not None:
            values = self._related(self.cross, values, present, rows)
        flat = self.body(values, rows)[rows]
        return {name: self._spread(head(flat).float(), rows) for name, head in self.heads.items()}

    def _related(self, cross: CrossAttention, values: Tensor, present: Tensor, rows: Tensor) -> Tensor:
        if self.body.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(cross, values, present, rows, use_reentrant=False)
        return cross(values, present, rows)

    @staticmethod
    def _spread(values: Tensor, rows: Tensor) -> Tensor:
        out = values.new_zeros(*rows.shape, values.shape[-1])
        out[rows] = values
        return out


def _check(options: FusionOptions) -> None:
    choose(FUSION_BODIES, options.model, what="fusion model", where="fuse.model")
    choose(dict.fromkeys(POSITIONS), options.positions, what="positions", where="fuse.positions")
    choose(dict.fromkeys(ATTENTION), options.attention, what="attention", where="fuse.attention")
    choose(dict.fromkeys(VALUE_HEADS), options.value_heads, what="heads of values", where="fuse.value_heads")
    if options.attention == "cross" and len(options.dims) < 2:
        raise AbawError(
            "cross-attention needs two streams or more, and there is one: nothing to attend to",
            where='fuse.attention = "cross"',
            fix='set fuse.attention = "none", or name a second store in fuse.visual or fuse.audio',
            code=ExitCode.CONFIG,
        )


class DualBranch(nn.Module):
    """The second stage of the Netease code: a frozen fusion beside a trained copy of it; their logits are mixed.

    ``first`` never changes and is always in eval mode, so that it gives what it gave when it was chosen. ``test_mix``:
    its share of the logits outside training (0.8 in the source).
    """

    def __init__(self, first: FusionModel, second: FusionModel, *, test_mix: float) -> None:
        super().__init__()
        self.first, self.second, self.test_mix = first, second, test_mix
        self.first.requires_grad_(requires_grad=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> DualBranch:
        super().train(mode)
        self.first.eval()
        return self

    def describe(self) -> dict[str, Any]:
        """`architecture` of a header, from which `fusion_from_header` makes the model again."""
        branches = {"first": self.first.describe(), "second": self.second.describe()}
        return {"model": DUAL_BRANCH, "test_mix": self.test_mix, **branches}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As `FusionModel` does; the frozen branch keeps nothing anyway."""
        self.second.set_grad_checkpointing(enable)

    def forward(self, features: Tensor, present: Tensor, rows: Tensor, *hard: Tensor) -> dict[str, Tensor]:
        """Windows as `FusionModel` takes them -> mixed logits [B, W, L] by head.

        With the features, presence and rows of hard windows too: logits of the first branch for the windows, by head,
        and those of the second for the hard ones, by head with "@hard" behind its name.
        """
        with torch.no_grad():
            found = self.first(features, present, rows)
        if hard:
            return found | {f"{name}{HARD}": values for name, values in self.second(*hard).items()}
        other = self.second(features, present, rows)
        return {name: self.test_mix * found[name] + (1 - self.test_mix) * other[name] for name in found}


def fusion_from_header(header: Mapping[str, Any], *, where: str) -> FusionModel | DualBranch:
    """The model that a checkpoint's header describes, with fresh weights.

    Raises AbawError, naming ``where``, for a description that is none, or that of a newer version.
    """
    task = choose(TASKS, str(header.get("task")), what="task", where=where)
    shape = header.get("architecture")
    if not isinstance(shape, Mapping) or shape.get("model") != DUAL_BRANCH:
        return FusionModel(task, _options(shape, where))
    branches = [FusionModel(task, _options(shape.get(name), where)) for name in ("first", "second")]
    mix = shape.get("test_mix")
    if not isinstance(mix, float | int):
        raise _unknown("its second stage has no test_mix", where)
    return DualBranch(branches[0], branches[1], test_mix=float(mix))


def _options(shape: Any, where: str) -> FusionOptions:
    """The recorded options; fields that older headers lack have their defaults."""
    if not isinstance(shape, Mapping) or not {"model", "dims", "dropout"} <= set(shape):
        raise _unknown("it does not say model, dims and dropout", where)
    strange = sorted(set(shape) - {field.name for field in fields(FusionOptions)})
    if strange:
        raise _unknown(f"it has {', '.join(strange)}, which this version does not know", where)
    choose(FUSION_BODIES, str(shape["model"]), what="fusion model", where=where)
    return FusionOptions(**{**shape, "dims": tuple(shape["dims"])})


def _unknown(what: str, where: str) -> AbawError:
    return AbawError(
        f"the architecture of this checkpoint cannot be read: {what}",
        where=where,
        fix="use the version of abaw that wrote it (`abaw inspect` prints it), or train again with --overwrite",
    )
