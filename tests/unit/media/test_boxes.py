from __future__ import annotations

import numpy as np
import pytest

from abaw.media.boxes import clean_boxes, iou, suppress

UNIT = np.array([[0.0, 0.0, 2.0, 2.0]])


def test_iou_of_half_shifted_squares_is_one_third():
    assert iou(UNIT, np.array([[1.0, 0.0, 3.0, 2.0]]))[0, 0] == pytest.approx(1 / 3)


def test_iou_of_disjoint_boxes_is_zero():
    assert iou(UNIT, np.array([[5.0, 5.0, 6.0, 6.0]]))[0, 0] == 0


def test_suppression_keeps_the_best_of_overlapping_boxes_first():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], dtype=np.float64)
    assert suppress(boxes, np.array([0.8, 0.9, 0.5]), 0.5).tolist() == [1, 2]


def test_a_box_inside_another_goes_only_when_the_smaller_area_counts():
    boxes = np.array([[0, 0, 10, 10], [2, 2, 6, 6]], dtype=np.float64)
    scores = np.array([0.9, 0.8])
    assert suppress(boxes, scores, 0.5).tolist() == [0, 1]
    assert suppress(boxes, scores, 0.5, of_smaller=True).tolist() == [0]


def test_broken_boxes_fall_back():
    boxes = np.array([[0, 0, np.nan, 4], [3, 3, 3, 9], [0, 0, 5, 5]], dtype=np.float64)
    assert clean_boxes(boxes, np.repeat(UNIT, 3, axis=0)).tolist() == [[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 5, 5]]
