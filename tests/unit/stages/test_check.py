"""The reconciliation report, through the command line, on stores and label files written here."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.config_file import load_config
from abaw.errors import AbawError, ExitCode
from abaw.stages import check
from abaw.store import ArraySpec, FeatureStore, Reason, StoreHeader

ARRAYS = {
    "time": ArraySpec("float64"),
    "reason": ArraySpec("uint8"),
    "person": ArraySpec("uint16"),
}
TOML = '[data]\nannotations = { va = "va", expr = "expr" }\n'
EXPR_HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
MTL_ROW = ",0,0,3" + ",0" * 12
SOUND = {"sound": True, "sound_start_s": 0.0, "sound_end_s": 4.0, "duration_s": 4.0}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty project: labels of two tasks are configured, no track is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.toml").write_text(TOML)
    for task in ("va", "expr"):
        (tmp_path / task / "Train_Set").mkdir(parents=True)
    label(tmp_path, "keep", 1, task="va")
    label(tmp_path, "keep", 1, task="expr")
    align(tmp_path, "keep", 1)
    return tmp_path


def align(
    folder: Path, name: str, rows: int, *, people: list[int] | None = None, start_s: float = 0.0, **facts
) -> None:
    """A track of the faces store as `align` writes it, without pictures; ``people`` has 0 where no face is."""
    store = FeatureStore.create(folder / "features" / "faces", StoreHeader("faces", "faces", ARRAYS, {}))
    person = np.array(people if people is not None else [1] * rows, np.uint16)
    reason = np.where(person > 0, Reason.VALID, Reason.NO_FACE).astype(np.uint8)
    arrays = {"valid": person > 0, "time": start_s + np.arange(rows) / 25, "reason": reason, "person": person}
    store.write(name, arrays, fps=25, facts=facts or None)


def label(folder: Path, name: str, rows: int, *, task: str = "va", split: str = "Train_Set") -> Path:
    path = folder / task / split / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    header, row = ("valence,arousal", "0.5,0") if task == "va" else (EXPR_HEADER, "3")
    path.write_text("\n".join([header, *[row] * rows, ""]))
    return path


def sample(folder: Path, rows: dict[str, list[int]]) -> None:
    lines = [f"{name}/{number:05d}.jpg,0,0" for name, numbers in rows.items() for number in numbers]
    (folder / "sample.txt").write_text("\n".join(["image_location,valence,arousal", *lines, ""]))
    with (folder / "data.toml").open("a") as file:
        file.write('[submit]\nsample = "sample.txt"\n')


def invoke(*args: str):
    return CliRunner().invoke(app, ["check", *args])


def report(name: str, *args: str) -> dict:
    """One track of the JSON report."""
    tracks = json.loads(invoke("--json", *args).stdout)["tracks"]
    return next(track for track in tracks if track["track"] == name)


def verdict(name: str, *args: str) -> tuple[str, str]:
    track = report(name, *args)
    return track["verdict"], track["reason"]


# -- verdicts ----------------------------------------------------------------------------------------------------------
def test_rows_that_agree_are_ok(folder):
    align(folder, "a", 5)
    label(folder, "a", 5)
    label(folder, "a", 5, task="expr", split="Validation_Set")
    assert verdict("a") == ("ok", "")
    assert report("a")["labels"] == {"va": 5, "expr": 5}
    assert invoke().exit_code == ExitCode.OK


@pytest.mark.parametrize("rows", [4, 6])
def test_one_row_more_or_less_is_tolerable(folder, rows):
    align(folder, "a", 5)
    label(folder, "a", rows)
    assert verdict("a") == ("tolerable", f"va has {rows} label rows, 5 frames")
    assert invoke().exit_code == ExitCode.OK


def test_tolerance_is_the_configured_one(folder):
    align(folder, "a", 5)
    label(folder, "a", 4)
    assert verdict("a", "--set", "data.max_row_difference=0")[0] == "wrong"
    label(folder, "a", 8)
    assert verdict("a", "--set", "data.max_row_difference=3")[0] == "tolerable"


def test_two_rows_apart_are_wrong_with_exit_code_four(folder):
    align(folder, "a", 5)
    label(folder, "a", 3)
    label(folder, "a", 4, task="expr")
    assert verdict("a") == ("wrong", "va has 3 label rows, 5 frames; expr has 4 label rows, 5 frames")
    assert invoke().exit_code == invoke("--json").exit_code == invoke("--csv").exit_code == ExitCode.DATA


def test_labels_without_a_track_are_wrong(folder):
    label(folder, "a", 5)
    assert verdict("a") == ("wrong", "not aligned yet")


def test_labels_without_a_recording_say_so(folder):
    label(folder, "a", 5)
    label(folder, "b_left", 5)
    (folder / "videos").mkdir()
    (folder / "videos" / "b.mp4").touch()
    (folder / "data.toml").write_text(TOML + 'videos = "videos"\n')
    assert verdict("a") == ("wrong", f"not aligned: no recording of that name in {folder / 'videos'}")
    assert verdict("b_left") == ("wrong", "not aligned yet")


def test_a_recording_without_labels_that_is_not_aligned_is_listed(folder):
    (folder / "videos").mkdir()
    (folder / "videos" / "own.mp4").touch()
    (folder / "data.toml").write_text('[data]\nvideos = "videos"\n')
    assert verdict("own") == ("wrong", "not aligned yet")


def test_own_videos_without_labels_are_ok(folder):
    align(folder, "own", 5)
    (folder / "data.toml").write_text("[data]\n")
    assert (verdict("own"), report("own")["remarks"]) == (("ok", ""), [])


def test_a_refused_label_file_is_named_with_its_line(folder):
    align(folder, "a", 2)
    path = label(folder, "a", 1)
    path.write_text(path.read_text() + "0,zero\n")
    what = "va label file refused: label file a.txt has a row that is no va label: '0,zero'"
    assert verdict("a") == ("wrong", f"{what} ({path}, line 3)")
    assert report("a")["labels"] == {}


def test_a_label_file_that_is_gone_is_named(folder):
    align(folder, "a", 2)
    path = folder / "va" / "Train_Set" / "a.txt"
    path.symlink_to("nowhere")
    assert verdict("a") == ("wrong", f"va label file missing ({path})")


def test_an_empty_label_file_has_no_rows_to_agree(folder):
    align(folder, "a", 5)
    label(folder, "a", 0)
    assert verdict("a") == ("wrong", "va has 0 label rows, 5 frames")


def test_a_damaged_track_file_is_wrong_and_the_others_are_checked(folder):
    align(folder, "a", 5)
    (folder / "features" / "faces" / "a.h5").write_bytes(b"no HDF5")
    outcome, reason = verdict("a")
    assert outcome == "wrong"
    assert reason.startswith("a.h5 is not a readable track file")
    assert verdict("keep") == ("ok", "")


def test_a_track_without_frames_is_wrong(folder):
    align(folder, "a", 0)
    assert verdict("a") == ("wrong", "no frame decodes")


# -- sample files and test lists ---------------------------------------------------------------------------------------
def test_a_test_track_is_judged_by_the_sample_file(folder):
    align(folder, "t", 4)
    align(folder, "u", 4)
    align(folder, "v", 4)
    sample(folder, {"t": [1, 2, 3, 4], "u": [1, 2, 3, 4, 5], "v": [1, 2]})
    assert verdict("t") == ("ok", "")
    assert verdict("u") == ("tolerable", "the sample file of va asks for 5 rows, 4 frames")
    assert verdict("v") == ("wrong", "the sample file of va asks for 2 rows, 4 frames")
    assert report("t")["samples"] == {"va": {"highest": 4, "rows": 4}}


def test_gaps_of_a_sample_file_are_a_remark(folder):
    align(folder, "t", 4)
    sample(folder, {"t": [1, 4]})
    assert (verdict("t"), report("t")["remarks"]) == (("ok", ""), ["the sample file of va names 2 of 4 rows"])


def test_a_track_that_only_the_sample_file_names_is_wrong(folder):
    sample(folder, {"t": [1]})
    assert verdict("t") == ("wrong", "not aligned: only a sample file names it, no label file and no list of data.test")


def test_a_listed_test_track_that_the_sample_file_leaves_out_is_a_remark(folder):
    align(folder, "t", 4)
    align(folder, "u", 4)
    (folder / "test.txt").write_text("t\nu\n")
    (folder / "data.toml").write_text(TOML + 'test = { va = "test.txt" }\n')
    sample(folder, {"t": [1, 2, 3, 4]})
    assert report("u")["remarks"] == ["a test track of va that its sample file does not name"]
    assert report("t")["remarks"] == []


def test_a_track_that_no_file_names_is_a_remark(folder):
    align(folder, "a", 4)
    assert (verdict("a"), report("a")["remarks"]) == (
        ("ok", ""),
        ["no label file, test list or sample file names it"],
    )


def test_sparse_labels_may_end_early_but_not_late(folder):
    (folder / "mtl").mkdir()
    (folder / "mtl" / "train_set.txt").write_text(
        f"header\na/00002.jpg{MTL_ROW}\nb/00005.jpg{MTL_ROW}\nc/00009.jpg{MTL_ROW}\n"
    )
    (folder / "data.toml").write_text('[data]\nannotations = { mtl = "mtl" }\n')
    for name in "abc":
        align(folder, name, 4)
    assert report("a")["labels"] == {"mtl": 2}
    assert verdict("a") == ("ok", "")
    assert verdict("b") == ("tolerable", "mtl has 5 label rows, 4 frames")
    assert verdict("c") == ("wrong", "mtl has 9 label rows, 4 frames")


# -- crops, images, people ---------------------------------------------------------------------------------------------
def crops(folder: Path, name: str, *names: str) -> None:
    (folder / "crops" / name).mkdir(parents=True)
    for file in names:
        (folder / "crops" / name / file).touch()


def test_crops_are_counted_by_their_names(folder):
    (folder / "data.toml").write_text(TOML + 'crops = "crops"\n')
    align(folder, "a", 5)
    crops(folder, "a", "00001.jpg", "00004.jpg", "00000.jpg", "Thumbs.db", "4.png", "x.jpg")
    align(folder, "b", 5)
    crops(folder, "b", "00009.jpg")
    assert (report("a")["crops"], report("a")["highest_crop"]) == (2, 4)
    assert verdict("a") == ("ok", "")
    assert verdict("b") == ("wrong", "the last crop is number 9, 5 frames")
    assert report("keep")["crops"] is None


def test_crops_that_came_after_align_are_seen(folder):
    (folder / "data.toml").write_text(TOML + 'kind = "crops"\ncrops = "crops"\n')
    for name in ("keep", "b"):
        crops(folder, name, "00001.jpg")
    crops(folder, "a", "00001.jpg", "00009.jpg")
    align(folder, "a", 5, num_crops=1, highest_crop=1)
    assert verdict("a") == ("wrong", "1 crops were aligned, 2 are there now; the last crop is number 9, 5 frames")
    assert verdict("b") == ("wrong", "not aligned yet")


def test_where_the_crops_are_elsewhere_the_store_s_own_count_is_taken(folder):
    (folder / "data.toml").write_text(TOML + 'kind = "crops"\ncrops = "elsewhere"\n')
    align(folder, "a", 5, num_crops=3, highest_crop=5)
    assert (report("a")["crops"], report("a")["highest_crop"]) == (3, 5)
    assert " 3/5 " in invoke().stdout


def test_why_a_track_failed_is_told(folder):
    label(folder, "a", 5)
    FeatureStore.open(folder / "features" / "faces").note("failures", {"a": "a.mp4 is not a readable video"})
    assert verdict("a") == ("wrong", "not aligned: a.mp4 is not a readable video")


def test_another_recording_of_the_same_name_is_wrong(folder):
    (folder / "videos").mkdir()
    (folder / "videos" / "a.mp4").write_bytes(b"123456")
    (folder / "data.toml").write_text('[data]\nvideos = "videos"\n')
    align(folder, "a", 5, bytes=6)
    assert verdict("a") == ("ok", "")
    (folder / "videos" / "a.mp4").write_bytes(b"1234567")
    assert verdict("a")[1].startswith("the recording is another one than was aligned")


def test_a_collection_of_images_has_rows_only(folder):
    (folder / "data.toml").write_text(TOML + 'kind = "images"\nimages = "images"\n')
    align(folder, "shard-00000", 5, people=[1, 0, 1, 1, 1])
    track = report("shard-00000")
    assert (track["verdict"], track["frames"], track["share_with_face"]) == ("ok", 5, 0.8)
    assert (track["labels"], track["remarks"]) == ({}, [])


def test_people_of_a_video_stand_for_it(folder):
    (folder / "videos").mkdir()
    (folder / "videos" / "a.mp4").touch()
    (folder / "data.toml").write_text('[data]\nvideos = "videos"\n')
    align(folder, "a_person1", 5)
    names = [track["track"] for track in json.loads(invoke("--json").stdout)["tracks"]]
    assert names == ["a_person1", "keep"]


def test_labels_of_a_video_that_is_there_person_by_person_are_wrong(folder):
    align(folder, "a_person1", 5)
    label(folder, "a_left", 5)
    text = "not aligned under this name: the store holds every face of the video (a_person1 ...)"
    assert verdict("a_left") == ("wrong", text)


# -- remarks -----------------------------------------------------------------------------------------------------------
def remarks(folder: Path, rows: int, **facts) -> list[str]:
    """Remarks on a track whose labels agree; a remark alone leaves the verdict ok."""
    align(folder, "a", rows, **facts)
    label(folder, "a", rows)
    assert verdict("a") == ("ok", "")
    return report("a")["remarks"]


def test_a_header_that_counts_other_frames_is_a_remark(folder):
    assert remarks(folder, 95, header_frames=98) == ["the header says 98 frames, 95 decode"]
    assert remarks(folder, 95, header_frames=95) == []


def test_a_container_that_does_not_count_says_nothing(folder):
    assert remarks(folder, 95, header_frames=0) == []
    assert report("a")["header_frames"] is None


def test_identity_switches_are_counted_over_gaps(folder):
    assert remarks(folder, 8, people=[1, 1, 0, 1, 2, 0, 1, 3]) == ["3 identity switches"]
    assert report("a")["identity_switches"] == 3
    assert remarks(folder, 3, people=[2, 0, 1]) == ["1 identity switch"]


def test_a_track_without_any_face_is_a_remark(folder):
    assert remarks(folder, 3, people=[0, 0, 0]) == ["no face in any row"]
    assert report("a")["share_with_face"] == 0


def test_sound_as_long_as_the_picture_is_not_remarked(folder):
    assert remarks(folder, 100, **SOUND) == []
    assert (report("a")["sound_s"], report("a")["video_s"]) == (4.0, 4.0)
    assert " 4.0 of 4.0 s " in invoke().stdout


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"sound_end_s": 1.9}, ["sound ends 2.1 s before the picture"]),
        ({"sound_end_s": 5.0}, ["sound ends 1.0 s after the picture"]),
        ({"sound_start_s": 0.75}, ["sound starts 0.8 s after the picture"]),
        ({"sound_end_s": 3.6, "sound_start_s": -0.4}, []),
        ({"sound": False}, ["no sound track"]),
    ],
)
def test_sound_unlike_the_picture_is_a_remark(folder, changed, expected):
    assert remarks(folder, 100, **{**SOUND, **changed}) == expected


def test_sound_is_compared_on_the_clock_of_the_container(folder):
    assert remarks(folder, 100, start_s=10.0, **SOUND) == [
        "sound starts 10.0 s before the picture",
        "sound ends 10.0 s before the picture",
    ]


def test_rows_after_a_decoder_complaint_may_be_early(folder):
    align(folder, "a", 3, decode_errors=2, first_error_row=1)
    label(folder, "a", 3)
    text = "2 decoder complaints, the first after 1 row: what did not decode has no row, so later rows may be early"
    assert verdict("a") == ("tolerable", text)


def test_a_clock_that_starts_anew_is_a_remark(folder):
    assert remarks(folder, 3, clock_shifts_s=[2.0]) == ["the clock starts anew 1 time"]


def test_a_recording_that_ends_long_before_its_header_says_is_a_remark(folder):
    assert remarks(folder, 3, header_duration_s=2.4, covered_s=0.3) == [
        "the header says 2.4 s, what decodes is 2.1 s shorter"
    ]
    assert remarks(folder, 3, header_duration_s=2.4, covered_s=2.0) == []


def test_a_damaged_picture_that_has_its_row_shifts_no_other(folder):
    store = FeatureStore.open(folder / "features" / "faces")
    reason, valid = np.array([Reason.VALID, Reason.DECODE_ERROR], np.uint8), np.array([True, False])
    rows = {"valid": valid, "time": np.arange(2.0), "reason": reason, "person": valid.astype("u2")}
    store.write("a", rows, fps=25, facts={"decode_errors": 1, "first_error_row": 1})
    label(folder, "a", 2)
    assert verdict("a") == ("ok", "")


def test_another_recording_is_seen_for_people_too(folder):
    (folder / "videos").mkdir()
    (folder / "videos" / "a.mp4").write_bytes(b"123456")
    (folder / "data.toml").write_text('[data]\nvideos = "videos"\n')
    align(folder, "a_person1", 5, bytes=5)
    assert verdict("a_person1")[1].startswith("the recording is another one than was aligned")


def test_rows_that_could_not_be_decoded_are_a_remark(folder):
    store = FeatureStore.open(folder / "features" / "faces")
    reason = np.array([Reason.VALID, Reason.DECODE_ERROR], np.uint8)
    valid = np.array([True, False])
    store.write("a", {"valid": valid, "time": np.arange(2.0), "reason": reason, "person": valid.astype("u2")}, fps=25)
    label(folder, "a", 2)
    assert report("a")["remarks"] == ["1 row could not be decoded"]


def test_an_older_store_leaves_open_what_it_does_not_know(folder):
    header = StoreHeader("faces", "faces", {"time": ArraySpec("float64")}, {})
    store = FeatureStore.create(folder / "old", header)
    store.write("keep", {"valid": np.ones(1, bool), "time": np.zeros(1)}, fps=25)
    track = report("keep", "--set", "align.store=old")
    assert track["verdict"] == "ok"
    unknown = ("header_frames", "crops", "identity_switches", "sound", "sound_s", "video_s", "decode_errors")
    assert [track[key] for key in unknown] == [None] * 7


# -- what is printed ---------------------------------------------------------------------------------------------------
def test_the_table_has_a_line_per_track_and_repeats_what_is_wrong(folder):
    align(folder, "a", 100, header_frames=98, decode_errors=0, people=[1] * 50 + [0] * 50, **SOUND)
    align(folder, "b", 5)
    label(folder, "a", 101)
    label(folder, "b", 9)
    lines = invoke().stdout.splitlines()
    assert [" ".join(line.split()) for line in lines[:4]] == [
        "track verdict frames header va expr crops faces switches sound complaints remarks",
        "~ a tolerable 100 98 101 - - 50.0% 0 4.0 of 4.0 s 0 "
        "va has 101 label rows, 100 frames; the header says 98 frames, 100 decode",
        "! b wrong 5 - 9 - - 100.0% 0 - -",
        "keep ok 1 - 1 1 - 100.0% 0 - -",
    ]
    assert lines[4:6] == ["", "!  b: va has 9 label rows, 5 frames"]
    assert "tracks       3: 1 ok, 1 tolerable, 1 wrong" in lines
    assert "frames       106, 52.8% with a face" in lines
    assert "va labels    111 rows of 3 tracks" in lines


def test_the_columns_of_the_table_are_aligned(folder):
    align(folder, "a_long_name", 1000)
    label(folder, "a_long_name", 1000)
    first, *lines = invoke().stdout.splitlines()[:3]
    end = first.index("frames") + len("frames")
    assert [line[:end].split()[-1] for line in lines] == ["1000", "1"]


def test_json_has_totals_and_every_track(folder):
    align(folder, "a", 5, header_frames=5, decode_errors=0, **SOUND)
    label(folder, "a", 3)
    data = json.loads(invoke("--json").stdout)
    assert data["totals"] == {
        "tracks": 2,
        "ok": 1,
        "tolerable": 0,
        "wrong": 1,
        "frames": 6,
        "with_face": 6,
        "label_rows": 5,
        "identity_switches": 0,
    }
    assert set(data["tracks"][0]) == {
        "track",
        "verdict",
        "reason",
        "remarks",
        "frames",
        "header_frames",
        "labels",
        "crops",
        "highest_crop",
        "samples",
        "with_face",
        "share_with_face",
        "identity_switches",
        "sound",
        "sound_s",
        "video_s",
        "decode_errors",
    }


def test_csv_is_a_flat_line_per_track_and_nothing_else(folder):
    align(folder, "a, b", 5, header_frames=7, decode_errors=1)
    label(folder, "a, b", 4)
    sample(folder, {"keep": [1]})
    rows = list(csv.DictReader(io.StringIO(invoke("--csv").stdout)))
    assert [row["track"] for row in rows] == ["a, b", "keep"]
    assert rows[0]["remarks"] == "the header says 7 frames, 5 decode"
    assert (rows[0]["labels_va"], rows[0]["labels_expr"], rows[0]["sample_va"]) == ("4", "", "")
    assert (rows[1]["sample_va"], rows[1]["sample_va_rows"], rows[1]["reason"]) == ("1", "1", "")


# -- nothing to compare ------------------------------------------------------------------------------------------------
def test_without_a_faces_store_align_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.toml").write_text("[data]\n")
    result = invoke()
    assert result.exit_code == ExitCode.DATA
    assert "no track is aligned yet" in result.stderr
    assert "abaw align" in result.stderr


def test_an_empty_store_is_not_reported_as_ok(tmp_path):
    (tmp_path / "data.toml").write_text("[data]\n")
    FeatureStore.create(tmp_path / "features" / "faces", StoreHeader("faces", "faces", ARRAYS, {}))
    with pytest.raises(AbawError, match="nothing to check"):
        check.run(load_config(tmp_path / "data.toml"))
