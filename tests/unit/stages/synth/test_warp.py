"""The warp of faces: no folds, and every action unit visible above the noise."""

from functools import lru_cache

import numpy as np
import pytest

from abaw.stages.synth.activations import AUS
from abaw.stages.synth.expressive import build_expressive
from abaw.stages.synth.identity import build_face
from abaw.stages.synth.portraits import built_in_portraits
from abaw.stages.synth.render import MAX_NOISE
from abaw.stages.synth.warp import CHANNELS, COLUMNS, MIN_JACOBIAN, ROWS, X0, X1, Y0, Y1, grid, moved, summed_shift


@lru_cache(maxsize=1)
def people():
    portraits = built_in_portraits()
    return [build_expressive(build_face(np.random.default_rng(k), portraits, lead=k)) for k in range(4)]


def determinant(shift):
    """Of p -> p - shift(p), by central differences."""
    rows, columns = shift.shape[:2]
    by_y, by_x = np.gradient(shift, (Y1 - Y0) / rows, (X1 - X0) / columns, axis=(0, 1))
    return (1 - by_x[..., 0]) * (1 - by_y[..., 1]) - by_x[..., 1] * by_y[..., 0]


def draw_weights(rng, count):
    weights = rng.random((count, CHANNELS)).astype(np.float32)
    weights[::2, : len(AUS)] = rng.random((len(weights[::2]), len(AUS))) < 0.5  # all or nothing
    weights[:, len(AUS) :] = rng.uniform(-1.2, 1.2, (count, 2))
    return weights


@pytest.mark.parametrize("who", range(4))
def test_no_sum_of_units_folds_the_face(who):
    import cv2

    warp = people()[who].warp
    for weights in [np.ones(CHANNELS, np.float32), *draw_weights(np.random.default_rng(who), 150)]:
        shift, _ = summed_shift(warp, weights)
        fine = cv2.resize(shift, (COLUMNS * 2, ROWS * 2), interpolation=cv2.INTER_LINEAR)
        assert determinant(fine).min() > 0.1


def test_single_units_are_far_from_folding():
    for unit in range(len(AUS)):
        shift, factor = summed_shift(people()[0].warp, np.eye(CHANNELS, dtype=np.float32)[unit])
        assert factor == 1.0
        assert determinant(shift).min() > MIN_JACOBIAN


def test_landmarks_follow_the_warp():
    warp = people()[0].warp
    shift, _ = summed_shift(warp, np.full(CHANNELS, 0.4, np.float32))
    places = moved(warp.rest[:26], shift)
    column = np.round((places[:, 0] - X0) / (X1 - X0) * COLUMNS - 0.5).astype(int)
    row = np.round((places[:, 1] - Y0) / (Y1 - Y0) * ROWS - 0.5).astype(int)
    back = grid()[row, column] - shift[row, column]  # where the output pixel nearest to the landmark comes from
    assert np.abs(back - warp.rest[:26]).max() < 0.05


@pytest.mark.parametrize("who", range(4))
@pytest.mark.parametrize("unit", AUS)
def test_each_unit_changes_its_region_more_than_noise_does(unit, who):
    import cv2

    person, channel = people()[who], AUS.index(unit)
    at_rest, _ = person.draw(np.zeros(12, np.float32))
    shown, _ = person.draw(np.eye(12, dtype=np.float32)[channel])
    strength = np.linalg.norm(person.warp.shift[channel], axis=-1) + 0.1 * np.abs(person.warp.shade[channel]).max(
        axis=-1
    )
    region = cv2.resize(strength.astype(np.float32), person.size) > 0.4 * strength.max()
    (x, y), (width, height) = person.origin, person.size
    change = np.abs(shown[..., :3].astype(float) - at_rest[..., :3])[y : y + height, x : x + width][region].mean()
    assert change > MAX_NOISE * np.sqrt(2 / np.pi)  # mean absolute value of Gaussian noise


def test_the_mouth_opens_between_the_lips():
    person = people()[0]
    at_rest, five = person.draw(np.zeros(12, np.float32))
    shown, _ = person.draw(np.eye(12, dtype=np.float32)[AUS.index(25)])
    darker = at_rest[..., :3].sum(-1).astype(int) - shown[..., :3].sum(-1)
    rows, columns = np.nonzero(darker > 120)
    middle = five[3:].mean(axis=0)
    assert abs(columns.mean() - middle[0]) < 3
    assert abs(rows.mean() - middle[1]) < 8
