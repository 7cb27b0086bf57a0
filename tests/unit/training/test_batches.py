"""Which samples a step holds, and class weights."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw.data.annotations import Labels
from abaw.data.frames import FrameRef, FrameTable
from abaw.data.image_threads import THREADED_SIZE
from abaw.data.views import auxiliary_view
from abaw.errors import AbawError
from abaw.tasks import TASKS
from abaw.training.augment import AUGMENTS, sample_rng
from abaw.training.batches import FaceBatches, SampleOrder, to_tensor
from abaw.training.mixing import Mixing
from abaw.training.sampling import balanced_sampling
from abaw.training.weights import balanced_weights, class_weights
from tests.unit.faces_store import make_faces, picture

AU, EXPR, VA = (TASKS[name].heads[0] for name in ("au", "expr", "va"))


def test_an_epoch_holds_every_sample_once_whatever_the_batch_size() -> None:
    order = SampleOrder(10, 4, seed=0)
    stream = np.concatenate([order.at(step) for step in range(5)])
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))


def test_a_step_is_the_same_when_asked_out_of_order() -> None:
    first, second = SampleOrder(50, 8, seed=3), SampleOrder(50, 8, seed=3)
    wanted = second.at(20)
    assert np.array_equal([first.at(step) for step in range(21)][20], wanted)


def test_weights_are_shares_of_the_draws() -> None:
    order = SampleOrder(3, 3000, seed=0, weights=np.array([0.0, 3.0, 1.0]))
    assert np.bincount(order.at(0), minlength=3) / 3000 == pytest.approx([0, 0.75, 0.25], abs=0.03)


def test_an_order_is_the_one_of_its_seed_and_epoch() -> None:
    """The order of runs that were made before strides: a permutation of (seed, epoch, 0x0DE), one after another."""
    stream = np.concatenate([np.random.default_rng([3, epoch, 0x0DE]).permutation(7) for epoch in range(4)])
    order = SampleOrder(7, 12, seed=3)
    assert np.array_equal(np.concatenate([order.at(0), order.at(1)]), stream[:24])


def epochs(order: SampleOrder, count: int) -> list[np.ndarray]:
    """The first samples, cut at the ends of the epochs."""
    steps = -(-count * order.epoch_size // order.batch_size)
    stream = np.concatenate([order.at(step) for step in range(steps)])
    return np.split(stream[: count * order.epoch_size], count)


def test_an_epoch_with_a_stride_holds_one_frame_of_every_stretch() -> None:
    order = SampleOrder(17, 4, seed=1, stride=4, lengths=[10, 6, 1])
    stretches = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5]  # 4 3 3 | 3 3 | 1
    assert order.epoch_size == 6
    for epoch in epochs(order, 5):
        assert sorted(stretches[sample] for sample in epoch) == [0, 1, 2, 3, 4, 5]


def test_after_as_many_epochs_as_the_stride_every_frame_was_used() -> None:
    found = np.concatenate(epochs(SampleOrder(40, 7, seed=1, stride=4, lengths=[24, 16]), 8))
    assert np.bincount(found, minlength=40).tolist() == [2] * 40


def test_the_last_frames_of_a_recording_are_not_drawn_more_often_than_others() -> None:
    """9 frames, one out of at most 4: three stretches of 3, not two of 4 and one of a single frame."""
    found = np.concatenate(epochs(SampleOrder(9, 3, seed=1, stride=4, lengths=[9]), 12))
    assert np.bincount(found, minlength=9).tolist() == [4] * 9


def test_recordings_without_samples_are_passed_over() -> None:
    order = SampleOrder(5, 2, seed=1, stride=3, lengths=[0, 4, 0, 1])
    assert order.epoch_size == 3
    assert sorted(sample // 2 for sample in epochs(order, 1)[0]) == [0, 1, 2]


def test_a_step_with_a_stride_is_the_same_when_asked_out_of_order() -> None:
    first, second = (SampleOrder(50, 8, seed=3, stride=5) for _ in range(2))
    wanted = second.at(20)
    assert np.array_equal([first.at(step) for step in range(21)][20], wanted)


def test_weights_and_stride_act_together() -> None:
    order = SampleOrder(8, 4000, seed=0, weights=np.array([1.0] * 4 + [3.0] * 4), stride=2, lengths=[4, 4])
    drawn = np.bincount(order.at(0), minlength=8)
    assert (drawn[0::2] * drawn[1::2] == 0).all()  # one of each two neighbours
    assert drawn[4:].sum() / 4000 == pytest.approx(3 / 4, abs=0.03)


def test_recordings_must_hold_all_samples() -> None:
    with pytest.raises(ValueError, match="recordings of 5 samples in all, not 6"):
        SampleOrder(6, 2, seed=0, lengths=[2, 3])


def test_pixels_are_scaled_by_mean_and_deviation() -> None:
    tensor = to_tensor(np.full((1, 2, 2, 3), 255, np.uint8), [0.5, 0.0, 1.0], [0.5, 0.25, 0.1])
    assert tensor.shape == (1, 3, 2, 2)
    assert tensor[0, :, 0, 0].tolist() == pytest.approx([1.0, 4.0, 0.0], abs=1e-5)


def test_a_tensor_is_the_pixels_times_scale_less_shift_to_the_bit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 5, 3), dtype=np.uint8)[:, :, ::-1]
    mean, std = [0.49895, 0.41044, 0.36561], [0.29708, 0.26990, 0.26526]
    scale, shift = 1 / (255 * np.float32(std)), np.float32(mean) / np.float32(std)
    expected = images.astype(np.float32) * scale - shift
    assert np.array_equal(to_tensor(images, mean, std), expected.transpose(0, 3, 1, 2))
    assert to_tensor(images[:0], mean, std).shape == (0, 3, 5, 5)


def test_balanced_classes_get_the_largest_count_over_their_own() -> None:
    values = np.array([[0], [0], [0], [0], [1], [1], [5], [2]], np.float32)
    mask = np.array([[True]] * 7 + [[False]])
    weights = balanced_weights(EXPR, Labels(values, mask), "balanced")["weight"]
    assert weights == [1, 2, 1, 1, 1, 4, 1, 1]  # class 2 is unlabelled: it never occurs


def test_balanced_units_get_negatives_over_positives_or_shares_of_the_largest() -> None:
    values = np.zeros((8, 12), np.float32)
    values[:4, 0], values[:2, 1] = 1, 1
    labels = Labels(values, np.ones_like(values, bool))
    assert balanced_weights(AU, labels, "balanced")["positive_weight"][:3] == [1.0, 3.0, 1.0]
    assert balanced_weights(AU, labels, "balanced", "weight")["weight"][:3] == [1.0, 2.0, 1.0]


def test_values_have_no_class_weights_and_none_means_none() -> None:
    labels = Labels(np.zeros((2, 2), np.float32), np.ones((2, 2), bool))
    assert balanced_weights(VA, labels, "balanced") == {}
    assert balanced_weights(AU, labels, "none") == {}


def test_given_weights_must_fit_the_head() -> None:
    labels = Labels(np.zeros((2, 1), np.float32), np.ones((2, 1), bool))
    assert balanced_weights(EXPR, labels, [1.0] * 8) == {"weight": [1.0] * 8}
    with pytest.raises(AbawError, match="3 class weights for the 8 outputs of expr"):
        balanced_weights(EXPR, labels, [1.0, 2.0, 3.0])


def test_a_table_gives_weights_by_head_and_balances_the_rest() -> None:
    labels = Labels(np.array([[0], [0], [1]], np.float32), np.ones((3, 1), bool))
    table = {"au": [2.0] * 12, "va": "none"}
    assert class_weights(AU, labels, table, "weight") == {"weight": [2.0] * 12}
    assert class_weights(EXPR, labels, table)["weight"][:2] == [1.0, 2.0]
    assert class_weights(EXPR, labels, "none") == {}
    with pytest.raises(AbawError, match='unknown head "exp"'):
        class_weights(EXPR, labels, {"exp": "none"})


def test_classes_that_are_drawn_equally_often_are_not_weighted_again() -> None:
    labels = Labels(np.array([[0]] * 6 + [[3]] * 2 + [[5]], np.float32), np.ones((9, 1), bool))
    drawn = balanced_sampling([EXPR], {"expr": labels})
    assert class_weights(EXPR, labels, "balanced")["weight"] == [1, 1, 1, 3, 1, 6, 1, 1]
    assert class_weights(EXPR, labels, "balanced", drawn=drawn)["weight"] == [1.0] * 8
    assert class_weights(EXPR, labels, "balanced", drawn=drawn / 1000)["weight"] == [1.0] * 8


def test_rows_count_as_often_as_they_are_drawn() -> None:
    values, mask = np.zeros((4, 12), np.float32), np.ones((4, 12), bool)
    values[0, 0], values[:2, 1] = 1, 1
    mask[3, 0] = False
    drawn = np.array([3.0, 1.0, 0.5, 0.25])
    labels = Labels(values, mask)
    positive = class_weights(AU, labels, "balanced", "pos_weight", drawn)["positive_weight"]
    assert positive[:2] == [0.5, 0.1875]  # (1 + 0.5) / 3 without the last row; (0.5 + 0.25) / (3 + 1)
    assert class_weights(AU, labels, "balanced", "weight", drawn)["weight"][:2] == [1.3333, 1.0]
    every = class_weights(AU, labels, "balanced", "pos_weight", np.ones(4))
    assert every == class_weights(AU, labels, "balanced", "pos_weight")


@pytest.mark.parametrize("weights", [[-1.0] * 8, [float("inf")] * 8, [0.0] * 8])
def test_weights_that_make_no_loss_are_refused(weights: list[float]) -> None:
    with pytest.raises(AbawError, match="negative, not finite, or all 0"):
        balanced_weights(EXPR, Labels(np.zeros((1, 1), np.float32), np.ones((1, 1), bool)), weights)


# -- batches -----------------------------------------------------------------------------------------------------------
def batches(tmp_path: Path, *, count: int = 6, size: int = 16, batch_size: int = 4, **options) -> FaceBatches:
    """Pictures; the label of each is its number."""
    store = make_faces(tmp_path / "faces", {"a": [picture(row, size) for row in range(count)]})
    table = FrameTable([FrameRef(store, "a", np.arange(count))], size)
    arrays = {"expr.values": np.arange(count, dtype=np.float32)[:, None], "expr.mask": np.ones((count, 1), bool)}
    order = SampleOrder(count, batch_size, seed=2)
    return FaceBatches(table, order, [0.0] * 3, [1.0] * 3, AUGMENTS["light"], arrays, **options)


def test_pieces_of_a_step_make_the_whole_step(tmp_path: Path) -> None:
    source = batches(tmp_path, mask_patches=9)
    whole = source.batch(1, 0, 1)
    pieces = [source.batch(1, part, 3) for part in range(3)]
    for name, values in whole.items():
        assert np.array_equal(np.concatenate([piece[name] for piece in pieces]), values)
    assert whole["noise"].shape == (4, 9)
    assert [name for part in range(3) for name in source.sample_ids(1, part, 3)] == source.sample_ids(1, 0, 1)


def test_each_view_of_an_image_gets_noise_of_its_own(tmp_path: Path) -> None:
    noise = batches(tmp_path, mask_patches=9, mask_views=2).batch(0, 0, 1)["noise"]
    assert noise.shape == (4, 2, 9)
    assert not np.array_equal(noise[:, 0], noise[:, 1])


def test_a_view_is_made_of_the_image_and_its_points_and_augmented_alike(tmp_path: Path) -> None:
    points = np.arange(6, dtype=np.float32)[:, None, None] * np.ones((6, 5, 2), np.float32)
    seen: list[np.ndarray] = []

    def view(images: np.ndarray, own: np.ndarray) -> np.ndarray:
        seen.append(own[:, 0, 0])
        return images.copy()

    batch = batches(tmp_path, points=points, make_view=view).batch(0, 0, 1)
    assert seen[0].tolist() == batch["expr.values"][:, 0].tolist()
    assert np.array_equal(batch["views"], batch["images"])


def test_views_of_large_images_are_made_part_by_part_in_threads(tmp_path: Path) -> None:
    """The batch equals the views of all images at once, made, augmented and normalised one after the other."""
    points = np.random.default_rng(0).random((20, 5, 2), np.float32)
    view = partial(auxiliary_view, view="eyes+mouth", style="crop")
    made: list[tuple[int, str]] = []

    def watched(images: np.ndarray, own: np.ndarray) -> np.ndarray:
        made.append((len(images), threading.current_thread().name))
        return view(images, own)

    source = batches(tmp_path, count=20, size=THREADED_SIZE, batch_size=20, points=points, make_view=watched)
    batch = source.batch(0, 0, 1)
    assert sorted(size for size, _ in made) == [4, 8, 8]
    assert threading.current_thread().name not in {name for _, name in made}
    indices = source.order.at(0)
    rngs = [sample_rng(2, 0, index, 0) for index in indices.tolist()]
    expected = source.augment(view(source.table.images(indices), points[indices]), rngs)
    assert torch.equal(batch["views"], to_tensor(expected, [0.0] * 3, [1.0] * 3))


def test_mixing_comes_last(tmp_path: Path) -> None:
    plain = batches(tmp_path).batch(0, 0, 1)
    mixed = batches(tmp_path, mixing=Mixing(0.8, 0.0, [EXPR])).batch(0, 0, 1)
    share = float(mixed["expr.values"][0, int(plain["expr.values"][0, 0])])
    expected = share * plain["images"][0] + (1 - share) * plain["images"][3]
    assert np.allclose(mixed["images"][0], expected, atol=1e-6)
