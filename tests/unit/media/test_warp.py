from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from abaw.media.warp import Aligner, align_face, encode_jpeg, fit_box, fit_similarity, template, warp_face


def apply(warp: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ warp[:, :2].T + warp[:, 2]


def test_the_template_scales_with_the_crop():
    assert template(112)[2] == pytest.approx((56.0252, 71.7366))
    assert template(224) == pytest.approx(2 * template(112))


def test_a_margin_draws_the_points_together_about_the_centre():
    # With half a square added on each side the face takes half the crop.
    assert template(112, margin=0.5) == pytest.approx((template(112) - 56) / 2 + 56)


def test_a_known_similarity_is_found():
    angle, scale = np.deg2rad(30), 2.5
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = template(112)
    warp = fit_similarity(source, source @ turn.T + (10, -20))
    assert warp == pytest.approx(np.column_stack([turn, (10, -20)]))


def test_the_fit_is_umeyamas():
    source = template(112) * 1.7 + np.random.default_rng(0).normal(0, 4, (5, 2)) + 30
    expected = SimilarityTransform.from_estimate(source, template(112)).params[:2]
    assert fit_similarity(source, template(112)) == pytest.approx(expected)


def test_points_that_coincide_allow_no_fit():
    assert fit_similarity(np.full((5, 2), 7.0), template(112)) is None
    with pytest.raises(ValueError, match="coincide"):
        align_face(np.zeros((50, 50, 3), np.uint8), np.full((5, 2), 7.0))


def test_a_box_becomes_the_centre_of_the_crop():
    # Box 40 wide, 20 high: the square around it is 40, with a quarter on each side 60.
    warp = fit_box(np.array([10, 20, 50, 40]), 120, margin=0.25)
    assert apply(warp, np.array([[30.0, 30.0], [0.0, 0.0]])).tolist() == [[60, 60], [0, 0]]


def test_the_landmarks_land_on_the_template():
    source = template(112) * 3 + 17
    picture = np.zeros((600, 600, 3), np.uint8)
    _, warp = align_face(picture, source)
    assert warp.dtype == np.float32
    assert apply(warp, source) == pytest.approx(template(112), abs=1e-3)


@pytest.mark.parametrize("scale", [0.7, 2.0, 3.0, 5.0])
def test_a_dot_lands_where_the_warp_says(scale):
    picture = np.zeros((400, 400), np.float32)
    cv2.circle(picture, (180, 150), 12, 255, -1)
    picture = np.repeat(picture[..., None], 3, axis=2).astype(np.uint8)
    warp = np.array([[1 / scale, 0, 5], [0, 1 / scale, -3]])
    crop = warp_face(picture, warp, 112 if scale > 1 else 300)[..., 0].astype(np.float64)
    rows, cols = np.indices(crop.shape)
    centre = ((crop * cols).sum() / crop.sum(), (crop * rows).sum() / crop.sum())
    assert centre == pytest.approx((180 / scale + 5, 150 / scale - 3), abs=0.1)


def test_large_faces_do_not_alias():
    stripes = (np.indices((448, 448))[1] % 2 * 255).astype(np.uint8)
    picture = np.repeat(stripes[..., None], 3, axis=2)
    crop = warp_face(picture, np.array([[0.25, 0, 0], [0, 0.25, 0]]), 112)
    assert abs(crop[4:-4, 4:-4].astype(int) - 127).max() <= 2


def test_outside_the_picture_is_black():
    crop = warp_face(np.full((20, 20, 3), 200, np.uint8), np.array([[1.0, 0, 30], [0, 1, 0]]), 60)
    assert not crop[:, :29].any()


def test_the_aligner_offers_box_and_template():
    box, landmarks = np.array([0, 0, 56, 56]), template(56)
    assert Aligner(warp="box").fit(box, landmarks)[0, 0] == pytest.approx(2)
    assert Aligner().fit(box, landmarks) == pytest.approx(np.array([[2, 0, 0], [0, 2, 0]]), abs=1e-9)


def test_jpeg_keeps_colours_in_order():
    image = np.zeros((32, 32, 3), np.uint8)
    image[:] = (200, 60, 20)
    back = cv2.imdecode(np.frombuffer(encode_jpeg(image, 95), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert back.mean(axis=(0, 1)) == pytest.approx([200, 60, 20], abs=3)


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("tall", [False, True])
def test_a_face_of_a_picture_beyond_opencvs_limit_is_cropped_as_of_its_surroundings(scale, tall):
    surroundings = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    picture = np.zeros((300, 33_000, 3), np.uint8)
    picture[:, 32_500:32_900] = surroundings
    near = np.array([[scale, 0, -scale * 150], [0, scale, -scale * 120]])
    far = near - [[0, 0, scale * 32_500], [0, 0, 0]]
    if tall:
        surroundings, picture = surroundings.transpose(1, 0, 2), picture.transpose(1, 0, 2)
        near, far = near[::-1, [1, 0, 2]], far[::-1, [1, 0, 2]]
    assert np.array_equal(warp_face(picture, far, 32), warp_face(surroundings, near, 32))


def test_a_square_larger_than_opencvs_limit_is_cropped():
    picture = np.full((10, 40_000, 3), 200, np.uint8)
    crop = warp_face(picture, np.array([[1 / 400, 0, 0], [0, 1.0, 0]]), 100)
    assert crop[1:9, 1:].min() == 200
    assert not crop[12:].any()


def test_a_face_beside_a_picture_beyond_opencvs_limit_is_black():
    picture = np.full((40, 33_000, 3), 200, np.uint8)
    assert not warp_face(picture, np.array([[1.0, 0, 500], [0, 1, 0]]), 64).any()
