"""Collections of image files become shards in an order that never varies."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from abaw.data.collection import Shard, check_keys, list_shards, walk_files
from abaw.errors import AbawError
from abaw.store import ArraySpec, FeatureStore, StoreHeader


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names_of(folder: Path, **options) -> list[list[str]]:
    return [list(shard) for shard in list_shards(folder, **options)]


def store_of(path: Path, shard: Shard) -> FeatureStore:
    """A store that holds the shard's keys."""
    store = FeatureStore.create(path, StoreHeader("faces", "faces", {"key": ArraySpec("str")}, {}))
    keys = np.array(list(shard), dtype=object)
    store.write(shard.track_id, {"valid": np.zeros(len(keys), bool), "key": keys}, fps=1)
    return store


def test_images_are_sorted_within_each_folder_and_cut_into_shards(tmp_path):
    folder = fill(tmp_path / "set", "b/2.jpg", "b/10.jpg", "a.png", "c.webp", "b.jpg")
    shards = list_shards(folder, shard_size=2)
    assert [(shard.track_id, list(shard)) for shard in shards] == [
        ("set-00000", ["a.png", "b/10.jpg"]),
        ("set-00001", ["b/2.jpg", "b.jpg"]),
        ("set-00002", ["c.webp"]),
    ]
    assert [len(shard) for shard in shards] == [2, 2, 1]


def test_suffixes_count_in_any_case_and_hidden_and_other_files_do_not(tmp_path):
    wanted = ["a.JPG", "b.jpeg", "c.Png", "d.bmp", "e.webp", "f.tif", "g.TIFF"]
    folder = fill(tmp_path / "set", *wanted, ".h.jpg", "._a.jpg", ".thumbs/i.jpg", "j.txt", "k.gif", "jpg")
    assert names_of(folder) == [wanted]


def test_a_full_shard_is_not_followed_by_an_empty_one(tmp_path):
    folder = fill(tmp_path / "set", "a.jpg", "b.jpg")
    assert names_of(folder, shard_size=2) == [["a.jpg", "b.jpg"]]


def test_links_are_followed_but_never_back_up(tmp_path):
    folder = fill(tmp_path / "set", "a.jpg", "b/c.jpg")
    fill(tmp_path / "disk", "d.jpg")
    (folder / "more").symlink_to(tmp_path / "disk")
    (folder / "b" / "up").symlink_to(folder)
    (tmp_path / "disk" / "here").symlink_to(tmp_path / "disk")
    (folder / "self").symlink_to(folder / "self")
    assert names_of(folder) == [["a.jpg", "b/c.jpg", "more/d.jpg"]]


def test_a_pipe_is_no_image(tmp_path):
    folder = fill(tmp_path / "set", "a.jpg")
    os.mkfifo(folder / "b.jpg")
    assert names_of(folder) == [["a.jpg"]]


def test_a_link_to_an_image_that_is_gone_is_listed(tmp_path):
    folder = fill(tmp_path / "set", "a.jpg")
    (folder / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    assert names_of(folder) == [["a.jpg", "b.jpg"]]


def test_names_of_any_letters_spaces_and_dots_are_kept(tmp_path):
    names = sorted(["a b.jpg", "c..d.jpg", "\u5f20\u4f1f.jpg", "e\u0301 \u00a0.jpg", "x\u2028y.jpg"])
    assert names_of(fill(tmp_path / "set", *names)) == [names]


def test_names_with_line_ends_or_bytes_that_are_not_utf8_are_refused_by_name(tmp_path):
    folder = fill(tmp_path / "set", "a.jpg", "b\nc.jpg", "d\x7f.jpg")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    with pytest.raises(AbawError, match="3 file names in .*set hold control characters, or are not UTF-8") as caught:
        list_shards(folder)
    assert caught.value.where.splitlines() == [r"'b\nc.jpg'", r"'caf\udce9.jpg'", r"'d\x7f.jpg'"]


def test_of_many_unusable_names_five_are_shown(tmp_path):
    folder = fill(tmp_path / "set", *[f"{number}\n.jpg" for number in range(8)])
    with pytest.raises(AbawError, match="8 file names") as caught:
        list_shards(folder, shard_size=3)
    assert caught.value.where.splitlines()[-1] == "... and 3 more"


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(AbawError, match="there is no image in"):
        list_shards(fill(tmp_path / "set", "a.txt"))


def test_a_missing_folder_and_a_file_name_their_key(tmp_path):
    with pytest.raises(AbawError, match="does not exist") as caught:
        list_shards(tmp_path / "set")
    assert caught.value.where == "data.images"
    with pytest.raises(AbawError, match="is not a folder"):
        list_shards(fill(tmp_path, "file.jpg") / "file.jpg")


def test_a_folder_whose_name_is_no_track_name_is_refused(tmp_path):
    with pytest.raises(AbawError, match="cannot be a track name"):
        list_shards(fill(tmp_path / ".set", "a.jpg"))


def test_the_folder_one_works_in_has_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(fill(tmp_path / "set", "a.jpg"))
    assert list_shards(Path())[0].track_id == "set-00000"


def test_a_shard_takes_few_bytes_an_image_and_survives_pickling(tmp_path):
    names = [f"folder_{number // 1000:03d}/image_{number:08d}.jpg" for number in range(10_000)]
    data = pickle.dumps(Shard.of(tmp_path, "set-00000", names))
    assert len(data) < 10 * len(names)
    assert list(pickle.loads(data)) == names  # noqa: S301


def test_a_finished_shard_of_the_same_images_is_accepted(tmp_path):
    shard = list_shards(fill(tmp_path / "set", "a.jpg", "\u00e9.jpg"))[0]
    check_keys(store_of(tmp_path / "store", shard), shard)


def test_an_image_added_in_front_is_refused_with_shard_row_and_file(tmp_path):
    folder = fill(tmp_path / "set", "b.jpg", "c.jpg")
    store = store_of(tmp_path / "store", list_shards(folder)[0])
    fill(folder, "a.jpg")
    with pytest.raises(AbawError, match=r"since set-00000 was aligned: row 0 was b.jpg, and is a.jpg now") as caught:
        check_keys(store, list_shards(folder)[0])
    assert "delete set-00000.h5" in caught.value.fix
    assert "--overwrite" in caught.value.fix


def test_an_image_added_at_the_end_is_refused_with_the_counts(tmp_path):
    folder = fill(tmp_path / "set", "b.jpg", "c.jpg")
    store = store_of(tmp_path / "store", list_shards(folder)[0])
    fill(folder, "d.jpg")
    with pytest.raises(AbawError, match="2 images then, 3 now"):
        check_keys(store, list_shards(folder)[0])


def test_walking_gives_the_files_of_any_suffixes(tmp_path):
    folder = fill(tmp_path / "set", "a.mp4", "b/c.AVI", "d.jpg")
    assert list(walk_files(folder, (".mp4", ".avi"), key="data.videos")) == ["a.mp4", "b/c.AVI"]


def test_images_of_a_folder_that_a_link_leads_to_are_listed_under_both_names(tmp_path):
    folder = fill(tmp_path / "set", "a/1.jpg")
    (folder / "b").symlink_to("a")
    assert names_of(folder) == [["a/1.jpg", "b/1.jpg"]]
