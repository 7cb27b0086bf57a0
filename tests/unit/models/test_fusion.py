"""The temporal models: shapes, padding and standardisation."""

import pytest
import torch

from abaw.models.fusion import FUSION_BODIES, FusionModel, StreamScale
from abaw.tasks import TASKS

DIMS = [5, 3]


def make(body, task="mtl"):
    torch.manual_seed(0)
    return FusionModel(TASKS[task], body=body, dims=DIMS, dropout=0.1)


def batch(size=3, length=10):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(size, length, sum(DIMS), generator=generator)
    return features, torch.ones(size, length, 2, dtype=torch.bool), torch.ones(size, length, dtype=torch.bool)


@pytest.mark.parametrize("body", FUSION_BODIES)
def test_every_head_gets_a_logit_per_row(body):
    logits = make(body)(*batch())
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "va": (3, 10, 2),
        "expr": (3, 10, 8),
        "au": (3, 10, 12),
    }


@pytest.mark.parametrize("body", FUSION_BODIES)
def test_padding_does_not_change_real_rows(body):
    model = make(body, "va").eval()
    features, present, rows = batch(length=12)
    rows[:, 8:] = False
    changed = features.clone()
    changed[:, 8:] = 99
    with torch.inference_mode():
        before, after = (model(x, present, rows)["va"][:, :8] for x in (features, changed))
        alone = model(features[:, :8], present[:, :8], rows[:, :8])["va"]
    assert torch.equal(before, after)
    assert torch.allclose(before, alone, atol=1e-5)


@pytest.mark.parametrize("body", FUSION_BODIES)
def test_a_window_does_not_depend_on_its_neighbours_in_the_batch(body):
    model = make(body, "va").eval()
    features, present, rows = batch()
    other = features.clone()
    other[1:] = -other[1:]
    with torch.inference_mode():
        assert torch.equal(model(features, present, rows)["va"][0], model(other, present, rows)["va"][0])


@pytest.mark.parametrize(("body", "temporal"), [("netease", True), ("static", False), ("linear", False)])
def test_only_temporal_models_look_at_other_rows(body, temporal):
    model = make(body, "va").eval()
    features, present, rows = batch()
    changed = features.clone()
    changed[:, 5] += 3
    with torch.inference_mode():
        difference = (model(features, present, rows)["va"] - model(changed, present, rows)["va"])[:, 0].abs().max()
    assert bool(difference > 0) is temporal


def test_absent_streams_are_zero_after_scaling():
    scale = StreamScale(DIMS)
    scale.mean.fill_(2.0)
    scale.std.fill_(4.0)
    present = torch.tensor([[[True, False]]])
    assert scale(torch.full((1, 1, 8), 10.0), present).tolist() == [[[2.0] * 5 + [0.0] * 3]]


def test_netease_has_the_published_sizes():
    model = make("netease", "va")
    layer = model.body.encoder.layers[0]
    assert len(model.body.encoder.layers) == 4
    assert (layer.self_attn.num_heads, layer.linear1.out_features, layer.norm_first) == (4, 128, False)
    assert [m.out_features for m in model.body.project if hasattr(m, "out_features")] == [256, 128]


def test_the_table_of_streams_moves_with_the_model_and_is_not_saved():
    scale = StreamScale(DIMS)
    assert scale.stream_of.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert set(scale.state_dict()) == {"mean", "std"}
    assert scale.to("meta").stream_of.device.type == "meta"
