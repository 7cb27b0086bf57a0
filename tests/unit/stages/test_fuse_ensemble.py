"""fuse --ensemble: one predictions store from several, its members, its weights and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.config import Config
from abaw.config_file import load_config
from abaw.console import Summary
from abaw.errors import AbawError, ExitCode
from abaw.postprocess import Post, save_post
from abaw.provenance import make_recipe, trained_on_record
from abaw.stages import evaluate
from abaw.stages.fuse.ensemble import run_ensemble
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS
from tests.unit.stages.tiny_set import contents

ROWS = 4
TOML = """
[data]
videos = "videos"
annotations = { va = "VA", expr = "EXPR" }
test = { va = "test.txt", expr = "test.txt" }
"""
TRUTH = np.array([[0.0, 0.1], [0.5, 0.2], [1.0, 0.3], [-0.5, -0.2]], np.float32)
LABELLED = ("a1", "a2", "b1", "b2", "h1")  # two folds of two recordings, and a hold-out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for task, header, rows in (
        ("VA", "valence,arousal", [f"{v:.1f},{a:.1f}" for v, a in TRUTH]),
        ("EXPR", "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other", ["0", "1", "2", "3"]),
    ):
        for split, names in (("Train_Set", LABELLED), ("Validation_Set", ("v1", "v2"))):
            for name in names:
                path = tmp_path / task / split / f"{name}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "test.txt").write_text("x1\n")
    (tmp_path / "data.toml").write_text(TOML)
    return tmp_path


def scores(
    root: Path,
    name: str,
    values: Mapping[str, np.ndarray | float],
    *,
    task: str = "va",
    valid: Mapping[str, Sequence[bool]] | None = None,
    order: Sequence[str] | None = None,
    recipe: str = "a",
    **settings: Any,
) -> FeatureStore:
    """A predictions store; a number stands for scores that are all the same."""
    (head,) = TASKS[task].heads
    header = StoreHeader(
        "predictions",
        name,
        {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,))},
        {"run": name, "weights": "1" * 64, "precision": "fp32", **settings},
        make_recipe({"r": recipe}),
        [trained_on_record(dataset="d", edition="10", labels=task, split_file="official", track_ids=[name])],
        {head.name: list(order or head.labels)},
    )
    store = FeatureStore.create(root / "predictions" / name, header, overwrite=True)
    for track_id, own in values.items():
        block = np.broadcast_to(np.float32(own), (ROWS, head.output_dim)) if np.isscalar(own) else np.asarray(own)
        rows = np.array((valid or {}).get(track_id, [True] * len(block)))
        store.write(track_id, {"valid": rows, f"scores/{head.name}": np.where(rows[:, None], block, 0)}, fps=25)
    return store


def folds(root: Path, run: str, offsets: Sequence[float], *, noise: float = 0.0, clean: bool = True) -> None:
    """A cross-validated run of two folds: scores are the truth plus an offset by fold, on what a fold held out."""
    held_out = (("a1", "a2"), ("b1", "b2"))
    rng = np.random.default_rng(0)
    joined: dict[str, np.ndarray] = {}
    about = {"split_file": "s" * 64, "holdout": ["h1"], "out_of_fold": clean}
    for fold, own in enumerate(held_out):
        found = {name: TRUTH + noise * rng.normal(size=TRUTH.shape).astype(np.float32) for name in (*own, "h1", "x1")}
        found = {name: (block + offsets[fold]).astype(np.float32) for name, block in found.items()}
        scores(root, f"{run}-fold-{fold}", found, **about, fold=fold, held_out=list(own), weights=f"{run}{fold}")
        joined |= {name: found[name] for name in own}
    weights = [f"{run}{fold}" for fold in range(2)]
    about |= {"held_out": sorted(joined), "holdout": []}
    scores(root, f"{run}-folds", joined, **about, weights=weights)


def ensemble(root: Path, *names: str, task: str = "va", sets: Sequence[str] = (), **options: bool) -> Summary:
    return run_ensemble(config(root, *sets), TASKS[task], names, **options)


def config(root: Path, *sets: str) -> Config:
    return load_config(root / "data.toml", overrides=list(sets))


def opened(root: Path, name: str = "fuse-va-ensemble") -> FeatureStore:
    return FeatureStore.open(root / "predictions" / name, kind="predictions")


def refused(root: Path, *names: str, **options: Any) -> AbawError:
    """The refusal, which leaves everything as it was."""
    before = contents(root)
    with pytest.raises(AbawError) as caught:
        ensemble(root, *names, **options)
    assert contents(root) == before
    return caught.value


# -- what it makes -----------------------------------------------------------------------------------------------------
def test_the_mean_of_two_runs_is_a_predictions_store_that_names_them(root: Path) -> None:
    first, second = (
        scores(root, "p", {"v1": 0.2, "v2": 0.4, "x1": 0.6}),
        scores(root, "q", {"v1": 0.4, "v2": 0, "x1": 0}),
    )
    summary = ensemble(root, "p", "q")
    store = opened(root)
    assert store.track_ids() == ["v1", "v2", "x1"]
    assert store.read("v1", "scores/va") == pytest.approx(0.3)
    assert store.header.settings["members"] == [
        {"name": "p", "stores": {"p": first.fingerprint}, "weight": 0.5},
        {"name": "q", "stores": {"q": second.fingerprint}, "weight": 0.5},
    ]
    assert store.header.settings["combine"] == "scores"
    assert store.header.recipe == make_recipe({"r": "a"})
    assert len(store.header.trained_on) == 2
    assert (summary.data["weights"], summary.data["skipped"]) == ([0.5, 0.5], False)


def test_given_weights_belong_to_the_members_as_named(root: Path) -> None:
    scores(root, "p", {"x1": 0.0})
    scores(root, "q", {"x1": 0.8})
    ensemble(root, "q", "p", sets=["fuse.ensemble.weights=[3, 1]"])
    assert opened(root).read("x1", "scores/va") == pytest.approx(0.6)


def test_logits_are_asked_for_by_the_configuration(root: Path) -> None:
    (head,) = TASKS["expr"].heads
    even = np.full((ROWS, 8), 1 / 8, np.float32)
    sure = np.full((ROWS, 8), 0.05, np.float32)
    sure[:, 2] = 0.65
    scores(root, "p", {"x1": even}, task="expr")
    scores(root, "q", {"x1": sure}, task="expr")
    ensemble(root, "p", "q", task="expr", sets=["fuse.ensemble.combine=logits", "fuse.ensemble.name=logs"])
    expected = np.sqrt(sure * even)
    expected /= expected.sum(axis=1, keepdims=True)
    found = opened(root, "fuse-expr-logs").read("x1", f"scores/{head.name}")
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_row_that_one_member_lacks_is_taken_from_the_other(root: Path) -> None:
    scores(root, "p", {"x1": 0.2}, valid={"x1": [True, True, False, False]})
    scores(root, "q", {"x1": 0.6}, valid={"x1": [True, False, True, False]})
    ensemble(root, "p", "q")
    store = opened(root)
    assert store.valid("x1").tolist() == [True, True, True, False]
    assert store.read("x1", "scores/va")[:, 0] == pytest.approx([0.4, 0.2, 0.6, 0])


def test_all_folds_score_unseen_tracks_together_and_held_out_ones_alone(root: Path) -> None:
    folds(root, "r", (0.1, 0.3))
    ensemble(root, "r-folds")
    whole, joined = opened(root), opened(root, "fuse-va-ensemble-folds")
    assert whole.track_ids() == ["h1", "x1"]
    assert whole.read("x1", "scores/va") == pytest.approx(TRUTH + 0.2, abs=1e-6)
    assert joined.track_ids() == ["a1", "a2", "b1", "b2"]
    assert joined.read("a1", "scores/va") == pytest.approx(TRUTH + 0.1, abs=1e-6)
    assert joined.read("b2", "scores/va") == pytest.approx(TRUTH + 0.3, abs=1e-6)
    told = joined.header.settings
    assert (told["held_out"], told["out_of_fold"], told["split_file"]) == (["a1", "a2", "b1", "b2"], True, "s" * 64)
    assert (whole.header.settings["holdout"], "held_out" in whole.header.settings) == (["h1"], False)


def test_a_run_counts_once_however_many_folds_it_has(root: Path) -> None:
    folds(root, "r", (0.0, 0.0))
    scores(root, "s", {"x1": TRUTH + 0.4, "v1": 0.0})
    ensemble(root, "r-folds", "s")
    assert opened(root).read("x1", "scores/va") == pytest.approx(TRUTH + 0.2, abs=1e-6)


def test_out_of_fold_scores_are_marked_where_a_member_leaks(root: Path) -> None:
    folds(root, "r", (0, 0))
    folds(root, "leaky", (0, 0), clean=False)
    ensemble(root, "r-folds", "leaky-folds")
    assert opened(root, "fuse-va-ensemble-folds").header.settings["out_of_fold"] is False
    assert opened(root).header.settings["out_of_fold"] is False


def test_an_ensemble_may_be_a_member(root: Path) -> None:
    folds(root, "r", (0.0, 0.0))
    folds(root, "s", (0.2, 0.2))
    folds(root, "t", (0.5, 0.5))
    ensemble(root, "r-folds", "s-folds", sets=["fuse.ensemble.name=inner"])
    for name in ("fuse-va-inner", "fuse-va-inner-folds"):
        ensemble(root, name, "t-folds", overwrite=True)
        assert opened(root).read("x1", "scores/va") == pytest.approx(TRUTH + 0.3, abs=1e-6)
        assert opened(root, "fuse-va-ensemble-folds").read("a1", "scores/va") == pytest.approx(TRUTH + 0.3, abs=1e-6)


def test_folds_without_unseen_tracks_give_out_of_fold_scores_alone(root: Path) -> None:
    folds(root, "r", (0, 0))
    for fold in range(2):
        for name in ("h1", "x1"):
            (root / f"predictions/r-fold-{fold}/{name}.h5").unlink()
    summary = ensemble(root, "r-folds")
    assert summary.data["stores"] == [str(root / "predictions/fuse-va-ensemble-folds")]
    assert not (root / "predictions/fuse-va-ensemble").exists()


def test_members_are_named_by_store_path_or_run(root: Path) -> None:
    scores(root, "fuse-va-p", {"x1": 0.2})
    scores(root, "fuse-va-q", {"x1": 0.4})
    run = root / "runs" / "fuse-va-q"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    for first in ("fuse-va-p", "predictions/fuse-va-p", str(root / "predictions/fuse-va-p")):
        summary = ensemble(root, first, "runs/fuse-va-q")
        assert summary.data["members"] == ["fuse-va-p", "fuse-va-q"]


def test_tracks_that_not_all_members_score_are_left_out_and_said(root: Path) -> None:
    scores(root, "p", {"v1": 0, "x1": 0})
    scores(root, "q", {"x1": 0})
    assert "1 tracks are left out, since not all members score them: v1" in ensemble(root, "p", "q").data["warnings"][0]


# -- again -------------------------------------------------------------------------------------------------------------
def test_the_same_members_again_change_nothing_in_whatever_order(root: Path) -> None:
    scores(root, "p", {"x1": 0.2})
    scores(root, "q", {"x1": 0.4})
    ensemble(root, "p", "q")
    before = contents(root)
    assert ensemble(root, "q", "p").data["skipped"]
    assert contents(root) == before


def test_a_lost_or_new_track_is_combined_alone(root: Path) -> None:
    first, second = scores(root, "p", {"v1": 0.2, "x1": 0.2}), scores(root, "q", {"v1": 0.4, "x1": 0.4})
    ensemble(root, "p", "q")
    before = contents(root / "predictions/fuse-va-ensemble")
    (root / "predictions/fuse-va-ensemble/x1.h5").unlink()
    assert ensemble(root, "p", "q", dry_run=True).data["state"] == "1 tracks to combine"
    ensemble(root, "p", "q")
    assert contents(root / "predictions/fuse-va-ensemble") == before
    for store in (first, second):
        store.write("x2", {"valid": np.ones(ROWS, bool), "scores/va": np.zeros((ROWS, 2), np.float32)}, fps=25)
    assert not ensemble(root, "p", "q").data["skipped"]
    assert opened(root).track_ids() == ["v1", "x1", "x2"]


def test_a_member_trained_again_is_refused_until_overwrite(root: Path) -> None:
    scores(root, "p", {"x1": 0.2})
    scores(root, "q", {"x1": 0.4})
    ensemble(root, "p", "q")
    save_post(root / "predictions/fuse-va-ensemble", Post(clip=(-0.5, 0.5)))
    scores(root, "q", {"x1": 0.8}, weights="2" * 64)
    error = refused(root, "p", "q")
    assert "members.q.stores.q" in error.what
    assert "--overwrite" in error.fix
    ensemble(root, "p", "q", overwrite=True)
    assert opened(root).read("x1", "scores/va") == pytest.approx(0.5)
    assert not (root / "predictions/fuse-va-ensemble/post.json").exists()  # it was chosen for other scores


def test_another_member_or_setting_is_refused_until_overwrite(root: Path) -> None:
    for name in "pqr":
        scores(root, name, {"x1": 0.2})
    ensemble(root, "p", "q")
    assert "members.r" in refused(root, "p", "r").what
    assert (
        'weighting: "equal" recorded, "given" now'
        in refused(root, "p", "q", sets=["fuse.ensemble.weights=[1, 2]"]).what
    )


def test_out_of_fold_scores_of_former_members_do_not_stay(root: Path) -> None:
    folds(root, "r", (0, 0))
    ensemble(root, "r-folds")
    scores(root, "p", {"x1": 0.2})
    refused(root, "p")
    ensemble(root, "p", overwrite=True)
    assert not (root / "predictions/fuse-va-ensemble-folds").exists()


def test_a_dry_run_writes_nothing(root: Path) -> None:
    folds(root, "r", (0, 0))
    before = contents(root)
    summary = ensemble(root, "r-folds", sets=["fuse.ensemble.weights=fitted"], dry_run=True)
    assert (summary.data["state"], contents(root)) == ("6 tracks to combine", before)


# -- fitted weights ----------------------------------------------------------------------------------------------------
FITTED = ["fuse.ensemble.weights=fitted"]


def test_fitted_weights_prefer_the_better_member(root: Path) -> None:
    folds(root, "good", (0, 0))
    folds(root, "noisy", (0, 0), noise=2.0)
    summary = ensemble(root, "noisy-folds", "good-folds", sets=FITTED)
    assert dict(zip(summary.data["members"], summary.data["weights"], strict=True)) == {
        "good-folds": 1,
        "noisy-folds": 0,
    }
    assert opened(root).read("x1", "scores/va") == pytest.approx(TRUTH, abs=1e-6)
    assert "best member 1.0000 (good-folds)" in dict(summary.lines)["worth"]
    before = contents(root)
    assert ensemble(root, "good-folds", "noisy-folds", sets=FITTED).data["weights"] == [1, 0]
    assert contents(root) == before


def test_out_of_fold_scores_are_weighted_without_their_own_labels(root: Path) -> None:
    # p is right on a1 and too timid elsewhere, q is wrong on a1 and right elsewhere: without a1 all weight is q's
    folds(root, "p", (0, 0))
    folds(root, "q", (0, 0))
    for name in ("a1", "a2", "b1", "b2"):
        for run, value in (("p", TRUTH if name == "a1" else 0.5 * TRUTH), ("q", -TRUTH if name == "a1" else TRUTH)):
            opened(root, f"{run}-folds").write(name, {"valid": np.ones(ROWS, bool), "scores/va": value}, fps=25)
    summary = ensemble(root, "p-folds", "q-folds", sets=FITTED)
    joined = opened(root, "fuse-va-ensemble-folds")
    parts = {tuple(part["recordings"]): part["weights"] for part in joined.header.settings["fitted_without"]}
    assert (sorted(parts), parts[("a1",)]) == ([("a1",), ("a2",), ("b1",), ("b2",)], [0, 1])
    assert joined.read("a1", "scores/va") == pytest.approx(-TRUTH, abs=1e-6)
    assert summary.data["weights"][0] > 0.3  # with a1 among the others


def test_changed_labels_are_other_settings_of_fitted_weights(root: Path) -> None:
    folds(root, "p", (0, 0))
    folds(root, "q", (0, 0), noise=1.0)
    ensemble(root, "p-folds", "q-folds", sets=FITTED)
    path = root / "VA/Train_Set/a1.txt"
    path.write_text(path.read_text().replace("0.5,0.2", "-5,-5"))
    assert "fitted_on.labels_sha256" in refused(root, "p-folds", "q-folds", sets=FITTED).what


def test_weights_are_not_fitted_on_scores_that_are_not_out_of_fold(root: Path) -> None:
    folds(root, "r", (0, 0))
    folds(root, "leaky", (0, 0), clean=False)
    error = refused(root, "r-folds", "leaky-folds", sets=FITTED)
    assert "the labelled scores of leaky-folds are not out-of-fold" in error.what
    assert (error.code, "--acknowledge" in error.fix) == (ExitCode.CONFIG, True)
    ensemble(root, "r-folds", "leaky-folds", sets=FITTED, acknowledge=True)
    assert opened(root).header.settings["not_out_of_fold"] == ["leaky-folds"]


def test_validation_tracks_serve_for_fitting_when_acknowledged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    scores(root, "p", {"v1": TRUTH, "v2": TRUTH, "x1": 0.2})
    scores(root, "q", {"v1": -TRUTH, "v2": -TRUTH, "x1": 0.4})
    assert "p, q are not out-of-fold" in refused(root, "p", "q", sets=FITTED).what
    with caplog.at_level(logging.WARNING, logger="abaw"):
        ensemble(root, "p", "q", sets=FITTED, acknowledge=True)
    assert "fitted on scores that are not out-of-fold: p, q" in caplog.text
    assert opened(root).read("x1", "scores/va") == pytest.approx(0.2)


def test_an_ensemble_is_not_measured_on_what_its_weights_were_fitted_on(root: Path) -> None:
    held = {"held_out": ["a1", "a2"], "split_file": "s" * 64, "holdout": ["h1"], "out_of_fold": True, "fold": 0}
    for run, offset in (("p", 0.0), ("q", 0.3)):
        found = {name: (TRUTH + offset).astype(np.float32) for name in ("a1", "a2", "h1", "x1")}
        scores(root, f"{run}-fold-0", found, **held)
    ensemble(root, "p-fold-0", "q-fold-0")
    assert opened(root).header.settings["holdout"] == ["a1", "a2", "h1"]
    ensemble(root, "p-fold-0", "q-fold-0", sets=FITTED, overwrite=True)
    assert opened(root).header.settings["holdout"] == ["h1"]


def test_weights_are_not_fitted_on_a_single_recording(root: Path) -> None:
    for name in "pq":
        scores(root, name, {"v1": TRUTH, "x1": 0.2})
    with pytest.raises(AbawError, match="all labelled tracks are of one recording, v1"):
        ensemble(root, "p", "q", sets=FITTED, acknowledge=True)


def test_weights_that_help_nowhere_else_are_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "pq":
        folds(root, name, (0, 0))
    with caplog.at_level(logging.WARNING, logger="abaw"):
        ensemble(root, "p-folds", "q-folds", sets=FITTED)
    assert "fitted weights are no better than equal ones" in caplog.text


# -- members that do not belong together -------------------------------------------------------------------------------
def test_members_of_another_task_are_refused(root: Path) -> None:
    scores(root, "p", {"x1": 0.2})
    scores(root, "e", {"x1": 0.125}, task="expr")
    assert "e holds scores of task expr, not va" in refused(root, "p", "e").what


def test_members_of_another_label_order_are_refused(root: Path) -> None:
    labels = list(TASKS["expr"].heads[0].labels)
    scores(root, "p", {"x1": 0.125}, task="expr")
    scores(root, "e", {"x1": 0.125}, task="expr", order=sorted(labels))
    error = refused(root, "p", "e", task="expr")
    assert "e has other labels of expr: ['Anger', 'Disgust'" in error.what


def test_members_of_other_rows_are_refused_by_track_and_both_numbers(root: Path) -> None:
    scores(root, "p", {"v1": 0.2, "x1": np.zeros((4, 2), np.float32)})
    scores(root, "q", {"v1": 0.2, "x1": np.zeros((5, 2), np.float32)})
    assert "track x1 has 4 rows in p and 5 in q" in refused(root, "p", "q").what


def test_out_of_fold_scores_of_other_rows_are_refused(root: Path) -> None:
    folds(root, "r", (0, 0))
    folds(root, "s", (0, 0))
    block = {"valid": np.ones(7, bool), "scores/va": np.zeros((7, 2), np.float32)}
    opened(root, "s-folds").write("a2", block, fps=25)
    assert "track a2 has 4 rows in r-folds and 7 in s-folds" in refused(root, "r-folds", "s-folds").what


def test_members_without_a_common_track_are_refused(root: Path) -> None:
    scores(root, "p", {"v1": 0.2})
    scores(root, "q", {"x1": 0.2})
    error = refused(root, "p", "q")
    assert "no track that all members score" in error.what
    assert error.where == "p: v1\nq: x1"


def test_members_aligned_another_way_are_refused_unless_accepted(root: Path) -> None:
    scores(root, "p", {"x1": 0.2})
    scores(root, "q", {"x1": 0.4}, recipe="b")
    assert "aligned another way" in refused(root, "p", "q").what
    ensemble(root, "p", "q", sets=["run.accept_recipe_mismatch=true"])


def test_an_unknown_member_names_the_nearest_one(root: Path) -> None:
    scores(root, "fuse-va-netease", {"x1": 0.2})
    error = refused(root, "fuse-va-netaese")
    assert (error.code, 'did you mean "fuse-va-netease"?' in error.fix) == (ExitCode.MISSING, True)


def test_a_run_that_has_only_folds_is_named_with_its_ending(root: Path) -> None:
    folds(root, "r", (0, 0))
    assert 'did you mean "r-folds"?' in refused(root, "r").fix


def test_folds_that_are_not_all_done_are_said(root: Path) -> None:
    folds(root, "r", (0, 0))
    (root / "predictions/r-folds").rename(root / "elsewhere")
    assert "train all its folds alike first (r-fold-0, r-fold-1 are there)" in refused(root, "r-folds").fix


def test_members_stand_one_behind_another_on_the_command_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("p", 0.2), ("q", 0.4), ("r", 0.6)):
        scores(root, name, {"x1": value})
    monkeypatch.chdir(root)
    result = CliRunner().invoke(app, ["fuse", "--task", "va", "--ensemble", "p", "q", "r"])
    assert result.exit_code == 0, result.output
    assert [one["name"] for one in opened(root).header.settings["members"]] == ["p", "q", "r"]
    lost = CliRunner().invoke(app, ["fuse", "--task", "va", "p"])
    assert lost.exit_code == 2
    assert "--ensemble" in lost.stderr


def test_a_fold_trained_again_after_the_join_is_refused(root: Path) -> None:
    folds(root, "r", (0, 0))
    scores(root, "r-fold-1", {"x1": 0}, fold=1, split_file="s", held_out=[], out_of_fold=True, weights="new")
    assert "the scores of fold 1 are of other weights than the joined ones" in refused(root, "r-folds").what
    (root / "predictions/r-fold-0").rename(root / "elsewhere")
    assert "the scores of fold 0 are not there" in refused(root, "r-folds").what


@pytest.mark.parametrize("names", [["p", "p"], ["p", "predictions/p"], ["r-folds", "r-fold-1"]])
def test_a_store_counts_once(root: Path, names: list[str]) -> None:
    scores(root, "p", {"x1": 0.2})
    folds(root, "r", (0, 0))
    assert "is there twice" in refused(root, *names).what


def test_an_ensemble_is_no_member_of_itself(root: Path) -> None:
    scores(root, "p", {"x1": 0.2})
    ensemble(root, "p")
    assert "the ensemble itself" in refused(root, "p", "fuse-va-ensemble", overwrite=True).what


def test_an_ensemble_does_not_take_the_place_of_a_run(root: Path) -> None:
    scores(root, "p", {"x1": 0.2})
    scores(root, "fuse-va-netease", {"x1": 0.2})
    error = refused(root, "p", sets=["fuse.ensemble.name=netease"], overwrite=True)
    assert "fuse-va-netease is the name of a run" in error.what


@pytest.mark.parametrize("combine", ["logits", "votes"])
def test_values_have_no_logits_and_no_votes(root: Path, combine: str) -> None:
    scores(root, "p", {"x1": 0.2})
    assert (
        f"the {combine} of task va cannot be averaged"
        in refused(root, "p", sets=[f"fuse.ensemble.combine={combine}"]).what
    )


def test_an_ensemble_needs_members(root: Path) -> None:
    assert "an ensemble needs members" in refused(root).what


def test_weights_are_counted(root: Path) -> None:
    scores(root, "p", {"x1": 0.2})
    assert "2 weights for 1 members: p" in refused(root, "p", sets=["fuse.ensemble.weights=[1, 1]"]).what


# -- evaluation --------------------------------------------------------------------------------------------------------
def measured(root: Path, *names: str, raw: bool = False) -> Summary:
    return evaluate.run(config(root), predictions=[root / "predictions" / name for name in names], raw=raw)


def test_an_ensemble_of_folds_is_measured_on_the_hold_out(root: Path) -> None:
    folds(root, "r", (0.2, -0.2))
    ensemble(root, "r-folds")
    summary = measured(root, "fuse-va-ensemble")
    assert summary.data["results"][0]["metrics"]["score"] == pytest.approx(1)
    assert "  1 hold-out tracks, 4 labelled rows, 100.0% with data of their own" in summary.text
    assert "  4 held-out tracks, 16 labelled rows" in measured(root, "fuse-va-ensemble-folds").text


def test_scores_with_a_leak_are_not_shown_as_honest_ones(root: Path) -> None:
    folds(root, "leaky", (0.2, -0.2), clean=False)
    ensemble(root, "leaky-folds")
    for name in ("leaky-folds", "leaky-fold-0", "fuse-va-ensemble", "fuse-va-ensemble-folds"):
        assert "tracks (not out-of-fold" in measured(root, name).text


def test_an_ensemble_of_official_runs_is_measured_on_the_validation_split(root: Path) -> None:
    scores(root, "p", {"v1": TRUTH, "v2": TRUTH})
    ensemble(root, "p")
    assert "  2 tracks, 8 labelled rows" in measured(root, "fuse-va-ensemble").text


def without_holdout(root: Path) -> None:
    folds(root, "r", (0, 0))
    for fold in range(2):
        store = opened(root, f"r-fold-{fold}")
        own = {name: store.read(name, "scores/va") for name in (*store.header.settings["held_out"], "x1")}
        scores(root, f"r-fold-{fold}", own, **{**store.header.settings, "holdout": []})
    ensemble(root, "r-folds")


def test_without_a_hold_out_the_message_names_the_out_of_fold_scores(root: Path) -> None:
    without_holdout(root)
    with pytest.raises(AbawError, match="no labelled track that no model behind it has seen") as caught:
        measured(root, "fuse-va-ensemble")
    assert "predictions/fuse-va-ensemble-folds" in caught.value.fix


def test_all_predictions_are_evaluated_but_those_without_labels(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    without_holdout(root)
    with caplog.at_level(logging.WARNING, logger="abaw"):
        names = [result["name"] for result in evaluate.run(config(root)).data["results"]]
    assert names == ["fuse-va-ensemble-folds", "r-fold-0", "r-fold-1", "r-folds"]
    assert "fuse-va-ensemble is left out" in caplog.text


def test_a_track_that_a_fold_lacks_is_a_message_about_folds(root: Path) -> None:
    folds(root, "r", (0, 0))
    (root / "predictions/r-folds/a2.h5").unlink()
    with pytest.raises(AbawError, match="r-folds lacks 1 of 4 held-out tracks: a2") as caught:
        measured(root, "r-folds")
    assert "--folds" in caught.value.fix


def test_the_table_says_when_post_json_was_applied(root: Path) -> None:
    scores(root, "p", {"v1": TRUTH, "v2": TRUTH})
    assert "post.json" not in measured(root, "p").text
    save_post(root / "predictions/p", Post(clip=(-0.1, 0.1), fitted_on="2 tracks held out"))
    summary = measured(root, "p")
    assert "  after post.json, fitted on 2 tracks held out; --raw leaves it aside" in summary.text
    assert summary.data["results"][0]["post"] == "2 tracks held out"
    raw = measured(root, "p", raw=True)
    assert ("post.json" in raw.text, raw.data["results"][0]["post"]) == (False, None)
