"""Features of other programs, read from files written here as those programs write them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from abaw.data import foreign_features as foreign
from abaw.data.foreign_features.rows import Clock, Rows, to_rows
from abaw.data.foreign_features.source import Block, Item, TrackNames
from abaw.errors import AbawError, ExitCode
from abaw.store import Reason

TRACKS = ("a", "b", "1-25-64x48")
POINTS = [f"{axis}_{number}" for axis in "xy" for number in range(68)]


def opened(path: Path, format: str = "auto") -> foreign.Source:
    return foreign.open_source(path, format=format, tracks=TrackNames(TRACKS))


def block(path: Path, name: str = "a", *, format: str = "auto", columns: Sequence[str] = ()) -> Block:
    """What is read of one track of a source."""
    source = opened(path, format)
    item = next(item for item in source.items if item.name == name)
    return foreign.read(item, foreign.layout(source, source.items, columns=columns))


def rows(given: Block, *, num_rows: int, faces: str | None = None, tolerance: int = 1, **options) -> Rows:
    """The block on a track of ``num_rows``; ``faces``: "10" = a face in row 0, none in row 1."""
    has_face = np.array([sign == "1" for sign in faces or "1" * num_rows], bool)
    shape = foreign.Layout("csv", given.values.shape[1], tuple("xyzuvw"[: given.values.shape[1]]))
    clock = Clock(num_rows, has_face, options.pop("boxes", None))
    return to_rows(
        given, clock, Item("a", Path("a.csv")), shape, tolerance=tolerance, **{"of_recording": False} | options
    )


def dense(values: object) -> Block:
    table = np.asarray(values)
    return Block(table, None, np.zeros(len(table), np.uint8))


def numbered(frames: Sequence[int], boxes: object = None) -> Block:
    """Row k holds k + 1."""
    places = None if boxes is None else np.array(boxes, np.float32)
    values = np.arange(1, len(frames) + 1, dtype=np.float32)[:, None]
    return Block(values, np.array(frames), np.zeros(len(frames), np.uint8), places)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def openface(path: Path, *faces: Mapping[str, float]) -> Path:
    """As FeatureExtraction and FaceLandmarkVidMulti write it: spaces after the commas of the header."""
    outside = ["frame", "face_id", "timestamp", "confidence", "success"]
    names = [*outside, *POINTS, "AU01_r"]
    table = []
    for face in faces:
        left = face.get("left", 10)
        own = {"confidence": 0.98, "success": 1, "AU01_r": 0.5} | {name: left for name in POINTS} | dict(face)
        table.append(",".join(f"{own.get(name, 0):g}" for name in names))
    return write(path, ", ".join(names), *table)


# -- arrays ------------------------------------------------------------------------------------------------------------
def test_an_array_per_video_is_its_rows_in_order(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 4]], np.float64))
    np.save(tmp_path / "b.mp4.npy", np.zeros((3, 2), np.float16))
    source = opened(tmp_path)
    assert (source.format, [item.name for item in source.items]) == ("npy", ["a", "b.mp4"])
    assert TrackNames(TRACKS).exact("b.mp4") == "b"
    found = block(tmp_path)
    assert found.values.tolist() == [[1, 2], [3, 4]]
    assert found.frames is None


def test_a_list_of_numbers_is_one_column(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 2, 3]))
    assert block(tmp_path).values.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(("names", "frames"), [(("00001", "00003"), [0, 2]), (("00000", "00002"), [0, 2])])
def test_an_array_per_frame_counts_from_one_unless_there_is_a_zero(tmp_path: Path, names, frames) -> None:
    for name in names:
        (tmp_path / "a").mkdir(exist_ok=True)
        np.save(tmp_path / "a" / f"{name}.npy", np.array([int(name), 7]))
    assert opened(tmp_path).format == "frames"
    found = block(tmp_path)
    assert found.frames is not None
    assert found.frames.tolist() == frames
    assert found.values[:, 0].tolist() == [int(name) for name in names]


def test_a_zero_in_any_track_counts_for_all(tmp_path: Path) -> None:
    for name in ("a/00001", "a/00002", "b/00000"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", np.zeros(2))
    found = block(tmp_path)
    assert found.frames is not None
    assert found.frames.tolist() == [1, 2]


def test_the_frames_of_one_track_may_be_the_source(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "00001.npy", np.zeros(2))
    assert [item.name for item in opened(tmp_path / "a").items] == ["a"]


def test_an_archive_holds_an_array_per_track(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", **{"a": np.ones((2, 3)), "nested/b": np.zeros((1, 3))})
    assert [item.name for item in opened(tmp_path / "all.npz").items] == ["a", "b"]
    assert block(tmp_path / "all.npz").values.shape == (2, 3)


def test_an_archive_per_track_says_which_rows_hold_data(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        features=np.ones((3, 2)),
        valid=np.array([True, False, False]),
        reason=np.array([0, int(Reason.OTHER_PERSON), 0], np.uint8),
        other=np.ones(9),
    )
    assert block(tmp_path).reason.tolist() == [0, Reason.OTHER_PERSON, Reason.NO_VALUE]


def _pickled(path: Path) -> None:
    np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_pickled, "holds Python objects, not numbers: loading them would run whatever code is in the file"),
        (lambda path: path.write_bytes(pickle.dumps([1, 2])), "is no NumPy array: a pickle"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: np.save(path, np.array([["x"]])), "holds <U1 values, not numbers"),
        (lambda path: np.save(path, np.zeros((2, 3, 4))), r"holds an array of shape \[2, 3, 4\]"),
        (lambda path: np.save(path, np.zeros(2, np.complex64)), "holds complex64 values, not numbers"),
        (lambda path: path.write_bytes(b"PK\x03\x04"), "is an archive of arrays"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"), "is damaged"),
    ],
)
def test_arrays_that_are_no_numbers_are_refused(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "a.npy")
    with pytest.raises(AbawError, match=message):
        block(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: np.savez(path, a=np.array([None, 1])), "holds Python objects, not numbers"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"no zip"), "is no archive of arrays"),
        (lambda path: np.savez(path), "holds no array"),
        (lambda path: np.save(path.open("wb"), np.zeros((2, 2))), "is one array"),
    ],
)
def test_archives_that_are_no_numbers_are_refused(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "a.npz")
    with pytest.raises(AbawError, match=message):
        block(tmp_path)


# -- tables ------------------------------------------------------------------------------------------------------------
def test_a_plain_table_names_its_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "frame,time,f0,f1", "0,0,1,2", "1,0.04,3,4")
    source = opened(tmp_path)
    shape = foreign.layout(source, source.items)
    assert (source.format, shape.columns, shape.left_out) == ("csv", ("f0", "f1"), ("time",))
    found = block(tmp_path)
    assert found.frames is not None
    assert found.frames.tolist() == [0, 1]
    assert found.values.tolist() == [[1, 2], [3, 4]]


def test_a_plain_table_counts_from_one_where_no_track_has_a_zero(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "frame,f0", "1,5", "2,6")
    found = block(tmp_path)
    assert found.frames is not None
    assert found.frames.tolist() == [0, 1]
    write(tmp_path / "b.csv", "frame,f0", "0,5")
    found = block(tmp_path)
    assert found.frames is not None
    assert found.frames.tolist() == [1, 2]


def test_a_table_without_frames_is_in_order(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ",f0,f1", "0,1,2", "1,3,4")  # with the row numbers that pandas writes
    found = block(tmp_path)
    assert found.frames is None
    assert found.values.tolist() == [[1, 2], [3, 4]]


def test_fields_without_a_number_are_nan(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "frame,f0,f1", "0,,1", "1,NA,-nan(ind)", "2,inf,nan")
    found = block(tmp_path).values
    assert np.isnan(found).tolist() == [[True, False], [True, True], [False, True]]
    assert np.isinf(found[2, 0])


def test_columns_are_chosen_by_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "frame,AU01_r,pose_Rx,AU02_r", "0,1,2,3")
    assert block(tmp_path, columns=["AU*_r"]).values.tolist() == [[1, 3]]
    with pytest.raises(AbawError, match='no column of a.csv is named "AU1_r"') as caught:
        block(tmp_path, columns=["AU1_r"])
    assert "did you mean AU01_r?" in caught.value.fix
    assert caught.value.code is ExitCode.USAGE


def test_columns_of_arrays_have_no_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(AbawError, match="columns of format npy have no names"):
        block(tmp_path, columns=["f0"])


def test_openface_counts_from_one_and_marks_what_failed(tmp_path: Path) -> None:
    openface(tmp_path / "a.csv", {"frame": 1}, {"frame": 2, "success": 0})
    assert opened(tmp_path).format == "openface"
    found = block(tmp_path, columns=["AU*"])
    assert found.frames is not None
    assert found.frames.tolist() == [0, 1]
    assert found.reason.tolist() == [0, Reason.NO_FACE]
    assert found.values.tolist() == [[0.5], [0.5]]
    assert found.boxes is not None
    assert found.boxes[0].tolist() == [10, 10, 10, 10]


def test_py_feat_counts_from_zero_and_leaves_faceless_frames_empty(tmp_path: Path) -> None:
    write(
        tmp_path / "a.csv",
        "FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,FaceScore,AU01,input,frame,approx_time,Identity",
        "10,20,30,40,0.9,0.25,/v/a.mp4,0,00:00,Person_0",
        ",,,,,,/v/a.mp4,1,00:00,",
    )
    found = block(tmp_path)
    assert opened(tmp_path).format == "py-feat"
    assert found.frames is not None
    assert found.frames.tolist() == [0, 1]
    assert found.reason.tolist() == [0, Reason.NO_FACE]
    assert found.values[0].tolist() == [10, 20, 30, 40, 0.25]
    assert found.boxes is not None
    assert found.boxes[0].tolist() == [10, 20, 40, 60]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame,f0\n0,1\n1,2,3\n", "has 3 fields in line 3, and 2 columns"),
        ("frame,f0\n0,1\n1\n", "has 1 fields in line 3, and 2 columns"),
        ("frame,f0\n0,happy\n", "has the text 'happy' in line 2, column f0"),
        ("frame,f0\nx,1\n", "has the frame 'x' in line 2"),
        ("frame,f0\n-1,1\n", "has the frame '-1' in line 2"),
        ("frame;f0;f1\n0;1;2\n", "has its fields separated by semicolons"),
        ("frame\tf0\n0\t1\n", "has its fields separated by tabs"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("frame,f0\n", "has a header and no rows"),
        ("frame,f0,f0\n0,1,2\n", "has a column twice: f0"),
        ("0,1.5\n1,2.5\n", "has no header"),
        ("frame,time\n0,0\n", "has no feature column"),
    ],
)
def test_tables_that_are_none_are_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(AbawError, match=message):
        block(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfframe,f0\n0,1\n")
    assert block(tmp_path).values.tolist() == [[1]]


def test_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("frame,f0\n0,1\n".encode("utf-16"))
    with pytest.raises(AbawError, match="is no text in UTF-8"):
        block(tmp_path)


def test_who_it_is_is_a_feature_only_where_it_is_asked_for(tmp_path: Path) -> None:
    names = "FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,frame,AU01,Identity_1,Identity_2"
    write(tmp_path / "a.csv", names, "1,2,3,4,0,0.5,,")
    source = opened(tmp_path)
    shape = foreign.layout(source, source.items)
    assert shape.columns == ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "AU01")
    assert shape.left_out == ("Identity_1", "Identity_2")
    assert foreign.layout(source, source.items, columns=["Identity_*"]).columns == ("Identity_1", "Identity_2")


def test_another_programs_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "face, confidence, AU01_r", "0,0.9,1")
    with pytest.raises(AbawError, match="is not openface's: it has no column frame, success, timestamp") as caught:
        block(tmp_path, format="openface")
    assert "FaceLandmarkImg" in caught.value.fix


def test_a_column_that_only_the_first_file_has_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "frame,f0,f1", "0,1,2")
    write(tmp_path / "b.csv", "frame,f0", "0,1")
    with pytest.raises(AbawError, match="lacks 1 columns that the first file has: f1"):
        block(tmp_path, "b")


# -- HDF5 --------------------------------------------------------------------------------------------------------------
def test_a_dataset_per_video_may_lie_in_groups(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["train/a"] = np.ones((2, 3))
        file["b/features"] = np.zeros((4, 3))
        file["b/intervals"] = np.zeros((4, 2))
        file["names"] = "text"
    assert [(item.name, item.inner) for item in opened(tmp_path).items] == [("b", "b/features"), ("a", "train/a")]
    assert block(tmp_path).values.shape == (2, 3)


def test_a_group_per_image_with_a_dataset_per_video_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for name, value in (("00001/a", 1), ("00003/a", 3), ("00002/b", 2)):
            file[name] = np.full(4, value)
    found = block(tmp_path)
    assert found.frames is not None
    assert found.frames.tolist() == [0, 2]
    assert found.values[:, 0].tolist() == [1, 3]


def test_a_group_per_video_with_a_dataset_per_image_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for number in (10, 9):
            file[f"a/{number}.jpg"] = np.full(4, number)
        file["b/0.jpg"] = np.zeros(4)
    found = block(tmp_path)
    assert found.frames is not None
    assert found.frames.tolist() == [9, 10]  # from 0, since b has a frame 0
    assert found.values[:, 0].tolist() == [9, 10]


def test_frames_that_are_rows_of_one_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for number in (1, 2):
            file[f"a/{number:05d}"] = np.full((1, 4), number)
    assert block(tmp_path).values[:, 0].tolist() == [1, 2]


def test_two_tables_of_one_video_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["a/x"], file["a/y"] = np.ones((2, 3)), np.ones((2, 3))
    with pytest.raises(AbawError, match="holds 2 tables of a: a/x, a/y"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty, as an HDF5 file"), (b"hello", "cannot be read .*, as an HDF5 file")]
)
def test_what_is_no_hdf5_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(AbawError, match=message):
        opened(tmp_path)


def test_a_file_without_tables_says_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((2, 3, 4))
    with pytest.raises(AbawError, match=r"holds no table of numbers, but x \[2, 3, 4\]"):
        opened(tmp_path)


# -- which format ------------------------------------------------------------------------------------------------------
def test_files_of_two_formats_need_a_choice(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    write(tmp_path / "a.csv", "frame,f0", "0,1")
    with pytest.raises(AbawError, match="holds files of several formats: csv, npy"):
        opened(tmp_path)
    assert opened(tmp_path, "npy").format == "npy"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="holds no features"):
        opened(tmp_path)
    with pytest.raises(AbawError, match='unknown format "numpy"'):
        opened(tmp_path, "numpy")


def test_the_hash_is_of_names_and_content_and_not_of_places(tmp_path: Path) -> None:
    for folder in ("one", "two/below"):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "a.npy", np.zeros((2, 2)))
    one, two = (list(foreign.sha256s(opened(tmp_path / name).items)) for name in ("one", "two"))
    assert one == two
    np.save(tmp_path / "one" / "a.npy", np.ones((2, 2)))
    assert list(foreign.sha256s(opened(tmp_path / "one").items)) != two


# -- names -------------------------------------------------------------------------------------------------------------
def test_a_recording_is_of_its_people() -> None:
    names = TrackNames(["v_left", "v_right", "w_person1"], people=True)
    assert names.people_of("v.mp4") == ["v_left", "v_right"]
    assert names.people_of("w") == ["w_person1"]
    assert names.exact("v") is None
    assert TrackNames(["w_person1"]).people_of("w") == []


# -- the row rule ------------------------------------------------------------------------------------------------------
def test_one_row_more_is_cut_and_one_fewer_is_invalid() -> None:
    more, fewer = (rows(dense([[1.0]] * count), num_rows=3) for count in (4, 2))
    assert (more.features[:, 0].tolist(), more.reason.tolist(), more.difference) == ([1, 1, 1], [0, 0, 0], 1)
    assert (fewer.features[:, 0].tolist(), fewer.difference) == ([1, 1, 0], -1)
    assert fewer.reason.tolist() == [0, 0, Reason.NO_VALUE]


@pytest.mark.parametrize("count", [1, 5])
def test_more_difference_than_is_tolerated_is_refused(count: int) -> None:
    with pytest.raises(AbawError, match=f"has {count} rows, the track 3") as caught:
        rows(dense([[1.0]] * count), num_rows=3)
    assert "data.max_row_difference" in caught.value.fix
    assert rows(dense([[1.0]] * count), num_rows=3, tolerance=2).difference == count - 3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_tracks_have_their_rows(count: int) -> None:
    found = rows(dense(np.ones((count, 3))), num_rows=count)
    assert found.features.shape == (count, 3)
    assert found.reason.tolist() == [0] * count


def test_numbered_frames_may_have_gaps_but_not_reach_beyond() -> None:
    found = rows(numbered([0, 3]), num_rows=6)
    assert found.features[:, 0].tolist() == [1, 0, 0, 2, 0, 0]
    assert found.difference == 0
    with pytest.raises(AbawError, match=r"has a frame 7 \(counted from 0\), the track 6 rows"):
        rows(numbered([0, 7]), num_rows=6)


def test_a_frame_zero_among_tracks_that_count_from_one_is_refused() -> None:
    with pytest.raises(AbawError, match="has a frame 0, but the source counts from 1"):
        rows(numbered([1, -1]), num_rows=3)


def test_numbered_frames_without_gaps_may_end_only_where_the_face_does() -> None:
    assert rows(numbered([0, 1]), num_rows=6, faces="110000").reason.tolist() == [0, 0, *[Reason.NO_VALUE] * 4]
    with pytest.raises(AbawError, match=r"ends with frame 1 \(counted from 0\), the track has 6 rows and shows a face"):
        rows(numbered([0, 1]), num_rows=6, faces="110010")


def test_rows_that_are_no_numbers_are_invalid() -> None:
    found = rows(dense([[1, 2], [np.nan, 2], [np.inf, np.nan]]), num_rows=3)
    assert found.features.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert found.reason.tolist() == [0, Reason.NO_VALUE, Reason.NO_VALUE]
    assert found.partial == 1


def test_a_column_that_never_holds_a_number_is_named() -> None:
    with pytest.raises(AbawError, match="has no row whose columns are all numbers: column y holds none at all"):
        rows(dense([[1, np.nan], [2, np.nan]]), num_rows=2)


def test_what_float16_cannot_hold_is_an_error_that_names_the_column() -> None:
    assert rows(dense([[65504.0]]), num_rows=1).features[0, 0] == 65504
    with pytest.raises(AbawError, match="holds 65505 in column y, row 1"):
        rows(dense([[1.0, 2.0], [1.0, 65505.0]]), num_rows=2)


def test_other_numbers_of_columns_are_refused() -> None:
    shape = foreign.Layout("npy", 3)
    with pytest.raises(AbawError, match="has 2 columns, the others 3"):
        to_rows(
            dense([[1, 2]]),
            Clock(1, np.ones(1, bool)),
            Item("a", Path("a.npy")),
            shape,
            tolerance=1,
            of_recording=False,
        )


# -- several faces -----------------------------------------------------------------------------------------------------
OWN = np.array([[0, 0, 20, 20], [100, 0, 120, 20], [0, 0, 0, 0]], np.float32)  # the track's own face in three rows
HERE, THERE = [5, 5, 13, 13], [105, 5, 113, 13]


def test_of_several_faces_the_one_at_the_tracks_own_place_is_taken() -> None:
    found = rows(numbered([0, 0, 1, 1], [HERE, THERE, HERE, THERE]), num_rows=2, boxes=OWN[:2])
    assert found.features[:, 0].tolist() == [1, 4]


def test_several_faces_of_which_none_is_there_are_of_others() -> None:
    found = rows(numbered([0, 0, 2, 2], [THERE, THERE, HERE, HERE]), num_rows=3, faces="110", boxes=OWN)
    assert found.reason.tolist() == [Reason.OTHER_PERSON, Reason.NO_VALUE, Reason.NO_FACE]


def test_several_faces_without_places_are_refused() -> None:
    with pytest.raises(AbawError, match=r"has several rows of frame 1 \(counted from 0\)") as caught:
        rows(numbered([0, 1, 1]), num_rows=2)
    assert "-2Dfp" in caught.value.fix


def test_a_single_face_is_taken_as_it_is_unless_the_file_is_of_a_recording() -> None:
    given = numbered([0, 1], [THERE, THERE])
    assert rows(given, num_rows=2, boxes=OWN[:2]).reason.tolist() == [0, 0]
    assert rows(given, num_rows=2, boxes=OWN[:2], of_recording=True).reason.tolist() == [Reason.OTHER_PERSON, 0]
