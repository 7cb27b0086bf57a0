from __future__ import annotations

import numpy as np
import pytest

from abaw.media.cuts import LEVEL, SIZE, SUDDEN_LEVEL, CutDetector, thumbnail_of


def cuts_of(*levels: float | None) -> list[bool]:
    """Cuts of pictures that are grey throughout, one level each; None is a frame without a picture."""
    detector = CutDetector()
    return [detector.is_cut(None if level is None else np.full(SIZE[::-1], level)) for level in levels]


def test_the_first_picture_is_no_cut():
    assert cuts_of(100) == [False]


def test_a_large_step_is_a_cut_wherever_it_comes():
    assert cuts_of(100, 100 + LEVEL + 1) == [False, True]
    assert cuts_of(100, 109, 100, 109, 109 + LEVEL + 1) == [False, False, False, False, True]


def test_a_smaller_step_is_a_cut_only_out_of_nothing():
    step = SUDDEN_LEVEL + 1
    assert cuts_of(100, 100, 100, 100 + step) == [False, False, False, True]
    assert cuts_of(100, 103, 100, 103, 103 + step) == [False] * 5  # 7 is little more than twice the usual 3


def test_a_small_step_is_never_a_cut():
    assert cuts_of(100, 100, 100, 100 + SUDDEN_LEVEL - 1)[-1] is False


def test_frames_without_a_picture_are_left_out():
    assert cuts_of(100, None, 100, None, 200) == [False, False, False, False, True]


def test_a_cut_says_nothing_of_the_motion_after_it():
    assert cuts_of(100, 100, 200, 207) == [False, False, True, False]  # nothing is known of the new scene yet


def test_the_thumbnail_is_the_mean_of_areas_and_colours():
    image = np.zeros((36, 64, 3), np.uint8)
    image[:2, :2] = (30, 60, 90)
    assert thumbnail_of(image)[0, 0] == pytest.approx(60)
    assert thumbnail_of(image).shape == (18, 32)
