"""Which file names are those of crops."""

import pytest

from abaw.crop_names import crop_number


@pytest.mark.parametrize(
    ("name", "number"), [("00001.jpg", 1), ("1.png", 1), ("0012.JPEG", 12), ("100000.bmp", 100_000)]
)
def test_a_crop_is_numbered_from_one(name, number):
    assert crop_number(name) == number


@pytest.mark.parametrize(
    "name", ["00000.jpg", "0.png", "\u0661.jpg", "1.gif", "a1.jpg", "1.jpg.txt", "1.jpg\n", ".jpg", "-1.jpg", "1.5.jpg"]
)
def test_other_names_are_no_crops(name):
    assert crop_number(name) is None
