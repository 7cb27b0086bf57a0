"""Folders of cropped faces, read as they lie."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.data.frames import FrameTable, decode
from abaw.data.image_files import ImageFolder, ImageRef, image_refs, listing_sha256
from abaw.errors import AbawError
from tests.unit.faces_store import jpeg, picture

KEY = "pretrain.sources.images"


def make_folder(path: Path, files: dict[str, bytes | np.ndarray]) -> ImageFolder:
    """Pictures become PNG or JPEG by their name; bytes are written as they are."""
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            content = cv2.imencode(target.suffix, cv2.cvtColor(content, cv2.COLOR_RGB2BGR))[1].tobytes()
        target.write_bytes(content)
    return ImageFolder(path, KEY)


def one_ref(folder: ImageFolder) -> ImageRef:
    (ref,) = image_refs(folder)
    return ref


def read(ref: ImageRef, places: list[int], size: int = 48) -> np.ndarray:
    return decode(ref.decoders(np.array(places)), size)


def test_images_of_all_subfolders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = {f"{folder}/{k}.png": picture(k) for k, folder in enumerate("bca")}
    ref = one_ref(make_folder(tmp_path / "faces", files))
    assert [ref.name(place) for place in range(len(ref))] == ["a/2.png", "b/0.png", "c/1.png"]
    images = read(ref, [0, 2])
    assert np.array_equal(images, np.stack([picture(2), picture(1)]))


def test_names_survive_being_packed_whatever_they_begin_with(tmp_path: Path) -> None:
    for number, names in enumerate((["ä1.png", "ä2.png", "ö.png"], ["x.png"], ["img_000.png", "img_001.png"])):
        ref = ImageRef.of(ImageFolder(tmp_path, KEY), str(number), names)
        assert [ref.name(place) for place in range(len(ref))] == names


def test_a_folder_is_cut_into_parts_under_one_index(tmp_path: Path) -> None:
    refs = image_refs(make_folder(tmp_path / "faces", {f"{k}.png": picture(k) for k in range(5)}), part_size=2)
    assert [len(ref) for ref in refs] == [2, 2, 1]
    assert [ref.track_id for ref in refs] == ["faces-00000", "faces-00001", "faces-00002"]
    indices = np.array([4, 0, 3, 0])
    for cache_bytes in (0, 1 << 20):
        table = FrameTable(refs, 48, cache_bytes=cache_bytes)
        assert table.name(3) == "3.png"
        assert np.array_equal(table.images(indices), np.stack([picture(k) for k in indices]))


def test_of_an_image_that_is_not_square_the_middle_is_taken_and_that_is_said_once(tmp_path: Path, caplog) -> None:
    wide = np.zeros((16, 20, 3), np.uint8)
    wide[:, 2:18] = picture(1, 16)
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    folder = make_folder(tmp_path / "faces", {"1.png": wide, "2.png": tall})
    with caplog.at_level(logging.WARNING, logger="abaw"):
        images = read(one_ref(folder), [0, 1], 16)
    assert np.array_equal(images, np.stack([picture(1, 16), picture(1, 16).transpose(1, 0, 2)]))
    assert [record.getMessage().partition(" is ")[2][:16] for record in caplog.records] == ["20x16, not squar"]


@pytest.mark.parametrize("content", [b"", b"no picture", jpeg(picture(0, 256))[:900]])
def test_the_next_image_stands_in_for_a_damaged_one(tmp_path: Path, caplog, content: bytes) -> None:
    folder = make_folder(tmp_path / "faces", {"1.png": picture(1), "2.jpg": content, "3.png": picture(3)})
    ref = one_ref(folder)
    with caplog.at_level(logging.WARNING, logger="abaw"):
        both = [read(ref, [1])[0], read(ref, [0, 1, 2])[1]]
    assert np.array_equal(both[0], picture(3))
    assert np.array_equal(both[1], picture(3))
    assert len(caplog.records) == 1
    assert "2.jpg" in caplog.text
    assert folder.unreadable == {"2.jpg"}


def test_the_first_image_stands_in_for_a_damaged_last_one(tmp_path: Path) -> None:
    ref = one_ref(make_folder(tmp_path / "faces", {"1.png": picture(1), "2.png": b""}))
    assert np.array_equal(read(ref, [1])[0], picture(1))


def test_a_folder_that_went_away_is_an_error(tmp_path: Path) -> None:
    ref = one_ref(make_folder(tmp_path / "faces", {f"{k}.png": picture(k) for k in range(3)}))
    (tmp_path / "faces").rename(tmp_path / "gone")
    with pytest.raises(AbawError, match="3 images in a row cannot be read, from 1.png on"):
        read(ref, [1])


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "faces", {"notes.txt": b"x"})
    with pytest.raises(AbawError, match="there is no image in") as caught:
        image_refs(folder)
    assert caught.value.where == KEY


def test_the_hash_of_a_listing_follows_names_and_not_parts(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "faces", {f"{k}.png": picture(k) for k in range(4)})
    before = listing_sha256(image_refs(folder))
    assert listing_sha256(image_refs(folder, part_size=3)) == before
    (tmp_path / "faces" / "3.png").rename(tmp_path / "faces" / "4.png")
    assert listing_sha256(image_refs(folder)) != before


def test_a_million_names_take_few_bytes_each() -> None:
    names = [f"person_{k // 100:05d}/{k:08d}.jpg" for k in range(20_000)]
    ref = ImageRef.of(ImageFolder(Path("faces"), KEY), "faces-00000", names)
    assert len(ref.rest) + ref.ends.nbytes < 32 * len(names)
