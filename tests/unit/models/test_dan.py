"""DAN under its published names."""

import torch

from abaw.models.dan import MARKER, Dan, SpatialAttention, dan_from_weights, fuse_heads

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BLOCKS = [f"features.{stage}.{block}" for stage in (4, 5, 6, 7) for block in (0, 1)]


def published_names() -> set[str]:
    """Keys of the authors' checkpoints: what torch gives for the modules of their published network.

    A trunk of convolution, norm and four stages of two blocks (the last three stages begin with a 1x1 shortcut), then
    four heads of four convolutions with norms and a bottleneck of two linear layers, a linear layer and a norm.
    """
    names = {"features.0.weight"} | {f"features.1.{n}" for n in NORM}
    for block in BLOCKS:
        for layer in (1, 2):
            names |= {f"{block}.conv{layer}.weight"} | {f"{block}.bn{layer}.{n}" for n in NORM}
    for stage in (5, 6, 7):
        names |= {f"features.{stage}.0.downsample.0.weight"} | {f"features.{stage}.0.downsample.1.{n}" for n in NORM}
    for head in range(4):
        for conv in ("conv1x1", "conv_3x3", "conv_1x3", "conv_3x1"):
            names |= {f"cat_head{head}.sa.{conv}.0.{n}" for n in ("weight", "bias")}
            names |= {f"cat_head{head}.sa.{conv}.1.{n}" for n in NORM}
        for layer in (0, 3):
            names |= {f"cat_head{head}.ca.attention.{layer}.{n}" for n in ("weight", "bias")}
        names |= {f"cat_head{head}.ca.attention.1.{n}" for n in NORM}
    return names | {"fc.weight", "fc.bias"} | {f"bn.{n}" for n in NORM}


def test_names_and_shapes_are_the_published_ones() -> None:
    weights = Dan(8).state_dict()
    assert set(weights) == published_names()
    assert len(weights) == 275
    shapes = {name: list(value.shape) for name, value in weights.items()}
    assert shapes["features.0.weight"] == [64, 3, 7, 7]
    assert shapes["features.7.0.downsample.0.weight"] == [512, 256, 1, 1]
    assert shapes[MARKER] == [256, 512, 1, 1]
    assert shapes["cat_head3.sa.conv_1x3.0.weight"] == [512, 256, 1, 3]
    assert shapes["cat_head3.sa.conv_3x1.0.weight"] == [512, 256, 3, 1]
    assert shapes["cat_head2.ca.attention.0.weight"] == [32, 512]
    assert shapes["fc.weight"] == [8, 512]
    assert shapes["bn.running_var"] == [8]


def test_heads_are_fused_as_log_shares() -> None:
    heads = torch.zeros(1, 4, 512)
    heads[0, 0, 7] = torch.log(torch.tensor(5.0))  # shares 5/8, 1/8, 1/8, 1/8 of channel 7
    fused = fuse_heads(heads)
    assert torch.allclose(fused[0, 7], torch.log(torch.tensor(5 / 8 * (1 / 8) ** 3)))
    assert torch.allclose(fused[0, 0], 4 * torch.log(torch.tensor(0.25)))
    assert torch.equal(fuse_heads(heads[:, :1]), heads[:, 0])


def test_spatial_attention_weighs_places_by_the_sum_over_channels() -> None:
    attention = SpatialAttention().eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        # A norm with weight 0 gives its bias: channel 3 gets 0.5 from each kernel, channel 4 a negative number.
        for branch in (attention.conv_3x3, attention.conv_1x3, attention.conv_3x1):
            branch[1].bias[3], branch[1].bias[4] = 0.5, -9.0
    maps = torch.randn(2, 512, 3, 3)
    assert torch.allclose(attention(maps), 1.5 * maps)


def test_logits_follow_from_the_parts() -> None:
    """Every head gives the same, so that each has a quarter of every channel, and a class gets 4 log(1/4) x weights."""
    torch.manual_seed(0)
    model = Dan(3).eval()
    for number in range(1, 4):
        head = model.get_submodule(f"cat_head{number}")
        head.load_state_dict(model.get_submodule("cat_head0").state_dict())
    with torch.no_grad():
        model.fc.weight.copy_(torch.tensor([0.0, 1.0, -2.0])[:, None].expand(3, 512) / 512)
        model.fc.bias.zero_()
        model.bn.running_mean.fill_(1.0)
        model.bn.running_var.fill_(4.0)
        found = model(torch.randn(1, 3, 64, 64))
    share = 4 * torch.log(torch.tensor(0.25))
    expected = (torch.stack([0 * share, share, -2 * share]) - 1) / 2
    assert torch.allclose(found[0], expected, atol=1e-4)


def test_the_shape_is_read_from_the_weights() -> None:
    model = dan_from_weights(Dan(7, num_heads=2).state_dict())
    assert model.num_heads == 2
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
