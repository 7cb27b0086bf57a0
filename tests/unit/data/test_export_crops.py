"""Crops go back to files in the organisers' layout, and nothing that is there is touched."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from abaw.data import export_crops as module
from abaw.data.export_crops import Exported, export_crops
from abaw.errors import AbawError
from abaw.media.crops import read_crops
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from tests.unit.faces_store import jpeg, make_faces, picture

A, B, C = (jpeg(picture(seed)) for seed in range(3))
IMAGE_ARRAYS = {
    "jpeg": ArraySpec("uint8", (), "ragged"),
    "offsets": ArraySpec("int64", (), "T+1"),
    "key": ArraySpec("str"),
}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def images_store(path: Path, shards: dict[str, dict[str, bytes]]) -> FeatureStore:
    """Shards of a collection: key -> JPEG bytes, nothing for a row without a face."""
    store = FeatureStore.create(path, StoreHeader("faces", "faces", IMAGE_ARRAYS, {}))
    for name, rows in shards.items():
        lengths = [len(data) for data in rows.values()]
        arrays = {
            "valid": np.array(lengths, bool),
            "jpeg": np.frombuffer(b"".join(rows.values()), np.uint8),
            "offsets": np.cumsum([0, *lengths]),
            "key": np.array(list(rows), object),
        }
        store.write(name, arrays, fps=1)
    return store


def test_rows_become_numbered_files_and_rows_without_a_face_have_none(tmp_path):
    store = make_faces(tmp_path / "store", {"v": [A, None, B], "w_left": [None, C]})
    assert export_crops(store, ["v", "w_left"], tmp_path / "out") == Exported(written=2, already=0, crops=3)
    assert files(tmp_path / "out") == {"v/00001.jpg": A, "v/00003.jpg": B, "w_left/00002.jpg": C}


def test_exported_crops_are_read_back_as_the_same_rows(tmp_path):
    store = make_faces(tmp_path / "store", {"v": [None, A, None, B]})
    export_crops(store, ["v"], tmp_path / "out")
    crops = read_crops(tmp_path / "out" / "v", fps=25)
    assert crops.arrays["valid"].tolist() == store.valid("v").tolist()
    data = np.concatenate(list(crops.arrays["jpeg"].blocks))
    assert data.tobytes() == store.read("v", "jpeg").tobytes()
    assert crops.arrays["offsets"].tolist() == store.read("v", "offsets").tolist()


def test_a_track_of_many_blocks_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "READ_ROWS", 2)
    store = make_faces(tmp_path / "store", {"v": [None, None, A, B, C]})
    export_crops(store, ["v"], tmp_path / "out")
    assert files(tmp_path / "out" / "v") == {"00003.jpg": A, "00004.jpg": B, "00005.jpg": C}


def test_a_rerun_leaves_what_is_there_and_adds_what_is_missing(tmp_path):
    store = make_faces(tmp_path / "store", {"v": [A], "w": [None]})
    export_crops(store, ["w"], tmp_path / "out")
    (tmp_path / "out" / "w" / ".DS_Store").touch()
    assert export_crops(store, ["v", "w"], tmp_path / "out") == Exported(written=1, already=1, crops=1)
    before = (tmp_path / "out" / "v" / "00001.jpg").stat()
    assert export_crops(store, ["v", "w"], tmp_path / "out") == Exported(written=0, already=2, crops=0)
    assert (tmp_path / "out" / "v" / "00001.jpg").stat() == before


@pytest.mark.parametrize("change", ["size", "extra", "missing", "file"])
def test_a_folder_that_differs_is_refused_and_stays(tmp_path, change):
    store = make_faces(tmp_path / "store", {"v": [A, B]})
    target = tmp_path / "out" / "v"
    if change == "file":
        target.parent.mkdir()
        target.write_bytes(b"mine")
    else:
        export_crops(store, ["v"], tmp_path / "out")
    if change == "size":
        (target / "00001.jpg").write_bytes(b"mine")
    if change == "extra":
        (target / "notes.txt").write_bytes(b"mine")
    if change == "missing":
        (target / "00002.jpg").unlink()
    before = files(tmp_path / "out")
    with pytest.raises(AbawError, match="does not hold the crops of track v") as caught:
        export_crops(store, ["v"], tmp_path / "out")
    assert f"rm -r '{target}'" in caught.value.fix
    assert files(tmp_path / "out") == before


def test_a_full_disk_leaves_nothing_half(tmp_path, monkeypatch):
    """The system's refusal of the second file is staged."""
    store = make_faces(tmp_path / "store", {"v": [A, B]})
    write = Path.write_bytes

    def refuse(path, data):
        if path.name == "00002.jpg":
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(AbawError, match=r"v could not be written \(No space left on device\)"):
        export_crops(store, ["v"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_the_folders_place_is_named(tmp_path):
    store = make_faces(tmp_path / "store", {"v": [A]})
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(AbawError, match="could not be written"):
        export_crops(store, ["v"], tmp_path / "out")


def test_images_keep_their_paths(tmp_path):
    shards = {"s-00000": {"a/x.jpg": A, "a/x.png": B}, "s-00001": {"b.JPG": C, "c.jpg": b""}}
    store = images_store(tmp_path / "store", shards)
    assert export_crops(store, list(shards), tmp_path / "out") == Exported(written=2, already=0, crops=3)
    assert files(tmp_path / "out") == {"a/x.jpg": A, "a/x.png.jpg": B, "b.JPG": C}
    assert export_crops(store, list(shards), tmp_path / "out") == Exported(written=0, already=2, crops=0)


def test_images_whose_names_differ_by_a_jpegs_suffix_have_files_of_their_own(tmp_path):
    shards = {"s-00000": {"a.png": A, "a.png.jpg": B}, "s-00001": {"a.png.jpg.jpg": C, "b.v2.jpg": C}}
    store = images_store(tmp_path / "store", shards)
    assert export_crops(store, list(shards), tmp_path / "out") == Exported(written=2, already=0, crops=4)
    named = {"a.png.jpg": A, "a.png.jpg.jpg": B, "a.png.jpg.jpg.jpg": C, "b.v2.jpg": C}
    assert files(tmp_path / "out") == named
    assert export_crops(store, list(shards), tmp_path / "out") == Exported(written=0, already=2, crops=0)


@pytest.mark.skipif(os.name == "nt", reason="there it leads into a folder")
def test_a_backslash_is_part_of_a_name(tmp_path):
    store = images_store(tmp_path / "store", {"s-00000": {"a\\b.jpg": A}})
    export_crops(store, ["s-00000"], tmp_path / "out")
    assert files(tmp_path / "out") == {"a\\b.jpg": A}


def test_an_image_that_differs_is_refused_and_stays(tmp_path):
    store = images_store(tmp_path / "store", {"s-00000": {"a.jpg": A}})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(AbawError, match="is there and is another picture"):
        export_crops(store, ["s-00000"], tmp_path / "out")
    assert files(tmp_path / "out") == {"a.jpg": b"mine"}


@pytest.mark.parametrize("key", ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "..", "."])
def test_a_key_that_leads_out_of_the_folder_is_refused(tmp_path, key):
    store = images_store(tmp_path / "store", {"s-00000": {key: A}})
    with pytest.raises(AbawError, match="is no path below a folder"):
        export_crops(store, ["s-00000"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
