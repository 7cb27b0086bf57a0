"""A project that is trained to its end on three short videos of one face: what `abaw predict` starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from abaw.config import Config
from abaw.config_file import load_config
from abaw.stages import align, extract_audio, extract_visual, finetune, fuse
from tests.unit.conftest import write_video

TRACKS = ("t1", "t2", "v1")
EXPR_HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
TOML = """
[data]
name = "three"
videos = "videos"
annotations = { va = "va", expr = "expr" }
[run]
threads = 1
workers = 1
[finetune]
init_from = "none"
steps = 2
batch_size = 4
warmup_steps = 0
validate_every = 1
precision = "fp32"
[extract_visual]
encoders = ["static"]
[encoders.static]
encoder = "finetuned"
weights = "runs/finetune-va-vit_tiny_64"
precision = "fp32"
[fuse]
steps = 2
batch_size = 2
window = 6
stride = 3
warmup_steps = 0
validate_every = 1
gap = { visual-static = "nearest", audio-logmel = "linear" }
"""


def config(root: Path, *overrides: str) -> Config:
    return load_config(root / "data.toml", overrides=list(overrides))


def make_project(root: Path, pictures: Sequence[np.ndarray], sound: np.ndarray) -> Path:
    """Labels, faces, features, finetuned models of va and expr, and a fusion of va."""
    for number, name in enumerate(TRACKS):
        write_video(root / "videos" / f"{name}.mp4", [np.roll(one, number, axis=1) for one in pictures], sound=sound)
        split = "Validation_Set" if name == "v1" else "Train_Set"
        values = np.sin(np.arange(len(pictures)) + number)
        _write(root / "va" / split / f"{name}.txt", ["valence,arousal", *(f"{v:.3f},{-v:.3f}" for v in values)])
        _write(root / "expr" / split / f"{name}.txt", [EXPR_HEADER, *(str(row % 8) for row in range(len(pictures)))])
    (root / "data.toml").write_text(TOML)
    cfg = config(root)
    align.run(cfg)
    finetune.run(cfg, task="va")
    finetune.run(cfg, task="expr")
    extract_visual.run(cfg)
    extract_audio.run(cfg)
    fuse.run(cfg, task="va")
    return root


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
