"""Statistics by recording give the same metrics as the rows."""

import numpy as np
import pytest

from abaw.data.annotations import Labels
from abaw.pooled import (
    BINS,
    Counts,
    Histograms,
    Tables,
    UnitHistogram,
    interval,
    moments,
    of_decisions,
    resamples,
    stacked,
    usable,
)
from abaw.postprocess import Post
from abaw.tasks import TASKS, Problem

SIZES = (30, 1, 55, 0, 14)  # rows of five recordings
HEADS = {name: TASKS[name].heads[0] for name in ("au", "expr", "va")}


def recordings_of(head, seed=0):
    """Decisions and labels of each recording; a tenth of the labels is missing."""
    rng = np.random.default_rng(seed)
    found = []
    for size in SIZES:
        shape = (size, head.target_dim)
        if head.problem is Problem.REGRESSION:
            truth = rng.uniform(-1, 1, shape)
            decided = np.clip(truth + rng.normal(0, 0.4, shape) + 0.1, -1, 1)
        else:
            top = head.output_dim if head.problem is Problem.MULTICLASS else 2
            truth, decided = rng.integers(0, top, shape), rng.integers(0, top, shape)
        labels = Labels(truth.astype(np.float32), rng.random(shape) > 0.1)
        found.append((decided.astype(np.float32 if head.problem is Problem.REGRESSION else np.int8), labels))
    return found


def pooled(head, recordings, *, element_mask=False):
    parts = [of_decisions(head, d, own.values, usable(head, own, element_mask=element_mask)) for d, own in recordings]
    return type(parts[0]).stack(parts)


def measured(head, recordings, times, *, element_mask=False):
    """The metric of each label, from the rows themselves; each recording as often as ``times`` says."""
    drawn = [one for one, count in zip(recordings, times, strict=True) for _ in range(count)]
    labels = Labels(np.concatenate([o.values for _, o in drawn]), np.concatenate([o.mask for _, o in drawn]))
    found = head.measure(np.concatenate([d for d, _ in drawn]), labels, element_mask=element_mask)
    return list(found.values())[1:]


@pytest.mark.parametrize("element_mask", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_all_recordings_give_the_metric_of_their_rows(name, element_mask):
    head = HEADS[name]
    recordings = recordings_of(head)
    parts = pooled(head, recordings, element_mask=element_mask).parts()
    wanted = measured(head, recordings, [1] * 5, element_mask=element_mask)
    assert parts.tolist() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_weights_leave_recordings_out_and_draw_them_several_times(name):
    head = HEADS[name]
    recordings = recordings_of(head, seed=1)
    times = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 1, 1], [0, 2, 3, 0, 1], [0, 0, 5, 0, 0]])
    found = pooled(head, recordings).parts(times.astype(np.float64))
    for row, own in zip(found, times, strict=True):
        assert row.tolist() == pytest.approx(measured(head, recordings, own), abs=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_merged_recordings_are_one(name):
    head = HEADS[name]
    recordings = recordings_of(head, seed=2)
    merged = pooled(head, recordings).merge(np.array([0, 1, 0, 1, 0]), 2)
    assert merged.parts().tolist() == pytest.approx(measured(head, recordings, [1] * 5), abs=1e-12)
    first = merged.take(np.array([True, False])).parts()
    assert first.tolist() == pytest.approx(measured(head, recordings, [1, 0, 1, 0, 1]), abs=1e-12)


def test_a_ccc_is_exact_where_the_series_hardly_vary():
    rng = np.random.default_rng(3)
    head = HEADS["va"]
    recordings = [
        (
            np.float32(0.7 + 1e-3 * rng.normal(size=(400, 2))),
            Labels(np.float32(0.7 + 1e-3 * rng.normal(size=(400, 2))), np.ones((400, 2), bool)),
        )
        for _ in range(3)
    ]
    assert pooled(head, recordings).parts().tolist() == pytest.approx(measured(head, recordings, [1] * 3), abs=1e-12)


def test_a_ccc_of_constants_is_zero_in_every_resample():
    truth = np.random.default_rng(0).uniform(-1, 1, (60, 2)).astype(np.float32)
    decided = np.full((60, 2), 0.1, np.float32)
    mask = np.ones((30, 2), bool)
    recordings = [(decided[:30], Labels(truth[:30], mask)), (decided[30:], Labels(truth[30:], mask))]
    found = pooled(HEADS["va"], recordings)
    assert found.parts().tolist() == [0, 0]
    assert not found.parts(resamples(2, 20, seed=0)).any()
    own = [(np.full((30, 2), value, np.float32), Labels(truth[:30], mask)) for value in (0.1, 0.3, -0.77)]
    assert not pooled(HEADS["va"], own).parts(3 * np.eye(3)).any()  # one recording, three times: constant too


def test_nothing_at_all_counts_zero():
    head = HEADS["va"]
    empty = [(np.zeros((4, 2), np.float32), Labels(np.zeros((4, 2), np.float32), np.zeros((4, 2), bool)))]
    assert pooled(head, empty).parts().tolist() == [0, 0]
    assert Counts(*np.zeros((3, 2, 4), np.int64)).parts().tolist() == [0] * 4


def scored_units(seed=0):
    """Scores of 12 units in three recordings, some of them at a threshold exactly or outside 0..1, and labels."""
    rng = np.random.default_rng(seed)
    found = []
    for size in (40, 25, 0):
        scores = rng.random((size, 12)).astype(np.float32)
        scores[: size // 2] = (rng.integers(-3, BINS + 4, (size // 2, 12)) / BINS).astype(np.float32)
        found.append((scores, Labels(rng.integers(0, 2, (size, 12)).astype(np.float32), rng.random((size, 12)) > 0.1)))
    return found


@pytest.mark.parametrize("element_mask", [False, True])
def test_a_histogram_gives_the_decisions_of_every_threshold(element_mask):
    head, recordings = HEADS["au"], scored_units()
    histograms = Histograms.stack(
        [UnitHistogram(own.values, usable(head, own, element_mask=element_mask))(scores) for scores, own in recordings]
    )
    for threshold in (1, 17, 64, 100, BINS - 1):
        post = Post(thresholds={"au": [threshold / BINS] * 12})
        decided = [(head.decide(scores, post), own) for scores, own in recordings]
        wanted = pooled(head, decided, element_mask=element_mask)
        found = histograms.at(np.full(12, threshold))
        for name in ("hits", "decided", "labelled"):
            assert np.array_equal(getattr(found, name), getattr(wanted, name))


def test_the_best_threshold_is_the_best_of_all():
    head, recordings = HEADS["au"], scored_units(seed=1)
    mask = [usable(head, own) for _, own in recordings]
    histograms = Histograms.stack([UnitHistogram(o.values, m)(s) for (s, o), m in zip(recordings, mask, strict=True)])
    all_f1 = np.array([histograms.at(np.full(12, threshold)).parts() for threshold in range(1, BINS)])
    best = histograms.best_thresholds()
    assert histograms.at(best).parts().tolist() == all_f1.max(axis=0).tolist()
    nearer = [
        threshold
        for unit in range(12)
        for threshold in range(1, BINS)
        if all_f1[threshold - 1, unit] == all_f1[:, unit].max() and abs(threshold - 64) < abs(best[unit] - 64)
    ]
    assert nearer == []


def test_a_unit_that_is_never_active_keeps_a_half():
    labels = np.zeros((20, 12), np.float32)
    scores = np.random.default_rng(0).random((20, 12), np.float32)
    assert UnitHistogram(labels, np.ones(labels.shape, bool))(scores).best_thresholds().tolist() == [64] * 12


def test_merged_histograms_are_of_the_rows_of_both():
    _, (scores, own), _ = scored_units()
    mask = np.ones(own.mask.shape, bool)
    halves = [UnitHistogram(own.values[part], mask[part])(scores[part]) for part in (slice(0, 9), slice(9, None))]
    merged = Histograms.stack(halves).merge(np.array([0, 0]), 1)
    assert np.array_equal(merged.active, UnitHistogram(own.values, mask)(scores).active)


def test_resamples_draw_as_many_recordings_as_there_are_and_the_same_ones_again():
    weights = resamples(7, 50, seed=3)
    assert set(weights.sum(axis=1).tolist()) == {7.0}
    assert np.array_equal(weights, resamples(7, 50, seed=3))
    assert not np.array_equal(weights, resamples(7, 50, seed=4))


def test_an_interval_leaves_out_as_much_on_both_sides():
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert interval(np.arange(101.0), 0.5) == pytest.approx((25, 75))


def test_a_perfect_answer_is_perfect_in_every_resample():
    truth = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    mask = np.ones((10, 2), bool)
    recordings = [(truth[k : k + 10], Labels(truth[k : k + 10], mask)) for k in (0, 10, 20)]
    found = pooled(HEADS["va"], recordings)
    assert found.parts(resamples(3, 100, seed=0)).min() == pytest.approx(1)


def test_a_class_is_defined_where_it_is_labelled_or_decided():
    first = np.zeros((3, 3), int)
    first[0, 1] = 4  # the first class decided as the second: the third is nowhere
    found = Tables(np.stack([first, np.zeros((3, 3), int)]))
    assert found.defined().tolist() == [[True, True, False], [False] * 3]
    counts = Counts(np.array([[0, 0]]), np.array([[2, 0]]), np.array([[0, 0]]))
    assert counts.defined().tolist() == [[True, False]]


def test_values_are_defined_where_there_is_a_row():
    rows = np.zeros((3, 2))
    found = stacked([moments(rows, rows), moments(rows[:0], rows[:0])])
    assert found.defined().tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("name", HEADS)
def test_the_truth_is_the_same_whatever_was_decided(name):
    head = HEADS[name]
    recordings = recordings_of(head, seed=4)
    others = [(np.flip(decided, axis=0), own) for decided, own in recordings]
    found, other = pooled(head, recordings), pooled(head, others)
    assert found.same_truth(other).all()
    labels = Labels(np.where(recordings[2][1].values > 0, 0, 1).astype(np.float32), recordings[2][1].mask)
    changed = pooled(head, [*recordings[:2], (recordings[2][0], labels), *recordings[3:]])
    assert found.same_truth(changed).tolist() == [True, True, False, True, True]
