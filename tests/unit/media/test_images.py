"""Single pictures of any kind, and the rows that an image collection gives."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.media import images
from abaw.media.faces import Detections, DetectorOptions, build_detector
from abaw.media.images import align_images, decode_picture, dominant_face
from abaw.media.people import AlignSettings
from abaw.media.warp import Aligner, template
from abaw.store import Chunks, Reason
from tests.unit.conftest import place_face

SETTINGS = AlignSettings(Aligner(size_px=64))


@pytest.fixture(scope="module")
def detector():
    return build_detector("mtcnn", DetectorOptions())


def save(path: Path, image: np.ndarray) -> Path:
    cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def turned(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG file with an EXIF block of one entry: tag 0x112, the orientation."""
    entry = struct.pack("<HHII", 0x112, 3, 1, orientation)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def png_header(width: int, height: int) -> bytes:
    """A PNG file that announces a size and holds ten rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def faces(*boxes: tuple[float, float, float, float], scores: tuple[float, ...]) -> Detections:
    count = len(boxes)
    return Detections(np.float32(boxes).reshape(-1, 4), np.zeros((count, 5, 2), np.float32), np.float32(scores))


def test_every_image_is_a_row_with_its_reason(tmp_path, detector, blank):
    save(tmp_path / "face.png", place_face(blank, x=30, y=5, side=100))
    save(tmp_path / "none.png", blank)
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    names = ["text.jpg", "face.png", "empty.jpg", "none.png"]
    arrays = align_images(tmp_path, names, detector, SETTINGS)
    assert arrays["reason"].tolist() == [Reason.DECODE_ERROR, Reason.VALID, Reason.DECODE_ERROR, Reason.NO_FACE]
    assert arrays["valid"].tolist() == [False, True, False, False]
    assert arrays["key"].tolist() == names
    assert arrays["time"].tolist() == [0, 1, 2, 3]
    assert np.diff(arrays["offsets"]).astype(bool).tolist() == [False, True, False, False]


def test_the_crop_is_the_face_warped_onto_the_template(tmp_path, detector, blank):
    save(tmp_path / "face.png", place_face(blank, x=30, y=5, side=100))
    arrays = align_images(tmp_path, ["face.png"], detector, SETTINGS)
    assert isinstance(arrays["jpeg"], Chunks)
    crop = cv2.imdecode(np.concatenate(list(arrays["jpeg"].blocks)), cv2.IMREAD_COLOR)
    assert crop.shape == (64, 64, 3)
    warp = arrays["warp"][0]
    points = arrays["landmarks"][0] @ warp[:, :2].T + warp[:, 2]
    assert np.linalg.norm(points - template(64), axis=1).mean() < 0.05 * 64
    assert arrays["score"][0] > 0.9


def test_a_face_below_the_threshold_keeps_its_box_and_score(tmp_path, detector, blank):
    save(tmp_path / "face.png", place_face(blank, x=30, y=5, side=100))
    arrays = align_images(tmp_path, ["face.png"], detector, SETTINGS._replace(min_score=1.1))
    assert arrays["reason"].tolist() == [Reason.LOW_SCORE]
    assert arrays["score"][0] > 0.9
    assert arrays["box"][0].any()
    assert not arrays["landmarks"].any()
    assert arrays["jpeg"].total == 0


def test_one_face_of_several_is_taken_with_a_row_of_its_own(tmp_path, detector, pair_pictures):
    large = cv2.resize(pair_pictures[0][:, :120], (180, 180))
    picture = np.full((180, 320, 3), 90, np.uint8)
    picture[:, :180] = large
    picture[30:120, 210:300] = cv2.resize(pair_pictures[0][:, 120:], (90, 90))
    save(tmp_path / "pair.png", picture)
    arrays = align_images(tmp_path, ["pair.png"], detector, SETTINGS)
    assert arrays["valid"].tolist() == [True]
    assert arrays["box"][0, 2] < 180


def test_with_the_center_detector_the_centre_square_is_the_face(tmp_path):
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = (200, 100, 50)
    save(tmp_path / "a.png", picture)
    center = build_detector("center", DetectorOptions())
    arrays = align_images(tmp_path, ["a.png"], center, SETTINGS)
    assert arrays["box"].tolist() == [[30, 0, 70, 40]]
    crop = cv2.imdecode(np.concatenate(list(arrays["jpeg"].blocks)), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(crop[8:-8, 8:-8].astype(int) - (200, 100, 50)).max() <= 4


def test_names_below_folders_are_read_there(tmp_path, detector, blank):
    (tmp_path / "a b").mkdir()
    save(tmp_path / "a b" / "\u00e9.png", blank)
    assert align_images(tmp_path, ["a b/\u00e9.png"], detector, SETTINGS)["reason"].tolist() == [Reason.NO_FACE]


def test_a_file_that_is_gone_is_an_error_not_a_damaged_picture(tmp_path, detector):
    with pytest.raises(AbawError, match="gone.jpg cannot be read"):
        align_images(tmp_path, ["gone.jpg"], detector, SETTINGS)


def test_a_program_error_is_not_a_row(tmp_path, blank):
    class Broken:
        short_side_px, follows = 360, False

        def detect(self, image):
            raise ZeroDivisionError

    save(tmp_path / "a.png", blank)
    with pytest.raises(ZeroDivisionError):
        align_images(tmp_path, ["a.png"], Broken(), SETTINGS)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_a_file_cut_short_is_no_picture(suffix, face_pictures):
    whole = encoded(face_pictures[0], suffix)
    assert decode_picture(whole).image.shape == (120, 160, 3)
    assert decode_picture(whole[: len(whole) * 9 // 10]) is None


def test_colours_come_as_rgb():
    bgr = np.zeros((4, 4, 3), np.uint8)
    bgr[..., 0] = 255
    assert decode_picture(encoded(bgr)).image[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_grey_and_alpha_become_rgb_of_eight_bit(suffix, channels):
    deep = np.full((6, 8, channels), 50 * 257, np.uint16)
    if channels == 4:
        deep[..., 3] = 65535
    image = decode_picture(encoded(deep, suffix)).image
    assert (image.shape, image.dtype) == ((6, 8, 3), np.uint8)
    assert np.unique(image).tolist() == [50]


def test_a_picture_is_turned_upright_by_its_orientation():
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, :8] = 255  # the left half is white; turned by a quarter to the right it is the upper one
    image = decode_picture(turned(encoded(wide, ".jpg"), 6)).image
    assert image.shape == (16, 8, 3)
    assert image[2, 4].min() > 250
    assert image[13, 4].max() < 5


def test_a_huge_jpeg_is_decoded_at_a_reduced_size_and_its_numbers_are_those_of_the_file(tmp_path, monkeypatch):
    picture = np.zeros((64, 160, 3), np.uint8)
    picture[:, 48:112] = (200, 100, 50)
    save(tmp_path / "a.jpg", picture)
    center = build_detector("center", DetectorOptions())
    whole = align_images(tmp_path, ["a.jpg"], center, SETTINGS)
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 160 // 4)
    assert decode_picture((tmp_path / "a.jpg").read_bytes()).image.shape == (32, 80, 3)
    reduced = align_images(tmp_path, ["a.jpg"], center, SETTINGS)
    assert reduced["box"].tolist() == whole["box"].tolist() == [[48, 0, 112, 64]]
    assert reduced["landmarks"] == pytest.approx(whole["landmarks"], abs=1e-3)
    assert reduced["warp"] == pytest.approx(whole["warp"], abs=1e-3)


def test_pictures_that_would_take_gigabytes_are_none(monkeypatch):
    assert decode_picture(png_header(60_000, 60_000)) is None
    assert decode_picture(png_header(20_000, 20_000)) is None
    monkeypatch.setattr(images, "MAX_PIXELS", 11)
    assert decode_picture(encoded(np.zeros((4, 3, 3), np.uint8))) is None
    assert decode_picture(encoded(np.zeros((4, 2, 3), np.uint8))) is not None


def test_a_file_of_over_half_a_gigabyte_is_not_read(tmp_path, detector):
    with (tmp_path / "a.bmp").open("wb") as file:
        file.truncate((1 << 29) + 1)
    assert align_images(tmp_path, ["a.bmp"], detector, SETTINGS)["reason"].tolist() == [Reason.DECODE_ERROR]


def test_the_larger_face_is_the_dominant_one():
    found = faces((0, 0, 30, 40), (60, 60, 80, 80), scores=(0.99, 0.99))
    assert dominant_face(found, width=100, height=100, min_score=0.9) == 0


def test_of_faces_of_one_size_the_one_nearer_to_the_centre_is_dominant():
    found = faces((0, 0, 20, 20), (40, 40, 60, 60), scores=(0.99, 0.95))
    assert dominant_face(found, width=100, height=100, min_score=0.9) == 1


def test_a_face_in_the_corner_counts_half():
    """Side 38 with its centre in the corner weighs 19, side 20 in the centre 20; side 42 weighs 21."""
    assert (
        dominant_face(faces((-19, -19, 19, 19), (40, 40, 60, 60), scores=(1, 1)), width=100, height=100, min_score=0)
        == 1
    )
    assert (
        dominant_face(faces((-21, -21, 21, 21), (40, 40, 60, 60), scores=(1, 1)), width=100, height=100, min_score=0)
        == 0
    )


def test_a_weak_face_is_only_taken_where_there_is_no_good_one():
    found = faces((10, 10, 90, 90), (40, 40, 60, 60), scores=(0.5, 0.95))
    assert dominant_face(found, width=100, height=100, min_score=0.9) == 1
    assert dominant_face(found, width=100, height=100, min_score=0.99) == 0
    assert dominant_face(faces(scores=()), width=100, height=100, min_score=0.9) is None


def test_an_empty_shard_has_no_rows(tmp_path, detector):
    arrays = align_images(tmp_path, [], detector, SETTINGS)
    assert len(arrays["valid"]) == len(arrays["key"]) == 0
    assert arrays["offsets"].tolist() == [0]


def test_crops_wait_in_a_file_without_a_name_until_they_are_written(tmp_path):
    save(tmp_path / "a.png", np.full((40, 40, 3), 90, np.uint8))
    (tmp_path / "b.png").touch()
    (scratch := tmp_path / "scratch").mkdir()
    center = build_detector("center", DetectorOptions())
    arrays = align_images(tmp_path, ["a.png", "b.png", "a.png"], center, SETTINGS, scratch_dir=scratch)
    data = np.concatenate(list(arrays["jpeg"].blocks)).tobytes()
    start, end, other_start, other_end = arrays["offsets"]
    assert end == other_start
    assert data[start:end] == data[other_start:other_end]
    assert (data[:2], len(data)) == (b"\xff\xd8", arrays["jpeg"].total)
    assert list(scratch.iterdir()) == []


def test_a_scratch_folder_that_is_not_there_is_said(tmp_path, detector):
    with pytest.raises(AbawError, match="temporary file"):
        align_images(tmp_path, [], detector, SETTINGS, scratch_dir=tmp_path / "none")


@pytest.mark.parametrize("shape", [(20, 33_000, 3), (33_000, 20, 3)])
def test_a_picture_beyond_opencvs_limit_is_a_row(tmp_path, shape):
    save(tmp_path / "a.png", np.full(shape, 90, np.uint8))
    arrays = align_images(tmp_path, ["a.png"], build_detector("center", DetectorOptions()), SETTINGS)
    assert arrays["valid"].tolist() == [True]
    crop = cv2.imdecode(np.concatenate(list(arrays["jpeg"].blocks)), cv2.IMREAD_COLOR)
    assert abs(crop[4:-4, 4:-4].astype(int) - 90).max() <= 2
