"""The feature store: atomic, resumable, fingerprinted."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import h5py
import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.store import ArraySpec, Chunks, FeatureStore, StoreHeader, check_track_id


def make_header(**changes):
    settings = {"encoder": "x", "size_px": 64} | changes
    return StoreHeader("visual", "x", {"features": ArraySpec("float16", (3,))}, settings)


def rows(count, value=1.0):
    return {"valid": np.ones(count, bool), "features": np.full((count, 3), value, np.float32)}


def test_write_then_read_gives_the_same_values(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    values[1] = 0
    store.write("a", {"valid": np.array([True, False, True, True]), "features": values}, fps=25)
    again = FeatureStore.open(tmp_path / "s", kind="visual")
    assert again.read("a", "features").tolist() == values.tolist()
    assert again.valid("a").tolist() == [True, False, True, True]
    assert (again.num_rows("a"), again.fps("a")) == (4, 25.0)


def test_a_slice_reads_only_those_rows(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    values = np.arange(900, dtype=np.float32).reshape(300, 3)
    store.write("a", {"valid": np.ones(300, bool), "features": values}, fps=25)
    assert store.read("a", "features", slice(126, 131)).tolist() == values[126:131].tolist()


def test_empty_track_is_kept_with_zero_rows(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    store.write("a", rows(0), fps=25)
    assert store.read("a", "features").shape == (0, 3)


def test_same_arrays_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        FeatureStore.create(tmp_path / name, make_header()).write("a", rows(5), fps=25)
        time.sleep(1.1)  # HDF5 time stamps have a second's resolution
    assert (tmp_path / "one/a.h5").read_bytes() == (tmp_path / "two/a.h5").read_bytes()


def test_reopening_with_the_same_settings_continues(tmp_path):
    FeatureStore.create(tmp_path / "s", make_header()).write("a", rows(2), fps=25)
    store = FeatureStore.create(tmp_path / "s", make_header())
    assert "a" in store
    assert "b" not in store


def test_what_is_said_later_of_the_labels_behind_a_store_counts(tmp_path):
    store = FeatureStore.create(tmp_path / "s", replace(make_header(), trained_on=[{"labels": "undeclared"}]))
    store.write("a", rows(2), fps=25)
    store.note("host", "h")
    FeatureStore.create(tmp_path / "s", replace(make_header(), trained_on=[{"labels": "none"}]))
    again = FeatureStore.open(tmp_path / "s")
    assert again.header.trained_on == [{"labels": "none"}]
    assert (again.notes, again.num_rows("a")) == ({"host": "h"}, 2)


def test_other_settings_are_refused_and_named(tmp_path):
    FeatureStore.create(tmp_path / "s", make_header())
    with pytest.raises(AbawError) as caught:
        FeatureStore.create(tmp_path / "s", make_header(size_px=112))
    assert "settings.size_px: 64 recorded, 112 now" in caught.value.what
    assert "--overwrite" in caught.value.fix


def test_overwrite_starts_afresh(tmp_path):
    FeatureStore.create(tmp_path / "s", make_header()).write("a", rows(2), fps=25)
    store = FeatureStore.create(tmp_path / "s", make_header(size_px=112), overwrite=True)
    assert store.track_ids() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]


def test_another_kind_is_refused(tmp_path):
    FeatureStore.create(tmp_path / "s", make_header())
    with pytest.raises(AbawError, match='is of kind "visual", not "audio"'):
        FeatureStore.open(tmp_path / "s", kind="audio")


def test_a_missing_store_says_so(tmp_path):
    with pytest.raises(AbawError, match="there is no faces store"):
        FeatureStore.open(tmp_path / "s", kind="faces")


def test_a_newer_format_is_refused(tmp_path):
    FeatureStore.create(tmp_path / "s", make_header())
    path = tmp_path / "s/store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(AbawError, match="format version 99"):
        FeatureStore.open(tmp_path / "s")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format_version": 1}'])
def test_a_garbled_header_is_an_error_of_ours(tmp_path, content):
    FeatureStore.create(tmp_path / "s", make_header())
    (tmp_path / "s/store.json").write_text(content)
    with pytest.raises(AbawError):
        FeatureStore.open(tmp_path / "s")


def test_a_damaged_track_names_its_file(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    (tmp_path / "s/a.h5").write_bytes(b"not hdf5")
    with pytest.raises(AbawError, match="not a readable track file") as caught:
        store.read("a", "features")
    assert f"delete {tmp_path}/s/a.h5" in caught.value.fix


def test_a_track_of_other_settings_is_refused(tmp_path):
    FeatureStore.create(tmp_path / "one", make_header()).write("a", rows(2), fps=25)
    store = FeatureStore.create(tmp_path / "two", make_header(size_px=112))
    (tmp_path / "two/a.h5").write_bytes((tmp_path / "one/a.h5").read_bytes())
    with pytest.raises(AbawError, match="made with other settings than its store"):
        store.read("a", "features")


def test_nan_is_refused_with_its_row_and_nothing_is_written(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    bad = rows(4)
    bad["features"][2, 1] = np.nan
    with pytest.raises(AbawError, match="first in row 2"):
        store.write("a", bad, fps=25)
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["store.json"]


def test_rows_of_a_long_track_are_checked_to_the_last(tmp_path):
    header = StoreHeader("visual", "v", {"features": ArraySpec("float16", (1024,))}, {})
    store = FeatureStore.create(tmp_path / "s", header)
    features, valid = np.zeros((1100, 1024), np.float16), np.ones(1100, bool)  # 512 rows are checked at a time
    features[1099, 5] = np.inf
    with pytest.raises(AbawError, match="first in row 1099"):
        store.write("a", {"features": features, "valid": valid}, fps=25)
    features[1099, 5], valid[1099] = 1, False
    with pytest.raises(ValueError, match="rows that are not valid"):
        store.write("a", {"features": features, "valid": valid}, fps=25)


def test_a_value_too_large_for_float16_is_refused(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    with pytest.raises(AbawError, match="NaN or infinity"), np.errstate(over="ignore"):
        store.write("a", rows(1, 1e6), fps=25)


def test_wrong_arrays_are_a_bug(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    with pytest.raises(ValueError, match="shape"):
        store.write("a", {"valid": np.ones(2, bool), "features": np.ones((3, 3))}, fps=25)


def test_data_in_an_invalid_row_is_a_bug(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    with pytest.raises(ValueError, match="rows that are not valid"):
        store.write("a", {**rows(2), "valid": np.array([True, False])}, fps=25)


def test_temporary_files_are_no_tracks(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    (tmp_path / "s/.a.123.tmp").write_bytes(b"half")
    (tmp_path / "s/.b.h5").write_bytes(b"half")
    assert store.track_ids() == []


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", ".a", "a\nb", "\x7f", "é" * 101])
def test_unsafe_track_names_are_refused(name):
    with pytest.raises(AbawError):
        check_track_id(name, where="here")


@pytest.mark.parametrize("name", ["10-60-1280x720_right", "name with spaces", "видео", "..a"[2:]])
def test_ordinary_track_names_pass(name):
    check_track_id(name, where="here")


@pytest.fixture
def alone(monkeypatch):
    """No other store of this process holds files: what earlier tests left open must not take a share."""
    monkeypatch.setattr("abaw.store._stores", weakref.WeakSet())


def test_more_tracks_than_handles_read_right(tmp_path, monkeypatch, alone):
    store = FeatureStore.create(tmp_path / "s", make_header())
    for index in range(12):
        store.write(f"t{index}", rows(2, index), fps=25)
    monkeypatch.setattr("abaw.open_files.open_files_allowed", lambda: 4)
    assert [store.read(f"t{i}", "features")[0, 0] for i in (*range(12), *range(12))] == [*range(12), *range(12)]
    assert len(store._handles) == 4


def test_a_pickled_store_reads_in_another_process(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    store.write("a", rows(2, 7), fps=25)
    store.read("a", "features")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(store.read, ("a", "features")).tolist() == [[7, 7, 7], [7, 7, 7]]


WRITER = """
import sys, numpy as np
from pathlib import Path
from abaw.store import *
header = StoreHeader("visual", "x", {"features": ArraySpec("float16", (64,))}, {})
store = FeatureStore.create(Path(sys.argv[1]), header)
for index in range(400):
    if f"t{index}" not in store:
        values = np.random.default_rng(index).random((500, 64))
        store.write(f"t{index}", {"valid": np.ones(500, bool), "features": values}, fps=25)
    print(index, flush=True)
"""


def test_a_writer_killed_between_tracks_leaves_whole_tracks_and_a_rerun_finishes(tmp_path):
    command = [sys.executable, "-c", WRITER]
    whole = subprocess.run([*command, tmp_path / "whole"], capture_output=True, check=True)
    assert whole.returncode == 0
    for stop_after in (3, 60, 150):
        process = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.PIPE)
        for line in process.stdout:
            if int(line) == stop_after:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
        process.stdout.close()
        store = FeatureStore.open(tmp_path / "killed")
        assert len(store) > stop_after
        assert all(store.num_rows(track_id) == 500 for track_id in store.track_ids())
    subprocess.run([*command, tmp_path / "killed"], capture_output=True, check=True)
    for path in (tmp_path / "whole").glob("*.h5"):
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes()


def test_two_writers_at_once_leave_a_whole_store(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "s"], stdout=subprocess.DEVNULL) for _ in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    store = FeatureStore.open(tmp_path / "s")
    assert len(store) == 400
    expected = np.random.default_rng(7).random((500, 64)).astype(np.float16)
    assert (store.read("t7", "features") == expected).all()
    assert not list((tmp_path / "s").glob(".*.tmp"))


def test_a_note_does_not_change_the_fingerprint(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    store.note("host", "here")
    again = FeatureStore.create(tmp_path / "s", make_header())
    assert again.notes == {"host": "here"}
    assert again.fingerprint == store.fingerprint


def test_several_stores_share_the_descriptors(tmp_path, monkeypatch, alone):
    monkeypatch.setattr("abaw.open_files.open_files_allowed", lambda: 6)
    stores = [FeatureStore.create(tmp_path / name, make_header()) for name in "ab"]
    for store in stores:
        for index in range(8):
            store.write(f"t{index}", rows(2, index), fps=25)
    for index in (*range(8), *range(8)):
        for store in stores:
            assert store.read(f"t{index}", "features")[0, 0] == index
    assert [len(store._handles) for store in stores] == [3, 3]


LIMITED = """
import resource, sys, numpy as np
from pathlib import Path
from abaw import open_files
from abaw.store import FeatureStore
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
open_files.open_files_allowed = lambda: 1000
store = FeatureStore.open(Path(sys.argv[1]))
for name in store.track_ids():
    store.read(name, "features")
"""


def test_too_few_descriptors_do_not_look_like_damage(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    for index in range(60):
        store.write(f"t{index}", rows(1), fps=25)
    result = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "s"], capture_output=True, text=True)
    assert "this process may not open more files" in result.stderr
    assert "delete" not in result.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"notes": None},
        {"recipe": None},
        {"trained_on": 5},
        {"label_order": [1]},
        {"arrays": {"features": {"dtype": "float99", "shape": [3], "axis": "T"}}},
        {"format_version": "1"},
        {"format_version": True},
        {"settings": {"edited": 1}},
        {"fingerprint": "0000"},
    ],
)
def test_a_header_changed_by_hand_is_an_error_of_ours(tmp_path, change):
    FeatureStore.create(tmp_path / "s", make_header())
    path = tmp_path / "s/store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AbawError):
        FeatureStore.open(tmp_path / "s")


def test_a_store_cannot_start_where_a_file_is(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(AbawError):
        FeatureStore.create(tmp_path / "file/s", make_header())


def test_overwriting_a_linked_store_keeps_the_link(tmp_path):
    FeatureStore.create(tmp_path / "real", make_header()).write("a", rows(2), fps=25)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = FeatureStore.create(tmp_path / "link", make_header(size_px=112), overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert store.track_ids() == []


RAGGED = StoreHeader("faces", "x", {"jpeg": ArraySpec("uint8", (), "ragged"), "key": ArraySpec("str")}, {})


def test_ragged_data_given_in_blocks_makes_the_same_file(tmp_path):
    data = np.arange(3_000_000, dtype=np.uint32).astype(np.uint8)
    rows = {"valid": np.ones(2, bool), "key": np.array(["a/1.jpg", "b/ü.jpg"])}
    whole, parts = (FeatureStore.create(tmp_path / name, RAGGED) for name in ("whole", "parts"))
    whole.write("t", {**rows, "jpeg": data}, fps=25)
    parts.write("t", {**rows, "jpeg": Chunks(len(data), np.array_split(data, 70))}, fps=25)
    assert whole.track_path("t").read_bytes() == parts.track_path("t").read_bytes()
    assert np.array_equal(parts.read("t", "jpeg", slice(65_000, 70_000)), data[65_000:70_000])


def test_blocks_of_another_length_than_announced_publish_nothing(tmp_path):
    store = FeatureStore.create(tmp_path / "s", RAGGED)
    rows = {"valid": np.ones(1, bool), "key": np.array(["a"])}
    with pytest.raises(ValueError, match="5 elements announced, 3 given"):
        store.write("t", {**rows, "jpeg": Chunks(5, [np.zeros(3, np.uint8)])}, fps=25)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["store.json"]


def test_text_is_read_as_it_was_written(tmp_path):
    store = FeatureStore.create(tmp_path / "s", RAGGED)
    names = ["ordner/größe 1.jpg", "", "日本.png"]
    store.write("t", {"valid": np.ones(3, bool), "key": np.array(names), "jpeg": np.zeros(0, np.uint8)}, fps=1)
    assert store.read("t", "key").tolist() == names
    assert store.read("t", "key", slice(2, 3)).tolist() == names[2:]


def test_damaged_text_is_a_damaged_file(tmp_path):
    store = FeatureStore.create(tmp_path / "s", RAGGED)
    rows = {"valid": np.ones(2, bool), "key": np.array(["ab", "cd"]), "jpeg": np.zeros(0, np.uint8)}
    store.write("t", rows, fps=1)
    with h5py.File(store.track_path("t"), "r+") as file:
        file["key"][1] = b"\xff\xfe"  # 0xff never is UTF-8
    with pytest.raises(AbawError, match="not a readable track file"):
        store.read("t", "key")


def test_facts_are_kept_with_the_track(tmp_path):
    store = FeatureStore.create(tmp_path / "s", RAGGED)
    rows = {"valid": np.ones(0, bool), "key": np.array([], str), "jpeg": np.zeros(0, np.uint8)}
    store.write("told", rows, fps=25, facts={"sound": True, "header_frames": 98, "sound_end_s": 3.2})
    store.write("silent", rows, fps=25)
    assert store.facts("told") == {"sound": True, "header_frames": 98, "sound_end_s": 3.2}
    assert store.facts("silent") == {}


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from abaw.errors import AbawError
from abaw.store import ArraySpec, FeatureStore, StoreHeader
arrays = {"features": ArraySpec("float16", (3,)), "jpeg": ArraySpec("uint8", (), "ragged")}
arrays["reason"] = ArraySpec("uint8")
store = FeatureStore.create(Path(sys.argv[1]), StoreHeader("faces", "x", arrays, {}))
rows = {"valid": np.ones(8200, bool), "features": np.ones((8200, 3), np.float16), "reason": np.zeros(8200, np.uint8)}
rows["jpeg"] = np.arange(100_000, dtype=np.uint32).astype(np.uint8)
store.write("whole", rows, fps=25)
size = store.track_path("whole").stat().st_size
limit = int(size * float(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    store.write("a", rows, fps=25)
except AbawError as error:
    print(error.what)
"""


@pytest.mark.parametrize("share", ["0.5", "0.9", "0.999"])
def test_a_file_that_does_not_fit_is_an_error_of_ours_and_not_a_crash_at_exit(tmp_path, share):
    """HDF5 that cannot write its last bytes takes the process down when that ends."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "s"), share]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a.h5 could not be written" in done.stdout
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["store.json", "whole.h5"]


def test_several_threads_read_one_store(tmp_path, monkeypatch):
    """With fewer files allowed open than threads ask for, so that one thread closes what another reads."""
    monkeypatch.setattr("abaw.open_files.open_files_allowed", lambda: 2)
    store = FeatureStore.create(tmp_path / "s", make_header())
    for number in range(6):
        store.write(f"t{number}", rows(300, number), fps=25)

    def read(seed):
        picks = np.random.default_rng(seed).integers(6, size=200)
        return all((store.read(f"t{pick}", "features", slice(100, 200)) == pick).all() for pick in picks.tolist())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(4)))


def test_a_process_forked_while_a_thread_reads_does_not_wait_for_it(tmp_path):
    store = FeatureStore.create(tmp_path / "s", make_header())
    store.write("a", rows(5, 3), fps=25)
    holding, done = threading.Event(), threading.Event()

    def hold():
        with store._lock:
            holding.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    try:
        code = store_value_in_child(store)
    finally:
        done.set()
        thread.join()
    assert code == 3


def store_value_in_child(store):
    child = multiprocessing.get_context("fork").Process(target=lambda: os._exit(int(store.read("a", "features")[0, 0])))
    child.start()
    child.join(30)
    child.kill()
    return child.exitcode


NOTES = """
import sys
from pathlib import Path
from abaw.store import FeatureStore
store = FeatureStore.open(Path(sys.argv[1]))
for number in range(40):
    store.note("failures", {f"{sys.argv[2]}{number}": "broken"})
"""


def test_notes_of_runs_at_the_same_time_are_kept_together(tmp_path):
    FeatureStore.create(tmp_path / "s", make_header())
    command = [sys.executable, "-c", NOTES, str(tmp_path / "s")]
    running = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    assert len(FeatureStore.open(tmp_path / "s").notes["failures"]) == 80


def test_notes_of_two_runs_are_kept_together(tmp_path):
    one = FeatureStore.create(tmp_path / "s", make_header())
    two = FeatureStore.open(tmp_path / "s")
    one.note("failures", {"a": "broken", "b": "broken"})
    two.note("failures", {"c": "broken", "b": None})
    assert FeatureStore.open(tmp_path / "s").notes == {"failures": {"a": "broken", "c": "broken"}}
