from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from abaw.errors import AbawError
from abaw.media.crops import find_on_crop, read_crops
from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.following import find_faces
from abaw.media.warp import align_face, template
from abaw.store import Reason


def write(folder: Path, name: str, *, width: int = 112, height: int = 112) -> bytes:
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), np.full((height, width, 3), 77, np.uint8))
    return (folder / name).read_bytes()


def jpeg_of(arrays) -> bytes:
    """All crops of a track, which are read while they are written."""
    data = b"".join(block.tobytes() for block in arrays["jpeg"].blocks)
    assert len(data) == arrays["jpeg"].total == arrays["offsets"][-1]
    return data


@pytest.fixture(scope="module")
def detector():
    return build_detector("mtcnn", DetectorOptions())


@pytest.fixture(scope="module")
def aligned_face(detector) -> np.ndarray:
    """The astronaut's face on the template at 112 pixels, as the organisers' crops are."""
    portrait = data.astronaut()[:240, 110:350]
    return align_face(portrait, find_faces(portrait, detector).landmarks[0])[0]


def test_crops_are_kept_byte_for_byte_and_gaps_are_rows(tmp_path):
    first, third = write(tmp_path / "t", "00001.jpg"), write(tmp_path / "t", "00003.jpg")
    arrays = read_crops(tmp_path / "t", fps=25).arrays
    assert arrays["valid"].tolist() == [True, False, True]
    assert arrays["reason"].tolist() == [Reason.VALID, Reason.MISSING_CROP, Reason.VALID]
    assert jpeg_of(arrays) == first + third
    assert arrays["offsets"].tolist() == [0, len(first), len(first), len(first) + len(third)]


def test_label_rows_beyond_the_last_crop_are_rows(tmp_path):
    write(tmp_path / "t", "00002.jpg")
    assert len(read_crops(tmp_path / "t", fps=25, min_rows=5).arrays["valid"]) == 5


def test_time_is_nominal_and_landmarks_are_the_templates(tmp_path):
    write(tmp_path / "t", "00002.jpg", width=224, height=224)
    arrays = read_crops(tmp_path / "t", fps=20).arrays
    assert arrays["time"].tolist() == [0, 0.05]
    assert arrays["landmarks"][1] == pytest.approx(template(224), abs=1e-4)
    assert arrays["box"].tolist() == [[0, 0, 0, 0], [0, 0, 224, 224]]


def test_a_file_that_is_no_picture_is_a_decode_error(tmp_path):
    write(tmp_path / "t", "00001.jpg")
    (tmp_path / "t" / "00002.jpg").write_bytes(b"not a picture")
    assert read_crops(tmp_path / "t", fps=25).arrays["reason"].tolist() == [Reason.VALID, Reason.DECODE_ERROR]


def test_other_picture_formats_are_encoded(tmp_path):
    write(tmp_path / "t", "00001.png")
    arrays = read_crops(tmp_path / "t", fps=25).arrays
    assert jpeg_of(arrays)[:2] == b"\xff\xd8"


def test_a_crop_that_is_not_square_is_refused_by_name(tmp_path):
    write(tmp_path / "t", "00001.jpg", width=112, height=100)
    with pytest.raises(AbawError, match="crop 00001.jpg of t is 112x100, not square"):
        read_crops(tmp_path / "t", fps=25)


def test_a_folder_without_crops_is_refused(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "readme.txt").write_text("x")
    with pytest.raises(AbawError, match="folder t holds no crops"):
        read_crops(tmp_path / "t", fps=25)


def test_what_the_folder_held_is_noted(tmp_path):
    write(tmp_path / "t", "00002.jpg")
    write(tmp_path / "t", "00007.jpg")
    assert read_crops(tmp_path / "t", fps=25, min_rows=9).facts == {"num_crops": 2, "highest_crop": 7}


def test_without_a_detector_all_landmarks_are_flagged_as_the_templates(tmp_path):
    write(tmp_path / "t", "00002.jpg")
    arrays = read_crops(tmp_path / "t", fps=25).arrays
    assert arrays["template"].tolist() == [False, True]
    assert arrays["score"].tolist() == [0, 0]


def test_landmarks_are_detected_on_a_crop_and_the_templates_where_no_face_is_seen(tmp_path, detector, aligned_face):
    write(tmp_path / "t", "00001.jpg")
    cv2.imwrite(str(tmp_path / "t" / "00002.png"), aligned_face[..., ::-1])
    arrays = read_crops(tmp_path / "t", fps=25, detector=detector).arrays
    assert arrays["template"].tolist() == [True, False]
    assert arrays["score"][0] == 0
    assert arrays["score"][1] > 0.9
    assert arrays["landmarks"][0] == pytest.approx(template(112), abs=1e-4)
    distance = np.linalg.norm(arrays["landmarks"][1] - template(112), axis=1).mean()
    assert 0 < distance < 0.05 * 112
    assert arrays["box"][1].tolist() == [0, 0, 112, 112]
    assert arrays["warp"][1].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_landmarks_are_found_at_any_size_of_crop(detector, aligned_face):
    small = find_on_crop(aligned_face, detector).landmarks
    large = find_on_crop(cv2.resize(aligned_face, (480, 480), interpolation=cv2.INTER_CUBIC), detector).landmarks
    assert np.linalg.norm(large / 480 - small / 112, axis=1).max() < 0.03


def test_a_face_far_from_the_templates_place_is_not_the_crops(detector, aligned_face):
    corner = np.full((336, 336, 3), 90, np.uint8)
    corner[:112, :112] = aligned_face
    assert len(find_faces(corner, detector)) == 1
    assert find_on_crop(corner, detector) is None


def test_the_center_detector_sees_no_landmarks_on_crops(tmp_path):
    write(tmp_path / "t", "00001.jpg")
    detector = build_detector("center", DetectorOptions())
    assert read_crops(tmp_path / "t", fps=25, detector=detector).arrays["template"].tolist() == [True]


def test_a_truncated_crop_is_a_decode_error(tmp_path):
    whole = write(tmp_path / "t", "00001.jpg")
    (tmp_path / "t" / "00002.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "t" / "00003.jpg").write_bytes(b"")
    reasons = read_crops(tmp_path / "t", fps=25).arrays["reason"].tolist()
    assert reasons == [Reason.VALID, Reason.DECODE_ERROR, Reason.DECODE_ERROR]


def test_a_crop_that_changes_before_it_is_written_is_kept_as_it_was_read(tmp_path):
    whole = write(tmp_path / "t", "00001.jpg")
    arrays = read_crops(tmp_path / "t", fps=25).arrays
    write(tmp_path / "t", "00001.jpg", width=64, height=64)
    assert jpeg_of(arrays) == whole


def test_of_two_files_with_one_number_the_first_by_name_counts(tmp_path):
    write(tmp_path / "t", "1.png", width=64, height=64)
    write(tmp_path / "t", "00001.jpg")
    crops = read_crops(tmp_path / "t", fps=25)
    assert crops.arrays["box"].tolist() == [[0, 0, 112, 112]]
    assert crops.facts["num_crops"] == 1


def test_a_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(AbawError, match="cannot be read"):
        read_crops(tmp_path / "t", fps=25)


@pytest.mark.parametrize("name", ["10000001.jpg", "20181231235959.jpg"])
def test_a_number_beyond_ten_million_is_refused_by_name(tmp_path, name):
    write(tmp_path / "t", name)
    with pytest.raises(AbawError, match=f"{name} of t") as caught:
        read_crops(tmp_path / "t", fps=25)
    assert caught.value.where == str(tmp_path / "t" / name)


def test_pictures_of_other_formats_are_encoded_once_and_keep_their_rows(tmp_path):
    first, last = write(tmp_path / "t", "00002.jpg"), write(tmp_path / "t", "00006.jpg", width=64, height=64)
    for name in ("00001.png", "00004.png", "00005.bmp"):
        write(tmp_path / "t", name)
    (scratch := tmp_path / "scratch").mkdir()
    arrays = read_crops(tmp_path / "t", fps=25, scratch_dir=scratch).arrays
    for name in ("00001.png", "00004.png", "00005.bmp"):
        (tmp_path / "t" / name).unlink()
    jpeg, spans = jpeg_of(arrays), arrays["offsets"]
    parts = [jpeg[start:end] for start, end in zip(spans, spans[1:], strict=False)]
    assert [bool(part) for part in parts] == [True, True, False, True, True, True]
    assert (parts[1], parts[5]) == (first, last)
    assert parts[0] == parts[3] == parts[4]
    assert all(part[:2] == b"\xff\xd8" for part in parts if part)
    assert list(scratch.iterdir()) == []
