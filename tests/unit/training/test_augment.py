"""Augmentation is a function of (seed, step, sample)."""

import numpy as np
import pytest

from abaw.training.augment import AUGMENTS, Augment, sample_rng


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def draw(augment: Augment, images: np.ndarray, step: int = 0, samples: range | None = None) -> np.ndarray:
    return augment(images, [sample_rng(7, step, sample) for sample in samples or range(len(images))])


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_a_draw_repeats_and_does_not_depend_on_its_neighbours(name: str, images: np.ndarray) -> None:
    whole = draw(AUGMENTS[name], images)
    assert whole.shape == images.shape
    assert whole.dtype == np.uint8
    assert np.array_equal(whole, draw(AUGMENTS[name], images))
    assert np.array_equal(whole[2:], draw(AUGMENTS[name], images[2:], samples=range(2, 4)))


def test_steps_differ(images: np.ndarray) -> None:
    assert not np.array_equal(draw(AUGMENTS["light"], images), draw(AUGMENTS["light"], images, step=1))


def test_none_leaves_the_image_and_flip_mirrors_it(images: np.ndarray) -> None:
    assert np.array_equal(draw(AUGMENTS["none"], images), images)
    assert np.array_equal(draw(Augment(flip=1.0), images), images[:, :, ::-1])


def test_a_full_crop_that_is_not_turned_is_the_image_itself(images: np.ndarray) -> None:
    assert np.array_equal(draw(Augment(min_scale=1.0, aspect=1.0, flip=0.0, rotation=0.0), images), images)


def test_a_crop_enlarges_the_middle_of_a_ramp() -> None:
    ramp = np.tile(np.arange(0, 128, 4, dtype=np.uint8)[None, :, None], (32, 1, 3))[None]
    cropped = draw(Augment(min_scale=0.25, flip=0.0), ramp)
    assert np.ptp(cropped[0, 16].astype(int)) < np.ptp(ramp[0, 16].astype(int))


def test_brightness_moves_all_pixels_alike() -> None:
    grey = np.full((1, 8, 8, 3), 100, np.uint8)
    moved = draw(Augment(flip=0.0, brightness=0.2), grey)
    assert len(np.unique(moved)) == 1
    assert moved.max() != 100
