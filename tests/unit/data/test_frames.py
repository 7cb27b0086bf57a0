"""Faces of a store as images and as one table of frames."""

from pathlib import Path

import numpy as np
import pytest

from abaw.data.faces import crop_geometry
from abaw.data.frames import Decoding, FrameRef, FrameTable, measure_normalisation, read_faces, resize, spread
from abaw.errors import AbawError
from abaw.store import FeatureStore
from tests.unit.faces_store import jpeg, make_faces, picture


@pytest.fixture
def faces(tmp_path: Path) -> FeatureStore:
    first = [picture(0), None, picture(2), picture(3)]
    return make_faces(tmp_path / "faces", {"a": first, "b": [picture(4, 64)] * 3})


def table(faces: FeatureStore, cache_bytes: int = 1 << 20) -> FrameTable:
    refs = [FrameRef(faces, "a", np.array([0, 2, 3])), FrameRef(faces, "b", np.array([0, 2]))]
    return FrameTable(refs, 48, cache_bytes=cache_bytes)


def test_rows_come_back_as_rgb(faces: FeatureStore) -> None:
    images = read_faces(faces, "a", np.array([0, 3]), 48)
    assert np.abs(images[1].astype(int) - picture(3)).mean() < 4


def test_faces_of_any_size_are_resized_alike(faces: FeatureStore) -> None:
    assert read_faces(faces, "b", np.array([1]), 32).shape == (1, 32, 32, 3)
    mixed = resize([picture(1, 64), picture(1, 32)], 32)
    assert np.abs(mixed[0].astype(int) - mixed[1]).mean() < 4


def test_no_rows_are_no_images(faces: FeatureStore) -> None:
    assert read_faces(faces, "a", np.zeros(0, np.int64), 48).shape == (0, 48, 48, 3)


@pytest.mark.parametrize(
    ("row", "words"),
    [(b"not a jpeg", "not a readable JPEG"), (b"", "is empty"), (jpeg(picture(0)[:24]), "is 48x24, not square")],
)
def test_a_bad_row_is_named_by_track_and_row(tmp_path: Path, row: bytes, words: str) -> None:
    store = make_faces(tmp_path / "bad", {"a": [picture(0), row]})
    with pytest.raises(AbawError, match=f"track a, row 1 .*{words}"):
        read_faces(store, "a", np.array([0, 1]), 48)


def test_an_index_counts_through_the_tracks(faces: FeatureStore) -> None:
    frames = table(faces)
    assert len(frames) == 5
    assert [frames.name(index) for index in range(5)] == ["a:0", "a:2", "a:3", "b:0", "b:2"]


def test_a_table_gives_the_same_images_cached_or_not(faces: FeatureStore) -> None:
    indices = np.array([4, 0, 2, 0])
    cached, fresh = table(faces).images(indices), table(faces, cache_bytes=0).images(indices)
    assert np.array_equal(cached, fresh)
    assert np.array_equal(cached[2], read_faces(faces, "a", np.array([3]), 48)[0])


def test_in_order_every_batch_has_one_shape(faces: FeatureStore) -> None:
    batches = list(table(faces).in_order(2))
    assert [indices.tolist() for indices, _ in batches] == [[0, 1], [2, 3], [4, 4]]
    assert {images.shape for _, images in batches} == {(2, 48, 48, 3)}


def test_spread_rows_are_even_and_in_order() -> None:
    assert spread(np.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert spread(np.arange(3), 4).tolist() == spread(np.arange(3), 0).tolist() == [0, 1, 2]


def test_normalisation_is_measured_over_all_pixels(tmp_path: Path) -> None:
    dark, light = np.full((16, 16, 3), 51, np.uint8), np.full((16, 16, 3), 153, np.uint8)
    store = make_faces(tmp_path / "two", {"a": [dark, light]})
    mean, std = measure_normalisation(FrameTable([FrameRef(store, "a", np.arange(2))], 16))
    assert mean == pytest.approx([0.4] * 3, abs=0.01)
    assert std == pytest.approx([0.2] * 3, abs=0.01)


def test_geometry_is_in_units_of_the_crop(faces: FeatureStore) -> None:
    landmarks, box = crop_geometry(faces, "a")  # 48 source pixels, halved by the warp, on 48-pixel crops
    assert landmarks[0].tolist() == [[0.5, 0.5]] * 5
    assert box[0].tolist() == [0, 0, 1, 1]
    assert not landmarks[1].any()


def test_far_rows_are_read_one_by_one_and_near_ones_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_faces(tmp_path / "long", {"a": [picture(row) for row in range(9)]})
    every = read_faces(store, "a", np.arange(9), 48)
    monkeypatch.setattr("abaw.data.frames.SKIP_BYTES", 1)  # every row that is left out is now far
    for rows in ([0, 1, 4, 5, 8], [0], [8], list(range(9))):
        assert np.array_equal(read_faces(store, "a", np.array(rows), 48), every[rows])


def test_a_track_is_read_once_for_all_its_rows_of_a_batch(tmp_path: Path) -> None:
    store = make_faces(tmp_path / "two", {name: [picture(row) for row in range(9)] for name in "ab"})
    reads = []

    class Counting(FeatureStore):
        def read(self, track_id: str, name: str, rows: slice = slice(None)) -> np.ndarray:
            reads.append((track_id, name))
            return super().read(track_id, name, rows)

    counting = Counting(store.path, store.header, {})
    frames = FrameTable([FrameRef(counting, name, np.arange(9)) for name in "ab"], 48, cache_bytes=0)
    indices = np.array([12, 3, 17, 3, 0, 9])
    whole = FrameTable([FrameRef(store, name, np.arange(9)) for name in "ab"], 48).images(indices)
    assert np.array_equal(frames.images(indices), whole)
    assert sorted(reads) == [(name, array) for name in "ab" for array in ("jpeg", "offsets")]


def test_a_jpeg_that_was_cut_or_overwritten_is_refused_though_it_decodes(tmp_path: Path) -> None:
    whole = jpeg(picture(1))
    cut = whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)
    store = make_faces(tmp_path / "faces", {"a": [whole, cut, whole + b"written on"]})
    assert len(read_faces(store, "a", np.array([0, 2]), 16)) == 2
    with pytest.raises(AbawError, match="track a, row 1 is not a readable JPEG"):
        read_faces(store, "a", np.array([1]), 16)


def test_faces_decoded_in_the_background_fill_a_batch_and_bad_ones_are_told_by_place(tmp_path: Path) -> None:
    rows: list[np.ndarray | bytes | None] = [picture(row) for row in range(40)]
    rows[21], rows[3] = b"junk", b"junk"
    store = make_faces(tmp_path / "faces", {"a": rows})
    decoding = Decoding(FrameRef(store, "a", np.arange(40)).decoders(np.arange(40)), 24, num_rows=43)
    errors = decoding.wait()
    assert list(errors) == [3, 21]
    assert "track a, row 21" in errors[21].what
    assert not decoding.images[3].any()
    good = [row for row in range(40) if row not in (3, 21)]
    assert np.array_equal(decoding.images[good], read_faces(store, "a", np.array(good), 24))
    assert np.array_equal(decoding.images[40:], decoding.images[[39, 39, 39]])
