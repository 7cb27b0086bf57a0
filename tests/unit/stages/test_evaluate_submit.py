"""Evaluation and submission of a small predictions store, through the command line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.store import ArraySpec, FeatureStore, StoreHeader

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


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    for split, name in (("Train_Set", "a"), ("Validation_Set", "v1")):
        path = tmp_path / "VA" / split / f"{name}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("valence,arousal\n0,0.1\n0.5,0.2\n1,0.3\n-5,-5\n")
    (tmp_path / "test.txt").write_text("t1\n")
    (tmp_path / "sample.txt").write_text(SAMPLE)
    (tmp_path / "data.toml").write_text(TOML)
    header = StoreHeader(
        "predictions",
        "fuse-va-netease",
        {"scores/va": ArraySpec("float32", (2,))},
        {"run": "x"},
        label_order={"va": ["valence", "arousal"]},
    )
    store = FeatureStore.create(tmp_path / "predictions/fuse-va-netease", header)
    truth = np.array([[0, 0.1], [0.5, 0.2], [1, 0.3], [0, 0]], np.float32)
    store.write("v1", {"valid": np.ones(4, bool), "scores/va": truth}, fps=25)
    gappy = np.array([[0.25, 0.5], [0, 0], [2, -2]], np.float32)
    store.write("t1", {"valid": np.array([True, False, True]), "scores/va": gappy}, fps=25)
    return tmp_path


def invoke(*args):
    return CliRunner().invoke(app, list(args))


def test_perfect_predictions_score_one(project):
    result = invoke("evaluate", "--json")
    (entry,) = json.loads(result.stdout)["results"]
    assert entry["metrics"]["score"] == pytest.approx(1)
    assert (entry["num_rows"], entry["num_tracks"], entry["coverage"]) == (3, 1, 1.0)


def test_evaluation_needs_no_recordings(project):
    (project / "videos").rmdir()
    assert invoke("evaluate").exit_code == 0


def test_the_table_names_the_official_score_first(project):
    assert invoke("evaluate").stdout.splitlines() == [
        "fuse-va-netease: mean CCC 1.0000",
        "  1 tracks, 3 labelled rows, 100.0% with data of their own",
        "  valence 1.000  arousal 1.000",
    ]


def test_submit_runs_bare_and_writes_row_for_row(project):
    result = invoke("submit")
    assert result.exit_code == 0, result.output
    written = (project / "submissions/10-va/predictions.txt").read_text()
    # row 2 has no score: held from row 1; row 3 is clipped; row 4 lies past the track's end: the last score again
    assert written == (
        "image_location,valence,arousal\n"
        "t1/00001.jpg,0.250000,0.500000\n"
        "t1/00002.jpg,0.250000,0.500000\n"
        "t1/00003.jpg,1.000000,-1.000000\n"
        "t1/00004.jpg,1.000000,-1.000000\n"
    )
    assert "2 rows without a prediction of their own" in result.stdout


def test_flags_override_the_table(project):
    result = invoke("submit", "--edition", "9", "--sample", "sample.txt")
    assert result.exit_code == 0
    assert (project / "submissions/9-va/predictions.txt").is_file()


def test_submitting_twice_is_harmless(project):
    assert invoke("submit").exit_code == invoke("submit").exit_code == 0


def test_a_changed_submission_is_not_overwritten_by_accident(project):
    invoke("submit")
    path = project / "submissions/10-va/predictions.txt"
    path.write_text("mine")
    assert invoke("submit").exit_code == 4
    assert path.read_text() == "mine"
    assert invoke("submit", "--overwrite").exit_code == 0


def test_evaluate_and_submit_use_the_same_post_json(project):
    post = {"half_width": {"va": 0}, "thresholds": {}, "clip": [-0.5, 0.5], "fitted_on": "test"}
    (project / "predictions/fuse-va-netease/post.json").write_text(json.dumps(post))
    invoke("submit")
    assert "0.500000,-0.500000" in (project / "submissions/10-va/predictions.txt").read_text()
    assert json.loads(invoke("evaluate", "--json").stdout)["results"][0]["metrics"]["score"] < 1
    raw = json.loads(invoke("evaluate", "--json", "--raw").stdout)["results"][0]["metrics"]["score"]
    assert raw == pytest.approx(1)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["submit", "--edition", "12"], 3, 'unknown edition "12"'),
        (["submit", "--edition", "7"], 3, 'unknown task of this edition "va"'),
        (["submit", "--sample", "none.txt"], 4, "the sample file cannot be read"),
        (["submit", "--task", "expr"], 4, "does not belong to task expr"),
        (["submit", "predictions/none"], 4, "there is no predictions store"),
        (["evaluate", "predictions/none"], 4, "there is no predictions store"),
        (["evaluate", "-c", "none.toml"], 3, "there is no configuration file"),
        (["evaluate", "--set", "evaluate.au_masc=1"], 3, 'did you mean "au_mask"?'),
        (["inspect", "none"], 4, "does not exist"),
        (["inspect", "videos"], 4, "is no store, checkpoint or run folder"),
        (["nonsense"], 2, "No such command"),
        (["evaluate", "--nonsense"], 2, "No such option"),
    ],
)
def test_mistakes_are_messages_with_their_exit_code(project, args, code, message):
    before = sorted(str(path) for path in project.rglob("*"))
    result = invoke(*args)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output
    assert sorted(str(path) for path in project.rglob("*")) == before


def test_a_message_has_three_parts_on_stderr(project):
    result = invoke("submit", "--edition", "12")
    keys = [line.split()[0] for line in result.stderr.splitlines()]
    assert keys == ["error:", "where:", "fix:"]
    assert result.stdout == ""


def test_a_track_unknown_to_the_predictions_names_the_nearest(project):
    (project / "sample.txt").write_text(SAMPLE.replace("t1/", "t1_/"))
    result = invoke("submit")
    assert "t1_" in result.stderr
    assert "nearest to t1_: t1" in result.stderr


def test_a_label_file_of_the_wrong_task_is_named(project):
    (project / "VA/Validation_Set/v1.txt").write_text("AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26\n")
    result = invoke("evaluate")
    assert result.exit_code == 4
    assert "holds labels of au, not of va" in result.stderr


def test_a_predictions_store_of_unknown_labels_is_refused(project):
    arrays = {"scores/va": ArraySpec("float32", (2,))}
    order = {"va": ["valence", "arousel"]}
    FeatureStore.create(project / "predictions/x", StoreHeader("predictions", "x", arrays, {}, label_order=order))
    result = invoke("evaluate", "predictions/x")
    assert (result.exit_code, "fit no known task" in result.stderr) == (4, True)


def test_inspect_describes_a_store_and_verifies_it(project):
    result = invoke("inspect", "predictions/fuse-va-netease", "--verify")
    assert result.exit_code == 0
    assert "2, 7 rows, 6 of them valid" in result.stdout
    assert "2 of 2 tracks read whole" in result.stdout


def test_inspect_reports_a_damaged_track_and_goes_on(project):
    path = project / "predictions/fuse-va-netease/t1.h5"
    path.write_bytes(path.read_bytes()[:1000])
    result = invoke("inspect", "predictions/fuse-va-netease", "--verify")
    assert result.exit_code == 6
    assert "failed: t1" in result.stderr
    assert "1 of 2 tracks read whole" in result.stdout


def test_inspect_describes_one_track(project):
    assert "float32[3, 2]" in invoke("inspect", "predictions/fuse-va-netease/t1.h5").stdout


def test_smoothing_does_not_depend_on_how_many_rows_the_sample_asks_for(project):
    post = {"half_width": {"va": 3}, "thresholds": {}, "clip": [-1.0, 1.0], "fitted_on": "test"}
    (project / "predictions/fuse-va-netease/post.json").write_text(json.dumps(post))
    invoke("submit")
    whole = (project / "submissions/10-va/predictions.txt").read_text().splitlines()
    (project / "sample.txt").write_text("\n".join(SAMPLE.splitlines()[:3]) + "\n")
    invoke("submit", "--overwrite")
    assert (project / "submissions/10-va/predictions.txt").read_text().splitlines() == whole[:3]


def test_a_track_without_any_scored_row_gets_neutral_answers_and_is_counted(project):
    store = FeatureStore.open(project / "predictions/fuse-va-netease")
    store.write("t1", {"valid": np.zeros(3, bool), "scores/va": np.zeros((3, 2), np.float32)}, fps=25)
    result = invoke("submit")
    assert result.exit_code == 0
    assert "t1/00001.jpg,0.000000,0.000000" in (project / "submissions/10-va/predictions.txt").read_text()
    assert "4 rows without a prediction of their own" in result.stdout


def test_one_tasks_sample_is_not_taken_for_another(project):
    text = (project / "data.toml").read_text() + "[submit.expr]\nedition = '8'\n"
    (project / "data.toml").write_text(text)
    assert "no sample file is given for task expr" in invoke("submit", "--task", "expr").stderr
    assert invoke("submit").exit_code == 0


def test_a_configured_folder_holds_one_folder_per_edition_and_task(project):
    assert invoke("submit", "--set", "submit.output=handed-in").exit_code == 0
    assert (project / "handed-in/10-va/predictions.txt").is_file()


def test_a_sample_that_asks_for_many_more_rows_is_refused(project):
    (project / "sample.txt").write_text(SAMPLE + "t1/20000.jpg,0,0\n")
    result = invoke("submit")
    assert (result.exit_code, "asks for row 20000 of track t1, which has 3 frames" in result.stderr) == (4, True)
    assert not (project / "submissions").exists()


def test_a_sample_one_row_longer_is_settled_and_said(project):
    assert "1 tracks have sample rows unlike their frames: t1 +1" in invoke("submit").stdout


def test_a_folder_in_the_way_of_the_file_is_a_message(project):
    (project / "submissions/10-va/predictions.txt").mkdir(parents=True)
    assert invoke("submit").exit_code == 4


def test_thresholds_that_do_not_fit_the_units_are_refused(project):
    path = project / "predictions/fuse-va-netease/post.json"
    path.write_text(json.dumps({"thresholds": {"va": [0.5]}}))
    result = invoke("evaluate")
    assert (result.exit_code, "1 thresholds for the 2 outputs of va" in result.stderr) == (4, True)


def of_folds(project, name, tracks, **settings):
    """A predictions store whose header says that it is of folds."""
    arrays = {"scores/va": ArraySpec("float32", (2,))}
    order = {"va": ["valence", "arousal"]}
    header = StoreHeader("predictions", name, arrays, {"run": name, **settings}, label_order=order)
    store = FeatureStore.create(project / "predictions" / name, header)
    for track_id in tracks:
        store.write(track_id, {"valid": np.ones(4, bool), "scores/va": np.full((4, 2), 0.5, np.float32)}, fps=25)


def test_an_ensemble_of_folds_is_submitted(project):
    of_folds(project, "fuse-va-ensemble", ["t1"], members=[{"name": "r-folds"}], holdout=[], out_of_fold=True)
    result = invoke("submit", "predictions/fuse-va-ensemble")
    assert result.exit_code == 0, result.output
    assert "t1/00004.jpg,0.500000,0.500000" in (project / "submissions/10-va/predictions.txt").read_text()


def test_out_of_fold_scores_are_not_submitted_but_what_to_do_is_said(project):
    of_folds(project, "fuse-va-netease-folds", ["a"], held_out=["a"], holdout=[], out_of_fold=True, split_file="s")
    result = invoke("submit", "predictions/fuse-va-netease-folds")
    assert result.exit_code == 4
    assert "abaw fuse --task va --ensemble fuse-va-netease-folds" in result.stderr


def test_out_of_fold_scores_of_an_ensemble_name_the_ensemble(project):
    settings = {"held_out": ["a"], "holdout": [], "out_of_fold": True, "split_file": "s"}
    of_folds(project, "fuse-va-ensemble-folds", ["a"], members=[{"name": "r-folds"}], **settings)
    result = invoke("submit", "predictions/fuse-va-ensemble-folds")
    assert result.exit_code == 4
    assert "name the ensemble itself: " in result.stderr


def test_submit_says_whether_the_scores_were_treated(project):
    assert "no post.json: the scores as they are" in invoke("submit").stdout
    post = {"clip": [-0.5, 0.5], "fitted_on": "40 recordings"}
    (project / "predictions/fuse-va-netease/post.json").write_text(json.dumps(post))
    assert "post.json, fitted on 40 recordings" in invoke("submit", "--overwrite").stdout
    post = {"fitted_on": "40 recordings", "kept_raw": ["va"]}
    (project / "predictions/fuse-va-netease/post.json").write_text(json.dumps(post))
    assert "post.json changes nothing, fitted on 40 recordings" in invoke("submit", "--overwrite").stdout
