from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abaw.errors import AbawError
from abaw.models.vggish import WIDTH, Vggish, log_mel, quantise, random_vggish, read_pca, read_vggish

PUBLISHED = {
    "features.0.weight": (64, 1, 3, 3),
    "features.3.weight": (128, 64, 3, 3),
    "features.6.weight": (256, 128, 3, 3),
    "features.8.weight": (256, 256, 3, 3),
    "features.11.weight": (512, 256, 3, 3),
    "features.13.weight": (512, 512, 3, 3),
    "embeddings.0.weight": (4096, 12288),
    "embeddings.2.weight": (4096, 4096),
    "embeddings.4.weight": (128, 4096),
}


@pytest.fixture(scope="module")
def model() -> Vggish:
    return random_vggish()


def noise(count: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


def test_the_parameters_have_the_published_names_and_shapes(model):
    weights = {name: tuple(value.shape) for name, value in model.state_dict().items() if name.endswith("weight")}
    assert weights == PUBLISHED
    assert sum(value.numel() for value in model.state_dict().values()) == 72_141_184


def test_the_front_end_is_the_definition():
    """By NumPy alone: 400-sample Hann windows, 512-point magnitudes, triangles straight in mel, log(x + 0.01)."""
    wave = noise(16000) + 0.4 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(400) / 400))
    corners = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    bins = 1127 * np.log(1 + np.arange(257) * 16000 / 512 / 700)
    expected = []
    for start in range(0, 16000 - 400 + 1, 160):
        magnitude = np.abs(np.fft.rfft(np.append(wave[start : start + 400] * window, np.zeros(112))))
        magnitude[0] = 0
        bands = []
        for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
            rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
            bands.append(magnitude @ np.maximum(0, np.minimum(rising, falling)))
        expected.append(np.log(np.array(bands) + 0.01))
    frames = log_mel(torch.from_numpy(wave))
    assert frames.shape == (98, 64)
    assert frames.numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_silence_is_the_logarithm_of_the_offset():
    assert torch.allclose(log_mel(torch.zeros(400)), torch.full((1, 64), float(np.log(0.01))))


def test_the_maps_are_flattened_with_their_channels_last(model):
    """The published weights of the first linear layer count time, band, channel; a network built by hand agrees."""
    weights = model.state_dict()
    examples = torch.from_numpy(noise(2 * 96 * 64)).reshape(2, 96, 64)
    maps: Tensor = examples.reshape(2, 1, 96, 64)
    for name, pool in (("0", 1), ("3", 1), ("6", 0), ("8", 1), ("11", 0), ("13", 1)):
        kernel, bias = weights[f"features.{name}.weight"], weights[f"features.{name}.bias"]
        maps = nn.functional.conv2d(maps, kernel, bias, padding=1).clamp(min=0)
        if pool:
            maps = maps.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
    values = torch.stack([maps[:, :, t, f] for t in range(6) for f in range(4)], dim=1).reshape(2, -1)
    for name in ("0", "2", "4"):
        values = (values @ weights[f"embeddings.{name}.weight"].T + weights[f"embeddings.{name}.bias"]).clamp(min=0)
    assert torch.allclose(model(examples), values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_any_number_of_examples_keeps_its_axis(model, count):
    assert model(torch.zeros(count, 96, 64)).shape == (count, WIDTH)


def test_quantising_is_whitening_clipping_and_rounding():
    """The two first values are swapped and one is halved; -2 is step 0, 2 is step 255, 0.1 is 133.875."""
    vectors = torch.eye(WIDTH)
    vectors[:2, :2] = torch.tensor([[0.0, 0.5], [1.0, 0.0]])
    means = torch.zeros(WIDTH)
    means[0] = 1.0
    embeddings = torch.zeros(1, WIDTH)
    embeddings[0, :4] = torch.tensor([1.1, 8.0, -7.0, 2.0])
    steps = quantise(embeddings, vectors, means)
    assert steps[0, :5].tolist() == [255, 134, 0, 255, 128]  # 0 lies at 127.5 and goes to the even step


@pytest.mark.parametrize("wrap", [dict, lambda w: {"state_dict": w}, lambda w: w | {"pproc.pca_means": torch.ones(1)}])
def test_weights_go_through_a_file(tmp_path, model, wrap):
    """One number for each parameter, so that the file stays small."""
    weights = {
        name: torch.tensor([float(number)]).expand(value.shape)
        for number, (name, value) in enumerate(model.state_dict().items())
    }
    torch.save(wrap(weights), tmp_path / "own.pth", _use_new_zipfile_serialization=False)
    read = read_vggish(tmp_path / "own.pth")
    assert [(name, value.flatten()[[0, -1]].tolist()) for name, value in read.state_dict().items()] == [
        (name, [number, number]) for number, name in enumerate(weights)
    ]


def test_another_network_is_refused_with_what_differs(tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3), "fc.weight": torch.zeros(2, 2)}, tmp_path / "vgg16.pth")
    with pytest.raises(AbawError) as caught:
        read_vggish(tmp_path / "vgg16.pth")
    assert caught.value.what == (
        "vgg16.pth is not VGGish: it lacks features.0.bias, features.3.weight, features.3.bias and 14 more; "
        "it also holds fc.weight; features.0.weight is [64, 3, 3, 3] and not [64, 1, 3, 3]"
    )


def test_pca_parameters_are_read_as_published(tmp_path):
    """NumPy arrays in a dictionary, the means as a column."""
    content = {"pca_eigen_vectors": np.eye(128, dtype=np.float32), "pca_means": np.arange(128.0)[:, None]}
    torch.save(content, tmp_path / "pca.pth")
    vectors, means = read_pca(tmp_path / "pca.pth")
    assert torch.equal(vectors, torch.eye(128))
    assert means.tolist() == list(range(128))


def test_a_file_without_pca_parameters_is_refused(tmp_path):
    torch.save({"pca_eigen_vectors": np.eye(64)}, tmp_path / "pca.pth")
    with pytest.raises(AbawError, match=r"lacks pca_means; pca_eigen_vectors is \[64, 64\] and not \[128, 128\]"):
        read_pca(tmp_path / "pca.pth")
