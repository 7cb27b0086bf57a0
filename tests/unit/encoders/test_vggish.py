from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw.encoders.audio import AUDIO_ENCODERS, AudioOptions, build_audio_encoder, encode_whole
from abaw.encoders.vggish import VGGish
from abaw.errors import AbawError, ExitCode
from abaw.models.vggish import Vggish, log_mel, random_vggish

RATE = 16000
EXAMPLE = 15600  # samples: 95 hops of 160, and a window of 400
NAME = "vggish-10086976.pth"


def build(**options: object) -> VGGish:
    found = build_audio_encoder("vggish", AudioOptions(**{"weights": "random", **options}))  # type: ignore[arg-type]
    assert isinstance(found, VGGish)
    return found


@pytest.fixture(scope="module")
def encoder() -> VGGish:
    return build()


@pytest.fixture
def weights(tmp_path) -> Path:
    """A small file with parameters of the right shapes: every embedding is 0, 1, 2 ... 127."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Vggish().state_dict().items()}
    zeros = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    torch.save({**zeros, "embeddings.4.bias": torch.arange(128.0)}, tmp_path / "own.pth")
    return tmp_path / "own.pth"


@pytest.fixture
def pca(tmp_path) -> Path:
    """Takes away 3 of every value, and leaves it at that."""
    content = {"pca_eigen_vectors": np.eye(128, dtype=np.float32), "pca_means": np.full((128, 1), 3, np.float32)}
    torch.save(content, tmp_path / "pca.pth")
    return tmp_path / "pca.pth"


def noise(count: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


@pytest.mark.parametrize(
    ("hop_s", "offset_s", "counts"),
    [
        # Centres -12.5, 87.5 ... ms; the last, 9987.5 ms after 10 s, is within 50 ms of the sound's end.
        (0.1, -0.0125, {0: 0, 1: 1, 600: 1, 601: 2, 10 * RATE: 101}),
        # Centres -472.5, 487.5, 1447.5 ... 10087.5 ms, within 480 ms of the end.
        (0.96, -0.4725, {0: 0, 1: 1, 120: 1, 121: 2, 10 * RATE: 12}),
    ],
)
def test_every_instant_of_the_sound_is_within_half_a_hop_of_a_token(hop_s, offset_s, counts):
    encoder = build(hop_s=hop_s)
    assert (encoder.hop_s, encoder.offset_s, encoder.window_s) == (hop_s, offset_s, 0.975)
    assert {samples: encoder.num_tokens(samples) for samples in counts} == counts
    for samples, tokens in counts.items():
        pieces = encoder.pieces(samples)
        spans = [range(piece.token, piece.token + piece.count) for piece in pieces]
        assert [token for span in spans for token in span] == list(range(tokens))
        assert len({piece.length for piece in pieces}) <= 1


def test_at_a_hop_of_096_s_tokens_are_the_published_examples_and_two_with_zeros():
    """2.5 s: two examples of 96 frames after one another; before them and behind them one filled up with zeros."""
    wave = noise(40000)
    filled = np.concatenate([np.zeros(15360, np.float32), wave, np.zeros(15360, np.float32)])
    frames = log_mel(torch.from_numpy(filled))
    expected = random_vggish()(torch.stack([frames[start : start + 96] for start in (0, 96, 192, 288)]))
    published = log_mel(torch.from_numpy(wave))
    assert torch.equal(published[:192], frames[96:288])
    tokens = encode_whole(build(hop_s=0.96), wave)
    assert tokens == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("first", [1, 9])
def test_any_cutting_of_the_sound_gives_the_same_tokens(encoder, first):
    wave = noise(2 * RATE)
    whole = encode_whole(encoder, wave)
    assert len(whole) == 21
    part = encode_whole(encoder, wave[1600 * first :])
    assert np.allclose(part[5:], whole[first + 5 :], rtol=1e-5, atol=1e-5)  # five tokens begin before the cut


def test_a_token_does_not_depend_on_the_other_sounds_of_its_batch(encoder):
    sounds = noise(2 * EXAMPLE).reshape(2, EXAMPLE)
    together = encoder.encode(sounds)
    assert together.shape == (2, 1, 128)
    assert np.array_equal(encoder.encode(sounds[1:]), together[1:])


@pytest.mark.parametrize("hop_s", [0.025, 0.004, 0.963])
def test_a_hop_between_frames_is_refused(hop_s):
    with pytest.raises(AbawError, match=r"is not a multiple of VGGish's 0.01 s") as caught:
        build(hop_s=hop_s)
    assert caught.value.code == ExitCode.CONFIG


@pytest.mark.parametrize("options", [{"sample_rate": 22050}, {"window_s": 0.5}])
def test_what_the_published_front_end_fixes_cannot_be_set(options):
    with pytest.raises(AbawError, match="VGGish") as caught:
        build(**options)
    assert caught.value.code == ExitCode.CONFIG


def test_a_missing_file_is_named_with_its_sha256_and_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(AbawError) as caught:
        build(weights="", weights_dir=tmp_path / "weights")
    assert caught.value.code == ExitCode.MISSING
    assert f"{NAME}, sha256 10086976" in caught.value.what
    assert str(tmp_path / "weights" / NAME) in caught.value.fix


def test_a_named_file_that_is_missing_is_named_with_the_published_one(tmp_path):
    with pytest.raises(AbawError) as caught:
        build(weights="nowhere.pth", root=tmp_path)
    assert caught.value.code == ExitCode.MISSING
    assert str(tmp_path / "nowhere.pth") in caught.value.what
    assert f"put {NAME} (sha256 10086976...) there" in caught.value.fix


@pytest.mark.parametrize("folder", ["weights", "torch/hub/checkpoints"])
def test_a_file_of_the_usual_folders_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch, weights, folder):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / folder).mkdir(parents=True)
    weights.rename(tmp_path / folder / NAME)
    with pytest.raises(AbawError, match="is not the published file") as caught:
        build(weights="", weights_dir=tmp_path / "weights")
    assert caught.value.where == str(tmp_path / folder / NAME)


def test_a_named_file_is_used_as_it_is_and_a_note_says_what_it_is_not(weights):
    found = build(weights="own.pth", root=weights.parent, trained_on=("AudioSet",))
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert encode_whole(found, noise(RATE))[0].tolist() == list(range(128))
    assert found.settings["weights"] == sha256
    assert found.settings["values"] == "raw embeddings"
    assert found.notes[0].startswith(f"own.pth is not the published {NAME}")
    assert [(record["dataset"], record["weights_sha256"]) for record in found.trained_on] == [("AudioSet", sha256)]


def test_random_weights_are_told(encoder):
    assert encoder.settings["weights"] == "random"
    assert encoder.trained_on == []
    assert "random weights" in encoder.notes[0]


@pytest.mark.parametrize("samples", [1, 601, RATE])
def test_pca_gives_whole_steps_and_says_so(weights, pca, samples):
    """0 and 1 are clipped at -2 and become 0; 2 lies at -1, 1/4 of the range; 5 and all above at 2."""
    found = build(weights=str(weights), pca="pca.pth", root=pca.parent)
    tokens = encode_whole(found, noise(samples))
    assert tokens.shape == (found.num_tokens(samples), 128)
    assert tokens[0].tolist() == [0, 0, 64, 128, 191] + 123 * [255]
    assert found.settings["values"] == "PCA, clipped to [-2, 2], 8 bits (0 to 255)"
    assert found.settings["pca"] == hashlib.sha256(pca.read_bytes()).hexdigest()
    assert found.notes[-1].startswith("pca.pth is not the published vggish_pca_params-970ea276.pth")


def test_the_published_name_of_the_pca_is_looked_for_in_the_usual_folders(tmp_path, monkeypatch, weights, pca):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    name = AUDIO_ENCODERS["vggish"].weights["pca"].file
    options = {"weights": str(weights), "pca": name, "root": tmp_path / "project", "weights_dir": tmp_path / "weights"}
    with pytest.raises(AbawError, match=f"{name}, sha256 970ea276... is not there"):
        build(**options)
    (tmp_path / "weights").mkdir()
    pca.rename(tmp_path / "weights" / name)
    with pytest.raises(AbawError, match="its sha256 does not begin with 970ea276"):
        build(**options)


def test_bf16_is_close_to_fp32_and_says_so(encoder):
    fast = build(precision="bf16")
    assert fast.settings["precision"] == fast.precision == "bf16"
    assert fast.exact().settings == encoder.settings
    assert encoder.exact() is encoder
    one, other = (encode_whole(each, noise(2 * RATE)) for each in (fast, encoder))
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > 0.999
    assert not np.array_equal(one, other)
