"""Truth of the synthetic set: rules, balance, and what simple predictors make of it."""

import numpy as np
import pytest

from abaw.metrics import ccc
from abaw.stages.synth.activations import AUS, EXPRESSIONS, PROTOTYPES, band_limited, draw_truth, expression, valence
from abaw.stages.synth.plan import plan_videos
from abaw.stages.synth.track import track_truth


def default_truth(seed, split):
    plan = plan_videos(videos=40, seconds=8, seed=seed)
    return [
        track_truth(seed, video, person)
        for video in plan
        for person in video.people
        if person.splits.get("va") == split and video.num_frames == 200
    ]


@pytest.fixture(scope="module", params=[0, 1, 2])
def sets(request):
    return default_truth(request.param, "train"), default_truth(request.param, "val")


def test_each_prototype_is_its_own_expression():
    activations = np.zeros((8, 12))
    for label, name in enumerate(EXPRESSIONS[1:-1], start=1):
        for unit, level in PROTOTYPES[name].items():
            activations[label, AUS.index(unit)] = level
    activations[7, [AUS.index(2), AUS.index(12), AUS.index(24)]] = 0.9
    assert expression(activations).tolist() == list(range(8))


def test_valence_is_the_stated_sum():
    activations = np.zeros((1, 12))
    activations[0, AUS.index(12)], activations[0, AUS.index(4)] = 1.0, 0.5
    assert valence(activations)[0] == pytest.approx(0.55 - 0.3 * 0.5)


def test_noise_has_no_energy_above_its_band():
    noise = band_limited(np.random.default_rng(0), 1000, 25, cutoff_hz=1.0, channels=3)
    power = np.abs(np.fft.rfft(noise * np.hanning(1000)[:, None], axis=0)) ** 2
    assert power[np.fft.rfftfreq(1000, 1 / 25) > 2.5].sum() < 1e-3 * power.sum()


def test_every_class_and_unit_is_in_three_validation_tracks(sets):
    _, val = sets
    assert min(sum((t.expr == label).any() for t in val) for label in range(8)) >= 3
    assert min(sum(t.au[:, unit].any() for t in val) for unit in range(12)) >= 3


def test_units_are_neither_rare_nor_constant(sets):
    prevalence = np.concatenate([t.au for part in sets for t in part]).mean(axis=0)
    assert prevalence.min() > 0.1
    assert prevalence.max() < 0.55


@pytest.mark.parametrize("column", [0, 1])
def test_constants_track_means_and_frame_numbers_predict_nothing(sets, column):
    train, val = sets
    truth = np.concatenate([t.va[:, column] for t in val])
    by_frame = np.tile(np.mean([t.va[:, column] for t in train], axis=0), len(val))
    by_track = np.concatenate([np.full(len(t.va), t.va[:, column].mean()) for t in val])
    constant = np.full(len(truth), np.mean([t.va[:, column].mean() for t in train]))
    assert max(ccc(guess, truth) for guess in (by_frame, by_track, constant)) <= 0.05


def test_labels_of_another_track_are_at_chance(sets):
    _, val = sets
    other = [*val[1:], val[0]]
    agreement = np.mean(np.concatenate([a.expr == b.expr for a, b in zip(val, other, strict=True)]))
    assert agreement < 0.25
    for column in (0, 1):
        values, guesses = (np.concatenate([t.va[:, column] for t in part]) for part in (val, other))
        assert abs(ccc(guesses, values)) < 0.15


def test_a_large_part_of_arousal_is_only_heard(sets):
    hidden = np.concatenate([t.hidden for part in sets for t in part])
    arousal = np.concatenate([t.va[:, 1] for part in sets for t in part])
    assert 0.35 < np.corrcoef(hidden, arousal)[0, 1] ** 2 < 0.65


def test_a_short_track_has_truth_too():
    truth = draw_truth(np.random.default_rng(0), 25, 25.0)
    assert truth.activations.shape == (25, 12)
    assert np.isfinite(truth.va).all()
