"""The temporal models: shapes, padding, standardisation, and the published networks in plain torch."""

import math

import pytest
import torch
import torch.nn.functional as F

from abaw.errors import AbawError, ExitCode
from abaw.models.fusion import FUSION_BODIES, FusionModel, FusionOptions, StreamScale, fusion_from_header
from abaw.models.fusion.positions import sincos
from abaw.tasks import TASKS

DIMS = (5, 3)
TEMPORAL = ("netease", "tcn_transformer", "gru")
TRANSFORMERS = ("netease", "tcn_transformer")


def make(body, task="va", dims=DIMS, dropout=0.1, **options):
    torch.manual_seed(0)
    return FusionModel(TASKS[task], FusionOptions(body, dims, dropout, **options))


def batch(size=3, length=10):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(size, length, sum(DIMS), generator=generator)
    return features, torch.ones(size, length, 2, dtype=torch.bool), torch.ones(size, length, dtype=torch.bool)


# -- every body ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("body", FUSION_BODIES)
def test_every_head_gets_a_logit_per_row(body):
    logits = make(body, "mtl")(*batch())
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "va": (3, 10, 2),
        "expr": (3, 10, 8),
        "au": (3, 10, 12),
    }


@pytest.mark.parametrize("attention", ["none", "cross"])
@pytest.mark.parametrize("body", FUSION_BODIES)
def test_padding_does_not_change_real_rows(body, attention):
    model = make(body, attention=attention, positions="sincos").eval()
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
    model = make(body).eval()
    features, present, rows = batch()
    other = features.clone()
    other[1:] = -other[1:]
    with torch.inference_mode():
        assert torch.equal(model(features, present, rows)["va"][0], model(other, present, rows)["va"][0])


@pytest.mark.parametrize("body", FUSION_BODIES)
def test_only_temporal_models_look_at_other_rows(body):
    model = make(body).eval()
    features, present, rows = batch()
    changed = features.clone()
    changed[:, 5] += 3
    with torch.inference_mode():
        difference = (model(features, present, rows)["va"] - model(changed, present, rows)["va"])[:, 0].abs().max()
    assert bool(difference > 0) is (body in TEMPORAL)


@pytest.mark.parametrize("body", FUSION_BODIES)
def test_batch_normalisation_sees_real_rows_alone(body):
    """Windows of 6 and 4 rows in one padded batch: statistics of those ten rows."""
    model = make(body, dropout=0.0)
    model.heads["va"].norm.momentum = 1.0  # the running statistics are those of the last batch
    features, present, rows = batch(size=2, length=9)
    rows[0, 6:] = rows[1, 4:] = False
    seen = []
    model.heads["va"].hidden.register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    model(features, present, rows)
    with torch.no_grad():
        alone = [
            model.body(features[k : k + 1, :n], torch.ones(1, n, dtype=torch.bool))[0] for k, n in ((0, 6), (1, 4))
        ]
        hidden = model.heads["va"].hidden(torch.cat(alone))
    assert seen[0].shape == (10, model.heads["va"].hidden.out_features)
    assert torch.allclose(model.heads["va"].norm.running_mean, hidden.mean(0), atol=1e-5)
    assert torch.allclose(model.heads["va"].norm.running_var, hidden.var(0), atol=1e-5)


@pytest.mark.parametrize("body", FUSION_BODIES)
def test_features_may_be_float16_under_bfloat16_autocast(body):
    features, present, rows = batch()
    model = make(body, attention="cross")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(features.half(), present, rows)["va"]
    logits.sum().backward()
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_float16_features_are_computed_with_in_float32():
    features, present, rows = batch()
    model = make("netease").eval()
    rounded = features.half()
    with torch.inference_mode():
        assert torch.equal(model(rounded, present, rows)["va"], model(rounded.float(), present, rows)["va"])


@pytest.mark.parametrize("attention", ["none", "cross"])
@pytest.mark.parametrize("body", TRANSFORMERS)
def test_activations_computed_again_change_nothing(body, attention):
    model = make(body, dropout=0.3, attention=attention)
    features, present, rows = batch(length=12)
    rows[:, 9:] = False
    found = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(3)
        logits = model(features, present, rows)["va"]
        logits.square().sum().backward()
        found.append([logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


# -- standardisation -----------------------------------------------------------------------------------------------
def test_absent_streams_are_zero_after_scaling():
    scale = StreamScale(DIMS)
    scale.mean.fill_(2.0)
    scale.std.fill_(4.0)
    present = torch.tensor([[[True, False]]])
    assert scale(torch.full((1, 1, 8), 10.0), present).tolist() == [[[2.0] * 5 + [0.0] * 3]]


def test_scaling_takes_features_of_either_precision_and_leaves_them_as_they_are():
    scale = StreamScale(DIMS)
    scale.mean.fill_(2.0)
    scale.std.fill_(4.0)
    for present in (torch.ones(1, 1, 2, dtype=torch.bool), torch.tensor([[[False, True]]])):
        half = torch.full((1, 1, 8), 10.0, dtype=torch.float16)
        whole = half.float()
        assert scale(half, present).dtype == torch.float32
        assert torch.equal(scale(half, present), scale(whole, present))
        assert (half.unique().item(), whole.unique().item()) == (10.0, 10.0)
    assert set(scale.state_dict()) == {"mean", "std"}


# -- the published networks in plain torch -------------------------------------------------------------------------
def attend(tokens, layer, heads, hidden):
    """Multi-head self-attention and feed-forward with post-norm, from the layer's weights."""
    size, rows, width = tokens.shape
    own = layer.self_attn
    joint = F.linear(tokens, own.in_proj_weight, own.in_proj_bias).reshape(size, rows, 3, heads, width // heads)
    query, key, value = joint.permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(2, 3) / math.sqrt(width // heads)
    shares = scores.masked_fill(hidden[:, None, None], -math.inf).softmax(-1)
    heard = F.linear(
        (shares @ value).transpose(1, 2).reshape(size, rows, width), own.out_proj.weight, own.out_proj.bias
    )
    tokens = F.layer_norm(tokens + heard, (width,), layer.norm1.weight, layer.norm1.bias)
    inner = F.linear(F.linear(tokens, layer.linear1.weight, layer.linear1.bias).relu(), layer.linear2.weight)
    return F.layer_norm(tokens + inner + layer.linear2.bias, (width,), layer.norm2.weight, layer.norm2.bias)


def head_of(model, tokens):
    head = model.heads["va"]
    hidden = F.linear(tokens, head.hidden.weight, head.hidden.bias)
    normed = (hidden - head.norm.running_mean) / torch.sqrt(head.norm.running_var + 1e-5)
    return F.linear(normed * head.norm.weight + head.norm.bias, head.out.weight, head.out.bias)


def with_statistics(model):
    """Batch normalisation that is not the identity."""
    generator = torch.Generator().manual_seed(4)
    norm = model.heads["va"].norm
    norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=generator))
    norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.5)
    return model.eval()


def test_netease_is_the_published_network():
    model = with_statistics(make("netease", dropout=0.3))
    features, present, rows = batch()
    rows[1, 7:] = False
    masked = features * rows[..., None]
    first, _, second = model.body.project
    layers = model.body.encoder.layers
    tokens = F.leaky_relu(F.linear(masked, first.weight, first.bias), 0.1)
    tokens = F.linear(tokens, second.weight, second.bias)
    for layer in layers:
        tokens = attend(tokens, layer, 4, ~rows)
    sizes = [first.out_features, second.out_features, layers[0].linear1.out_features, len(layers)]
    assert sizes == [256, 128, 128, 4]
    assert (layers[0].dropout.p, model.heads["va"].hidden.out_features) == (0.3, 64)
    with torch.no_grad():
        assert torch.allclose(model(features, present, rows)["va"][rows], head_of(model, tokens)[rows], atol=1e-5)


def test_tcn_transformer_is_the_published_network():
    model = with_statistics(make("tcn_transformer"))
    features, present, rows = batch(size=2, length=14)
    rows[1, 11:] = False
    real = rows[:, None].float()
    values = features.transpose(1, 2) * real
    for block, channels, dilation in zip(model.body.blocks, (768, 256, 128), (1, 2, 4), strict=True):
        inner = values
        for conv in (block.first, block.second):
            assert conv.weight.shape[::2] == (channels, 5)
            spread = F.pad(inner * real, (2 * dilation, 2 * dilation))
            taps = [spread[..., k * dilation : k * dilation + 14] for k in range(5)]
            inner = sum(torch.einsum("oi,biw->bow", conv.weight[..., k], tap) for k, tap in enumerate(taps))
            inner = (inner + conv.bias[:, None]).relu()
        skip = torch.einsum("oi,biw->bow", block.skip.weight[..., 0], values) + block.skip.bias[:, None]
        values = (inner + skip).relu()
    tokens = F.linear(values.transpose(1, 2), model.body.project.weight, model.body.project.bias)
    for layer in model.body.encoder.layers:
        tokens = attend(tokens, layer, 4, ~rows)
    assert (tokens.shape[2], len(model.body.encoder.layers), model.heads["va"].hidden.out_features) == (512, 8, 256)
    with torch.no_grad():
        assert torch.allclose(model(features, present, rows)["va"][rows], head_of(model, tokens)[rows], atol=1e-4)


def test_a_tcn_row_sees_twenty_eight_rows_on_either_side():
    """Two convolutions a block reach 2 rows times the dilation each: 2 x 2 x (1 + 2 + 4) = 28."""
    blocks, real = make("tcn_transformer").eval().body.blocks, torch.ones(1, 1, 80)
    values = torch.randn(1, 8, 80, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = values
    for block in blocks:
        found = block(found, real)
    found[0, :, 40].sum().backward()
    touched = values.grad.abs().sum(1)[0].nonzero().flatten().tolist()
    assert (touched[0], touched[-1]) == (40 - 28, 40 + 28)


def test_gru_reads_each_window_both_ways_from_its_own_ends():
    model = make("gru", dropout=0.0).eval()
    features, _, rows = batch(size=2, length=9)
    rows[1, 6:] = False
    with torch.no_grad():
        found = model.body(features * rows[..., None], rows)
        for place, count in ((0, 9), (1, 6)):
            tokens = model.body.project(features[place, :count])
            for layer in model.body.layers:
                ways = [run_gru(tokens, layer, ""), run_gru(tokens.flip(0), layer, "_reverse").flip(0)]
                tokens = torch.cat(ways, 1)
            assert torch.allclose(found[place, :count], tokens, atol=1e-5)


def run_gru(tokens, layer, suffix):
    """Cho et al. 2014, in PyTorch's form: reset, update and new gate, from the first row on."""
    inner, outer = (getattr(layer, f"weight_{kind}_l0{suffix}") for kind in ("ih", "hh"))
    inner_bias, outer_bias = (getattr(layer, f"bias_{kind}_l0{suffix}") for kind in ("ih", "hh"))
    state, states = torch.zeros(128), []
    for row in tokens:
        x_reset, x_update, x_new = F.linear(row, inner, inner_bias).chunk(3)
        h_reset, h_update, h_new = F.linear(state, outer, outer_bias).chunk(3)
        update = torch.sigmoid(x_update + h_update)
        new = torch.tanh(x_new + torch.sigmoid(x_reset + h_reset) * h_new)
        state = (1 - update) * new + update * state
        states.append(state)
    return torch.stack(states)


# -- positions and padding -----------------------------------------------------------------------------------------
def test_positions_by_hand():
    found = sincos(torch.zeros(2, 3, 4))
    for row in range(3):
        slow = row / 100  # 10000^(2/4)
        expected = [math.sin(row), math.cos(row), math.sin(slow), math.cos(slow)]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("positions", "ordered"), [("none", False), ("sincos", True)])
def test_a_transformer_knows_the_order_of_rows_by_positions_alone(positions, ordered):
    model = make("netease", positions=positions).eval()
    features, present, rows = batch()
    turned = torch.arange(9, -1, -1)
    with torch.inference_mode():
        there, back = model(features, present, rows)["va"], model(features[:, turned], present, rows)["va"][:, turned]
    assert torch.allclose(there, back, atol=1e-5) is not ordered


@pytest.mark.parametrize("body", TRANSFORMERS)
def test_without_a_mask_padding_is_attended_to_as_rows_of_zeros(body):
    """The padded window gives what the longer window with rows of zeros gives."""
    model = make(body, padding_mask=False).eval()
    features, present, rows = batch(length=12)
    rows[:, 8:] = False
    with torch.inference_mode():
        padded = model(features, present, rows)["va"][:, :8]
        alone = model(features[:, :8], present[:, :8], rows[:, :8])["va"]
        zeros = torch.where(rows[..., None], features, 0)
        tokens = model.body(zeros, rows)[:, :8]
        expected = model.heads["va"](tokens.flatten(0, 1)).unflatten(0, (3, 8))
    assert torch.allclose(padded, expected, atol=1e-5)
    assert not torch.allclose(padded, alone, atol=1e-3)


# -- what a checkpoint says ----------------------------------------------------------------------------------------
def test_separate_heads_of_values_share_nothing_but_the_body():
    model = make("linear", "va", value_heads="separate").eval()
    features, present, rows = torch.randn(1, 3, 8), torch.ones(1, 3, 2, dtype=torch.bool), torch.ones(1, 3, dtype=bool)
    before = model(features, present, rows)["va"]
    with torch.no_grad():
        model.heads["va"][1].hidden.weight.zero_()  # of arousal
    after = model(features, present, rows)["va"]
    assert torch.equal(before[..., 0], after[..., 0])
    assert not torch.equal(before[..., 1], after[..., 1])


def test_only_heads_of_values_are_separate():
    heads = make("linear", "mtl", value_heads="separate").heads
    assert [len(list(heads[name].parameters())) for name in ("va", "expr", "au")] == [12, 6, 6]


@pytest.mark.parametrize("body", FUSION_BODIES)
def test_a_header_gives_the_same_model_again(body):
    options = {"positions": "sincos", "padding_mask": False, "attention": "cross", "modality_dropout": 0.25}
    options["value_heads"] = "separate"
    model = make(body, "mtl", **options)
    again = fusion_from_header({"task": "mtl", "architecture": model.describe()}, where="best.safetensors")
    assert again.describe() == model.describe() == {"model": body, "dims": [5, 3], "dropout": 0.1, **options}
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (model, again)]
    assert shapes[0] == shapes[1]


def test_a_header_of_the_first_version_has_the_defaults():
    header = {"task": "va", "architecture": {"model": "netease", "dims": [5, 3], "dropout": 0.3}}
    model = fusion_from_header(header, where="best.safetensors")
    assert model.options == FusionOptions("netease", (5, 3), 0.3, "none", True, "none", 0.0)


@pytest.mark.parametrize(
    ("task", "architecture", "what"),
    [
        ("vb", {"model": "netease", "dims": [5], "dropout": 0.1}, 'unknown task "vb"'),
        ("va", {"model": "neteas", "dims": [5], "dropout": 0.1}, 'unknown fusion model "neteas"'),
        ("va", {"model": "netease", "dims": [5]}, "does not say model, dims and dropout"),
        ("va", None, "does not say model, dims and dropout"),
        ("va", {"model": "netease", "dims": [5], "dropout": 0.1, "rotary": True}, "has rotary, which this version"),
        ("va", {"model": "dual_branch", "test_mix": 0.8, "first": None}, "does not say model, dims and dropout"),
    ],
)
def test_a_header_that_cannot_be_read_names_the_file(task, architecture, what):
    with pytest.raises(AbawError, match=what) as caught:
        fusion_from_header({"task": task, "architecture": architecture}, where="old/best.safetensors")
    assert caught.value.where == "old/best.safetensors"


@pytest.mark.parametrize(
    ("options", "where"),
    [({"positions": "learned"}, "fuse.positions"), ({"attention": "self"}, "fuse.attention")],
)
def test_unknown_options_are_refused(options, where):
    with pytest.raises(AbawError, match="unknown") as caught:
        make("netease", **options)
    assert (caught.value.where, caught.value.code) == (where, ExitCode.CONFIG)
