"""Submissions of small predictions stores, through the command line."""

import hashlib
import json
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.provenance import trained_on_record, undeclared_record
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import AU_LABELS, EXPR_LABELS, TASKS

TOML = """
[data]
videos = "videos"
annotations = { va = "VA" }
test = { va = "test.txt" }
[submit]
sample = "sample.txt"
task = "va"
"""
SAMPLE = "image_location,valence,arousal\nt1/00001.jpg,0,0\nt1/00002.jpg,0,0\nt1/00003.jpg,0,0\nt1/00004.jpg,0,0\n"
OUT = "submissions/10-va/submission-1"


def record(labels="va", dataset="aff-wild2"):
    return trained_on_record(dataset=dataset, edition="10", labels=labels, split_file="official", track_ids=["a"])


def make_store(path, task, tracks, *, trained_on=None, **settings):
    """A predictions store; ``tracks``: name -> scores by head, [T, L], where a row of NaN has no score."""
    heads = TASKS[task].heads
    arrays = {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in heads}
    order = {head.name: list(head.labels) for head in heads}
    known = [record(task)] if trained_on is None else trained_on
    header = StoreHeader(
        "predictions", path.name, arrays, {"run": path.name, **settings}, label_order=order, trained_on=known
    )
    store = FeatureStore.create(path, header)
    for name, scores in tracks.items():
        blocks = {f"scores/{head}": np.asarray(block, np.float32) for head, block in scores.items()}
        valid = ~np.isnan(next(iter(blocks.values()))).any(axis=1)
        store.write(name, {"valid": valid} | {key: np.nan_to_num(block) for key, block in blocks.items()}, fps=25)
    return store


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample.txt").write_text(SAMPLE)
    (tmp_path / "data.toml").write_text(TOML)
    gappy = [[0.25, 0.5], [np.nan, np.nan], [2, -2]]
    make_store(tmp_path / "predictions/fuse-va-netease", "va", {"t1": {"va": gappy}})
    return tmp_path


def invoke(*args):
    return CliRunner().invoke(app, list(args))


def submit(*args):
    result = invoke("submit", *args)
    assert result.exit_code == 0, result.output
    return result.stdout


def everything(folder):
    return {str(path): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


# -- the file ----------------------------------------------------------------------------------------------------------
def test_submit_runs_bare_and_writes_row_for_row(project):
    said = submit()
    # row 2 has no score: held from row 1; row 3 is clipped; row 4 lies past the track's end: the last score again
    assert (project / OUT / "predictions.txt").read_text() == (
        "image_location,valence,arousal\n"
        "t1/00001.jpg,0.250000,0.500000\n"
        "t1/00002.jpg,0.250000,0.500000\n"
        "t1/00003.jpg,1.000000,-1.000000\n"
        "t1/00004.jpg,1.000000,-1.000000\n"
    )
    assert "2 rows without a prediction of their own, policy hold: t1 2; longest gap 1 rows in t1" in said


@pytest.mark.parametrize(
    ("gap", "row"), [("hold", "0.000000,0.000000"), ("nearest", "0.600000,-0.300000"), ("linear", "0.400000,-0.200000")]
)
def test_gaps_are_filled_on_scores_by_the_policy(project, gap, row):
    # rows 2 and 3 of four are missing: row 3 is nearer to row 4, and at two thirds of the way there
    scores = [[0, 0], [np.nan] * 2, [np.nan] * 2, [0.6, -0.3]]
    make_store(project / "predictions/gaps", "va", {"t1": {"va": scores}})
    submit("predictions/gaps", "--set", f"submit.gap={gap}")
    assert (project / OUT / "predictions.txt").read_text().splitlines()[3] == f"t1/00003.jpg,{row}"


def test_classes_between_two_scores_follow_the_scores_not_the_classes(project):
    header = "image_location," + ",".join(EXPR_LABELS)
    (project / "sample.txt").write_text(f"{header}\nt1/00001.jpg,0\nt1/00002.jpg,0\nt1/00003.jpg,0\n")
    first, last = np.zeros(8), np.zeros(8)
    first[[0, 4]], last[[7, 4]] = (0.55, 0.45), (0.55, 0.45)  # half-way, class 4 has the most
    scores = {"expr": [first, np.full(8, np.nan), last]}
    make_store(project / "predictions/gaps", "expr", {"t1": scores})
    submit("predictions/gaps", "--task", "expr", "--sample", "sample.txt", "--set", "submit.gap=linear")
    written = (project / "submissions/10-expr/submission-1/predictions.txt").read_text()
    assert [line[-1] for line in written.splitlines()[1:]] == ["0", "4", "7"]


def test_rows_follow_the_samples_order_even_where_tracks_alternate(project):
    (project / "sample.txt").write_text(
        "image_location,valence,arousal\nb/00002.jpg,0,0\na/00001.jpg,0,0\nb/00001.jpg,0,0\na/00002.jpg,0,0\n"
    )
    tracks = {"a": {"va": [[0.1, 0], [0.2, 0]]}, "b": {"va": [[0.3, 0], [0.4, 0]]}}
    make_store(project / "predictions/two", "va", tracks)
    submit("predictions/two")
    assert [line[:18] for line in (project / OUT / "predictions.txt").read_text().splitlines()[1:]] == [
        "b/00002.jpg,0.4000",
        "a/00001.jpg,0.1000",
        "b/00001.jpg,0.3000",
        "a/00002.jpg,0.2000",
    ]


def test_smoothing_does_not_depend_on_how_many_rows_the_sample_asks_for(project):
    post = {"half_width": {"va": 3}, "thresholds": {}, "clip": [-1.0, 1.0], "fitted_on": "test"}
    (project / "predictions/fuse-va-netease/post.json").write_text(json.dumps(post))
    submit()
    whole = (project / OUT / "predictions.txt").read_text().splitlines()
    (project / "sample.txt").write_text("\n".join(SAMPLE.splitlines()[:3]) + "\n")
    submit("--overwrite")
    assert (project / OUT / "predictions.txt").read_text().splitlines() == whole[:3]


def test_a_track_without_any_scored_row_gets_neutral_answers_and_is_named(project):
    make_store(project / "predictions/silent", "va", {"t1": {"va": np.full((4, 2), np.nan)}})
    said = submit("predictions/silent")
    assert "t1/00001.jpg,0.000000,0.000000" in (project / OUT / "predictions.txt").read_text()
    assert "4 rows without a prediction of their own" in said
    assert "1 tracks have no score at all and get neutral answers: t1" in said


def test_the_longest_gap_is_counted_in_rows_of_the_track(project):
    scores = np.full((4, 2), np.nan)
    scores[0] = 0
    make_store(project / "predictions/gaps", "va", {"t1": {"va": scores}})
    assert "3 rows without a prediction of their own, policy hold: t1 3; longest gap 3 rows" in submit(
        "predictions/gaps"
    )


def test_a_sample_one_row_longer_is_settled_and_said(project):
    assert "1 tracks have sample rows unlike their frames: t1 +1; the sample decides" in submit()


def test_post_json_is_applied_and_said(project):
    assert "no post.json: the scores as they are" in submit()
    path = project / "predictions/fuse-va-netease/post.json"
    path.write_text(json.dumps({"clip": [-0.5, 0.5], "fitted_on": "40 recordings"}))
    assert "post.json, fitted on 40 recordings" in submit("--overwrite")
    assert "0.500000,-0.500000" in (project / OUT / "predictions.txt").read_text()
    path.write_text(json.dumps({"fitted_on": "40 recordings", "kept_raw": ["va"]}))
    assert "post.json changes nothing, fitted on 40 recordings" in submit("--overwrite")


def test_flags_override_the_table(project):
    submit("--edition", "9", "--sample", "sample.txt")
    assert (project / "submissions/9-va/submission-1/predictions.txt").is_file()


def test_a_configured_folder_holds_one_folder_per_edition_and_task(project):
    submit("--set", "submit.output=handed-in")
    assert (project / "handed-in/10-va/submission-1/predictions.txt").is_file()


def test_an_ensemble_of_folds_is_submitted(project):
    scores = {"t1": {"va": np.full((4, 2), 0.5)}}
    members = [{"name": "r-folds", "stores": {"r-fold-0": "x"}, "weight": 1.0}]
    make_store(project / "predictions/fuse-va-ensemble", "va", scores, members=members, holdout=[], out_of_fold=True)
    submit("predictions/fuse-va-ensemble")
    assert "t1/00004.jpg,0.500000,0.500000" in (project / OUT / "predictions.txt").read_text()


# -- tasks and editions ------------------------------------------------------------------------------------------------
def one_hot(*classes, size=8):
    return np.eye(size, dtype=np.float32)[list(classes)]


def test_compound_expressions_follow_from_the_eight(project):
    header = "image_location," + ",".join(TASKS["ce"].heads[0].labels)
    (project / "ce.txt").write_text(f"{header}\n01/00001.jpg,0\n01/00002.jpg,0\n")
    # happiness and surprise lead in the first row, although neutral is larger; sadness and anger in the second
    scores = [[0.5, 0, 0, 0, 0.3, 0, 0.2, 0], [0, 0.4, 0, 0, 0.25, 0.35, 0, 0]]
    make_store(project / "predictions/fuse-expr-netease", "expr", {"01": {"expr": scores}})
    said = submit("--task", "ce", "--edition", "8", "--sample", "ce.txt")
    written = (project / "submissions/8-ce/submission-1/predictions.txt").read_text()
    assert written == f"{header}\n01/00001.jpg,1\n01/00002.jpg,6\n"
    assert "our choice" in said
    assert "our choice" in (project / "submissions/8-ce/submission-1/statement.md").read_text()


def test_multi_task_rows_have_sixteen_fields(project):
    (project / "mtl.txt").write_text("image,valence,arousal,expression,aus\nt1/00001.jpg,0,0,0" + ",0" * 12 + "\n")
    units = (np.arange(12) % 2).astype(np.float32)[None]
    scores = {"va": [[0.1, -0.2]], "expr": one_hot(5), "au": units}
    make_store(project / "predictions/m", "mtl", {"t1": scores}, trained_on=[record("mtl", "s-Aff-Wild2")])
    submit("predictions/m", "--task", "mtl", "--edition", "11", "--sample", "mtl.txt")
    written = (project / "submissions/11-mtl/submission-1/predictions.txt").read_text().splitlines()
    assert written[1] == "t1/00001.jpg,0.100000,-0.200000,5" + ",0,1" * 6


def test_single_frames_of_a_track_are_no_difference_in_length(project):
    (project / "mtl.txt").write_text("image,valence,arousal,expression,aus\nt1/00002.jpg,0,0,0" + ",0" * 12 + "\n")
    scores = {"va": np.zeros((9, 2)), "expr": one_hot(*[0] * 9), "au": np.zeros((9, 12))}
    make_store(project / "predictions/m", "mtl", {"t1": scores}, trained_on=[record("mtl", "s-Aff-Wild2")])
    said = submit("predictions/m", "--task", "mtl", "--edition", "7", "--sample", "mtl.txt")
    assert "the sample's rows are frames of the tracks" in said


def test_the_third_edition_has_a_file_for_each_video(project):
    (project / "list.txt").write_text("t2,1\nt1,2\n")
    units = np.tile(np.arange(12) % 2, (2, 1))
    make_store(project / "predictions/a", "au", {"t1": {"au": units}, "t2": {"au": units[:1]}})
    submit("predictions/a", "--task", "au", "--edition", "3", "--sample", "list.txt")
    folder = project / "submissions/3-au/submission-1"
    assert sorted(path.name for path in (folder / "predictions").iterdir()) == ["t1.txt", "t2.txt"]
    row = ",".join("01" * 6)
    assert (folder / "predictions/t1.txt").read_text() == f"{','.join(AU_LABELS)}\n{row}\n{row}\n"
    assert zipfile.ZipFile(folder / "3-au-1.zip").namelist() == ["t1.txt", "t2.txt"]


# -- image collections -------------------------------------------------------------------------------------------------
def keyed(project, keys, classes):
    specs = {"key": ArraySpec("str")}
    faces = FeatureStore.create(project / "features/faces", StoreHeader("faces", "faces", specs, {"source": "images"}))
    names = {"images-00000": slice(0, 3), "images-00001": slice(3, None)}
    scores = {}
    for name, part in names.items():
        own = keys[part]
        faces.write(name, {"valid": np.ones(len(own), bool), "key": np.array(own, object)}, fps=1)
        scores[name] = {"lsd": one_hot(*classes[part], size=6)}
    make_store(project / "predictions/lsd", "lsd", scores, trained_on=[record("lsd", "LSD")])


LSD = ("predictions/lsd", "--task", "lsd", "--edition", "4", "--sample", "lsd.txt")
LSD_FILE = "submissions/4-lsd/submission-1/predictions.txt"


def test_images_of_a_collection_are_found_by_the_end_of_their_path(project):
    keys = ["test/1.jpg", "train/Anger/0.jpg", "test/10.jpg", "test/0.jpg", "val/Fear/1.jpg"]
    keyed(project, keys, [1, 5, 2, 3, 5])
    (project / "lsd.txt").write_text("image,expression\n0.jpg,0\n1.jpg,0\n10.jpg,0\n")
    said = submit(*LSD)
    assert (project / LSD_FILE).read_text() == "image,expression\n0.jpg,3\n1.jpg,1\n10.jpg,2\n"
    assert "found by the images' paths (0.jpg is test/0.jpg)" in said


def test_a_whole_path_comes_before_an_end(project):
    keyed(project, ["0.jpg", "extra/0.jpg", "1.jpg", "extra/1.jpg", "2.jpg"], [1, 5, 2, 5, 3])
    (project / "lsd.txt").write_text("image,expression\n0.jpg,0\n1.jpg,0\n2.jpg,0\n")
    submit(*LSD)
    assert (project / LSD_FILE).read_text() == "image,expression\n0.jpg,1\n1.jpg,2\n2.jpg,3\n"


def test_images_of_training_folders_are_never_taken_for_test_images(project):
    keyed(project, ["train/Anger/0.jpg", "train/Anger/1.jpg", "train/Fear/2.jpg", "val/Fear/3.jpg"], [0, 0, 2, 2])
    (project / "lsd.txt").write_text("image,expression\n0.jpg,0\n")
    result = invoke("submit", *LSD)
    assert result.exit_code == 4
    assert (
        "1 of 1 images of the sample have no predictions: 0.jpg (nearest to 0.jpg: train/Anger/0.jpg)" in result.stderr
    )


def test_images_without_the_faces_store_that_names_them_are_a_message(project):
    make_store(project / "predictions/lsd", "lsd", {"images-00000": {"lsd": one_hot(0, size=6)}})
    (project / "lsd.txt").write_text("image,expression\n0.jpg,0\n")
    result = invoke("submit", *LSD)
    assert (result.exit_code, "no faces store" in result.stderr) == (4, True)
    assert "finetune.faces=FOLDER" in result.stderr


def test_an_image_that_is_there_twice_is_refused(project):
    keyed(project, ["a/0.jpg", "b/0.jpg", "a/1.jpg", "b/1.jpg"], [0, 1, 2, 3])
    (project / "lsd.txt").write_text("image,expression\n0.jpg,0\n")
    result = invoke("submit", *LSD)
    assert (result.exit_code, "several images end in 0.jpg: a/0.jpg, b/0.jpg" in result.stderr) == (4, True)


def test_images_aligned_again_since_are_refused(project):
    keyed(project, ["0.jpg", "1.jpg", "2.jpg", "3.jpg"], [0, 1, 2, 3])
    faces = FeatureStore.open(project / "features/faces")
    faces.write("images-00001", {"valid": np.ones(2, bool), "key": np.array(["3.jpg", "4.jpg"], object)}, fps=1)
    (project / "lsd.txt").write_text("image,expression\n0.jpg,0\n")
    result = invoke("submit", *LSD)
    assert (result.exit_code, "has 2 images now, but had 1 when it was scored" in result.stderr) == (4, True)


def test_multi_task_images_are_found_by_folder_and_name(project):
    specs = {"key": ArraySpec("str")}
    faces = FeatureStore.create(project / "features/faces", StoreHeader("faces", "faces", specs, {"source": "images"}))
    keys = np.array(["crops/v1/00001.jpg", "crops/v1/00007.jpg", "crops/v2/00001.jpg"], object)
    faces.write("images-00000", {"valid": np.ones(3, bool), "key": keys}, fps=1)
    scores = {"va": [[0.1, 0], [0.2, 0], [0.3, 0]], "expr": one_hot(0, 1, 2), "au": np.zeros((3, 12))}
    make_store(project / "predictions/m", "mtl", {"images-00000": scores}, trained_on=[record("mtl")])
    zeros = ",0,0,0" + ",0" * 12
    (project / "mtl.txt").write_text(
        f"image,valence,arousal,expression,aus\nv2/00001.jpg{zeros}\nv1/00007.jpg{zeros}\n"
    )
    submit("predictions/m", "--task", "mtl", "--edition", "4", "--sample", "mtl.txt")
    written = (project / "submissions/4-mtl/submission-1/predictions.txt").read_text().splitlines()
    assert [line[:26] for line in written[1:]] == ["v2/00001.jpg,0.300000,0.00", "v1/00007.jpg,0.200000,0.00"]


# -- what lies beside it -----------------------------------------------------------------------------------------------
def test_the_folder_holds_file_archive_manifest_and_statement(project):
    submit()
    assert sorted(path.name for path in (project / OUT).iterdir()) == [
        "10-va-1.zip",
        "manifest.json",
        "predictions.txt",
        "statement.md",
    ]


def test_the_manifest_has_the_hashes_of_every_file_and_of_the_sample(project):
    submit()
    manifest = json.loads((project / OUT / "manifest.json").read_text())
    for name in ("predictions.txt", "10-va-1.zip", "statement.md"):
        assert manifest["files"][name] == hashlib.sha256((project / OUT / name).read_bytes()).hexdigest()
    assert manifest["sample"]["sha256"] == hashlib.sha256(SAMPLE.encode()).hexdigest()
    assert manifest["filled"]["by_track"] == {"t1": 2}
    assert manifest["row_differences"] == {"t1": 1}


def test_equal_predictions_give_equal_archives_whenever_they_are_made(project):
    submit()
    first = (project / OUT / "10-va-1.zip").read_bytes()
    before = os.umask(0o077)  # other modes and another time
    try:
        submit("--overwrite")
    finally:
        os.umask(before)
    assert (project / OUT / "10-va-1.zip").read_bytes() == first
    with zipfile.ZipFile(project / OUT / "10-va-1.zip") as archive:
        assert archive.read("predictions.txt") == (project / OUT / "predictions.txt").read_bytes()
        assert archive.testzip() is None


def test_submitting_twice_is_harmless_and_said(project):
    submit()
    before = everything(project)
    assert "there already" in submit()
    assert everything(project) == before


def test_other_scores_under_the_same_number_are_refused_and_another_number_keeps_both(project):
    submit()
    before = everything(project)
    make_store(project / "predictions/other", "va", {"t1": {"va": np.zeros((4, 2))}})
    after = everything(project)
    result = invoke("submit", "predictions/other")
    assert (result.exit_code, "is there with other predictions" in result.stderr) == (4, True)
    assert "--number 2" in result.stderr
    assert everything(project) == after
    submit("predictions/other", "--number", "2")
    assert before.items() <= everything(project).items()
    assert (project / "submissions/10-va/submission-2/10-va-2.zip").is_file()


def test_overwrite_replaces_the_whole_submission(project):
    submit()
    make_store(project / "predictions/other", "va", {"t1": {"va": np.zeros((4, 2))}})
    submit("predictions/other", "--overwrite")
    assert "t1/00001.jpg,0.000000" in (project / OUT / "predictions.txt").read_text()
    assert len(list((project / "submissions/10-va").iterdir())) == 1


def test_a_submission_damaged_by_hand_is_named_and_not_overwritten_by_accident(project):
    submit()
    path = project / OUT / "predictions.txt"
    path.write_text("mine")
    result = invoke("submit")
    assert (result.exit_code, "predictions.txt was changed since it was written" in result.stderr) == (4, True)
    assert path.read_text() == "mine"
    submit("--overwrite")
    assert path.read_text().startswith("image_location")


def test_a_garbled_manifest_is_a_message_and_can_be_replaced(project):
    submit()
    (project / OUT / "manifest.json").write_text("{")
    assert invoke("submit").exit_code == 4
    submit("--overwrite")
    assert json.loads((project / OUT / "manifest.json").read_text())["task"] == "va"


def test_a_users_own_file_in_the_folder_is_never_lost(project):
    submit()
    (project / OUT / "notes.txt").write_text("mine")
    result = invoke("submit", "--overwrite")
    assert (result.exit_code, "did not write: notes.txt" in result.stderr) == (4, True)
    assert (project / OUT / "notes.txt").read_text() == "mine"


def test_something_else_in_the_way_is_a_message(project):
    (project / "submissions/10-va").mkdir(parents=True)
    (project / OUT).write_text("mine")
    for options in ([], ["--overwrite"]):
        assert invoke("submit", *options).exit_code == 4
    assert (project / OUT).read_text() == "mine"


def test_a_trial_writes_nothing_and_says_what_would_be_written(project):
    before = everything(project)
    said = submit("--dry-run")
    assert "would be written" in said
    assert "2 rows without a prediction of their own" in said
    assert everything(project) == before


# -- rules -------------------------------------------------------------------------------------------------------------
def retrained(project, *records):
    make_store(project / "predictions/r", "va", {"t1": {"va": np.zeros((4, 2))}}, trained_on=list(records))
    return "predictions/r"


@pytest.mark.parametrize(
    ("found", "better"),
    [
        (record("expr"), "finetuned on task va alone"),
        (record("none"), "never saw Aff-Wild2"),
        (undeclared_record("ab" * 32), 'trained_on = ["AffectNet"]'),
    ],
)
def test_models_that_the_rules_do_not_allow_are_refused_with_a_way_out(project, found, better):
    store = retrained(project, record(), found)
    before = everything(project)
    result = invoke("submit", store)
    assert (result.exit_code, "rules of edition 10 may not allow" in result.stderr) == (4, True)
    assert better in result.stderr
    assert "--acknowledge" in result.stderr
    assert everything(project) == before


def test_what_is_acknowledged_is_written_and_noted(project):
    said = submit(retrained(project, record(), record("expr")), "--acknowledge")
    assert "acknowledged: labels of task expr of aff-wild2 (edition 10) were used" in said
    manifest = json.loads((project / OUT / "manifest.json").read_text())
    assert manifest["acknowledged"] == ["labels of task expr of aff-wild2 (edition 10) were used"]
    assert "labels of task expr of aff-wild2" in (project / OUT / "statement.md").read_text()


def test_other_labels_are_free_in_the_ninth_edition(project):
    assert "multi-task: nothing against it" in submit(retrained(project, record("expr")), "--edition", "9")


def test_undeclared_weights_are_a_note_for_compound_expressions(project):
    header = "image_location," + ",".join(TASKS["ce"].heads[0].labels)
    (project / "ce.txt").write_text(f"{header}\nt1/00001.jpg,0\n")
    records = [record("expr"), undeclared_record("ab" * 32)]
    make_store(project / "predictions/e", "expr", {"t1": {"expr": one_hot(4)}}, trained_on=records)
    said = submit("predictions/e", "--task", "ce", "--edition", "9", "--sample", "ce.txt")
    assert "open: nothing against it; note: nobody said" in said


# -- mistakes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--edition", "12"], 3, 'unknown edition "12"'),
        (["--edition", "7"], 3, 'unknown task of this edition "va"'),
        (["--sample", "none.txt"], 4, "the sample file cannot be read"),
        (["--task", "expr"], 4, "this is the header of task va"),
        (["--edition", "3"], 4, "does not belong to task va, edition 3"),
        (["predictions/none"], 4, "there is no predictions store"),
        (["predictions/none"], 4, "there are fuse-va-netease"),
        (["--number", "6"], 2, "--number"),
        (["--number", "0"], 2, "--number"),
    ],
)
def test_mistakes_are_messages_with_their_exit_code_and_write_nothing(project, args, code, message):
    before = everything(project)
    result = invoke("submit", *args)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output
    assert everything(project) == before


def test_a_message_has_three_parts_on_stderr(project):
    result = invoke("submit", "--edition", "12")
    keys = [line.split()[0] for line in result.stderr.splitlines()]
    assert keys == ["error:", "where:", "fix:"]
    assert result.stdout == ""


@pytest.mark.parametrize("text", ["", "image_location,valence,arousal\n", "\n\n"])
def test_an_empty_sample_is_a_message(project, text):
    (project / "sample.txt").write_text(text)
    result = invoke("submit")
    assert (result.exit_code, "sample" in result.stderr) == (4, True)
    assert not (project / "submissions").exists()


def test_tracks_unknown_to_the_predictions_are_listed_with_the_nearest(project):
    (project / "sample.txt").write_text(SAMPLE.replace("t1/", "t1_/") + "zzz/00001.jpg,0,0\n")
    result = invoke("submit")
    assert "2 of 2 tracks of the sample have no predictions: t1_ (nearest to t1_: t1), zzz" in result.stderr
    assert not (project / "submissions").exists()


def test_predictions_of_another_label_order_are_refused(project):
    arrays = {"scores/va": ArraySpec("float32", (2,))}
    header = StoreHeader("predictions", "x", arrays, {}, label_order={"va": ["arousal", "valence"]})
    FeatureStore.create(project / "predictions/x", header)
    result = invoke("submit", "predictions/x")
    assert (result.exit_code, "fit no known task" in result.stderr) == (4, True)


def test_scores_of_another_task_are_refused(project):
    make_store(project / "predictions/e", "expr", {"t1": {"expr": one_hot(0, 0, 0, 0)}})
    result = invoke("submit", "predictions/e")
    assert (result.exit_code, "say nothing about task va" in result.stderr) == (4, True)


def test_bounds_that_let_values_out_of_range_are_refused(project):
    (project / "predictions/fuse-va-netease/post.json").write_text(json.dumps({"clip": [-2.0, 2.0]}))
    result = invoke("submit")
    assert (result.exit_code, "clips values to [-2.0, 2.0]" in result.stderr) == (4, True)
    assert not (project / "submissions").exists()


def test_scores_changed_to_nan_by_hand_are_refused(project):
    import h5py

    with h5py.File(project / "predictions/fuse-va-netease/t1.h5", "r+") as file:
        file["scores/va"][0] = np.nan
    result = invoke("submit")
    assert (result.exit_code, "is not finite" in result.stderr) == (4, True), result.output
    assert not (project / "submissions").exists()


def test_a_sample_that_asks_for_many_more_rows_is_refused(project):
    (project / "sample.txt").write_text(SAMPLE + "t1/20000.jpg,0,0\n")
    result = invoke("submit")
    assert (result.exit_code, "asks for row 20000 of track t1, which has 3 frames" in result.stderr) == (4, True)
    assert not (project / "submissions").exists()


def test_one_tasks_sample_is_not_taken_for_another(project):
    text = (project / "data.toml").read_text() + "[submit.expr]\nedition = '8'\n"
    (project / "data.toml").write_text(text)
    assert "no sample file is given for task expr" in invoke("submit", "--task", "expr").stderr
    submit()


@pytest.mark.parametrize(
    ("name", "settings", "advice"),
    [
        ("fuse-va-netease-folds", {}, "abaw fuse --task va --ensemble fuse-va-netease-folds"),
        ("fuse-va-ensemble-folds", {"members": [{"name": "r-folds"}]}, "name the ensemble itself: "),
    ],
)
def test_out_of_fold_scores_are_not_submitted_but_what_to_do_is_said(project, name, settings, advice):
    more = {"held_out": ["a"], "holdout": [], "out_of_fold": True, "split_file": "s"}
    make_store(project / "predictions" / name, "va", {"a": {"va": np.zeros((4, 2))}}, **settings, **more)
    result = invoke("submit", f"predictions/{name}")
    assert (result.exit_code, advice in result.stderr) == (4, True)


def test_an_output_that_cannot_be_written_to_is_a_message(project):
    (project / "submissions").write_text("a file")
    result = invoke("submit")
    assert (result.exit_code, "could not be written" in result.stderr) == (4, True), result.output


def test_a_full_disk_leaves_nothing_behind(project):
    # a limit on the size of files stands for the disk: the rows of this sample do not fit
    header, rows = SAMPLE.splitlines()[0], [f"t1/{row:05d}.jpg,0,0" for row in range(1, 201)]
    (project / "sample.txt").write_text("\n".join([header, *rows]) + "\n")
    make_store(project / "predictions/long", "va", {"t1": {"va": np.zeros((200, 2))}})
    before = everything(project)

    def limit():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    command = [sys.executable, "-m", "abaw", "submit", "predictions/long"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, cwd=project, check=False)
    assert (done.returncode, "could not be written" in done.stderr) == (4, True), done.stderr
    assert everything(project) == before


# -- checking ----------------------------------------------------------------------------------------------------------
def check(path, *args):
    return invoke("submit", "--check", str(path), *args)


def test_our_own_file_folder_and_archive_pass_the_check(project):
    submit()
    for name in ("", "predictions.txt", "10-va-1.zip"):
        result = check(project / OUT / name)
        assert (result.exit_code, "accepted" in result.stdout) == (0, True), result.output


def test_a_file_made_elsewhere_is_checked_without_any_configuration(project):
    submit()
    (project / "data.toml").unlink()
    options = ("--task", "va", "--edition", "10", "--sample", "sample.txt")
    assert check(project / OUT / "predictions.txt", *options).exit_code == 0


def test_an_offence_is_named_with_its_line_and_exit_code_4(project):
    submit()
    path = project / "theirs.txt"
    path.write_text((project / OUT / "predictions.txt").read_text().replace("0.500000", "1.5", 1))
    result = check(path)
    assert result.exit_code == 4
    assert "1 offence:" in result.stdout
    assert "line 2" in result.stdout
    found = json.loads(check(path, "--json").stdout)
    assert (found["ok"], found["count"], found["offences"][0]["line"]) == (False, 1, 2)


def test_of_many_offences_ten_are_shown_and_all_are_counted(project):
    (project / "sample.txt").write_text("\n".join([SAMPLE.splitlines()[0], *(f"t/{n:05d}.jpg" for n in range(1, 16))]))
    (project / "theirs.txt").write_text(
        "\n".join([SAMPLE.splitlines()[0], *(f"t/{n:05d}.jpg,9,0" for n in range(1, 16)), ""])
    )
    said = check(project / "theirs.txt").stdout
    assert "15 offences, the first 10:" in said
    assert said.count("outside [-1, 1]") == 10


def test_the_check_writes_nothing(project):
    submit()
    before = everything(project)
    check(project / OUT / "predictions.txt")
    assert everything(project) == before


def test_a_submission_changed_by_hand_fails_the_check_by_its_manifest(project):
    submit()
    path = project / OUT / "predictions.txt"
    path.write_text(path.read_text().replace("0.250000", "0.260000"))
    result = check(project / OUT)
    assert (result.exit_code, "predictions.txt was changed since it was written" in result.stdout) == (4, True)


def test_checking_what_is_not_there_is_a_message(project):
    result = check(project / "none.txt")
    assert (result.exit_code, "error:" in result.stderr) == (4, True)


# -- the statement -----------------------------------------------------------------------------------------------------
GOLDEN = Path(__file__).parents[2] / "golden/v1"


@pytest.fixture
def golden(project):
    """The golden run's predictions, with its features and faces on this machine."""
    import shutil

    for name in ("features", "runs", "predictions"):
        shutil.copytree(GOLDEN / name, project / name, dirs_exist_ok=True)
    return project


def test_the_statement_follows_scores_to_run_features_and_faces(golden):
    store = FeatureStore.open(golden / "predictions/fuse-va-linear")
    track = store.track_ids()[0]
    rows = [f"{track}/{row:05d}.jpg,0,0" for row in range(1, store.num_rows(track) + 1)]
    (golden / "sample.txt").write_text("\n".join([SAMPLE.splitlines()[0], *rows]) + "\n")
    submit("predictions/fuse-va-linear", "--acknowledge")
    text = (golden / OUT / "statement.md").read_text()
    assert "**fuse-va-linear** (`abaw fuse`" in text
    assert "**visual-landmarks** (visual): landmarks" in text
    assert "detector: mtcnn" in text
    assert store.header.settings["weights"] in text


def test_the_statement_says_what_is_not_on_this_machine(project):
    submit()
    text = (project / OUT / "statement.md").read_text()
    assert "## Not known here\n\n- run fuse-va-netease: not on this machine" in text


def test_the_statement_names_foreign_weights_and_what_they_have_seen(project):
    submit(retrained(project, record(), undeclared_record("ab" * 32, ["AffectNet"])))
    text = (project / OUT / "statement.md").read_text()
    assert f"`{'ab' * 32}`: not found in what is here; labels seen: AffectNet, as their user says" in text


def test_the_statement_names_thresholds_and_where_they_were_chosen(project):
    header = "image_location," + ",".join(AU_LABELS)
    (project / "au.txt").write_text(f"{header}\nt1/00001.jpg" + ",0" * 12 + "\n")
    make_store(project / "predictions/a", "au", {"t1": {"au": np.full((1, 12), 0.4)}})
    post = {"thresholds": {"au": [0.3, *[0.5] * 11]}, "fitted_on": "40 recordings"}
    (project / "predictions/a/post.json").write_text(json.dumps(post))
    submit("predictions/a", "--task", "au", "--sample", "au.txt")
    text = (project / "submissions/10-au/submission-1/statement.md").read_text()
    assert "AU1 0.3, AU2 0.5" in text
    assert "chosen on 40 recordings" in text
    written = (project / "submissions/10-au/submission-1/predictions.txt").read_text()
    assert written.splitlines()[1] == "t1/00001.jpg,1" + ",0" * 11


def test_the_same_submission_gives_the_same_statement(project):
    submit()
    first = (project / OUT / "statement.md").read_bytes()
    submit("--overwrite")
    assert (project / OUT / "statement.md").read_bytes() == first


def test_submitting_does_not_import_torch(project):
    code = (
        "import sys; from abaw.cli import app; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(app, ['submit']).exit_code == 0;"
        "print([name for name in ('torch', 'av', 'matplotlib', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project, check=True)
    assert done.stdout.strip() == "[]"
