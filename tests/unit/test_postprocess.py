"""Smoothing and post.json."""

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.postprocess import Post, load_post, save_post, smooth


def test_box_filter_shrinks_at_the_ends():
    scores = np.array([[0.0], [3.0], [6.0], [0.0]], np.float32)
    assert smooth(scores, 1)[:, 0].tolist() == pytest.approx([1.5, 3.0, 3.0, 3.0])


def test_no_width_changes_nothing():
    scores = np.ones((3, 2), np.float32)
    assert smooth(scores, 0) is scores


def test_post_survives_writing(tmp_path):
    post = Post(half_width={"va": 5}, thresholds={"au": [0.5] * 12}, fitted_on="fold 0")
    save_post(tmp_path, post)
    assert load_post(tmp_path) == post


def test_without_a_file_there_is_no_post_processing(tmp_path):
    assert load_post(tmp_path) == Post()


def test_a_garbled_file_is_an_error_of_ours(tmp_path):
    (tmp_path / "post.json").write_text('{"halfwidth": 3}')
    with pytest.raises(AbawError, match=r"post\.json"):
        load_post(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"half_width": "x"}',
        '{"half_width": {"va": -3}}',
        '{"clip": [1, 2, 3]}',
        '{"thresholds": [1]}',
        "[]",
        '{"clip": [NaN, 1]}',
    ],
)
def test_values_of_another_form_are_errors_of_ours(tmp_path, text):
    (tmp_path / "post.json").write_text(text)
    with pytest.raises(AbawError, match=r"post\.json"):
        load_post(tmp_path)
