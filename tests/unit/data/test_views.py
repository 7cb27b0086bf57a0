"""Auxiliary views of a face from its landmarks."""

import math
from functools import partial

import cv2
import numpy as np
import pytest

from abaw.data.views import STYLES, USUAL, VIEWS, auxiliary_view, views_of

SIDE = 112
COLOURS = {"left eye": (255, 0, 0), "right eye": (0, 255, 0), "nose": (0, 0, 255), "mouth": (255, 255, 0)}
SHOWN = {
    "eyes": {"left eye", "right eye"},
    "mouth": {"mouth"},
    "nose": {"nose"},
    "eyes+mouth": {"left eye", "right eye", "mouth"},
}


def drawing(points: np.ndarray = USUAL, side: int = SIDE) -> np.ndarray:
    """A grey face with discs of distinct colours at eyes, nose and the middle of the mouth."""
    image = np.full((side, side, 3), 90, np.uint8)
    places = [points[0], points[1], points[2], (points[3] + points[4]) / 2]
    for (x, y), colour in zip(np.asarray(places) * side, COLOURS.values(), strict=True):
        cv2.circle(image, (round(x), round(y)), side // 56, colour, -1)
    return image


def area(image: np.ndarray, part: str) -> float:
    """Share of the picture with a part's colour."""
    return float((np.abs(image.astype(int) - COLOURS[part]).max(-1) < 60).mean())


def view_of(image: np.ndarray, points: np.ndarray = USUAL, *, view: str, style: str = "crop") -> np.ndarray:
    return auxiliary_view(image[None], np.float32(points)[None], view=view, style=style)[0]


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_crop_enlarges_its_parts_and_leaves_the_others_out(view: str) -> None:
    face = drawing()
    made = view_of(face, view=view)
    for part in COLOURS:
        if part in SHOWN[view]:
            assert area(made, part) > 1.5 * area(face, part)
        else:
            assert area(made, part) == 0


def test_the_pair_shows_the_eyes_above_the_mouth() -> None:
    made = view_of(drawing(), view="eyes+mouth")
    assert area(made[: SIDE // 2], "left eye") > 0
    assert area(made[: SIDE // 2], "mouth") == 0
    assert area(made[SIDE // 2 :], "mouth") > 0
    assert area(made[SIDE // 2 :], "left eye") == 0
    assert area(made[:, : SIDE // 2], "right eye") == area(made[:, SIDE // 2 :], "left eye") == 0


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_turned_face_is_shown_upright(view: str) -> None:
    angle = math.radians(20)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned = (USUAL - 0.5) @ turn.T + 0.5
    upright = view_of(drawing(), view=view).astype(int)
    made = view_of(drawing(turned), turned, view=view).astype(int)
    assert (np.abs(made - upright).max(-1) > 60).mean() < 0.02  # the discs' edges alone


def test_a_part_is_cut_where_its_definition_says() -> None:
    """A nose region of 56 pixels around the middle of the crop: one pixel of it becomes two of the view."""
    (part,) = VIEWS["nose"]
    scale = 0.5 / part.width
    points = np.array([(-0.5, -0.6), (0.5, -0.6), (0.0, -part.down), (0.0, 0.4), (0.0, 0.4)]) * scale + 0.5
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[28:84, 28:84] = 200
    assert (view_of(image, points, view="nose")[4:-4, 4:-4] == 200).all()
    aside = view_of(image, points + [0.25, 0.0], view="nose")  # half of it lies on the black rest
    assert (aside[4:-4, 4 : SIDE // 2 - 4] == 200).all()
    assert (aside[4:-4, SIDE // 2 + 4 : -4] == 0).all()


def test_dimming_keeps_the_parts_and_darkens_the_rest() -> None:
    face = drawing()
    made = view_of(face, view="eyes", style="dim").astype(float)
    x, y = (USUAL[0] * SIDE).round().astype(int)
    assert np.abs(made[y, x] - face[y, x]).max() <= 8
    assert np.allclose(made[-1], face[-1] * STYLES["dim"], atol=1)


def test_blurring_keeps_the_parts_and_the_brightness_of_the_rest() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    made = view_of(noise, view="eyes", style="blur").astype(float)
    x, y = (USUAL[0] * SIDE).round().astype(int)
    assert np.abs(made[y, x] - noise[y, x]).max() <= 8
    assert made[-20:].std() < noise[-20:].std() / 5
    assert made[-20:].mean() == pytest.approx(noise[-20:].mean(), abs=5)


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("view", sorted(VIEWS))
@pytest.mark.parametrize(
    "points",
    [
        np.full((5, 2), 0.4),
        np.full((5, 2), np.nan),
        np.zeros((5, 2)),
        USUAL * 1e6,
    ],
    ids=["one place", "not finite", "zeros", "far away"],
)
def test_landmarks_of_no_face_are_taken_at_the_usual_places(points: np.ndarray, view: str, style: str) -> None:
    face = drawing()
    assert np.array_equal(view_of(face, points, view=view, style=style), view_of(face, view=view, style=style))


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("shift", [(-0.8, 0.0), (0.9, 0.9), (0.0, -3.0)])
def test_landmarks_outside_the_crop_give_a_view(shift: tuple[float, float], style: str) -> None:
    made = view_of(drawing(), USUAL + shift, view="eyes+mouth", style=style)
    assert made.shape == (SIDE, SIDE, 3)
    assert made.dtype == np.uint8


def test_a_profile_keeps_the_scale_of_the_face() -> None:
    """The eyes of a turned head come together; the distance from eyes to mouth then tells its size."""
    profile = USUAL.copy()
    profile[:, 0] = 0.5 + (USUAL[:, 0] - 0.5) * 0.1
    assert area(view_of(drawing(), profile, view="mouth"), "mouth") == pytest.approx(
        area(view_of(drawing(), view="mouth"), "mouth"), rel=0.1
    )


def test_a_view_depends_on_its_own_face_alone_and_on_no_chance() -> None:
    faces = np.stack([drawing(), drawing()[:, ::-1], np.full((SIDE, SIDE, 3), 7, np.uint8)])
    points = np.float32(np.stack([USUAL, USUAL, USUAL + 0.1]))
    kept = faces.copy()
    together = auxiliary_view(faces, points, view="eyes+mouth", style="blur")
    for row in range(3):
        alone = auxiliary_view(faces[row : row + 1], points[row : row + 1], view="eyes+mouth", style="blur")
        assert np.array_equal(alone[0], together[row])
    assert np.array_equal(faces, kept)
    assert auxiliary_view(faces[:0], points[:0], view="nose", style="crop").shape == (0, SIDE, SIDE, 3)


@pytest.mark.parametrize("size", [64, 128])
def test_views_made_in_threads_are_those_made_one_by_one(size: int) -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (19, size, size, 3), dtype=np.uint8)
    points = rng.random((19, 5, 2), np.float32)
    make = partial(auxiliary_view, view="eyes+mouth", style="dim")
    expected = np.concatenate([make(images[k : k + 1], points[k : k + 1]) for k in range(19)])
    assert np.array_equal(views_of(make, images, points), expected)
    assert views_of(make, images[:0], points[:0]).shape == (0, size, size, 3)
