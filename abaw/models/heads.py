"""Task -> output layers, and the one place where logits become scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from abaw.tasks import Head, Problem, Task


class TaskHeads(nn.ModuleDict):
    """One output layer per head of a task: features [..., D] -> {head: logits [..., L]}."""

    def __init__(self, task: Task, width: int, *, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__({head.name: _layer(head, width, hidden, dropout) for head in task.heads})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {name: layer(features) for name, layer in self.items()}


def _layer(head: Head, width: int, hidden: int, dropout: float) -> nn.Module:
    last = nn.Linear(hidden or width, head.output_dim)
    nn.init.trunc_normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), last) if dropout else last
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), last)


def logits_to_scores(heads: Sequence[Head], logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores in float32: probabilities of units and classes, values in [-1, 1]."""
    return {head.name: _scores(head, logits[head.name].float()) for head in heads}


def _scores(head: Head, logits: Tensor) -> Tensor:
    if head.problem is Problem.MULTILABEL:
        return torch.sigmoid(logits)
    if head.problem is Problem.MULTICLASS:
        return torch.softmax(logits, dim=-1)
    return logits.clamp(-1, 1)
