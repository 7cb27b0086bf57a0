"""What a temporal model, sound, folds, smoothing and a second branch bring for valence-arousal, on a generated set.

Three seeds of each fusion on the features of one encoder. What compares models is measured on the validation set, at
the best validation round of each arm under a budget of its own; the record says where that round lies, so that an arm
cut short is seen. What compares folds and smoothing is measured on the hold-out of the split file, whose recordings
nothing was trained, chosen or tuned on. No identity is in two of these sets. Half of the variance of arousal is heard
only in such a set, so what the picture is worth against the sound says nothing of real recordings.

Budgets were set by hand after a few trainings of single arms on the same validation set.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config import Config
from abaw.config_file import load_config
from abaw.console import Summary
from abaw.data.annotations import concatenate
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import predictions_labels
from abaw.scored import Predictions
from abaw.tasks import TASKS, measure
from bench.record import make_record

SEEDS = (0, 1, 2)
TASK = "va"
LABELS = TASKS[TASK].heads[0].labels
METRIC = "mean CCC"
VIDEOS, SECONDS = 40, 8.0
FOLDS, HOLDOUT = 5, 0.3
ENCODER = "static-va"  # of the set's configuration: the finetuned encoder of this task
ENCODER_STEPS, ENCODER_EVERY = 400, 50

# The same for every arm, whatever the presets of its models say: those are for a thousand times more rows.
SHARED: dict[str, Any] = {
    "window": 100,
    "stride": 50,
    "score_stride": 0,
    "batch_size": 16,
    "warmup_steps": 20,
    "cycle_steps": 0,
    "min_lr": 0.0,
    "weight_decay": 0.05,
    "dropout": 0.3,
    "value_heads": "separate",
    "ccc_over": "batch",
    "ccc_reduce": "mean",
    "mse_weight": 0.5,
    "precision": "fp32",
}


@dataclass(frozen=True)
class Arm:
    """A way to fuse: what it is called in a note, its budget, and what else it sets of [fuse.va]."""

    words: str
    steps: int
    every: int  # steps between validations
    lr: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def budget(self) -> str:
        """Its budget in words."""
        return f"{self.words}: {self.steps} steps at {self.lr:g}, validated every {self.every}"


ARMS = {
    "netease": Arm("netease on picture and sound", 400, 20, 2e-3, {"model": "netease"}),
    "static": Arm("one frame at a time on picture and sound", 240, 10, 3e-4, {"model": "static"}),
    "visual": Arm("netease on the picture", 400, 20, 2e-3, {"model": "netease", "audio": []}),
    "audio": Arm("netease on the sound", 400, 20, 2e-3, {"model": "netease", "visual": []}),
    "dual": Arm("the second branch behind that netease", 120, 10, 5e-4, {"model": "dual_branch"}),
}
# comparison -> the arm in question, and the one it is compared with
COMPARISONS = {
    "temporal": ("netease", "static"),
    "sound": ("netease", "visual"),
    "picture": ("netease", "audio"),
    "picture-against-sound": ("visual", "audio"),
    "dual-branch": ("dual", "netease"),
}
IN_FOLDS = ("netease", "static")


def run(work: Path | None) -> list[dict[str, Any]]:
    """A record for each comparison: the mean difference over the seeds, both arms and their budgets beside it."""
    with tempfile.TemporaryDirectory() as temporary:
        config = _prepare((work or Path(temporary)) / "set")
        encoders = _features(config)
        found = {arm: [_train(config, arm, seed) for seed in SEEDS] for arm in ARMS}
        records = [_compared(name, found) for name in COMPARISONS]
        crossed = {arm: [_cross(config, arm, seed) for seed in SEEDS] for arm in IN_FOLDS}
        records.append(_of_folds(crossed["netease"], encoders))
        records += [_of_smoothing(arm, crossed[arm]) for arm in IN_FOLDS]
    for record in records:
        print(f"{record['name']}: {record['value']:+.3f}", file=sys.stderr)
    return records


# -- the set and its features ------------------------------------------------------------------------------------------
def _prepare(root: Path) -> Path:
    """A generated set with its faces and a pretrained encoder; each command skips what is there."""
    abaw = [sys.executable, "-m", "abaw"]
    if not (root / "data.toml").is_file():
        size = ["--videos", str(VIDEOS), "--seconds", str(SECONDS)]
        subprocess.run([*abaw, "synth", str(root), *size], check=True, stdout=sys.stderr)
    for command in ("align", "pretrain", "extract-audio"):
        subprocess.run([*abaw, command, "-c", str(root / "data.toml")], check=True, stdout=sys.stderr)
    return root / "data.toml"


def _features(config: Path) -> dict[str, list[int]]:
    """Encoders of the official split and of each fold, and their features; the step of each one's best round."""
    from abaw.stages import extract_visual, finetune

    cfg = _load(config, 0, [f"finetune.steps={ENCODER_STEPS}", f"finetune.validate_every={ENCODER_EVERY}"])
    official = finetune.run(cfg, task=TASK)
    folds = finetune.run(cfg, task=TASK, folds=str(FOLDS))
    _whole(extract_visual.run(cfg, encoder=ENCODER))
    _whole(extract_visual.run(cfg, encoder=ENCODER, folds=FOLDS))
    return {
        "official": [int(official.data["best_step"])],
        "folds": [int(fold["best_step"]) for fold in folds.data["folds"]],
    }


def _whole(summary: Summary) -> None:
    if summary.failed:
        raise SystemExit(f"{summary.stage}: {len(summary.failed)} tracks failed, e.g. {summary.failed[0]}")


def _load(config: Path, seed: int, overrides: Sequence[str] = ()) -> Config:
    return load_config(config, overrides=[f"run.seed={seed}", f"folds.holdout={HOLDOUT}", *overrides])


def _overrides(arm: str, seed: int) -> list[str]:
    """Settings of a fusion; the values are JSON, which TOML reads the same way here."""
    own = ARMS[arm]
    wanted = {**SHARED, **own.settings, "name": f"{arm}-{seed}"}
    wanted |= {"steps": own.steps, "validate_every": own.every, "lr": own.lr}
    found = [f"fuse.{TASK}.{key}={json.dumps(value)}" for key, value in wanted.items()]
    return [*found, f'fuse.{TASK}.dual.first="netease-{seed}"']


# -- the official split ------------------------------------------------------------------------------------------------
def _train(config: Path, arm: str, seed: int) -> dict[str, float]:
    """Best validation round of one fusion: value and its parts, and step.

    "late": what the last fifth of the steps added to it; "last": value of the last round; "seconds" of all of them.
    """
    from abaw.stages import fuse

    summary = fuse.run(_load(config, seed, _overrides(arm, seed)), task=TASK)
    rounds = [json.loads(line) for line in (Path(summary.data["run"]) / "metrics.jsonl").read_text().splitlines()]
    best = max(rounds, key=lambda line: line["val score"])
    print(f"{arm} seed {seed}: {best['val score']:.3f} at step {best['step']}", file=sys.stderr)
    parts = {label: float(best[f"val {TASK}.ccc.{label}"]) for label in LABELS}
    early = max(line["val score"] for line in rounds if line["step"] <= 0.8 * ARMS[arm].steps)
    last = {"late": best["val score"] - early, "last": rounds[-1]["val score"], "seconds": rounds[-1]["seconds"]}
    return {"value": float(best["val score"]), **parts, "step": int(best["step"]), **last}


def _compared(name: str, found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    ours, theirs = COMPARISONS[name]
    gains = [one["value"] - other["value"] for one, other in zip(found[ours], found[theirs], strict=True)]
    last = sum(one["step"] == ARMS[arm].steps for arm in (ours, theirs) for one in found[arm])
    late = max(one["late"] for arm in (ours, theirs) for one in found[arm])
    mean = {(arm, label): np.mean([one[label] for one in found[arm]]) for arm in (ours, theirs) for label in LABELS}
    parts = [f"{label} {mean[ours, label]:.3f} - {mean[theirs, label]:.3f}" for label in LABELS]
    note = (
        f"mean CCC on the validation set's unseen identities, mean over seeds {SEEDS}; {ARMS[ours].budget}; minus "
        f"{ARMS[theirs].budget}; best round (the last one in {last} of {2 * len(SEEDS)} trainings, and the last fifth "
        f"of the steps brought {late:.4f} at most); {', '.join(parts)}"
    )
    return _record(name, gains, note, {arm: found[arm] for arm in (ours, theirs)})


def _record(name: str, gains: Sequence[float], note: str, arms: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose note ends with whether every seed gained."""
    wins = sum(gain > 0 for gain in gains)
    verdict = f"{'held' if wins == len(gains) else 'did not hold'}: better for {wins} of {len(gains)} seeds"
    return make_record(
        f"fusion.{name}",
        gains,
        METRIC,
        higher_is_better=True,
        note=f"{note}; {verdict}",
        use_mean=True,
        arms=dict(arms),
    )


# -- folds -------------------------------------------------------------------------------------------------------------
def _cross(config: Path, arm: str, seed: int) -> dict[str, Any]:
    """A cross-validated fusion on the hold-out: each fold, their ensemble, and that with tuned smoothing."""
    from abaw.stages import fuse, tune

    cfg = _load(config, seed, [*_overrides(arm, seed), f'fuse.{TASK}.ensemble.name="folds-of-{arm}-{seed}"'])
    folds = fuse.run(cfg, task=TASK, folds=str(FOLDS))
    run_dir = cfg.run_dir("fuse", cfg.fuse_for(TASK).run_name, TASK)
    joined = cfg.predictions_store(run_dir / "folds")
    fuse.run(cfg, task=TASK, ensemble=[joined.name])
    ensemble = cfg.predictions_store(cfg.run_dir("fuse", cfg.fuse_for(TASK).ensemble.name, TASK))
    singles = [cfg.predictions_store(run_dir / f"fold-{number}") for number in range(FOLDS)]
    tuned = tune.run(cfg, predictions=joined, also=[ensemble, *singles], overwrite=True).data["heads"][TASK]
    found: dict[str, Any] = {
        "single": [_on_holdout(cfg, path, raw=True) for path in singles],
        "single_tuned": [_on_holdout(cfg, path, raw=False) for path in singles],
        "ensemble": _on_holdout(cfg, ensemble, raw=True),
        "tuned": _on_holdout(cfg, ensemble, raw=False),
        "steps": [int(fold["best_step"]) for fold in folds.data["folds"]],
        "out_of_fold": {key: tuned[key] for key in ("setting", "raw", "tuned", "gain", "interval")},
    }
    told = f"folds {np.mean(found['single']):.3f}, ensemble {found['ensemble']:.3f}, tuned {found['tuned']:.3f}"
    print(f"{arm} seed {seed} in {FOLDS} folds: {told}", file=sys.stderr)
    return found


def _on_holdout(cfg: Config, path: Path, *, raw: bool) -> float:
    """Official score of a predictions store over the tracks of the split's hold-out."""
    predictions = Predictions(path, raw=raw)
    source = predictions_labels(cfg, predictions, Manifest.from_config(cfg.data, need_media=False))
    labels, decided = [], []
    for track_id in predictions.store.header.settings["holdout"]:
        num_rows = predictions.store.num_rows(track_id)
        labels.append(source.labels(track_id, num_rows, "val")[TASK])
        decided.append(predictions.decide(track_id, gap="hold").decisions[TASK])
    return measure(predictions.task, {TASK: np.concatenate(decided)}, {TASK: concatenate(labels)})["score"]


def _of_folds(crossed: Sequence[Mapping[str, Any]], encoders: Mapping[str, list[int]]) -> dict[str, Any]:
    gains = [one["ensemble"] - float(np.mean(one["single"])) for one in crossed]
    last = sum(step == ARMS["netease"].steps for one in crossed for step in one["steps"])
    over_best = sum(one["ensemble"] > max(one["single"]) for one in crossed)
    note = (
        f"mean CCC on the hold-out ({HOLDOUT:.0%} of the recordings), mean over seeds {SEEDS}: mean of the scores of "
        f"{FOLDS} folds minus the mean score of a fold, each with an encoder of its own ({ENCODER_STEPS} steps, best "
        f"at {encoders['folds']}, chosen on the next fold); {ARMS['netease'].budget}; best round on the next fold (the "
        f"last one in {last} of {FOLDS * len(SEEDS)} trainings); above the best of its folds for {over_best} seeds"
    )
    keys = ("single", "ensemble", "steps")
    return _record("folds", gains, note, {"netease": [{key: one[key] for key in keys} for one in crossed]})


def _of_smoothing(arm: str, crossed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    gains = [one["tuned"] - one["ensemble"] for one in crossed]
    alone = [float(np.mean(one["single_tuned"]) - np.mean(one["single"])) for one in crossed]
    inside = [one["out_of_fold"]["gain"] for one in crossed]
    note = (
        f"mean CCC on the hold-out, mean over seeds {SEEDS}: the ensemble of {FOLDS} folds with what `tune` chose on "
        f"out-of-fold scores minus without; a single fold gains {np.mean(alone):+.4f}, where `tune` had promised "
        f"{np.mean(inside):+.4f} by nested folds; {ARMS[arm].budget}"
    )
    keys = ("single", "single_tuned", "ensemble", "tuned", "out_of_fold")
    return _record(f"smoothing-{arm}", gains, note, {arm: [{key: one[key] for key in keys} for one in crossed]})
