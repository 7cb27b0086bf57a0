"""Masked losses by problem."""

import math

import pytest
import torch

from abaw.models.losses import LossSettings, ccc, head_loss, task_loss
from abaw.tasks import TASKS, Head

HEADS = [TASKS[name].heads[0] for name in ("au", "expr", "va")]
PLAIN = LossSettings()


def batch(head: Head, rows: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(rows, head.output_dim, generator=random, requires_grad=True)
    if head.name == "va":
        targets = torch.rand(rows, 2, generator=random) * 2 - 1
    else:
        targets = torch.randint(0, 2, (rows, head.target_dim), generator=random).float()
    mask = torch.rand(rows, head.target_dim, generator=random) < 0.6
    return logits, targets, mask


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
@pytest.mark.parametrize("garbage", [-5.0, 99.0, math.nan])
def test_unlabelled_targets_do_not_matter(head: Head, garbage: float) -> None:
    logits, targets, mask = batch(head)
    settings = LossSettings(weight=[1.0 + k for k in range(head.output_dim)], mse=0.5)
    changed = torch.where(mask, targets, torch.tensor(garbage))
    first, second = (head_loss(head, logits, t, mask, settings) for t in (targets, changed))
    assert torch.equal(first, second)
    assert torch.isfinite(first)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_without_any_label_loss_and_gradient_are_zero(head: Head) -> None:
    logits, targets, mask = batch(head)
    loss = head_loss(head, logits, targets, torch.zeros_like(mask), LossSettings(mse=1.0))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_leading_axes_are_flattened(head: Head) -> None:
    logits, targets, mask = batch(head)
    folded = [tensor.reshape(3, 4, -1) for tensor in (logits, targets, mask)]
    assert torch.equal(head_loss(head, *folded, PLAIN), head_loss(head, logits, targets, mask, PLAIN))


def test_units_average_the_binary_cross_entropy_of_labelled_elements() -> None:
    logits, targets, mask = torch.zeros(1, 12), torch.zeros(1, 12), torch.zeros(1, 12, dtype=torch.bool)
    logits[0, 3], targets[0, 3], mask[0, 3] = 2.0, 1.0, True
    expected = -math.log(1 / (1 + math.exp(-2)))
    assert head_loss(HEADS[0], logits, targets, mask, PLAIN).item() == pytest.approx(expected)
    doubled = head_loss(HEADS[0], logits, targets, mask, LossSettings(positive_weight=[2.0] * 12))
    assert doubled.item() == pytest.approx(2 * expected)


def test_class_weights_make_a_weighted_mean() -> None:
    logits = torch.zeros(2, 8)
    logits[0, 0] = 1.0
    targets, mask = torch.tensor([[0.0], [1.0]]), torch.ones(2, 1, dtype=torch.bool)
    first, second = math.log(math.e + 7) - 1, math.log(8)
    weight = [3.0, 1.0] + [1.0] * 6
    loss = head_loss(HEADS[1], logits, targets, mask, LossSettings(weight=weight))
    assert loss.item() == pytest.approx((3 * first + second) / 4, rel=1e-6)


def test_concordance_by_hand() -> None:
    values, targets = torch.tensor([0.0, 1.0, 2.0, 9.0]), torch.tensor([1.0, 2.0, 3.0, -7.0])
    mask = torch.tensor([True, True, True, False])
    # population variances 2/3 each, covariance 2/3, means 1 apart
    assert ccc(values, targets, mask).item() == pytest.approx((4 / 3) / (4 / 3 + 1))


def test_values_are_clamped_and_sum_is_twice_the_mean() -> None:
    targets, mask = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.ones(2, 2, dtype=torch.bool)
    assert head_loss(HEADS[2], 9 * targets, targets, mask, PLAIN).item() == pytest.approx(0, abs=1e-6)
    flat = torch.zeros(2, 2)
    assert head_loss(HEADS[2], flat, targets, mask, PLAIN).item() == pytest.approx(1)
    assert head_loss(HEADS[2], flat, targets, mask, LossSettings(reduce="sum")).item() == pytest.approx(2)


def test_one_unlabelled_dimension_leaves_the_other() -> None:
    targets = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    mask = torch.tensor([[True, False], [True, False]])
    assert head_loss(HEADS[2], torch.zeros(2, 2), targets, mask, PLAIN).item() == pytest.approx(1)


def test_a_task_sums_its_heads_and_names_the_parts() -> None:
    heads = TASKS["mtl"].heads
    data = {head.name: batch(head) for head in heads}
    logits, targets, masks = ({name: parts[k] for name, parts in data.items()} for k in range(3))
    total, parts = task_loss(heads, logits, targets, masks)
    assert total.item() == pytest.approx(parts["va"].item() + parts["expr"].item() + parts["au"].item(), rel=1e-6)
