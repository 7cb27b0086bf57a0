"""Streams before the body: cross-attention between them, and windows that lack one in training."""

import math

import pytest
import torch
import torch.nn.functional as F

from abaw.errors import AbawError, ExitCode
from abaw.models.fusion import FusionModel, FusionOptions
from abaw.models.fusion.positions import sincos
from abaw.models.fusion.streams import CrossAttention, drop_streams
from abaw.tasks import TASKS

DIMS = (5, 3, 4)


def layer(**options):
    torch.manual_seed(0)
    return CrossAttention(FusionOptions("netease", DIMS, 0.0, attention="cross", **options))


def window(size=2, length=6):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(size, length, sum(DIMS), generator=generator)
    return features, torch.ones(size, length, 3, dtype=torch.bool), torch.ones(size, length, dtype=torch.bool)


# -- cross-attention -----------------------------------------------------------------------------------------------
def expected(cross, features, present, number):
    """Stream `number` of one window [W, D] by the formula: four heads over the rows of the others and a zero row."""
    own = [F.linear(part, p.weight, p.bias) for p, part in zip(cross.project, features.split(DIMS, -1), strict=True)]
    places = sincos(own[0][None])
    others = [k for k in range(3) if k != number]
    rows = torch.cat([present[:, k] for k in others])
    heard_from = torch.cat([own[k] for k in others])[rows]
    placed = torch.cat([own[k] + places for k in others])[rows]
    attend = cross.attend[number]
    of_query, of_key, of_value = attend.in_proj_weight.chunk(3)
    query = F.linear(own[number] + places, of_query, attend.in_proj_bias[:128])
    key = torch.cat([F.linear(placed, of_key, attend.in_proj_bias[128:256]), torch.zeros(1, 128)])
    value = torch.cat([F.linear(heard_from, of_value, attend.in_proj_bias[256:]), torch.zeros(1, 128)])
    heads = []
    for head in range(4):
        own_part = slice(32 * head, 32 * head + 32)
        shares = (query[:, own_part] @ key[:, own_part].T / math.sqrt(32)).softmax(-1)
        heads.append(shares @ value[:, own_part])
    heard = F.linear(torch.cat(heads, 1), attend.out_proj.weight, attend.out_proj.bias)
    norm = cross.norms[number]
    return F.layer_norm(own[number] + heard, (128,), norm.weight, norm.bias)


def test_each_stream_attends_to_the_rows_of_the_others_that_have_data():
    cross = layer(positions="sincos").eval()
    features, present, rows = window()
    present[0, 2:5, 1] = False
    with torch.no_grad():
        found = cross(features, present, rows)
        parts = [[expected(cross, features[k], present[k], stream) for stream in range(3)] for k in range(2)]
    assert torch.allclose(found, torch.stack([torch.cat(own, 1) for own in parts]), atol=1e-5)


def test_a_stream_alone_in_its_window_hears_nothing():
    cross = layer().eval()
    features, present, rows = window()
    present[..., 1:] = False
    with torch.no_grad():
        found = cross(features, present, rows)[..., :128]
        tokens = cross.project[0](features[..., :5]) + cross.attend[0].out_proj.bias
        alone = cross.norms[0](tokens)
    assert torch.allclose(found, alone, atol=1e-6)


def test_padding_is_attended_to_only_without_the_mask():
    features, present, rows = window()
    rows[:, 4:] = False
    present = present & rows[..., None]
    for mask, same in ((True, True), (False, False)):
        cross = layer(padding_mask=mask).eval()
        with torch.no_grad():
            there = cross(features, present, rows)[:, :4]
            alone = cross(features[:, :4], present[:, :4], rows[:, :4])
        assert torch.allclose(there, alone, atol=1e-6) is same


def test_every_parameter_gets_a_gradient_even_where_a_stream_is_absent():
    torch.manual_seed(0)
    model = FusionModel(TASKS["va"], FusionOptions("netease", DIMS, 0.1, attention="cross"))
    features, present, rows = window()
    present[..., 2] = False
    model(features, present, rows)["va"].sum().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_a_single_stream_has_nothing_to_attend_to():
    with pytest.raises(AbawError, match="two streams or more") as caught:
        FusionModel(TASKS["va"], FusionOptions("netease", (5,), 0.1, attention="cross"))
    assert caught.value.code is ExitCode.CONFIG
    assert 'fuse.attention = "none"' in caught.value.fix


# -- modality dropout ----------------------------------------------------------------------------------------------
def test_as_many_windows_lack_a_stream_as_the_chance_says_and_none_lacks_two():
    present = torch.ones(8000, 2, 3, dtype=torch.bool)
    torch.manual_seed(0)
    lost = ~drop_streams(present, 0.3)[:, 0]
    counts = lost.sum(1)
    assert counts.max() == 1
    assert counts.float().mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 8000))
    assert lost.float().mean(0).tolist() == pytest.approx([0.1] * 3, abs=4 * math.sqrt(0.1 * 0.9 / 8000))


def test_a_stream_is_lost_in_the_whole_window():
    torch.manual_seed(0)
    kept = drop_streams(torch.ones(50, 7, 2, dtype=torch.bool), 0.5)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))


def test_no_window_loses_everything_it_has():
    """A third of the windows has the first stream only, a third the second in one row, a third nothing at all."""
    present = torch.zeros(900, 4, 2, dtype=torch.bool)
    present[:300, :, 0] = True
    present[300:600, 2, 1] = True
    torch.manual_seed(0)
    assert torch.equal(drop_streams(present, 1.0), present)
    both = torch.ones(900, 4, 2, dtype=torch.bool)
    assert drop_streams(both, 1.0)[:, 0].sum(1).tolist() == [1] * 900


def test_a_stream_without_data_is_not_the_one_that_is_lost():
    present = torch.ones(200, 4, 3, dtype=torch.bool)
    present[..., 1] = False
    torch.manual_seed(0)
    kept = drop_streams(present, 1.0)[:, 0]
    assert {tuple(row) for row in kept.tolist()} == {(True, False, False), (False, False, True)}


def test_streams_are_dropped_in_training_alone_and_as_the_seed_says():
    torch.manual_seed(0)
    model = FusionModel(TASKS["va"], FusionOptions("static", DIMS, 0.0, modality_dropout=0.9))
    features, present, rows = window(size=16)

    def run(seed):
        torch.manual_seed(seed)
        return model(features, present, rows)["va"].detach()

    first, again, other = run(1), run(1), run(2)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    model.eval()
    assert torch.equal(run(1), run(2))


def test_a_lost_stream_counts_as_one_without_data():
    torch.manual_seed(0)
    model = FusionModel(TASKS["va"], FusionOptions("linear", (5, 3), 0.0, modality_dropout=1.0))
    seen = []
    model.body.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(torch.ones(30, 2, 8), torch.ones(30, 2, 2, dtype=torch.bool), torch.ones(30, 2, dtype=torch.bool))
    sums = {tuple(row) for row in torch.stack([seen[0][..., :5].sum((1, 2)), seen[0][..., 5:].sum((1, 2))], 1).tolist()}
    assert sums == {(10.0, 0.0), (0.0, 6.0)}
