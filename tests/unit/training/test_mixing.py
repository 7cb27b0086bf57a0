"""Mixup and cutmix of images, labels and masks."""

import random

import numpy as np
import pytest
import torch

from abaw.tasks import TASKS
from abaw.training.mixing import Mixing

VA, EXPR, AU = TASKS["mtl"].heads
SIZE = 12


def batch(count: int) -> dict[str, torch.Tensor]:
    """Image i is i everywhere, its class i, its values and units i / 10; all labelled."""
    numbers = torch.arange(count, dtype=torch.float32)
    found = {"images": numbers[:, None, None, None].expand(count, 3, SIZE, SIZE).clone()}
    for head, columns, scale in ((VA, 2, 0.1), (EXPR, 1, 1.0), (AU, 12, 0.1)):
        found[f"{head.name}.values"] = (numbers * scale)[:, None].expand(count, columns).clone()
        found[f"{head.name}.mask"] = torch.ones(count, columns, dtype=torch.bool)
    return found


def mix(mixing: Mixing, plain: dict[str, torch.Tensor], step: int = 0, part: int = 0) -> dict[str, torch.Tensor]:
    return mixing(plain, seed=1, step=step, part=part)


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_labels_get_the_shares_that_the_image_has(mixup: float, cutmix: float, step: int) -> None:
    mixed = mix(Mixing(mixup, cutmix, [VA, EXPR, AU]), batch(4), step)
    shares = mixed["expr.values"][:, :4]
    assert torch.allclose(shares.sum(1), torch.ones(4))
    for row in range(4):
        partner = 3 - row
        mean = mixed["images"][row].mean()  # of shares of pictures that are `row` and `partner` everywhere
        assert mean == pytest.approx(float(shares[row, row] * row + shares[row, partner] * partner), abs=1e-5)
        assert mixed["va.values"][row, 0] == pytest.approx(float(mean) / 10, abs=1e-6)
        assert mixed["au.values"][row, 5] == pytest.approx(float(mean) / 10, abs=1e-6)


def test_cutmix_pastes_a_rectangle_and_mixup_blends() -> None:
    assert set(mix(Mixing(0.0, 1.0, [EXPR]), batch(2), step=3)["images"].unique().tolist()) == {0.0, 1.0}
    assert len(mix(Mixing(1.0, 0.0, [EXPR]), batch(2), step=3)["images"][0].unique()) == 1


def test_a_mixture_is_labelled_where_both_partners_are() -> None:
    plain = batch(4)
    plain["expr.mask"][0] = False
    plain["au.mask"][1, 2] = False
    plain["va.values"][2] = float("nan")
    plain["va.mask"][2] = False
    mixed = mix(Mixing(0.8, 0.0, [VA, EXPR, AU]), plain)
    assert mixed["expr.mask"][:, 0].tolist() == [False, True, True, False]
    assert mixed["au.mask"][:, 2].tolist() == [True, False, False, True]
    assert mixed["au.mask"][:, 3].all()
    assert mixed["va.mask"][:, 0].tolist() == [True, False, False, True]
    assert torch.isfinite(mixed["va.values"]).all()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_middle_of_an_odd_piece_stays_as_it_is(count: int) -> None:
    plain = batch(count)
    mixed = mix(Mixing(0.8, 1.0, [EXPR]), plain)
    middle = count // 2
    assert torch.equal(mixed["images"][middle], plain["images"][middle])
    assert mixed["expr.values"][middle].tolist() == [float(label == middle) for label in range(8)]
    assert mixed["expr.values"].shape == (count, 8)


def test_a_view_is_mixed_like_its_image() -> None:
    plain = batch(4)
    plain["views"] = plain["images"] + 10
    mixed = mix(Mixing(0.0, 1.0, [EXPR]), plain)
    assert torch.equal(mixed["views"], mixed["images"] + 10)


def test_a_mixture_is_a_function_of_seed_step_and_part_alone() -> None:
    mixing, plain = Mixing(0.8, 1.0, [EXPR]), batch(4)
    first = mix(mixing, plain)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002 - the generator that timm draws from
    state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.manual_seed(99)
    again = mix(mixing, plain)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # noqa: NPY002
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(99)))
    assert not torch.equal(mix(mixing, plain, step=1)["expr.values"], first["expr.values"])
    assert not torch.equal(mix(mixing, plain, part=1)["expr.values"], first["expr.values"])
    assert torch.equal(plain["images"], batch(4)["images"])
