from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from abaw.media.appearance import AppearanceEmbedder

EMBEDDER = AppearanceEmbedder()


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A portrait, cut roughly as the template has it."""
    return cv2.resize(data.astronaut()[50:190, 155:295], (112, 112), interpolation=cv2.INTER_AREA)


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    first, second = EMBEDDER.embed(np.stack([one, two]))
    return float(first @ second)


def test_descriptors_are_unit_vectors(face):
    vectors = EMBEDDER.embed(np.stack([face, face[:, ::-1]]))
    assert vectors.dtype == np.float32
    assert vectors.shape == (2, 448)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_a_crop_is_described_alike_in_any_company(face):
    together = EMBEDDER.embed(np.stack([face, 255 - face, face[::-1]]))
    assert np.array_equal(together[:1], EMBEDDER.embed(face[None]))


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_another_brightness_is_the_same_face(face, factor):
    assert cosine(face, np.clip(face * factor, 0, 255).astype(np.uint8)) > 0.9


def test_a_coarsely_coded_picture_is_the_same_face(face):
    coded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    assert cosine(face, cv2.imdecode(coded, cv2.IMREAD_COLOR)) > 0.9


def test_a_face_placed_two_pixels_off_is_the_same(face):
    assert cosine(face, np.roll(face, (2, -2), axis=(0, 1))) > EMBEDDER.same


def test_something_else_is_not_the_same(face):
    cat = cv2.resize(data.chelsea()[20:220, 130:330], (112, 112), interpolation=cv2.INTER_AREA)
    assert cosine(face, cat) < 0.5


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_picture_has_a_descriptor_too(level):
    flat = np.full((1, 112, 112, 3), level, dtype=np.uint8)
    assert np.linalg.norm(EMBEDDER.embed(flat)) == pytest.approx(1, abs=1e-5)


def test_no_crops_have_no_descriptors():
    assert EMBEDDER.embed(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0, 448)


@pytest.mark.parametrize("crops", [np.zeros((1, 224, 224, 3), np.uint8), np.zeros((1, 112, 112, 3), np.float32)])
def test_other_pictures_than_crops_are_refused(crops):
    with pytest.raises(ValueError, match="crops are uint8"):
        EMBEDDER.embed(crops)
