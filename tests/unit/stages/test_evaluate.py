"""`abaw evaluate` of small predictions stores and files, through the command line."""

import json
import logging
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.config_file import load_config
from abaw.stages import evaluate
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS
from tests.unit.evaluation.small_set import (
    random_labels,
    random_scores,
    reference,
    write_faces,
    write_labels,
    write_scores,
)

TOML = """
[data]
annotations = { va = "VA" }
"""
TRUTH = np.array([[0, 0.1], [0.5, 0.2], [1, 0.3], [0, 0]], np.float32)


def va_store(root, name, tracks, **settings):
    return write_scores(root, name, "va", {track: {"va": own} for track, own in tracks.items()}, **settings)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """One video with four rows, the last not annotated, and perfect scores of it."""
    monkeypatch.chdir(tmp_path)
    for split, name in (("Train_Set", "a"), ("Validation_Set", "v1")):
        path = tmp_path / "VA" / split / f"{name}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("valence,arousal\n0,0.1\n0.5,0.2\n1,0.3\n-5,-5\n")
    (tmp_path / "data.toml").write_text(TOML)
    va_store(tmp_path, "fuse-va-netease", {"v1": TRUTH, "t1": np.zeros((3, 2), np.float32)})
    return tmp_path


SIZES = {"v1": 40, "v2_left": 30, "v2_right": 31, "v3": 25, "a-rather-long-name-of-a-video-of-somebody-else": 12}


def larger(root, task, *names):
    """Five videos of four recordings, a store of scores for each name. Returns labels and scores."""
    rng, heads = np.random.default_rng(0), TASKS[task].heads
    labels = {
        track: {head.name: random_labels(head, rows, rng, missing=0.02) for head in heads}
        for track, rows in SIZES.items()
    }
    (root / "data.toml").write_text(f'[data]\nannotations = {{ {task} = "labels" }}\n')
    write_labels(root, task, {track: np.hstack(list(own.values())) for track, own in labels.items()})
    stores = {}
    for name in names:
        stores[name] = {
            track: {head.name: random_scores(head, own[head.name], rng) for head in heads}
            for track, own in labels.items()
        }
        write_scores(root, name, task, stores[name])
    return labels, stores


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*args):
    return CliRunner().invoke(app, list(args))


def results(*args):
    result = invoke("evaluate", "--json", *args)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["results"]


# -- one store -------------------------------------------------------------------------------------------------------
def test_perfect_predictions_score_one(project):
    (entry,) = results()
    assert entry["metrics"]["score"] == pytest.approx(1)
    assert (entry["num_rows"], entry["num_tracks"], entry["coverage"]) == (3, 1, 1.0)


def test_evaluation_needs_no_recordings(project):
    assert not (project / "videos").exists()
    assert invoke("evaluate", "--set", "data.videos=videos").exit_code == 0


def test_the_table_names_the_official_score_first(project):
    assert invoke("evaluate").stdout.splitlines() == [
        "fuse-va-netease: mean CCC 1.0000",
        "  1 tracks, 3 labelled rows, 100.0% with data of their own",
        "  all of them with a face, by scores of their own",
        "  no intervals: all rows are of one recording",
        "  valence 1.000  arousal 1.000",
    ]


def test_the_official_score_comes_with_its_interval(folder):
    larger(folder, "va", "p")
    (entry,) = results()
    low, high = entry["intervals"]["score"]
    first = invoke("evaluate").stdout.splitlines()[0]
    assert first == f"p: mean CCC {entry['metrics']['score']:.4f} [{low:.3f}, {high:.3f}]"


@pytest.mark.parametrize("task", ["va", "expr", "au", "mtl", "ce"])
def test_the_table_fits_a_hundred_columns(folder, task):
    _, stores = larger(folder, task, "fuse-with-a-name-of-some-length-a", "fuse-with-a-name-of-some-length-b")
    valid = {name: np.arange(rows) > (2 if rows > 25 else rows) for name, rows in SIZES.items()}
    write_scores(folder, "fuse-with-gaps", task, stores["fuse-with-a-name-of-some-length-a"], valid)
    write_faces(folder, valid)
    text = invoke("evaluate", "--against", "predictions/fuse-with-a-name-of-some-length-b").stdout
    assert max(map(len, text.splitlines())) <= 100
    assert "worst of 5 tracks" in text


def test_the_table_shows_both_countings_and_where_gaps_are(folder):
    labels, stores = larger(folder, "va", "p")
    valid = {name: np.arange(rows) > 2 for name, rows in SIZES.items()}
    write_scores(folder, "gappy", "va", stores["p"], valid)
    write_faces(folder, valid)
    text = invoke("evaluate", "predictions/gappy").stdout
    (entry,) = results("predictions/gappy")
    own = entry["countings"]["with_face"]
    assert f"only rows with a face: {own['metrics']['score']:.4f} [" in text
    assert f"of {own['num_rows']} rows, by the faces store" in text
    assert re.search(
        r"\d+ rows without a score repeat the last score before them \(hold\), in 5 tracks\n    most: ", text
    )
    assert entry["coverage"] == pytest.approx(own["num_rows"] / entry["num_rows"])
    assert "95 % intervals by 1000 draws of 4 recordings, which are few" in text


def test_the_confusion_of_classes_is_in_the_table(folder):
    labels, stores = larger(folder, "expr", "p")
    lines = invoke("evaluate").stdout.splitlines()
    start = lines.index("  expr: rows by true class (down) and decision (across)")
    truth = np.concatenate([own["expr"][:, 0] for own in labels.values()])
    decided = np.concatenate([own["expr"].argmax(1) for own in stores["p"].values()])
    anger = [int(((truth == 1) & (decided == k)).sum()) for k in range(8)]
    assert lines[start + 3].split() == ["Anger", *map(str, anger)]


def test_the_worst_videos_come_first(folder):
    labels, stores = larger(folder, "va", "p")
    scores = {
        track: reference(TASKS["va"].heads[0], stores["p"][track]["va"], own["va"]).mean()
        for track, own in labels.items()
    }
    lines = invoke("evaluate").stdout.splitlines()
    start = next(place for place, line in enumerate(lines) if "worst of" in line)
    worst = min(scores, key=scores.get)
    assert lines[start + 2].split()[1] == f"{scores[worst]:.3f}"


@pytest.mark.parametrize(("count", "rough"), [(29, True), (30, False)])
def test_intervals_of_fewer_than_thirty_recordings_are_called_rough(folder, count, rough):
    rng = np.random.default_rng(0)
    tracks = {f"v{number}": rng.uniform(-1, 1, (3, 2)) for number in range(count)}
    write_labels(folder, "va", tracks)
    va_store(folder, "p", tracks)
    (folder / "data.toml").write_text('[data]\nannotations = { va = "labels" }\n')
    assert ("which are few: take them as rough" in invoke("evaluate").stdout) == rough


def test_intervals_can_be_left_out(folder):
    larger(folder, "va", "p")
    (entry,) = results("--set", "evaluate.resamples=0")
    assert (entry["intervals"], entry["resamples"]) == ({}, 0)
    assert "[" not in invoke("evaluate", "--set", "evaluate.resamples=0").stdout


def test_post_json_is_applied_unless_raw(project):
    post = {"half_width": {"va": 0}, "thresholds": {}, "clip": [-0.5, 0.5], "fitted_on": "test"}
    (project / "predictions/fuse-va-netease/post.json").write_text(json.dumps(post))
    assert results()[0]["metrics"]["score"] < 1
    assert results()[0]["treatment"] == {"va": "clipped to -0.5..0.5"}
    assert results("--raw")[0]["metrics"]["score"] == pytest.approx(1)
    assert "  after post.json, fitted on test; --raw leaves it aside" in invoke("evaluate").stdout


def test_scores_are_measured_as_those_of_a_task_that_follows_from_them(folder):
    labels, stores = larger(folder, "mtl", "p")
    root = folder / "only-va"
    root.mkdir()
    write_labels(root, "va", {track: own["va"] for track, own in labels.items()})
    (entry,) = results("--task", "va", "--set", f'data.annotations={{va="{root / "labels"}"}}')
    wanted = reference(
        TASKS["va"].heads[0],
        np.concatenate([own["va"] for own in stores["p"].values()]),
        np.concatenate([own["va"] for own in labels.values()]),
    )
    assert (entry["task"], entry["metrics"]["score"]) == ("va", pytest.approx(wanted.mean(), abs=1e-7))


# -- several ---------------------------------------------------------------------------------------------------------
def test_a_comparison_names_both_and_has_an_interval_and_p(folder):
    larger(folder, "va", "a", "b")
    result = invoke("evaluate", "predictions/a", "--against", "predictions/b", "--json")
    data = json.loads(result.stdout)
    (compared,) = data["comparisons"]
    assert [entry["name"] for entry in data["results"]] == ["a"]
    total = compared["differences"]["score"]
    assert total["difference"] == pytest.approx(total["a"] - total["b"])
    assert total["interval"][0] <= total["difference"] <= total["interval"][1]
    assert 0 < total["p"] <= 1
    text = invoke("evaluate", "predictions/a", "--against", "predictions/b").stdout
    assert f"A = a\nB = b\n  mean CCC A - B: {total['difference']:+.4f} [" in text
    assert f"p = {total['p']:.3f}" in text


def test_all_stores_are_compared_with_one_but_not_that_one_itself(folder):
    larger(folder, "va", "a", "b", "c")
    data = json.loads(invoke("evaluate", "--against", "predictions/b", "--json").stdout)
    assert [(one["a"], one["b"]) for one in data["comparisons"]] == [("a", "b"), ("c", "b")]


def test_of_all_stores_one_of_other_tracks_is_not_compared_and_said(folder, caplog):
    _, stores = larger(folder, "va", "a", "b")
    write_scores(folder, "part", "va", stores["a"], held_out=["v1", "v3"], holdout=[])
    with caplog.at_level(logging.WARNING, logger="abaw"):
        data = evaluate.run(load_config(folder / "data.toml"), against=folder / "predictions/b").data
    assert [(one["a"], one["b"]) for one in data["comparisons"]] == [("a", "b")]
    assert "not compared: b and part are not measured on the same tracks" in caplog.text
    assert invoke("evaluate", "predictions/part", "--against", "predictions/b").exit_code == 4


def test_a_store_against_itself_is_a_tie(folder):
    larger(folder, "va", "a")
    data = json.loads(invoke("evaluate", "predictions/a", "--against", "predictions/a", "--json").stdout)
    assert data["comparisons"][0]["differences"]["score"]["p"] == 1


def test_one_bad_store_of_all_does_not_keep_the_others_from_being_measured(folder):
    larger(folder, "va", "a", "b")
    path = folder / "predictions/a/v3.h5"
    path.write_bytes(path.read_bytes()[:300])
    result = invoke("evaluate")
    assert result.exit_code == 6
    assert result.stdout.startswith("b: mean CCC")
    assert "failed: a: v3.h5 is not a readable track file" in result.stderr
    assert invoke("evaluate", "predictions/a", "predictions/b").exit_code == 4


def test_stores_without_a_measurable_track_are_left_out_with_a_warning(folder, caplog):
    larger(folder, "va", "a")
    va_store(folder, "folds-alone", {"t": TRUTH}, held_out=[], holdout=[])
    with caplog.at_level(logging.WARNING, logger="abaw"):
        names = [one["name"] for one in evaluate.run(load_config(folder / "data.toml")).data["results"]]
    assert names == ["a"]
    assert "folds-alone is left out" in caplog.text


def test_label_rows_past_the_end_are_counted_and_said(folder, caplog):
    labels, stores = larger(folder, "va", "a")
    short = {track: {"va": own["va"][:-1] if track == "v3" else own["va"]} for track, own in stores["a"].items()}
    write_scores(folder, "short", "va", short)
    with caplog.at_level(logging.WARNING, logger="abaw"):
        evaluate.run(load_config(folder / "data.toml"), predictions=[folder / "predictions/short"])
    assert "1 tracks have label rows past the end of their scores, which count too: v3 +1" in caplog.text


# -- mistakes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["predictions/none"], 4, "there is no predictions store"),
        (["predictions/fuse-va-netaese"], 4, "did you mean predictions/fuse-va-netease?"),
        (["fuse-va-netease"], 4, "did you mean predictions/fuse-va-netease?"),
        (["-c", "none.toml"], 3, "there is no configuration file"),
        (["--set", "evaluate.au_masc=1"], 3, 'did you mean "au_mask"?'),
        (["--task", "vaa"], 3, 'unknown task "vaa"'),
        (["--task", "expr"], 4, "which say nothing about task expr"),
        (["--against", "predictions/none"], 4, "there is no predictions store"),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_mistakes_are_messages_with_their_exit_code(project, args, code, message):
    before = sorted(str(path) for path in project.rglob("*"))
    result = invoke("evaluate", *args)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output
    assert sorted(str(path) for path in project.rglob("*")) == before


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


def test_a_store_without_the_labelled_video_names_it(project):
    va_store(project, "lacking", {"t1": TRUTH})
    result = invoke("evaluate", "predictions/lacking")
    assert (result.exit_code, "lacking lacks 1 of 1 val tracks: v1" in result.stderr) == (4, True)


def test_a_label_file_shorter_than_the_predictions_is_refused(project):
    (project / "VA/Validation_Set/v1.txt").write_text("valence,arousal\n0,0.1\n0.5,0.2\n")
    result = invoke("evaluate")
    assert (result.exit_code, "track v1 has 2 label rows but 4 frames" in result.stderr) == (4, True)


def test_labels_that_are_all_missing_are_said(project):
    (project / "VA/Validation_Set/v1.txt").write_text("valence,arousal\n" + "-5,-5\n" * 4)
    result = invoke("evaluate")
    assert (result.exit_code, "no row of the val tracks has a label of task va" in result.stderr) == (4, True)


def test_thresholds_that_do_not_fit_the_units_are_refused(project):
    path = project / "predictions/fuse-va-netease/post.json"
    path.write_text(json.dumps({"thresholds": {"va": [0.5]}}))
    result = invoke("evaluate")
    assert (result.exit_code, "1 thresholds for the 2 outputs of va" in result.stderr) == (4, True)


def test_without_predictions_the_message_says_what_makes_them(folder):
    (folder / "data.toml").write_text(TOML)
    result = invoke("evaluate")
    assert (result.exit_code, "there are no predictions to evaluate" in result.stderr) == (4, True)


# -- files of others -------------------------------------------------------------------------------------------------
def va_rows(labels, stores, name="p"):
    """Mean CCC of a store's scores, by other means than ours."""
    head = TASKS["va"].heads[0]
    scores = np.concatenate([own["va"] for own in stores[name].values()])
    return reference(head, scores, np.concatenate([own["va"] for own in labels.values()])).mean()


def submission(path, tracks, header="image_location,valence,arousal"):
    """A submission file of values by track; every digit that a float32 has."""
    rows = [
        f"{name}/{number:05d}.jpg,{v:.9g},{a:.9g}"
        for name, own in tracks.items()
        for number, (v, a) in enumerate(own["va"].tolist(), start=1)
    ]
    path.write_text("\n".join([header, *rows, ""]))
    return path


def test_a_submission_file_scores_as_the_store_it_was_written_from(folder):
    labels, stores = larger(folder, "va", "p")
    submission(folder / "predictions.txt", stores["p"])
    (entry,) = results("predictions.txt")
    assert (entry["name"], entry["task"]) == ("predictions.txt", "va")
    assert entry["metrics"]["score"] == pytest.approx(va_rows(labels, stores), abs=1e-7)
    result = invoke("evaluate", "predictions.txt", "--against", "predictions/p", "--json")
    assert json.loads(result.stdout)["comparisons"][0]["differences"]["score"]["difference"] == pytest.approx(0)


def test_a_folder_of_a_file_per_video_is_a_submission(folder):
    labels, stores = larger(folder, "va", "p")
    (folder / "handed-in").mkdir()
    for name, own in stores["p"].items():
        rows = [f"{v:.9g},{a:.9g}" for v, a in own["va"].tolist()]
        (folder / f"handed-in/{name}.txt").write_text("\n".join(["valence,arousal", *rows, ""]))
    (entry,) = results("handed-in")
    assert entry["metrics"]["score"] == pytest.approx(va_rows(labels, stores), abs=1e-7)


def test_rows_that_a_file_lacks_are_filled_and_counted(folder):
    labels, stores = larger(folder, "va", "p")
    lines = submission(folder / "predictions.txt", stores["p"]).read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("v3/00024", "v3/00025", "v3/00003"))]
    (folder / "predictions.txt").write_text("\n".join([*kept, ""]))
    (entry,) = results("predictions.txt")
    scores = {name: {"va": own["va"].copy()} for name, own in stores["p"].items()}
    scores["v3"]["va"][[2, 23, 24]] = scores["v3"]["va"][[1, 22, 22]]
    assert entry["metrics"]["score"] == pytest.approx(va_rows(labels, {"p": scores}), abs=1e-7)
    assert sum(entry["gaps"]["tracks"].values()) == int((labels["v3"]["va"][[2, 23, 24]] != -5).all(axis=1).sum())


def test_a_file_without_a_labelled_video_is_refused(folder):
    _, stores = larger(folder, "va", "p")
    submission(folder / "predictions.txt", {name: own for name, own in stores["p"].items() if name != "v3"})
    result = invoke("evaluate", "predictions.txt")
    assert (result.exit_code, "predictions.txt lacks 1 of 5 val tracks: v3" in result.stderr) == (4, True)
    assert "--labels" in result.stderr


def test_a_file_with_more_rows_than_labels_is_refused(folder):
    _, stores = larger(folder, "va", "p")
    longer = {**stores["p"], "v3": {"va": np.zeros((40, 2), np.float32)}}
    submission(folder / "predictions.txt", longer)
    result = invoke("evaluate", "predictions.txt")
    assert (result.exit_code, "track v3 has 25 label rows but 40 frames" in result.stderr) == (4, True)


def test_videos_without_labels_are_left_out_and_said(folder, caplog):
    _, stores = larger(folder, "va", "p")
    submission(folder / "predictions.txt", {**stores["p"], "other": {"va": np.zeros((3, 2), np.float32)}})
    with caplog.at_level(logging.WARNING, logger="abaw"):
        evaluate.run(load_config(folder / "data.toml"), predictions=[folder / "predictions.txt"])
    assert "1 tracks without labels are left out: other" in caplog.text


def test_a_csv_file_is_measured_against_any_folder_of_labels_without_a_configuration(folder):
    labels, stores = larger(folder, "va", "p")
    (folder / "data.toml").unlink()
    flat = folder / "flat"
    flat.mkdir()
    for path in (folder / "labels/Validation_Set").iterdir():
        path.rename(flat / path.name)
    rows = [
        f"{name},{frame},{v:.9g},{a:.9g}"
        for name, own in stores["p"].items()
        for frame, (v, a) in enumerate(own["va"].tolist())
    ]
    (folder / "scores.csv").write_text("\n".join(["track,frame,valence,arousal", *rows, ""]))
    (entry,) = results("--from-csv", "scores.csv", "--labels", "flat")
    assert (entry["name"], entry["num_tracks"]) == ("scores.csv", 5)
    assert entry["metrics"]["score"] == pytest.approx(va_rows(labels, stores), abs=1e-7)
    assert invoke("evaluate", "--from-csv", "scores.csv").exit_code == 3  # without labels the configuration is needed


def test_what_export_writes_of_a_store_scores_as_the_store(folder):
    larger(folder, "va", "p")
    assert invoke("export", "predictions/p", "--format", "csv", "--out", "exported").exit_code == 0
    (own,), (exported,) = results("predictions/p"), results("--from-csv", "exported")
    assert exported["metrics"] == pytest.approx(own["metrics"], abs=1e-6)


def test_a_store_is_measured_against_other_labels(folder):
    labels, stores = larger(folder, "va", "p")
    other = {name: {"va": -np.where(own["va"] == -5, 5, own["va"])} for name, own in labels.items()}
    root = folder / "elsewhere"
    root.mkdir()
    write_labels(root, "va", {name: own["va"] for name, own in other.items()})
    (entry,) = results("predictions/p", "--labels", "elsewhere/labels")
    assert entry["metrics"]["score"] == pytest.approx(va_rows(other, stores), abs=1e-7)


def test_images_of_a_csv_file_find_their_labels_by_path(folder):
    keys = [f"{name}/{number}.jpg" for name in ("anna", "ben") for number in ("first", "second", "third")]
    truth, decided = [0, 1, 1, 7, 7, 3], [0, 1, 7, 7, 7, 3]
    for file, classes in (("labels", truth), ("scores", decided)):
        rows = [f"{key},{number}" for key, number in zip(keys, classes, strict=True)]
        (folder / f"{file}.csv").write_text("\n".join(["path,expression", *rows, ""]))
    (entry,) = results("--from-csv", "scores.csv", "--task", "expr", "--labels", "labels.csv")
    assert entry["metrics"]["score"] == pytest.approx((1 + 2 / 3 + 4 / 5 + 1) / 8)
    assert entry["num_recordings"] == 2


def test_a_file_of_another_task_is_named(folder):
    _, stores = larger(folder, "va", "p")
    submission(folder / "predictions.txt", stores["p"])
    result = invoke("evaluate", "predictions.txt", "--task", "au")
    assert result.exit_code == 4
    assert "va" in result.stderr


def test_labels_that_are_not_there_are_said(folder):
    larger(folder, "va", "p")
    result = invoke("evaluate", "--labels", "nowhere")
    assert (result.exit_code, "nowhere does not exist" in result.stderr) == (4, True)
