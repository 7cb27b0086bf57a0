"""Masked losses by problem."""

import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from abaw.models.losses import LossSettings, ccc, divergence, head_loss, task_loss
from abaw.tasks import TASKS, Head

HEADS = [TASKS[name].heads[0] for name in ("au", "expr", "va")]
PLAIN = LossSettings()
REDUCES = ("mean", "sum")


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


def test_units_can_be_summed_over_a_row() -> None:
    logits, targets = torch.zeros(4, 12), torch.zeros(4, 12)
    mask = torch.zeros(4, 12, dtype=torch.bool)
    mask[0], mask[1, :3] = True, True  # the other two rows have no label
    expected = (12 + 3) * math.log(2) / 2
    assert head_loss(HEADS[0], logits, targets, mask, LossSettings(reduce="sum")).item() == pytest.approx(expected)


@pytest.mark.parametrize("settings", [PLAIN, LossSettings(weight=[1.0 + k for k in range(8)], smoothing=0.2)])
def test_probabilities_of_one_class_are_that_class(settings: LossSettings) -> None:
    logits, targets, mask = batch(HEADS[1])
    shares = torch.nn.functional.one_hot(targets[:, 0].long(), 8).float()
    soft = head_loss(HEADS[1], logits, shares, mask, settings)
    assert soft.item() == pytest.approx(head_loss(HEADS[1], logits, targets, mask, settings).item(), rel=1e-6)
    assert torch.equal(soft, head_loss(HEADS[1], logits, shares, mask.expand(-1, 8), settings))


def test_mixed_classes_by_hand() -> None:
    logits = torch.zeros(1, 8)
    logits[0, 0] = math.log(3.0)  # shares 3/10, and 1/10 for each other class
    targets = torch.zeros(1, 8)
    targets[0, 0], targets[0, 5] = 0.75, 0.25
    expected = -0.75 * math.log(0.3) - 0.25 * math.log(0.1)
    loss = head_loss(HEADS[1], logits, targets, torch.ones(1, 1, dtype=torch.bool), PLAIN)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_divergence_by_hand() -> None:
    """Two views, two classes: (3/4, 1/4) and (1/4, 3/4); their mean is (1/2, 1/2)."""
    logits = torch.tensor([[[0.75, 0.25]], [[0.25, 0.75]]]).log()
    per_view = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert divergence(logits).item() == pytest.approx(per_view / 2, rel=1e-6)  # averaged over the two classes
    assert divergence(logits[:1].expand(3, -1, -1)).item() == pytest.approx(0, abs=1e-7)


def test_a_class_that_no_view_believes_in_counts_at_the_floor() -> None:
    logits = torch.tensor([[[0.0, -100.0]], [[0.0, -100.0]]], requires_grad=True)
    loss = divergence(logits, floor=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)  # the first class is sure, the second has no share
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


TARGETS = {"au": st.sampled_from([0.0, 1.0]), "expr": st.integers(0, 7).map(float), "va": st.floats(-1, 1, width=32)}
ANYTHING = st.sampled_from([-5.0, -1.0, 0.0, 1.0, 7.0, 99.0, math.nan, math.inf])


@hypothesis.given(data=st.data(), head=st.sampled_from(HEADS), rows=st.integers(1, 6), reduce=st.sampled_from(REDUCES))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_masked_targets_never_matter(data: st.DataObject, head: Head, rows: int, reduce: str) -> None:
    """Whatever is labelled: loss and gradient are finite, the same for any masked target, and zero without labels."""

    def drawn(values: st.SearchStrategy, count: int) -> torch.Tensor:
        listed = data.draw(st.lists(values, min_size=rows * count, max_size=rows * count))
        return torch.tensor(listed).reshape(rows, count)

    mask, targets = drawn(st.booleans(), head.target_dim), drawn(TARGETS[head.name], head.target_dim)
    other = drawn(ANYTHING, head.target_dim)
    values = drawn(st.floats(-30, 30, width=32), head.output_dim)
    settings = LossSettings(weight=[1.0 + k for k in range(head.output_dim)], reduce=reduce, mse=0.5)
    found = []
    for used in (targets, torch.where(mask, targets, other)):
        logits = values.clone().requires_grad_()
        loss = head_loss(head, logits, used, mask, settings)
        loss.backward()
        assert logits.grad is not None
        found.append((loss.detach(), logits.grad))
    (loss, gradient), (again, other_gradient) = found
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert torch.equal(loss, again)
    assert torch.equal(gradient, other_gradient)
    if not mask.any():
        assert loss == 0
        assert not gradient.any()


def test_raw_values_enter_the_ccc_when_they_are_not_clamped() -> None:
    # targets 0 and 1, outputs 0 and 3: covariance 0.75, variances 2.25 and 0.25, means 1.5 and 0.5 -> 1.5 / 3.5
    head, labelled = TASKS["va"].heads[0], torch.ones(2, 2, dtype=torch.bool)
    outputs, targets = torch.tensor([[0.0, 0.0], [3.0, 3.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    raw = head_loss(head, outputs, targets, labelled, LossSettings(clamp=False))
    assert raw.item() == pytest.approx(1 - 1.5 / 3.5)
    assert head_loss(head, outputs, targets, labelled, LossSettings()).item() == pytest.approx(0, abs=1e-6)


def windowed(targets: list[list[float]], outputs: list[list[float]], labelled: list[list[bool]]) -> tuple:
    """Windows of one dimension each as both dimensions of valence-arousal: three tensors [B, W, 2]."""
    tensors = (torch.tensor(part)[..., None].expand(-1, -1, 2) for part in (outputs, targets, labelled))
    return tuple(part.clone() for part in tensors)


def test_a_ccc_of_each_window_by_hand() -> None:
    """First window: outputs half the targets, cov 1/12, variances 1/24 and 1/6, means 1/4 and 1/2 -> CCC 8/13.

    Second window: outputs are the targets -> CCC 1. Third: no label.
    """
    targets = [[0.0, 0.5, 1.0], [0.1, 0.3, 0.9], [0.5, 0.5, 0.5]]
    outputs = [[0.0, 0.25, 0.5], [0.1, 0.3, 0.9], [9.0, -9.0, 9.0]]
    logits, values, mask = windowed(targets, outputs, [[True] * 3, [True] * 3, [False] * 3])
    first = 2 / 12 / (1 / 24 + 1 / 6 + 1 / 16)
    loss = head_loss(HEADS[2], logits, values, mask, LossSettings(per_window=True))
    assert first == pytest.approx(8 / 13)
    assert loss.item() == pytest.approx((1 - 8 / 13) / 2, abs=1e-6)
    summed = head_loss(HEADS[2], logits, values, mask, LossSettings(per_window=True, reduce="sum"))
    assert summed.item() == pytest.approx(2 * loss.item(), rel=1e-6)


def test_a_window_counts_in_the_dimensions_it_has_labels_of() -> None:
    """Valence in the first window only, where it is right; arousal in both, where it is constant: CCC 0."""
    targets = torch.tensor([[[0.1, 0.1], [0.5, 0.5]], [[0.7, 0.7], [0.2, 0.2]]])
    logits = targets.clone()
    logits[..., 1] = 0.4
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    mask[1, :, 0] = False
    loss = head_loss(HEADS[2], logits, targets, mask, LossSettings(per_window=True))
    assert loss.item() == pytest.approx((0 + 1) / 2, abs=1e-6)


def test_one_window_is_the_batch() -> None:
    logits, targets, mask = batch(HEADS[2])
    one, all_rows = (
        head_loss(HEADS[2], logits[None], targets[None], mask[None], LossSettings(per_window=on, mse=0.5))
        for on in (True, False)
    )
    assert torch.equal(one, all_rows)


def test_windows_do_not_depend_on_each_other() -> None:
    """The gradient of a window is that of the window alone, by the number of windows."""
    logits, targets, mask = (part.detach().reshape(3, 4, 2) for part in batch(HEADS[2]))
    mask[:] = True
    settings = LossSettings(per_window=True)
    together = logits.clone().requires_grad_()
    head_loss(HEADS[2], together, targets, mask, settings).backward()
    for place in range(3):
        alone = logits[place : place + 1].clone().requires_grad_()
        head_loss(HEADS[2], alone, targets[place : place + 1], mask[place : place + 1], settings).backward()
        assert together.grad is not None
        assert alone.grad is not None
        assert torch.allclose(together.grad[place], alone.grad[0] / 3, atol=1e-7)


def test_windows_with_equal_labels_or_none_give_finite_gradients() -> None:
    logits = torch.zeros(2, 3, 2, requires_grad=True)
    mask = torch.ones(2, 3, 2, dtype=torch.bool)
    mask[1] = False
    loss = head_loss(HEADS[2], logits, torch.zeros(2, 3, 2), mask, LossSettings(per_window=True))
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_scale_multiplies_the_loss_of_a_head(head: Head) -> None:
    logits, targets, mask = batch(head)
    plain, scaled = (head_loss(head, logits, targets, mask, LossSettings(scale=scale)) for scale in (1.0, 10.0))
    assert scaled.item() == pytest.approx(10 * plain.item(), rel=1e-6)
