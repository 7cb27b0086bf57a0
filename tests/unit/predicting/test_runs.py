"""Which trained runs score a video, and what is refused before any work."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from abaw.checkpoint import load_checkpoint, save_checkpoint
from abaw.errors import AbawError, ExitCode
from abaw.predicting import run
from abaw.predicting.choosing import find_choices
from abaw.predicting.trained import resolve
from abaw.provenance import make_recipe, unknown_recipe
from abaw.stages import finetune, fuse
from abaw.store import FeatureStore
from tests.unit.predicting.project import config

VA, FACES = "fuse-va-netease", "finetune-va-vit_tiny_64"


def refused(root: Path, video: Path, out: Path, *overrides: str, runs: list[str] | None = None) -> AbawError:
    with pytest.raises(AbawError) as caught:
        run(config(root, *overrides), [video], runs=runs or [], out=out)
    assert not out.exists() or not list(out.glob("work/features/*/*.h5"))
    return caught.value


def scores(work: Path) -> np.ndarray:
    store = FeatureStore.open(work / "predictions" / "va")
    return store.read(store.track_ids()[0], "scores/va")


def with_header(folder: Path, **changed: object) -> None:
    """Give a run's weights another header."""
    weights, header = load_checkpoint(folder / "best.safetensors")
    save_checkpoint(folder / "best.safetensors", weights, {**header, **changed})


@pytest.fixture(scope="module")
def several(trained, tmp_path_factory):
    """The project with a second model of va, both as folds of one run too, and an ensemble of fusion and model."""
    root = Path(shutil.copytree(trained, tmp_path_factory.mktemp("several") / "project"))
    finetune.run(config(root, "run.seed=1", "finetune.name=other"), task="va")
    for number, name in enumerate((FACES, "finetune-va-other")):
        shutil.copytree(root / "runs" / name, root / "runs" / "finetune-va-both" / f"fold-{number}")
    fuse.run(config(root, "fuse.ensemble.weights=[3, 1]"), task="va", ensemble=[VA, FACES])
    return root


@pytest.fixture(scope="module")
def alone(several, tmp_path_factory):
    """Scores of the project's validation video by each run alone."""
    out = tmp_path_factory.mktemp("alone")
    for name in (VA, FACES, "finetune-va-other"):
        run(config(several), [several / "videos" / "v1.mp4"], runs=[name], out=out / name)
    return {path.name: scores(path / "work") for path in out.iterdir()}


def test_the_folds_of_a_run_are_averaged(several, alone, tmp_path):
    run(config(several), [several / "videos" / "v1.mp4"], runs=["finetune-va-both"], out=tmp_path)
    np.testing.assert_allclose(scores(tmp_path / "work"), (alone[FACES] + alone["finetune-va-other"]) / 2, atol=1e-6)


def test_an_ensemble_is_averaged_with_its_weights(several, alone, tmp_path):
    run(config(several), [several / "videos" / "v1.mp4"], runs=["fuse-va-ensemble"], out=tmp_path)
    np.testing.assert_allclose(scores(tmp_path / "work"), 0.75 * alone[VA] + 0.25 * alone[FACES], atol=1e-6)


def test_an_ensemble_whose_member_was_trained_again_is_refused(several, tmp_path):
    root = Path(shutil.copytree(several, tmp_path / "project"))
    with_header(root / "runs" / VA, step=99)
    with pytest.raises(AbawError, match="trained again since"):
        resolve(config(root), "fuse-va-ensemble")


@pytest.mark.parametrize("kind", ["emae", "dual_branch"])
def test_models_of_views_and_second_stages_give_the_scores_that_they_wrote(project, tmp_path, kind):
    if kind == "emae":
        name = "finetune-va-emae-vit_tiny_64"
        finetune.run(config(project, 'finetune.model="emae"'), task="va")
    else:
        name = "fuse-va-dual_branch"
        fuse.run(config(project, 'fuse.model="dual_branch"'), task="va")
    run(config(project), [project / "videos" / "v1.mp4"], runs=[name], out=tmp_path / "out")
    wrote = FeatureStore.open(project / "predictions" / name).read("v1", "scores/va")
    np.testing.assert_array_equal(scores(tmp_path / "out" / "work"), wrote)


def test_a_run_of_another_project_is_found_by_its_folder(trained, tmp_path):
    (tmp_path / "data.toml").write_text('[data]\nvideos = "nowhere"\n')
    (tmp_path / "videos").mkdir()
    summary = run(
        config(tmp_path), [trained / "videos" / "v1.mp4"], runs=[str(trained / "runs" / VA)], out=tmp_path / "out"
    )
    assert not summary.failed
    wrote = FeatureStore.open(trained / "predictions" / VA).read("v1", "scores/va")
    np.testing.assert_array_equal(scores(tmp_path / "out" / "work"), wrote)


def test_headers_of_the_training_features_will_do(project, clip, tmp_path):
    for path in (project / "features").rglob("*.h5"):
        path.unlink()
    assert not run(config(project), [clip("clip.mp4")], runs=[VA], out=tmp_path / "out").failed


def test_two_runs_of_one_task_are_refused(trained):
    with pytest.raises(AbawError, match="both score va") as caught:
        find_choices(config(trained), [VA, FACES])
    assert "--ensemble" in caught.value.fix


def test_an_unknown_run_names_those_that_are_there(trained):
    with pytest.raises(AbawError, match='no run or ensemble "fuse-va-nothing"') as caught:
        find_choices(config(trained), ["fuse-va-nothing"])
    assert VA in caught.value.fix
    assert caught.value.code == ExitCode.MISSING


def test_a_run_that_is_not_finished_is_not_used(project):
    (project / "runs" / VA / "done").unlink()
    assert [choice.name for choice in find_choices(config(project), [])][0] == FACES
    with pytest.raises(AbawError, match="is not finished"):
        resolve(config(project), VA)


def test_without_any_run_the_way_to_one_is_shown(project):
    shutil.rmtree(project / "runs")
    with pytest.raises(AbawError, match="none of the configured runs is trained"):
        find_choices(config(project), [])


def test_features_whose_store_is_gone_are_refused(project, clip, tmp_path):
    shutil.rmtree(project / "features" / "audio-logmel")
    error = refused(project, clip("clip.mp4"), tmp_path / "out", runs=[VA])
    assert "how the features audio-logmel" in error.what
    assert error.code == ExitCode.MISSING


def test_an_encoder_that_was_trained_again_is_refused(project, clip, tmp_path):
    with_header(project / "runs" / FACES, step=99)
    error = refused(project, clip("clip.mp4"), tmp_path / "out", runs=[VA])
    assert "weights that made the features visual-static are not here" in error.what


def test_an_encoder_with_other_settings_is_refused(project, clip, tmp_path):
    override = 'encoders.audio-like={encoder="logmel", num_mels=32}'
    assert not run(config(project, override), [clip("clip.mp4")], runs=[VA], out=tmp_path / "one").failed
    error = refused(
        project, clip("clip.mp4"), tmp_path / "out", 'encoders.logmel={encoder="logmel", num_mels=32}', runs=[VA]
    )
    assert "num_mels: 64 in training, 32 here" in error.what


def test_faces_are_aligned_as_in_training_whatever_the_configuration_says(project, clip, tmp_path):
    changed = ['align.detector="center"', "align.margin=0.3", "align.size_px=64"]
    run(config(project, *changed), [clip("clip.mp4")], runs=[FACES], out=tmp_path / "out")
    trained, own = (FeatureStore.open(root / "features" / "faces") for root in (project, tmp_path / "out" / "work"))
    assert own.header.settings == trained.header.settings


def test_an_alignment_that_is_not_known_is_refused_unless_accepted(project, clip, tmp_path):
    with_header(project / "runs" / FACES, recipe=unknown_recipe())
    error = refused(project, clip("clip.mp4"), tmp_path / "out", runs=[FACES])
    assert "is not known" in error.what
    assert "accept_recipe_mismatch" in error.fix
    cfg = config(project, "run.accept_recipe_mismatch=true")
    assert not run(cfg, [clip("clip.mp4")], runs=[FACES], out=tmp_path / "out").failed


def test_runs_of_different_alignments_are_not_used_together(project, clip, tmp_path):
    other = make_recipe({"detector": "center", "warp": "box", "template": "none", "margin": 0.0})
    with_header(project / "runs" / "finetune-expr-vit_tiny_64", recipe=other)
    error = refused(project, clip("clip.mp4"), tmp_path / "out", runs=[VA, "finetune-expr-vit_tiny_64"])
    assert "aligned another way" in error.what
    assert [choice.name for choice in find_choices(config(project), [])] == [VA]
