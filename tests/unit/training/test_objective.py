"""The loss of a batch: forward pass, labels of all processes, masked losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from abaw.models.cotex import Cotex
from abaw.models.losses import LossSettings, task_loss
from abaw.models.static import StaticModel
from abaw.tasks import TASKS
from abaw.training.objective import consistency_objective, task_objective
from tests.unit.models.tiny_models import TINY

MTL, LSD = TASKS["mtl"], TASKS["lsd"]


def labels(rows: int = 4) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        "va.values": torch.rand(rows, 2, generator=random),
        "va.mask": torch.tensor([[True, True], [True, False], [False, False], [True, True]]),
        "expr.values": torch.arange(rows).float()[:, None],
        "expr.mask": torch.tensor([[True], [False], [True], [True]]),
        "au.values": torch.randint(0, 2, (rows, 12), generator=random).float(),
        "au.mask": torch.rand(rows, 12, generator=random) < 0.5,
    }


def pictures(rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class Given(nn.Module):
    """Gives the logits it is called with, [V, B, L], for one head."""

    def forward(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"lsd": logits}


def test_one_process_computes_the_plain_loss() -> None:
    torch.manual_seed(0)
    model, batch = StaticModel(TINY, MTL).eval(), {"images": pictures(), **labels()}
    settings = {"au": LossSettings(reduce="sum"), "va": LossSettings(mse=0.5)}
    total, parts = task_objective(MTL, settings, inputs=("images",))(model, batch)
    targets, masks = ({h.name: batch[f"{h.name}.{key}"] for h in MTL.heads} for key in ("values", "mask"))
    expected, expected_parts = task_loss(MTL.heads, model(batch["images"]), targets, masks, settings)
    assert torch.equal(total, expected)
    assert {name: value.item() for name, value in parts.items()} == {k: v.item() for k, v in expected_parts.items()}


def test_a_single_head_has_no_parts() -> None:
    model = StaticModel(TINY, TASKS["va"])
    assert task_objective(TASKS["va"], {}, inputs=("images",))(model, {"images": pictures(), **labels()})[1] == {}


def test_consistency_by_hand() -> None:
    """Two views of one row of six classes: one is undecided, the other gives Anger 1/2 and the rest 1/10 each."""
    shares = torch.tensor([[[1 / 6] * 6], [[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]]])
    batch = {
        "logits": shares.log(),
        "lsd.values": torch.zeros(1, 1),
        "lsd.mask": torch.ones(1, 1, dtype=torch.bool),
    }
    total, parts = consistency_objective(LSD, {}, inputs=("logits",), weight=100.0)(Given(), batch)
    entropy = (math.log(6) + math.log(2)) / 2
    first, rest = (1 / 6 + 0.5) / 2, (1 / 6 + 0.1) / 2
    flat = (math.log(1 / 6 / first) + 5 * math.log(1 / 6 / rest)) / 6
    sure = 0.5 * math.log(0.5 / first) + 0.5 * math.log(0.1 / rest)
    apart = (flat + sure) / 2 / 6
    assert parts["lsd"].item() == pytest.approx(entropy, rel=1e-5)
    assert parts["consistency"].item() == pytest.approx(apart, rel=1e-4)
    assert total.item() == pytest.approx(entropy + 100 * apart, rel=1e-5)


def test_unlabelled_rows_still_have_to_agree() -> None:
    logits = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    batch = {"logits": logits, "lsd.values": torch.full((3, 1), math.nan), "lsd.mask": torch.zeros(3, 1) > 0}
    total, parts = consistency_objective(LSD, {}, inputs=("logits",), weight=2.0)(Given(), batch)
    assert parts["lsd"] == 0
    assert total.item() == pytest.approx(2 * parts["consistency"].item())
    total.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_objective_trains_masked_views() -> None:
    torch.manual_seed(0)
    model = Cotex(TINY, LSD)
    noise = torch.rand(4, 2, 16, generator=torch.Generator().manual_seed(3))
    batch = {"images": pictures(), "noise": noise, "lsd.values": torch.arange(4.0)[:, None]}
    batch["lsd.mask"] = torch.ones(4, 1, dtype=torch.bool)
    total, _ = consistency_objective(LSD, {}, inputs=("images", "noise"), weight=100.0)(model, batch)
    total.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
