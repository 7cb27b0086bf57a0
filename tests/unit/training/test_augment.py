"""Augmentation is a function of (seed, step, sample)."""

import random
from concurrent.futures import ThreadPoolExecutor
from copy import copy

import numpy as np
import pytest
import torch
from PIL import Image

from abaw.training import randaugment
from abaw.training.augment import AUGMENTS, Augment, Augmentation, sample_rng
from abaw.training.randaugment import RandAugment


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def draw(augment: Augmentation, images: np.ndarray, step: int = 0, samples: range | None = None) -> np.ndarray:
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


def test_randaugment_leaves_the_process_s_generators_as_they_were(images: np.ndarray) -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the generator that timm draws from
    torch.manual_seed(5)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    draw(AUGMENTS["randaugment"], images)
    assert random.getstate() == state[0]
    assert np.random.get_state()[1].tolist() == state[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state[2])


def test_randaugment_from_several_threads_gives_the_same_images(images: np.ndarray) -> None:
    wanted = [draw(AUGMENTS["randaugment"], images, step) for step in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda step: draw(AUGMENTS["randaugment"], images, step), range(8)))
    assert np.array_equal(found, wanted)


def test_every_operation_of_the_policy_works_at_its_strongest(images: np.ndarray) -> None:
    """A magnitude is drawn about 9, so that its end, 10, is met once in some thousand images."""
    for operation in randaugment._policy(32).ops:
        strongest = copy(operation)
        strongest.magnitude, strongest.prob = 50.0, 1.0
        assert strongest(Image.fromarray(images[0])).size == (32, 32)


def test_erasing_puts_noise_into_one_rectangle() -> None:
    grey = np.full((1, 32, 32, 3), 100, np.uint8)
    erased = RandAugment(lambda images, rngs: images, erase=1.0)
    changed = []
    for step in range(20):
        image = draw(erased, grey, step)[0]  # colour operations keep an even image even, geometry fills with 128
        rows, columns = np.nonzero(image.std(axis=2) > 0)
        box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        changed.append(len(rows) / box[..., 0].size)
    assert np.median(changed) > 0.9


def test_colours_change_as_often_as_told(images: np.ndarray) -> None:
    rare = Augment(flip=0.0, hue=0.1, colours=0.2)
    changed = [not np.array_equal(draw(rare, images[:1], step)[0], images[0]) for step in range(200)]
    assert 25 <= sum(changed) <= 55


def test_a_turned_hue_keeps_grey_grey_and_moves_red() -> None:
    grey, red = np.full((1, 8, 8, 3), 90, np.uint8), np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 200
    turn = Augment(flip=0.0, hue=0.4)
    assert np.array_equal(draw(turn, grey), grey)
    turned = np.stack([draw(turn, red, step)[0, 0, 0] for step in range(8)]).astype(int)
    assert np.abs(turned.max(axis=1) - 200).max() <= 1
    assert turned[:, 1:].max() > 100
