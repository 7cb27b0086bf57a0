"""What sound adds to valence-arousal: the fused model, the same without sound, and with sounds swapped between tracks.

Three seeds at equal budget on the demo's generated set, whose arousal is partly audible only. With swapped sounds the
gain must vanish: what is left would come from the larger model, not from what is heard.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from abaw.config_file import load_config
from abaw.data.manifest import Manifest, split_side
from abaw.store import FeatureStore, StoreHeader
from bench.record import make_record

SEEDS = (0, 1, 2)
GAIN_LIMIT = 0.03
PIPELINE = (
    ["align"],
    ["pretrain"],
    ["finetune", "--task", "va"],
    ["extract-visual", "--encoder", "static-va"],
    ["extract-audio"],
)


def run(work: Path | None) -> list[dict[str, Any]]:
    """Records of the gain, of the gain with swapped sounds, and of the three arms. ``work``: a demo folder."""
    root = work or Path("demo")
    _prepare(root)
    config = root / "data.toml"
    swapped = _swap(config)
    arms = {"fused": [], "visual": ["fuse.va.audio=[]"], "swapped": [f'fuse.va.audio=["{swapped}"]']}
    scores = {arm: [_fuse(config, arm, seed, overrides) for seed in SEEDS] for arm, overrides in arms.items()}
    gain = np.subtract(scores["fused"], scores["visual"]).tolist()
    left = np.subtract(scores["swapped"], scores["visual"]).tolist()
    budget = load_config(config).fuse_for("va")
    note = f"best validation round on unseen identities, {budget.model}, {budget.steps} steps each, seeds {SEEDS}"
    records = [
        make_record(
            "fusion-gain.sound",
            gain,
            "mean CCC",
            limit=GAIN_LIMIT,
            higher_is_better=True,
            note=f"mean over seeds of fused minus visual; {note}",
            use_mean=True,
        ),
        make_record(
            "fusion-gain.swapped-sound",
            left,
            "mean CCC",
            limit=GAIN_LIMIT,
            higher_is_better=False,
            note=f"mean over seeds of swapped minus visual: must stay under the limit; {note}",
            use_mean=True,
        ),
    ]
    return records + [
        make_record(f"fusion-gain.{arm}", values, "mean CCC", higher_is_better=True, note=note, use_mean=True)
        for arm, values in scores.items()
    ]


def _prepare(root: Path) -> None:
    """Run what the fusion needs; each command skips what is there."""
    abaw = [sys.executable, "-m", "abaw"]
    subprocess.run([*abaw, "synth", str(root)], check=True, stdout=sys.stderr)
    for command in PIPELINE:
        subprocess.run([*abaw, *command, "-c", str(root / "data.toml")], check=True, stdout=sys.stderr)


def _swap(config: Path) -> Path:
    """An audio store in which every track has the sound of another video of its split."""
    cfg = load_config(config)
    source = FeatureStore.open(cfg.features_store("audio", cfg.extract_audio.encoders[0]), kind="audio")
    path = cfg.features_store("audio", "swapped")
    header = source.header
    settings = {"swapped": source.fingerprint}
    target = FeatureStore.create(
        path, StoreHeader("audio", "swapped", header.arrays, settings, recipe=header.recipe), overwrite=True
    )
    manifest = Manifest.from_config(cfg.data)
    for split in ("train", "val", "test"):
        names = [track.track_id for track in manifest.select(task="va", split=split)]
        for index, name in enumerate(names):
            other = next(
                candidate
                for candidate in names[index + 1 :] + names[:index]
                if split_side(candidate)[0] != split_side(name)[0] and source.valid(candidate).any()
            )
            rows = np.arange(source.num_rows(name)) % source.num_rows(other)
            arrays = {key: source.read(other, key)[rows] for key in ("valid", "features", "reason")}
            target.write(name, arrays, fps=source.fps(name))
    return path


def _fuse(config: Path, arm: str, seed: int, overrides: list[str]) -> float:
    from abaw.stages import fuse

    own = [f"run.seed={seed}", f'fuse.name="gain-{arm}-{seed}"', *overrides]
    summary = fuse.run(load_config(config, overrides=own), task="va", overwrite=True)
    print(f"{arm} seed {seed}: {summary.data['best_score']:.3f}", file=sys.stderr)
    return float(summary.data["best_score"])
