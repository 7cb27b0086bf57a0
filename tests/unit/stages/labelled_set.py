"""The tiny set with labels of every task, and more videos to cut into folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from abaw.config import Config
from abaw.config_file import load_config
from tests.unit.faces_store import make_faces, picture

ROWS = 6
TRAIN, VAL, TEST = ("a", "b_left", "b_right", "video45_1", "video45_2", "c"), ("v",), ("x",)
TOML = """
[data]
videos = "videos"
annotations = { va = "va", expr = "expr", mtl = "mtl" }
test = { va = "test.txt", expr = "test.txt" }
[run]
threads = 1
[finetune]
init_from = "none"
steps = 2
batch_size = 4
validate_every = 1
precision = "fp32"
"""
EXPR_HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


def make_labelled(root: Path) -> Path:
    """Six training tracks of four recordings, one for validation and one for testing."""
    names = [*TRAIN, *VAL, *TEST]
    make_faces(
        root / "features" / "faces", {name: [picture(10 * k + r) for r in range(ROWS)] for k, name in enumerate(names)}
    )
    for split, tracks in (("Train_Set", TRAIN), ("Validation_Set", VAL)):
        for number, name in enumerate(tracks):
            write_va(root, split, name, shift=0.1 * number)
            write_lines(root / "expr" / split / f"{name}.txt", [EXPR_HEADER, *(str(r % 8) for r in range(ROWS))])
    for file, tracks in (("training_set_annotations", TRAIN), ("validation_set_annotations", VAL)):
        write_lines(root / "mtl" / f"{file}.txt", ["image,valence,arousal,expression,aus", *map(mtl_row, tracks)])
    write_lines(root / "test.txt", list(TEST))
    (root / "videos").mkdir()
    (root / "data.toml").write_text(TOML)
    return root


def write_va(root: Path, split: str, name: str, *, shift: float = 0.0) -> None:
    values = np.sin(np.arange(ROWS) + shift)
    write_lines(root / "va" / split / f"{name}.txt", ["valence,arousal", *(f"{v:.3f},{-v:.3f}" for v in values)])


def mtl_row(name: str) -> str:
    """Two labelled rows of a track: the second has no expression and no units."""
    units = ",".join("01" * 6)
    empty = ",".join(["-1"] * 12)
    return f"{name}/00001.jpg,0.5,-0.5,3,{units}\n{name}/00004.jpg,-0.5,0.5,-1,{empty}"


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def config(root: Path, *overrides: str) -> Config:
    return load_config(root / "data.toml", overrides=list(overrides))
