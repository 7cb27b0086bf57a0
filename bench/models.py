"""What pretraining and the three published models bring over what they are compared with, on a generated set.

Three seeds each, validation on identities that no model was trained on. Every arm gets the same budget of steps and
counts at its best validation round; the record says where that round lies, so that an arm cut short is seen. EMMA's
frozen classifier is trained beforehand on a set of another seed, whose identities are others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config_file import load_config
from abaw.data.annotations import read_mtl_file
from abaw.store import FeatureStore
from bench.record import make_record

SEEDS = (0, 1, 2)
OTHER_SEED = 101  # of the set that the frozen classifier learns from
VIDEOS, SECONDS = 40, 8.0
STEPS, EVERY = 400, 50
MTL_FILES = {"training_set_annotations.txt": "Train_Set", "validation_set_annotations.txt": "Validation_Set"}
VA_HEADER = "valence,arousal"
NOT_ANNOTATED = "-5,-5"

# comparison -> (metric, the arm in question, the arm it is compared with); an arm: task and overrides of [finetune]
Arm = tuple[str, dict[str, str]]
COMPARISONS: dict[str, tuple[str, Arm, Arm]] = {
    "mae-init": ("va.ccc", ("va", {}), ("va", {"init_from": "none"})),
    "emma": ("va.ccc", ("mtl", {"model": "emma"}), ("va", {"sparse": "yes"})),
    "cotex": ("expr.f1", ("expr", {"model": "cotex"}), ("expr", {"model": "cotex", "cotex.views": "1"})),
    "emae": ("expr.f1", ("expr", {"model": "emae"}), ("expr", {"model": "emae", "emae.view": "none"})),
}


def run(work: Path | None) -> list[dict[str, Any]]:
    """A record for each comparison: the mean difference over the seeds, both arms and their budgets beside it."""
    with tempfile.TemporaryDirectory() as temporary:
        root = work or Path(temporary)
        config, other = _prepare(root / "set", seed=0), _prepare(root / "other", seed=OTHER_SEED)
        classifier, accuracy = _classifier(other)
        _pretrain(config)
        records = [accuracy]
        for name, (metric, ours, theirs) in COMPARISONS.items():
            found = {
                arm: [_train(config, f"{name}-{arm}", wanted, seed, metric, classifier) for seed in SEEDS]
                for arm, wanted in (("ours", ours), ("theirs", theirs))
            }
            records.append(_record(name, metric, found))
            print(f"{name}: {records[-1]['value']:+.3f}", file=sys.stderr)
    return records


def _prepare(root: Path, *, seed: int) -> Path:
    """A generated set with its faces, multi-task labels and the same valence-arousal rows as label files."""
    abaw = [sys.executable, "-m", "abaw"]
    if not (root / "data.toml").is_file():
        size = ["--videos", str(VIDEOS), "--seconds", str(SECONDS), "--seed", str(seed)]
        subprocess.run([*abaw, "synth", str(root), *size], check=True, stdout=sys.stderr)
    subprocess.run([*abaw, "align", "-c", str(root / "data.toml")], check=True, stdout=sys.stderr)
    _write_sparse(root)
    return root / "data.toml"


def _write_sparse(root: Path) -> None:
    """Valence and arousal of the multi-task rows alone, one file per track: what EMMA sees of them."""
    labels = root / "aff-wild2" / "annotations"
    faces = FeatureStore.open(root / "features" / "faces", kind="faces")
    for file, folder in MTL_FILES.items():
        target = labels / "VA_of_MTL" / folder
        target.mkdir(parents=True, exist_ok=True)
        for track_id, rows in read_mtl_file(labels / "MTL_Challenge" / file).items():
            lines = [NOT_ANNOTATED] * faces.num_rows(track_id)
            for row, valence, arousal in rows[:, :3].tolist():
                lines[int(row)] = f"{valence:g},{arousal:g}"
            (target / f"{track_id}.txt").write_text("\n".join([VA_HEADER, *lines]) + "\n")


def _pretrain(config: Path) -> None:
    from abaw.stages import pretrain

    pretrain.run(load_config(config))


def _classifier(config: Path) -> tuple[Path, dict[str, Any]]:
    """The frozen expression classifier: a finetuned run on the other set, and the record of its validation score."""
    from abaw.stages import finetune

    _pretrain(config)
    summary = finetune.run(load_config(config, overrides=_budget(0)), task="expr")
    note = f"frozen classifier of EMMA: best validation round of {STEPS} steps on a set of seed {OTHER_SEED}"
    score = float(summary.data["best_score"])
    record = make_record("models.emma-classifier", [score], "macro F1", higher_is_better=True, note=note)
    return Path(summary.data["run"]), record


def _budget(seed: int) -> list[str]:
    return [f"run.seed={seed}", f"finetune.steps={STEPS}", f"finetune.validate_every={EVERY}"]


def _train(config: Path, name: str, arm: Arm, seed: int, metric: str, classifier: Path) -> dict[str, float]:
    """Best validation round of one training by its metric: value and step."""
    from abaw.stages import finetune

    task, wanted = arm
    labels = config.parent / "aff-wild2" / "annotations"
    overrides = [*_budget(seed), f'finetune.name="{name}-{seed}"']
    overrides += [
        f'finetune.{key}="{value}"' for key, value in wanted.items() if not value.isdigit() and key != "sparse"
    ]
    overrides += [f"finetune.{key}={value}" for key, value in wanted.items() if value.isdigit()]
    if task == "mtl":
        overrides += [f'data.annotations.mtl="{labels / "MTL_Challenge"}"', f'finetune.emma.classifier="{classifier}"']
    if "sparse" in wanted:
        overrides.append(f'data.annotations.va="{labels / "VA_of_MTL"}"')
    summary = finetune.run(load_config(config, overrides=overrides), task=task)
    rounds = [json.loads(line) for line in (Path(summary.data["run"]) / "metrics.jsonl").read_text().splitlines()]
    best = max(rounds, key=lambda line: line[f"val {metric}"])
    print(f"{name} seed {seed}: {best[f'val {metric}']:.3f} at step {best['step']}", file=sys.stderr)
    return {"value": float(best[f"val {metric}"]), "step": int(best["step"]), "seconds": rounds[-1]["seconds"]}


def _record(name: str, metric: str, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    ours, theirs = (np.array([one["value"] for one in found[arm]]) for arm in ("ours", "theirs"))
    wins = int((ours > theirs).sum())
    last = sum(one["step"] == STEPS for arm in found.values() for one in arm)
    note = (
        f"{metric} on unseen identities, mean over seeds {SEEDS} of {_words(name)}; {STEPS} steps each, best round "
        f"(the last one in {last} of {2 * len(SEEDS)} trainings); "
        f"{'held' if wins == len(SEEDS) else 'did not hold'}: better for {wins} of {len(SEEDS)} seeds"
    )
    return make_record(
        f"models.{name}", (ours - theirs).tolist(), metric, higher_is_better=True, note=note, use_mean=True, arms=found
    )


def _words(name: str) -> str:
    return {
        "mae-init": "pretrained minus random weights",
        "emma": "EMMA minus valence-arousal alone, on the same rows",
        "cotex": "two masked views minus one",
        "emae": "eyes+mouth minus the face alone",
    }[name]
