"""Learning-rate curve and parameter groups, against numbers worked out by hand."""

import pytest
import torch

from abaw.models.static import StaticModel
from abaw.models.vit import VitPreset
from abaw.tasks import TASKS
from abaw.training.optim import check_warmup, half_cosine, layer_of, parameter_groups, scaled_lr, swinging

TINY = VitPreset(32, 8, 32, 2, 2, "conv", 16, 1, 2)


def test_base_rates_are_for_256_samples() -> None:
    assert scaled_lr(1.5e-4, 512) == pytest.approx(3e-4)


def test_warm_up_then_half_a_cosine() -> None:
    factor = half_cosine(104, warmup=4)
    assert [factor(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factor(4 + 50) == pytest.approx(0.5)
    assert factor(104) == pytest.approx(0.0)
    assert half_cosine(100, floor=0.1)(100) == pytest.approx(0.1)


def test_the_rate_swings_between_its_peak_and_the_floor() -> None:
    factor = swinging(100, half_period=10, floor=0.2)
    assert [factor(step) for step in (0, 5, 10, 15, 20, 30, 40)] == pytest.approx([1, 0.6, 0.2, 0.6, 1, 0.2, 1])
    assert factor(100) == factor(105) == pytest.approx(1)


def test_the_swing_begins_at_its_peak_after_the_warm_up() -> None:
    factor = swinging(100, half_period=10, warmup=4)
    assert [factor(step) for step in (0, 3, 4, 9, 14)] == pytest.approx([0.2, 0.8, 1.0, 0.5, 0.0])


def test_the_swing_is_that_of_the_published_scheduler() -> None:
    """Lr 5e-5, T_max 2 and eta_min 1e-5, with one step an epoch."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=5e-5)
    published = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2, eta_min=1e-5)
    factor = swinging(50, half_period=2, floor=0.2)
    for step in range(10):
        assert 5e-5 * factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        published.step()


def test_half_a_swing_takes_a_step_at_least() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        swinging(10, half_period=0)


def test_a_warm_up_that_no_step_follows_is_said_with_the_rate_it_ends_at() -> None:
    assert check_warmup(10, 9, lr=1e-3, where="finetune") == []
    (text,) = check_warmup(10, 49, lr=1e-3, where="finetune")
    assert "finetune.warmup_steps = 49" in text
    assert "ends at 2.0e-04 and never reaches 1.0e-03" in text
    assert half_cosine(10, warmup=49)(9) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("cls_token", 0), ("pos_embed", 0), ("patch_embed.convs.0.weight", 0), ("blocks.0.norm1.bias", 1)]
    + [("blocks.11.mlp.fc1.weight", 12), ("fc_norm.weight", 13), ("heads.va.weight", 13)],
)
def test_layers_count_from_the_stem_to_the_head(name: str, layer: int) -> None:
    assert layer_of(name, 12) == layer


def test_rates_fall_by_the_decay_per_layer_and_vectors_are_not_decayed() -> None:
    model = StaticModel(TINY, TASKS["va"])
    groups = parameter_groups(model, lr=1.0, weight_decay=0.05, layer_decay=0.5, depth=2)
    assert sorted({group["lr"] for group in groups}) == [0.125, 0.25, 0.5, 1.0]
    where = {id(p): group for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert set(where) == {id(p) for p in named.values()}
    assert where[id(named["heads.va.weight"])]["lr"] == 1.0
    assert where[id(named["blocks.0.attn.qkv.weight"])] | {"params": 0} == {
        "lr": 0.25,
        "weight_decay": 0.05,
        "params": 0,
    }
    for name in ("pos_embed", "cls_token", "heads.va.bias", "blocks.1.norm1.weight"):
        assert where[id(named[name])]["weight_decay"] == 0


def test_without_decay_there_is_one_rate() -> None:
    groups = parameter_groups(StaticModel(TINY, TASKS["va"]), lr=0.3, weight_decay=0.0)
    assert {group["lr"] for group in groups} == {0.3}
