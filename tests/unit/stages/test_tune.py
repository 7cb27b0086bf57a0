"""tune: what it finds, that its gain is honest, and what it refuses."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.config import Config
from abaw.config_file import load_config
from abaw.data.annotations import Labels
from abaw.errors import AbawError, ExitCode
from abaw.postprocess import Post, load_post, save_post
from abaw.stages import evaluate, tune
from abaw.stages.tune import search
from abaw.stages.tune.recordings import Recording
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS, decide, measure

ROWS = 80
NAMES = ("a_left", "a_right", "b", "c", "video45_1", "video45_2", "d", "e", "f")  # of seven recordings
RECORDINGS = 7
HEADERS = {"va": "valence,arousal", "expr": ",".join(TASKS["expr"].heads[0].labels)}
HEADERS["au"] = ",".join(TASKS["au"].heads[0].labels)
SMALL = ("tune.half_widths=[2, 6]", "tune.resamples=200", "tune.folds=3")
TOML = """
[data]
videos = "videos"
annotations = { va = "va", expr = "expr", au = "au" }
test = { va = "test.txt" }
"""


def truth_of(task: str, name: str) -> np.ndarray:
    """Labels of a track that change slowly: [ROWS, target_dim]."""
    rng = np.random.default_rng([len(task), NAMES.index(name) if name in NAMES else 99])
    if task == "va":
        t = np.arange(ROWS)[:, None] / 15 + rng.uniform(0, 6, 2)
        return (0.8 * np.sin(t)).round(3)
    if task == "expr":
        return np.repeat(rng.permutation(8), ROWS // 8)[:, None]
    return np.repeat(rng.integers(0, 2, (8, 12)), ROWS // 8, axis=0)


def scores_of(task: str, name: str, *, noise: float = 0.6) -> np.ndarray:
    """The labels as scores, with noise from row to row; those of active units are 0.3 on the average."""
    truth, rng = truth_of(task, name), np.random.default_rng([len(name), ord(name[0])])
    if task == "va":
        return (truth + rng.normal(0, noise, truth.shape)).astype(np.float32)
    if task == "expr":
        logits = np.eye(8)[truth[:, 0]] + rng.normal(0, noise, (ROWS, 8))
        return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    return np.clip(0.3 * truth + rng.normal(0.05, noise / 10, truth.shape), 0, 1).astype(np.float32)


def write_labels(root: Path, task: str, names: tuple[str, ...] = NAMES) -> None:
    for split in ("Train_Set", "Validation_Set"):
        (root / task / split).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        path = root / task / ("Validation_Set" if index % 2 else "Train_Set") / f"{name}.txt"
        rows = [",".join(f"{value:g}" for value in row) for row in truth_of(task, name)]
        path.write_text("\n".join([HEADERS[task], *rows]) + "\n")


def write_store(
    root: Path, task: str, name: str = "", *, names: tuple[str, ...] = NAMES, noise: float = 0.6, **settings: object
) -> Path:
    """Scores of a cross-validated run, unless ``settings`` say otherwise; None takes a setting out."""
    about = {"run": "r", "split_file": "0" * 64, "held_out": sorted(names), "out_of_fold": True, **settings}
    heads = TASKS[task].heads
    header = StoreHeader(
        "predictions",
        name or f"fuse-{task}-netease-folds",
        {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in heads},
        {key: value for key, value in about.items() if value is not None},
        label_order={head.name: list(head.labels) for head in heads},
    )
    store = FeatureStore.create(root / "predictions" / header.name, header)
    for track_id in names:
        scores = {f"scores/{head.name}": scores_of(head.name, track_id, noise=noise) for head in heads}
        valid = np.arange(ROWS) % 20 != 7
        store.write(track_id, {"valid": valid, **{k: v * valid[:, None] for k, v in scores.items()}}, fps=25)
    return store.path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for task in HEADERS:
        write_labels(tmp_path, task)
    (tmp_path / "test.txt").write_text("x\n")
    (tmp_path / "data.toml").write_text(TOML)
    return tmp_path


def config(root: Path, *overrides: str) -> Config:
    return load_config(root / "data.toml", overrides=[*SMALL, *overrides])


def evaluated(cfg: Config, path: Path, *, raw: bool = False) -> float:
    return evaluate.run(cfg, predictions=[path], raw=raw).data["results"][0]["metrics"]["score"]


@pytest.mark.parametrize("task", HEADERS)
def test_what_is_found_is_what_evaluate_then_measures(root: Path, task: str) -> None:
    path, cfg = write_store(root, task), config(root)
    found = tune.run(cfg, predictions=path).data["heads"][task]
    post = load_post(path)
    assert found["gain"] > 0.02
    assert post.half_width[task] > 0
    assert evaluated(cfg, path) == pytest.approx(found["fitted"], abs=1e-12)
    assert evaluated(cfg, path, raw=True) == pytest.approx(found["raw"], abs=1e-12)
    assert (post.raw_score[task], post.tuned_score[task]) == (found["raw"], found["tuned"])
    assert post.gain[task] == found["tuned"] - found["raw"]
    assert post.interval[task][0] < post.gain[task] < post.interval[task][1]
    assert (post.nested_folds, post.acknowledged, post.kept_raw) == (3, False, [])


def test_thresholds_move_to_where_the_units_scores_are(root: Path) -> None:
    path = write_store(root, "au", noise=0.2)  # idle near 0.05, active near 0.35
    tune.run(config(root), predictions=path)
    assert all(0.1 < threshold < 0.35 for threshold in load_post(path).thresholds["au"])


def test_short_runs_are_found_to_help_where_nothing_is_smoothed(root: Path) -> None:
    path = write_store(root, "expr")
    tune.run(config(root, "tune.filters=[]", "tune.min_runs=[4]"), predictions=path)
    post = load_post(path)
    assert (post.min_run, post.half_width, post.filter) == ({"expr": 4}, {}, {})


def test_values_too_far_out_are_clipped_closer(root: Path) -> None:
    path = write_store(root, "va", noise=1.5)
    tune.run(config(root, "tune.filters=[]"), predictions=path)
    assert load_post(path).clip == (-0.7, 0.7)


def test_the_gain_is_that_of_settings_chosen_without_the_recordings_they_are_measured_on(root: Path) -> None:
    path = write_store(root, "va", noise=0.8)
    cfg = config(root, 'tune.filters=["box", "median"]')
    found = tune.run(cfg, predictions=path).data["heads"]["va"]
    task, recordings = TASKS["va"], recordings_by_hand(path)
    folds = tune.nested_folds(recordings, 3, seed=0)

    def decided(recording: Recording, post: Post) -> np.ndarray:
        return np.concatenate([decide(task, {"va": block}, post)["va"] for block in recording.scores["va"]])

    def score(pairs: list[tuple[Recording, Post]]) -> float:
        labels = [recording.labels["va"] for recording, _ in pairs]
        together = Labels(np.concatenate([o.values for o in labels]), np.concatenate([o.mask for o in labels]))
        return measure(task, {"va": np.concatenate([decided(*pair) for pair in pairs])}, {"va": together})["score"]

    kinds = [("box", 0), *product(("box", "median"), (2, 6))]
    posts = [
        Post(half_width={"va": width}, filter={"va": kind}, clip=(-clip, clip))
        for (kind, width), clip in product(kinds, (1.0, 0.9, 0.8, 0.7))
    ]
    pairs = []
    for fold in range(3):
        others = [one for one, own in zip(recordings, folds, strict=True) if own != fold]
        best = max(posts, key=lambda post: score([(one, post) for one in others]))
        pairs += [(one, best) for one, own in zip(recordings, folds, strict=True) if own == fold]
    assert found["tuned"] == pytest.approx(score(pairs), abs=1e-12)
    assert found["raw"] == pytest.approx(score([(one, Post()) for one in recordings]), abs=1e-12)


def recordings_by_hand(path: Path) -> list[Recording]:
    """What the stage should read: rows without a score take that of the row before."""
    store, found = FeatureStore.open(path), []
    for names in (["a_left", "a_right"], ["b"], ["c"], ["d"], ["e"], ["f"], ["video45_1", "video45_2"]):
        blocks = []
        for name in names:
            block = store.read(name, "scores/va")
            block[7::20] = block[6::20]
            blocks.append(block)
        truth = np.concatenate([truth_of("va", name) for name in names]).astype(np.float32)
        found.append(Recording(names[0], {"va": blocks}, {"va": Labels(truth, np.ones(truth.shape, bool))}))
    return found


def test_several_processes_find_what_one_finds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_store(root, "va")
    alone = tune.run(config(root), predictions=path).data["heads"]
    monkeypatch.setattr(search, "WORTH", 0)  # so small a set is not worth a second process
    assert tune.run(config(root, "run.workers=2"), predictions=path).data["heads"] == alone


def test_people_and_parts_of_one_recording_lie_in_one_fold(root: Path) -> None:
    summary = tune.run(config(root, "tune.folds=50"), predictions=write_store(root, "va"))
    assert summary.data["post"]["nested_folds"] == RECORDINGS
    assert f"{len(NAMES)} held-out tracks of {RECORDINGS} recordings" in summary.data["post"]["fitted_on"]


def test_a_head_without_a_gain_keeps_its_scores(root: Path) -> None:
    path = write_store(root, "va", noise=0.0)
    summary = tune.run(config(root, "tune.half_widths=[20]", "tune.filters=['box']"), predictions=path)
    post = load_post(path)
    assert (post.kept_raw, post.half_width, post.clip) == (["va"], {}, (-1.0, 1.0))
    assert post.gain["va"] <= 0
    assert "kept as they are" in dict(summary.lines)["va"]


def test_heads_are_tuned_each_on_its_own(root: Path) -> None:
    rows = [multi_task_row(name, row) for name in NAMES for row in range(0, ROWS, 2)]
    (root / "mtl").mkdir()
    (root / "data.toml").write_text(TOML.replace('au = "au"', 'mtl = "mtl"'))
    for file, text in (("training_set_annotations.txt", rows), ("validation_set_annotations.txt", [])):
        (root / "mtl" / file).write_text("\n".join(["image,valence,arousal,expression,aus", *text]) + "\n")
    path, cfg = write_store(root, "mtl"), config(root)
    found = tune.run(cfg, predictions=path).data["heads"]
    assert list(found) == ["va", "expr", "au"]
    assert all(one["gain"] > 0 for one in found.values())
    assert evaluated(cfg, path) == pytest.approx(sum(one["fitted"] for one in found.values()), abs=1e-12)


def multi_task_row(name: str, row: int) -> str:
    values = [truth_of(task, name)[row] for task in ("va", "expr", "au")]
    return f"{name}/{row + 1:05}.jpg," + ",".join(f"{value:g}" for part in values for value in part)


def test_the_settings_are_written_beside_the_test_scores_too(root: Path) -> None:
    path = write_store(root, "va")
    test = write_store(root, "va", "fuse-va-netease", names=("x",), held_out=None)
    summary = tune.run(config(root), predictions=path, also=[test, path])
    assert load_post(test) == load_post(path) != Post()
    assert summary.data["written"] == [str(path), str(test)]
    assert "test set" not in dict(summary.lines)
    alone = tune.run(config(root), predictions=path)
    assert f"abaw tune {path} --also STORE" in dict(alone.lines)["test set"]


def test_tuning_again_is_harmless_and_other_content_is_kept(root: Path) -> None:
    path, cfg = write_store(root, "va"), config(root)
    tune.run(cfg, predictions=path)
    before = (path / "post.json").read_bytes()
    tune.run(cfg, predictions=path)
    save_post(path, Post(half_width={"va": 3}))
    with pytest.raises(AbawError, match="is there with other content"):
        tune.run(cfg, predictions=path)
    assert load_post(path).half_width == {"va": 3}
    tune.run(cfg, predictions=path, overwrite=True)
    assert (path / "post.json").read_bytes() == before


def test_one_store_with_other_content_keeps_all_from_being_written(root: Path) -> None:
    path = write_store(root, "va")
    test = write_store(root, "va", "fuse-va-netease", names=("x",), held_out=None)
    save_post(test, Post(half_width={"va": 3}))
    with pytest.raises(AbawError, match="is there with other content"):
        tune.run(config(root), predictions=path, also=[test])
    assert not (path / "post.json").exists()


def test_a_dry_run_says_what_it_would_try_and_writes_nothing(root: Path) -> None:
    path = write_store(root, "expr")
    summary = tune.run(config(root, "tune.min_runs=[5]"), predictions=path, dry_run=True)
    assert dict(summary.lines)["would try"] == "18 settings for expr"  # (1 + 4 filters of 2) x (none, 5)
    assert not (path / "post.json").exists()


def test_the_command_tunes_and_evaluate_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_store(root, "va")
    other = write_store(root, "va", "fuse-va-netease", names=("x",), held_out=None)
    monkeypatch.chdir(root)
    options = [word for override in SMALL for word in ("--set", override)]
    result = CliRunner().invoke(app, ["tune", f"predictions/{path.name}", "--also", str(other), *options])
    assert result.exit_code == 0, result.output
    assert "next      abaw evaluate predictions/fuse-va-netease-folds\n" in result.stdout
    assert load_post(other) == load_post(path)
    assert "post.json" in CliRunner().invoke(app, ["evaluate", str(path)]).stdout


def test_the_summary_is_json(root: Path) -> None:
    json.dumps(tune.run(config(root), predictions=write_store(root, "au")).data)


REFUSED = {
    "validation tracks": {"split_file": None, "held_out": None, "out_of_fold": None},
    "a leaking encoder": {"out_of_fold": False},
    "the hold-out": {"held_out": None, "holdout": sorted(NAMES)},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_scores_that_are_not_out_of_fold_need_to_be_acknowledged(root: Path, kind: str) -> None:
    if kind == "validation tracks":
        for name in NAMES[::2]:
            (root / "va" / "Train_Set" / f"{name}.txt").rename(root / "va" / "Validation_Set" / f"{name}.txt")
    path = write_store(root, "va", **REFUSED[kind])
    with pytest.raises(AbawError, match="is not out-of-fold") as raised:
        tune.run(config(root), predictions=path)
    assert raised.value.code == ExitCode.CONFIG
    assert "--acknowledge" in raised.value.fix
    assert ("-folds" in raised.value.fix) or ("--folds" in raised.value.fix)
    assert not (path / "post.json").exists()
    summary = tune.run(config(root), predictions=path, acknowledge=True)
    assert load_post(path).acknowledged
    assert "not out-of-fold, acknowledged" in dict(summary.lines)["tuned on"]


def test_the_way_to_out_of_fold_scores_is_told(root: Path) -> None:
    path = write_store(root, "va", "finetune-va-vit", **REFUSED["validation tracks"])
    with pytest.raises(AbawError) as raised:
        tune.run(config(root), predictions=path)
    assert "abaw finetune --task va --folds 5\n" in raised.value.fix
    assert f"abaw tune {path}-folds --also {path}" in raised.value.fix


def test_test_tracks_alone_are_refused(root: Path) -> None:
    path = write_store(root, "va", "fuse-va-netease", names=("x",), **REFUSED["validation tracks"])
    with pytest.raises(AbawError, match="holds no track with labels of task va") as raised:
        tune.run(config(root), predictions=path, acknowledge=True)
    assert "--also" in raised.value.fix


def test_without_labels_there_is_nothing_to_tune_on(root: Path) -> None:
    path = write_store(root, "va")
    (root / "data.toml").write_text(TOML.replace('va = "va", ', ""))
    with pytest.raises(AbawError, match="no labels are configured for task va"):
        tune.run(config(root), predictions=path)


def test_labels_of_another_task_are_named(root: Path) -> None:
    path = write_store(root, "va")
    (root / "data.toml").write_text(TOML.replace('va = "va"', 'va = "au"'))
    with pytest.raises(AbawError, match="holds labels of au, not of va"):
        tune.run(config(root), predictions=path)


def test_a_task_without_labels_of_its_own_is_refused(root: Path) -> None:
    heads = TASKS["ce"].heads
    header = StoreHeader(
        "predictions",
        "ce",
        {"scores/ce": ArraySpec("float32", (7,))},
        {},
        label_order={head.name: list(head.labels) for head in heads},
    )
    path = FeatureStore.create(root / "predictions" / "ce", header).path
    with pytest.raises(AbawError, match="no labels are configured for task ce"):
        tune.run(config(root), predictions=path)


def test_one_recording_is_too_few(root: Path) -> None:
    path = write_store(root, "va", names=("a_left", "a_right"))
    with pytest.raises(AbawError, match="has 1 recordings with labels of task va"):
        tune.run(config(root), predictions=path)


def test_recordings_without_a_label_do_not_count(root: Path) -> None:
    for path in (root / "va").rglob("*.txt"):
        path.write_text("valence,arousal\n" + "-5,-5\n" * ROWS)
    with pytest.raises(AbawError, match="has 0 recordings with labels"):
        tune.run(config(root), predictions=write_store(root, "va"))


def test_an_image_collection_has_no_recordings(root: Path) -> None:
    path = write_store(root, "va")
    with pytest.raises(AbawError, match="has no recordings"):
        tune.run(config(root, "data.kind=images", "data.images=videos"), predictions=path)


def test_stores_of_another_task_are_not_given_the_settings(root: Path) -> None:
    path, other = write_store(root, "va"), write_store(root, "au")
    with pytest.raises(AbawError, match="holds scores of au") as raised:
        tune.run(config(root), predictions=path, also=[other])
    assert raised.value.where == "--also"
    assert not (path / "post.json").exists()


def test_a_post_json_of_a_head_that_is_not_there_is_refused(root: Path) -> None:
    path = write_store(root, "va")
    save_post(path, Post(half_width={"vaa": 3}))
    with pytest.raises(AbawError, match=r"settings of vaa, the scores are of va"):
        evaluate.run(config(root), predictions=[path])
