"""The second stage: which windows are hard, what a step holds, and its loss."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from abaw.data.annotations import Labels
from abaw.data.windows import FeatureStreams, Window, cut
from abaw.models.fusion import DualBranch, FusionModel, FusionOptions
from abaw.models.losses import LossSettings, ccc
from abaw.tasks import TASKS
from abaw.training.batches import SampleOrder
from abaw.training.dual import (
    DualBatches,
    FirstShare,
    dual_objective,
    hard_order,
    hard_windows,
    hardest,
    window_losses,
)
from abaw.training.loop import LoopSettings, fit
from abaw.training.optim import adamw, half_cosine, parameter_groups
from abaw.training.run import RunFolder
from abaw.training.windows import WindowBatches
from tests.unit.data.test_windows import make_store

VA, MTL, CPU = TASKS["va"], TASKS["mtl"], torch.device("cpu")
NAN = math.nan


class Echo(nn.Module):
    """Says the first column of the features, for both dimensions of valence-arousal."""

    def forward(self, features: torch.Tensor, present: torch.Tensor, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"va": features[..., :1].float().expand(-1, -1, 2)}


def rows_of(tmp_path: Path, count: int = 40, *, size: int = 3, seed: int = 3) -> WindowBatches:
    """One track whose row r has the features r in both columns, in windows of four side by side.

    The labels are r / 40, but in the windows that start at 8 and at 20 they are -1.
    """
    store = make_store(tmp_path / "visual-x", "visual", {"a": [1] * count})
    values = np.arange(count, dtype=np.float32)[:, None].repeat(2, 1) / count
    for start in (8, 20):
        values[start : start + 4] = -1
    labels = {"a": {"va": Labels(values, np.ones((count, 2), bool))}}
    windows = cut("a", count, window=4, stride=4)
    streams = FeatureStreams([store], [], gap="hold")
    return WindowBatches(streams, windows, labels, SampleOrder(len(windows), size, seed=seed), 4)


# -- hard windows --------------------------------------------------------------------------------------------------
def test_a_windows_loss_is_the_mean_over_its_labelled_elements() -> None:
    """Valence-arousal: squared error of clamped values. Expressions: cross-entropy. Units: binary cross-entropy."""
    logits = {"va": torch.zeros(2, 2, 2), "expr": torch.zeros(2, 2, 8), "au": torch.zeros(2, 2, 12)}
    logits["va"][0] = torch.tensor([[3.0, 0.5], [0.5, 0.0]])  # 3 counts as 1
    logits["expr"][1, 0, 0] = 2.0
    batch = {
        "va.values": torch.tensor([[[0.5, 0.5], [0.0, NAN]], [[NAN, NAN], [NAN, NAN]]]),
        "va.mask": torch.tensor([[[True, True], [True, False]], [[False, False], [False, False]]]),
        "expr.values": torch.zeros(2, 2, 1),
        "expr.mask": torch.tensor([[[False], [False]], [[True], [False]]]),
        "au.values": torch.zeros(2, 2, 12),
        "au.mask": torch.ones(2, 2, 12, dtype=torch.bool),
    }
    found = window_losses(MTL, {}, logits, batch)
    certain = math.log(math.exp(2) + 7) - 2
    expected = [[(0.25 + 0 + 0.25) / 3, NAN, math.log(2)], [NAN, certain, math.log(2)]]
    assert found.tolist() == [pytest.approx(row, nan_ok=True) for row in expected]


def test_weights_count_and_scale_and_sum_do_not() -> None:
    logits, mask = {"au": torch.zeros(1, 1, 12)}, torch.zeros(1, 1, 12, dtype=torch.bool)
    mask[..., :2] = True
    batch = {"au.values": torch.ones(1, 1, 12), "au.mask": mask}
    settings = LossSettings(positive_weight=[3.0, 1.0] + [1.0] * 10, scale=10.0, reduce="sum")
    assert window_losses(TASKS["au"], {"au": settings}, logits, batch).item() == pytest.approx(2 * math.log(2))


def test_the_largest_losses_are_hard() -> None:
    assert hardest(np.array([[3.0], [1.0], [5.0], [4.0], [0.0]]), 0.4).tolist() == [2, 3]
    assert hardest(np.array([[1.0], [2.0], [1.5]]), 0.01).tolist() == [1]
    assert hardest(np.array([[1.0], [1.0], [1.0]]), 0.7).tolist() == [0, 1]


def test_heads_count_alike_and_a_window_by_those_it_has() -> None:
    """Means are 20 and 1: relative losses (0.5, 1.9), (1.5, -), (-, 1.0), (-, 0.1) -> 1.2, 1.5, 1.0, 0.1."""
    losses = np.array([[10.0, 1.9], [30.0, NAN], [NAN, 1.0], [NAN, 0.1]])
    assert hardest(losses, 0.25).tolist() == [1]
    assert hardest(losses, 0.5).tolist() == [0, 1]
    assert hardest(losses * [1, 100], 0.5).tolist() == [0, 1]
    assert hardest(np.array([[10.0, NAN], [30.0, NAN], [NAN, 1.9], [NAN, 0.1]]), 0.25).tolist() == [2]


def test_a_model_that_is_always_right_has_no_hard_windows_but_one_is_taken() -> None:
    assert hardest(np.zeros((4, 1)), 0.1).tolist() == [0]


@pytest.mark.parametrize("size", [1, 3, 20])
def test_hard_windows_are_found_whatever_the_batch(tmp_path: Path, size: int) -> None:
    """Outputs are clamped to 1 from row 1 on: the windows with the labels -1 are worst by far."""
    source = rows_of(tmp_path, size=size)
    found = hard_windows(Echo(), source, VA, {}, share=0.2, device=CPU)
    assert [source.windows[k] for k in found] == [Window("a", 8, 12), Window("a", 20, 24)]


def test_hard_windows_are_drawn_with_their_chance_and_the_others_evenly() -> None:
    order = hard_order(10, np.array([2, 7]), drawn=0.6, batch_size=50, seed=1)
    counts = np.bincount(np.concatenate([order.at(step) for step in range(400)]), minlength=10) / 20_000
    spread = 4 * math.sqrt(0.3 * 0.7 / 20_000)
    assert counts[[2, 7]].tolist() == pytest.approx([0.3, 0.3], abs=spread)
    assert np.delete(counts, [2, 7]).tolist() == pytest.approx([0.05] * 8, abs=spread)


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1.0])
def test_where_every_window_is_hard_all_are_drawn(drawn: float) -> None:
    order = hard_order(3, np.arange(3), drawn=drawn, batch_size=30, seed=1)
    assert set(order.at(0).tolist()) == {0, 1, 2}


# -- batches -------------------------------------------------------------------------------------------------------
def test_the_share_is_a_function_of_seed_and_step() -> None:
    share = FirstShare(3)
    first = [share.at(step) for step in range(20)]
    assert [FirstShare(3).at(step) for step in reversed(range(20))] == first[::-1]
    assert len(set(first)) == 20
    assert FirstShare(4).at(0) != share.at(0)


def test_shares_are_from_the_beta_distribution() -> None:
    """Beta(5, 2): mean 5/7, variance 10 / (49 x 8)."""
    shares = np.array([FirstShare(0).at(step) for step in range(4000)])
    assert 0 < shares.min() < shares.max() < 1
    assert shares.mean() == pytest.approx(5 / 7, abs=4 * math.sqrt(10 / 392 / 4000))
    assert shares.var() == pytest.approx(10 / 392, rel=0.1)


def test_shares_may_be_drawn_from_a_list() -> None:
    shares = [FirstShare(0, values=(0.2, 0.9)).at(step) for step in range(50)]
    assert set(shares) == {0.2, 0.9}


def test_a_batch_pairs_all_windows_with_hard_ones(tmp_path: Path) -> None:
    full = rows_of(tmp_path)
    hard = WindowBatches(full.streams, full.windows, full.labels, SampleOrder(10, 3, seed=8), 4)
    source = DualBatches(full, hard, FirstShare(5))
    batch, one, other = source.batch(2, 0, 1), full.batch(2, 0, 1), hard.batch(2, 0, 1)
    assert set(batch) == set(one) | {f"hard.{name}" for name in other} | {"mix"}
    assert all(torch.equal(batch[name], value) for name, value in one.items())
    assert all(torch.equal(batch[f"hard.{name}"], value) for name, value in other.items())
    assert batch["mix"].item() == pytest.approx(FirstShare(5).at(2))
    pieces = [source.batch(2, part, 3) for part in range(3)]
    for name in set(batch) - {"mix"}:
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), batch[name])
    assert all(torch.equal(piece["mix"], batch["mix"]) for piece in pieces)
    first, second = full.sample_ids(2, 0, 1)[0], hard.sample_ids(2, 0, 1)[0]
    assert source.sample_ids(2, 0, 1)[0] == f"{first} with {second}"
    assert len(source.sample_ids(2, 0, 1)) == 3


# -- loss ----------------------------------------------------------------------------------------------------------
class Given(nn.Module):
    """Gives logits of both branches whatever it is called with."""

    def __init__(self, **logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = {name.replace("_hard", "@hard"): value for name, value in logits.items()}

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        assert len(inputs) == 6
        return self.logits


def labelled(values: torch.Tensor, hard: torch.Tensor, *, head: str, mix: float) -> dict[str, torch.Tensor]:
    """A batch with labels everywhere; the model inputs are placeholders."""
    batch = {"mix": torch.tensor(mix)}
    for prefix, own in (("", values), ("hard.", hard)):
        rows = torch.ones(own.shape[:2], dtype=torch.bool)
        batch |= {f"{prefix}{name}": rows for name in ("features", "present", "rows")}
        batch |= {f"{prefix}{head}.values": own, f"{prefix}{head}.mask": torch.ones(own.shape, dtype=torch.bool)}
    return batch


def test_logits_and_losses_are_mixed_by_the_same_share() -> None:
    """One row of eight classes, share 3/4: logits 3/4 (4, 0, ...) + 1/4 (0, 4, ...) = (3, 1, 0, ...)."""
    first, second = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    first[..., 0], second[..., 1] = 4.0, 4.0
    batch = labelled(torch.tensor([[[0.0]]]), torch.tensor([[[1.0]]]), head="expr", mix=0.75)
    total, parts = dual_objective(TASKS["expr"], {})(Given(expr=first, expr_hard=second), batch)
    whole = math.log(math.exp(3) + math.exp(1) + 6)
    assert total.item() == pytest.approx(0.75 * (whole - 3) + 0.25 * (whole - 1), rel=1e-6)
    assert parts == {}


def test_values_are_mixed_before_their_ccc() -> None:
    random = torch.Generator().manual_seed(1)
    first, second, values, hard = (torch.rand(2, 5, 2, generator=random) - 0.5 for _ in range(4))
    batch = labelled(values, hard, head="va", mix=0.3)
    total, _ = dual_objective(VA, {})(Given(va=first, va_hard=second), batch)
    mixed, everywhere = (0.3 * first + 0.7 * second).reshape(10, 2), torch.ones(10, dtype=torch.bool)

    def apart(labels: torch.Tensor) -> float:
        columns = [1 - ccc(mixed[:, k], labels.reshape(10, 2)[:, k], everywhere).item() for k in range(2)]
        return sum(columns) / 2

    assert total.item() == pytest.approx(0.3 * apart(values) + 0.7 * apart(hard), rel=1e-6)


def test_units_are_scaled_and_nothing_else() -> None:
    logits = {name: torch.zeros(1, 1, size) for name, size in (("va", 2), ("expr", 8), ("au", 12))}
    batch: dict[str, torch.Tensor] = {}
    for head in MTL.heads:
        values = torch.zeros(1, 1, head.target_dim)
        batch |= labelled(values, values, head=head.name, mix=0.4)
    both = {**logits, **{f"{name}_hard": value for name, value in logits.items()}}
    total, parts = dual_objective(MTL, {}, au_scale=10.0)(Given(**both), batch)
    expected = {"va": 1.0, "expr": math.log(8), "au": 10 * math.log(2)}
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(expected)
    assert total.item() == pytest.approx(sum(expected.values()))


def test_only_rows_that_are_real_in_both_count() -> None:
    """Three rows, of which the last is padding in the hard window and the middle in the other one."""
    first, second = torch.zeros(1, 3, 8), torch.zeros(1, 3, 8)
    first[0, :, 0] = torch.tensor([1.0, 50.0, 50.0])
    batch = labelled(torch.ones(1, 3, 1), torch.ones(1, 3, 1), head="expr", mix=0.5)
    batch["rows"], batch["hard.rows"] = torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]])
    total, _ = dual_objective(TASKS["expr"], {})(Given(expr=first, expr_hard=second), batch)
    assert total.item() == pytest.approx(math.log(math.exp(0.5) + 7), rel=1e-6)


# -- a whole training ----------------------------------------------------------------------------------------------
def trained(folder: Path, data: Path, *, stop: int | None = None) -> nn.Module:
    """Six steps of both branches; with ``stop``, until that step, and then again from the resume point."""
    torch.manual_seed(0)
    first = FusionModel(VA, FusionOptions("netease", (2,), 0.3))
    model = DualBranch(first, copy.deepcopy(first), test_mix=0.8)
    source = rows_of(data, size=4)
    hard = hard_windows(first, source, VA, {}, share=0.3, device=CPU)
    order = hard_order(len(source.windows), hard, drawn=0.5, batch_size=4, seed=3)
    hard_batches = WindowBatches(source.streams, source.windows, source.labels, order, 4)

    def watch(steps):
        for step in steps:
            if step == stop:
                raise KeyboardInterrupt
            yield step

    fit(
        model,
        run=RunFolder.start(folder, stage="test", settings={}, inputs={}),
        source=DualBatches(source, hard_batches, FirstShare(3)),
        loss=dual_objective(VA, {}),
        optimizer=adamw(parameter_groups(model, lr=1e-3, weight_decay=0.05)),
        schedule=half_cosine(6),
        settings=LoopSettings(steps=6, seed=3, accumulate=2, validate_every=2, save_every=2, keep="last"),
        header={"kind": "test"},
        watch=watch,
    )
    return model


def test_a_second_stage_goes_on_where_it_stopped_and_leaves_the_first_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    whole = trained(tmp_path / "whole", data / "one")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "again", data / "two", stop=3)
    again = trained(tmp_path / "again", data / "three")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    torch.manual_seed(0)
    before = FusionModel(VA, FusionOptions("netease", (2,), 0.3)).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in whole.first.state_dict().items())
    assert not torch.equal(whole.second.state_dict()["body.project.0.weight"], before["body.project.0.weight"])
