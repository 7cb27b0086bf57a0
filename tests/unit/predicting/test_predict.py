"""`abaw predict` on a small trained project: what it scores with, what it writes, and what it does not do twice."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from abaw.console import Summary
from abaw.errors import AbawError, ExitCode
from abaw.postprocess import Post, save_post
from abaw.predicting import run
from abaw.store import FeatureStore
from tests.unit.predicting.project import config

VA, EXPR = "fuse-va-netease", "finetune-expr-vit_tiny_64"


def predict(root: Path, *videos: Path, out: Path, **options: object) -> Summary:
    return run(config(root), videos, out=out, **options)  # type: ignore[arg-type]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores_of(work: Path, task: str) -> np.ndarray:
    """Scores of the only track."""
    store = FeatureStore.open(work / "predictions" / task)
    (track,) = store.track_ids()
    return store.read(track, f"scores/{task}")


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


# -- scores ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def known(trained, tmp_path_factory):
    """The project's own validation video, under another name, scored by the default runs."""
    root = tmp_path_factory.mktemp("known")
    video = Path(shutil.copy(trained / "videos" / "v1.mp4", root / "holiday film.mp4"))
    return root / "out", predict(trained, video, out=root / "out")


@pytest.mark.parametrize(("task", "name"), [("va", VA), ("expr", EXPR)])
def test_a_video_of_the_training_set_gets_the_scores_that_the_run_wrote_for_it(trained, known, task, name):
    wrote = FeatureStore.open(trained / "predictions" / name).read("v1", f"scores/{task}")
    np.testing.assert_array_equal(scores_of(known[0] / "work", task), wrote)


def test_by_default_a_fusion_is_taken_before_a_model_of_single_faces(known):
    assert {task: model["run"] for task, model in known[1].data["models"].items()} == {"va": VA, "expr": EXPR}


def test_the_table_has_a_row_for_every_frame_with_time_box_and_values(trained, known):
    rows = table(known[0] / "holiday film.csv")
    faces = FeatureStore.open(trained / "features" / "faces")
    values = FeatureStore.open(trained / "predictions" / VA).read("v1", "scores/va")
    assert [row["frame"] for row in rows] == [str(frame) for frame in range(12)]
    assert {(row["video"], row["person"], row["valid"], row["reason"]) for row in rows} == {
        ("holiday film.mp4", "1", "1", "valid")
    }
    np.testing.assert_allclose([float(row["time"]) for row in rows], np.arange(12) / 25, atol=1e-4)
    box = [[float(row[name]) for name in ("x0", "y0", "x1", "y1")] for row in rows]
    np.testing.assert_allclose(box, faces.read("v1", "box"), atol=0.051)
    found = [[float(row["valence"]), float(row["arousal"])] for row in rows]
    np.testing.assert_allclose(found, np.clip(values, -1, 1), atol=5.1e-5)


def test_the_expression_of_a_row_is_the_most_probable_one(known):
    for row in table(known[0] / "holiday film.csv"):
        shares = {name.removeprefix("expr_"): float(row[name]) for name in row if name.startswith("expr_")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert shares[row["expr"]] == max(shares.values())


def test_what_the_models_saw_and_what_they_are_not_for_is_said(known):
    out, summary = known
    lines, text = dict(summary.lines), (out / "about.txt").read_text()
    assert "must not be used to judge people" in lines["notice"]
    assert lines["notice"] in text
    for told in ([value for key, value in summary.lines if key == "trained on"], text.splitlines()):
        assert any("Labels va of three (edition 10): the official training set." in line for line in told)
        assert any("Labels expr of three" in line for line in told)
    assert summary.data["trained_on"]["va"][0]["dataset"] == "three"


# -- what is in a video ------------------------------------------------------------------------------------------------
def test_a_silent_video_is_scored_by_its_picture_alone(trained, clip, tmp_path):
    predict(trained, clip("silent.mp4", sound=None), out=tmp_path / "out")
    sound = FeatureStore.open(tmp_path / "out" / "work" / "features" / "audio-logmel")
    assert not sound.valid(sound.track_ids()[0]).any()
    assert all(row["valence"] for row in table(tmp_path / "out" / "silent.csv"))


def test_a_frame_without_a_face_has_a_reason_no_box_and_only_what_sound_tells(
    trained, clip, tmp_path, face_pictures, blank
):
    pictures = [*face_pictures[:6], *[blank] * 6]
    predict(trained, clip("gone.mp4", pictures), out=tmp_path / "out")
    last = table(tmp_path / "out" / "gone.csv")[-1]
    assert (last["valid"], last["reason"], last["x0"], last["expr"], last["expr_Fear"]) == ("0", "no_face", "", "", "")
    assert last["valence"]  # the fusion hears the tone


def test_a_video_without_any_face_or_sound_has_rows_without_values(trained, clip, tmp_path, blank):
    summary = predict(trained, clip("empty.mp4", [blank] * 5, None), out=tmp_path / "out")
    rows = table(tmp_path / "out" / "empty.csv")
    assert summary.exit_code == ExitCode.OK
    assert len(rows) == 5
    assert {row["valence"] + row["expr"] + row["valid"] for row in rows} == {"0"}


def test_all_faces_gives_each_person_rows_of_their_own(trained, clip, tmp_path, pair_pictures):
    summary = predict(trained, clip("pair.mp4", pair_pictures), out=tmp_path / "out", all_faces=True)
    rows = table(tmp_path / "out" / "pair.csv")
    middle = {row["person"]: (float(row["x0"]) + float(row["x1"])) / 2 for row in rows}
    assert sorted(middle) == ["1", "2"]
    assert summary.data["videos"][0]["people"] == 2
    assert sorted(x > 120 for x in middle.values()) == [False, True]
    assert len(rows) == 24
    assert all(row["valid"] == "1" for row in rows)


@pytest.mark.parametrize("name", ["a_left.mp4", "b_person1.mp4", "глаза, 2.mp4", "-c.MP4", "d.movie"])
def test_a_video_may_be_called_anything(trained, clip, tmp_path, name):
    source = clip("plain.mp4")
    video = source.rename(source.with_name(name))
    summary = predict(trained, video, out=tmp_path / "out", runs=[EXPR])
    assert not summary.failed
    assert table(tmp_path / "out" / f"{video.stem}.csv")[0]["video"] == name


def test_two_videos_of_one_name_have_tables_of_their_own(trained, clip, tmp_path, blank):
    videos = [clip("a/clip.mp4", [blank] * 4), clip("b/clip.mp4", [blank] * 7)]
    predict(trained, *videos, out=tmp_path / "out", runs=[EXPR])
    found = sorted((len(table(path)), path.name == "clip.csv") for path in (tmp_path / "out").glob("*.csv"))
    assert found == [(4, True), (7, False)]


# -- failures ----------------------------------------------------------------------------------------------------------
def test_a_video_that_fails_is_listed_and_the_others_go_on(trained, clip, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    summary = predict(trained, bad, clip("good.mp4"), tmp_path / "lost.mp4", out=tmp_path / "out", runs=[EXPR])
    assert summary.exit_code == ExitCode.PARTIAL
    assert sorted(Path(one.track_id).name for one in summary.failed) == ["bad.mp4", "lost.mp4"]
    assert [path.name for path in (tmp_path / "out").glob("*.csv")] == ["good.csv"]


def test_no_file_at_all_is_an_error_before_anything_is_written(trained, tmp_path):
    with pytest.raises(AbawError, match="there is no such file"):
        predict(trained, tmp_path / "lost.mp4", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- a second time -----------------------------------------------------------------------------------------------------
def test_a_second_run_makes_nothing_again(trained, clip, tmp_path):
    video, out = clip("clip.mp4"), tmp_path / "out"
    predict(trained, video, out=out, timeline=True)
    kept = {name: told for name, told in files(out).items() if not name.endswith(("about.txt", "record.json"))}
    summary = predict(trained, video, out=out, timeline=True)
    now = files(out)
    assert all(now[name] == told for name, told in kept.items())
    assert any("there already" in value for _, value in summary.lines)


def test_a_file_that_changed_since_is_scored_anew(trained, clip, tmp_path, blank):
    out = tmp_path / "out"
    predict(trained, clip("clip.mp4", [blank] * 4), out=out, runs=[EXPR])
    predict(trained, clip("clip.mp4", [blank] * 7), out=out, runs=[EXPR])
    assert [path.name for path in out.glob("*.csv")] == ["clip.csv"]
    assert len(table(out / "clip.csv")) == 7


def test_scores_of_other_models_are_refused_in_the_same_folder(trained, clip, tmp_path):
    video, out = clip("clip.mp4"), tmp_path / "out"
    predict(trained, video, out=out, runs=[EXPR])
    with pytest.raises(AbawError, match="made in another way"):
        predict(trained, video, out=out, runs=[VA])
    predict(trained, video, out=out, runs=[VA], overwrite=True)
    assert "valence" in table(out / "clip.csv")[0]
    assert "expr" not in table(out / "clip.csv")[0]


def test_a_file_that_somebody_else_made_is_not_replaced(trained, clip, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "clip.csv").write_text("mine\n")
    summary = predict(trained, clip("clip.mp4"), out=out, runs=[EXPR])
    assert summary.exit_code == ExitCode.PARTIAL
    assert "was not made by this command" in summary.failed[0].message
    assert (out / "clip.csv").read_text() == "mine\n"


# -- post-processing ---------------------------------------------------------------------------------------------------
def test_post_processing_that_was_tuned_for_the_run_is_used_unless_raw(project, clip, tmp_path):
    save_post(project / "predictions" / VA, Post(clip=(-0.001, 0.001)))
    video = clip("clip.mp4")
    predict(project, video, out=tmp_path / "tuned", runs=[VA])
    predict(project, video, out=tmp_path / "raw", runs=[VA], raw=True)
    tuned, raw = (
        [abs(float(row["valence"])) for row in table(tmp_path / name / "clip.csv")] for name in ("tuned", "raw")
    )
    assert max(tuned) <= 0.001 < max(raw)


def test_post_processing_of_weights_that_are_gone_is_left_aside(project, clip, tmp_path):
    save_post(project / "predictions" / VA, Post(clip=(-0.001, 0.001)))
    stores = project / "predictions"
    (stores / VA / "store.json").write_bytes((stores / "finetune-va-vit_tiny_64" / "store.json").read_bytes())
    predict(project, clip("clip.mp4"), out=tmp_path / "out", runs=[str(project / "runs" / VA)])
    assert max(abs(float(row["valence"])) for row in table(tmp_path / "out" / "clip.csv")) > 0.001
