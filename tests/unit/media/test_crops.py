from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.media.crops import read_crops
from abaw.media.warp import template
from abaw.store import Reason


def write(folder: Path, name: str, *, width: int = 112, height: int = 112) -> bytes:
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), np.full((height, width, 3), 77, np.uint8))
    return (folder / name).read_bytes()


def test_crops_are_kept_byte_for_byte_and_gaps_are_rows(tmp_path):
    first, third = write(tmp_path / "t", "00001.jpg"), write(tmp_path / "t", "00003.jpg")
    arrays = read_crops(tmp_path / "t", fps=25)
    assert arrays["valid"].tolist() == [True, False, True]
    assert arrays["reason"].tolist() == [Reason.VALID, Reason.MISSING_CROP, Reason.VALID]
    assert arrays["jpeg"].tobytes() == first + third
    assert arrays["offsets"].tolist() == [0, len(first), len(first), len(first) + len(third)]


def test_label_rows_beyond_the_last_crop_are_rows(tmp_path):
    write(tmp_path / "t", "00002.jpg")
    assert len(read_crops(tmp_path / "t", fps=25, min_rows=5)["valid"]) == 5


def test_time_is_nominal_and_landmarks_are_the_templates(tmp_path):
    write(tmp_path / "t", "00002.jpg", width=224, height=224)
    arrays = read_crops(tmp_path / "t", fps=20)
    assert arrays["time"].tolist() == [0, 0.05]
    assert arrays["landmarks"][1] == pytest.approx(template(224), abs=1e-4)
    assert arrays["box"].tolist() == [[0, 0, 0, 0], [0, 0, 224, 224]]


def test_a_file_that_is_no_picture_is_a_decode_error(tmp_path):
    write(tmp_path / "t", "00001.jpg")
    (tmp_path / "t" / "00002.jpg").write_bytes(b"not a picture")
    assert read_crops(tmp_path / "t", fps=25)["reason"].tolist() == [Reason.VALID, Reason.DECODE_ERROR]


def test_other_picture_formats_are_encoded(tmp_path):
    write(tmp_path / "t", "00001.png")
    arrays = read_crops(tmp_path / "t", fps=25)
    assert arrays["jpeg"][:2].tobytes() == b"\xff\xd8"


def test_a_crop_that_is_not_square_is_refused_by_name(tmp_path):
    write(tmp_path / "t", "00001.jpg", width=112, height=100)
    with pytest.raises(AbawError, match="crop 00001.jpg of t is 112x100, not square"):
        read_crops(tmp_path / "t", fps=25)


def test_a_folder_without_crops_is_refused(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "readme.txt").write_text("x")
    with pytest.raises(AbawError, match="folder t holds no crops"):
        read_crops(tmp_path / "t", fps=25)
