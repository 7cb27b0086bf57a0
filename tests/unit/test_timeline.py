from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw.timeline import FrameSums, frame_edges, frames_outside, token_spans, tokens_to_frames

TOKENS = np.arange(10, dtype=np.float32)[:, None]  # token k has the value k


def test_the_last_frame_is_as_long_as_the_median_step():
    assert frame_edges(np.array([0.0, 0.1, 0.2, 0.5])).tolist() == pytest.approx([0.0, 0.1, 0.2, 0.5, 0.6])


def test_a_single_frame_gets_a_length():
    assert frame_edges(np.array([2.0])).tolist() == pytest.approx([2.0, 2.04])


def test_no_frames_have_no_edges():
    assert frame_edges(np.zeros(0)).size == 0


def test_times_that_do_not_increase_are_refused():
    with pytest.raises(ValueError, match="strictly increasing"):
        frame_edges(np.array([0.0, 0.1, 0.1]))


def test_a_frame_is_the_mean_of_the_tokens_inside_it():
    # Frames [0, .04), [.04, .08); token centres 0, .01, .02 ...: tokens 0-3 and 4-7.
    frames = tokens_to_frames(TOKENS, np.array([0.0, 0.04]), offset_s=0.0, hop_s=0.01)
    assert frames[:, 0].tolist() == [1.5, 5.5]


def test_a_centre_on_a_frames_start_belongs_to_that_frame():
    # 0.07 is not 7 * 0.01 in binary, yet token 7 lies on the start of the second frame.
    spans = token_spans(np.array([0.03, 0.07]), num_tokens=10, offset_s=0.0, hop_s=0.01)
    assert spans.tolist() == [[3, 7], [7, 10]]


def test_offset_moves_the_tokens():
    # Centres .015, .025, .035, .045 ...: frame [0, .04) holds tokens 0-2, frame [.04, .08) tokens 3-6.
    frames = tokens_to_frames(TOKENS, np.array([0.0, 0.04]), offset_s=0.015, hop_s=0.01)
    assert frames[:, 0].tolist() == [1.0, 4.5]


def test_a_frame_without_a_centre_takes_the_token_nearest_to_its_middle():
    # Centres 0, .1, .2; frames of 20 ms around .04-.06 (middle .05: tie, earlier token), .06-.08 (middle .07).
    frames = tokens_to_frames(TOKENS[:3], np.array([0.02, 0.04, 0.06]), offset_s=0.0, hop_s=0.1)
    assert frames[:, 0].tolist() == [0.0, 0.0, 1.0]


def test_frames_beyond_the_tokens_hold_the_last_one():
    frames = tokens_to_frames(TOKENS[:2], np.array([0.0, 1.0, 2.0]), offset_s=0.0, hop_s=0.01)
    assert frames[:, 0].tolist() == [0.5, 1.0, 1.0]


def test_frames_before_the_tokens_take_the_first_one():
    frames = tokens_to_frames(TOKENS, np.array([0.0, 0.04]), offset_s=0.5, hop_s=0.01)
    assert frames[:, 0].tolist() == [0.0, 0.0]


def test_uneven_frames_take_what_lies_inside_each():
    # [0, .01) -> 0; [.01, .05) -> 1-4; [.05, .06) -> 5; the last as long as the median step .01: [.06, .07) -> 6.
    frames = tokens_to_frames(TOKENS, np.array([0.0, 0.01, 0.05, 0.06]), offset_s=0.0, hop_s=0.01)
    assert frames[:, 0].tolist() == [0.0, 2.5, 5.0, 6.0]


def test_without_tokens_frames_are_zero():
    frames = tokens_to_frames(np.zeros((0, 3), np.float32), np.array([0.0, 0.04]), offset_s=0.0, hop_s=0.01)
    assert frames.shape == (2, 3)
    assert not frames.any()


def test_frames_that_share_no_instant_with_the_sound_are_outside():
    # Sound from .04 to .12; frames of 40 ms from 0: the first ends where it begins, the fourth begins where it ends.
    outside = frames_outside(np.array([0.0, 0.04, 0.08, 0.12]), start_s=0.04, stop_s=0.12)
    assert outside.tolist() == [True, False, False, True]


def add_in_parts(sums: FrameSums, tokens: np.ndarray, cuts: list[int], order: list[int]) -> np.ndarray:
    """Features from tokens cut before the indices ``cuts``, the parts added in this order."""
    edges = [0, *cuts, len(tokens)]
    for part in order:
        sums.add(edges[part], tokens[edges[part] : edges[part + 1]])
    return sums.features()


@given(
    steps=st.lists(st.sampled_from([0.003, 0.0167, 0.04, 0.1, 0.35]), min_size=0, max_size=30),
    num_tokens=st.integers(0, 60),
    hop_s=st.sampled_from([0.005, 0.02, 0.1]),
    offset_s=st.sampled_from([-0.3, 0.0, 0.0125, 0.8]),
    data=st.data(),
)
def test_any_cutting_of_the_tokens_in_any_order_gives_the_same_frames(steps, num_tokens, hop_s, offset_s, data):
    times = np.cumsum([0.0, *steps])[: len(steps)]
    tokens = np.random.default_rng(num_tokens).standard_normal((num_tokens, 3)).astype(np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, num_tokens), max_size=6)))
    order = data.draw(st.permutations(range(len(cuts) + 1)))
    sums = FrameSums(times, num_tokens=num_tokens, dim=3, offset_s=offset_s, hop_s=hop_s)
    expected = tokens_to_frames(tokens, times, offset_s=offset_s, hop_s=hop_s)
    assert np.array_equal(add_in_parts(sums, tokens, cuts, order), expected)


def test_a_frame_whose_tokens_come_in_three_parts_is_their_mean():
    # Frames [0, .05), [.05, .1): tokens 0-4 and 5-9; the cuts fall inside both.
    sums = FrameSums(np.array([0.0, 0.05]), num_tokens=10, dim=1, offset_s=0.0, hop_s=0.01)
    assert add_in_parts(sums, TOKENS, [2, 7], [1, 0, 2])[:, 0].tolist() == [2.0, 7.0]


def test_a_token_that_two_frames_share_counts_in_both():
    # Centres 0 and .1; frames of 20 ms around .02, .04 and .06: the nearest tokens are 0, 0 and 1.
    sums = FrameSums(np.array([0.01, 0.03, 0.055]), num_tokens=2, dim=1, offset_s=0.0, hop_s=0.1)
    assert add_in_parts(sums, TOKENS[5:7], [1], [0, 1])[:, 0].tolist() == [5.0, 5.0, 6.0]


def test_sums_may_be_kept_in_half_precision():
    sums = FrameSums(np.array([0.0, 0.04]), num_tokens=10, dim=1, offset_s=0.0, hop_s=0.01, dtype=np.float16)
    sums.add(0, TOKENS / 3)
    assert sums.features().dtype == np.float16
    assert sums.features()[:, 0].tolist() == np.float16([0.5, 5.5 / 3]).tolist()


def test_frames_that_lack_tokens_are_told():
    sums = FrameSums(np.array([0.0, 0.04, 0.08]), num_tokens=10, dim=1, offset_s=0.0, hop_s=0.01)
    sums.add(0, TOKENS[:6])
    with pytest.raises(ValueError, match="2 frames lack tokens"):
        sums.features()


def test_tokens_added_twice_are_refused():
    sums = FrameSums(np.array([0.0, 0.04]), num_tokens=10, dim=1, offset_s=0.0, hop_s=0.01)
    sums.add(0, TOKENS[:6])
    with pytest.raises(ValueError, match="added twice"):
        sums.add(3, TOKENS[3:6])
