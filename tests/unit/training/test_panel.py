"""The reconstruction panel: pixels are scaled back, and drawing it changes nothing."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from abaw.models.mae import MaskedAutoencoder
from abaw.models.vit import VitPreset
from abaw.training.panel import Panels, draw_panel, panel_noise, reconstruct, write_panel
from tests.unit.faces_store import picture

PRESET = VitPreset(32, 8, 32, 1, 2, "linear", 16, 1, 2)
MEAN, STD = [0.2, 0.4, 0.6], [0.5, 0.25, 0.125]


def faces(count: int = 3) -> np.ndarray:
    return np.stack([picture(k, 32) for k in range(count)])


def silent(*, norm_pix_loss: bool) -> MaskedAutoencoder:
    """A model that predicts 0 for every value."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(PRESET, norm_pix_loss=norm_pix_loss).eval()
    torch.nn.init.zeros_(model.decoder_pred.weight)
    return model


def hidden_pixels(noise: torch.Tensor) -> np.ndarray:
    """bool [n, 32, 32]: pixels of the 12 of 16 patches with the most noise."""
    hidden = noise.numpy().argsort(1).argsort(1) >= 4
    return hidden.reshape(-1, 4, 4).repeat(8, axis=1).repeat(8, axis=2)


def test_a_prediction_of_zero_is_the_mean_colour_in_pixels() -> None:
    noise = panel_noise(0, 3, 16)
    masked, filled = reconstruct(silent(norm_pix_loss=False), faces(), noise, MEAN, STD)
    hidden = hidden_pixels(noise)
    assert (filled[hidden] == [51, 102, 153]).all()  # 255 times the mean
    assert (masked[hidden] == 128).all()
    for shown in (masked, filled):
        assert np.array_equal(shown[~hidden], faces()[~hidden])


def test_with_normalised_targets_a_patch_gets_its_own_mean_back() -> None:
    noise = panel_noise(0, 3, 16)
    _, filled = reconstruct(silent(norm_pix_loss=True), faces(), noise, MEAN, STD)
    values = (faces() / 255 - MEAN) / STD
    own = values.reshape(3, 4, 8, 4, 8, 3).mean(axis=(2, 4, 5))  # one number for a patch, over its pixels and channels
    expected = np.clip(own.repeat(8, axis=1).repeat(8, axis=2)[..., None] * STD + MEAN, 0, 1) * 255
    hidden = hidden_pixels(noise)
    assert np.abs(filled[hidden] - expected[hidden]).max() <= 1


def test_a_perfect_prediction_is_the_original() -> None:
    model = MaskedAutoencoder(PRESET, norm_pix_loss=True)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    target = model.patchify(images)
    scaled = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(model.to_pixels(images, scaled), images, atol=1e-5, rtol=0)


def test_a_panel_is_a_png_of_labelled_rows(tmp_path: Path) -> None:
    rows = [("original", faces()), ("masked", faces()[::-1])]
    sheet = draw_panel(rows, "step 1")
    write_panel(tmp_path / "panels" / "a.png", sheet)
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "panels" / "a.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read, sheet)
    # faces are 96 pixels wide, behind 108 of labels, with gaps of 4
    assert np.array_equal(sheet[4:100:3, 108:204:3], faces()[0])
    assert np.array_equal(sheet[104:200:3, 308:404:3], faces()[0])


@pytest.mark.parametrize(
    ("every", "written"),
    [(0, [30]), (5, [10, 20, 30]), (10, [10, 20, 30]), (15, [20, 30]), (20, [20, 30])],
)
def test_panels_come_with_the_first_round_at_or_after_their_step(
    tmp_path: Path, every: int, written: list[int]
) -> None:
    panels = Panels(tmp_path, faces(), MEAN, STD, seed=0, steps=30, every=(every, 10))
    model = silent(norm_pix_loss=True)
    for step in panels.count(range(30)):
        if (step + 1) % 10 == 0:
            assert panels.draw(model) == {}
            panels.keep(step + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:06d}.png" for step in written]


def test_a_panel_due_when_a_run_is_taken_up_is_drawn_then(tmp_path: Path) -> None:
    panels = Panels(tmp_path, faces(), MEAN, STD, seed=0, steps=30, every=(10, 10))
    panels.draw(silent(norm_pix_loss=True))
    panels.keep(20)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000020.png"]


def test_drawing_leaves_random_numbers_weights_and_gradients_alone(tmp_path: Path) -> None:
    model = silent(norm_pix_loss=True)
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    panels = Panels(tmp_path, faces(), MEAN, STD, seed=0, steps=1, every=(0, 1))
    panels.draw(model)
    panels.keep(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
