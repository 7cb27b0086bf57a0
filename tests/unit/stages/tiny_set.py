"""A folder with faces, features and valence-arousal labels of four tracks, for tests of the training stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from abaw.config import Config
from abaw.config_file import load_config
from abaw.provenance import make_recipe
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from tests.unit.faces_store import make_faces, picture

ROWS = 6
TRACKS = ("t1", "t2", "v1", "x1")
TOML = """
[data]
videos = "videos"
annotations = { va = "va" }
test = { va = "test.txt" }
[run]
threads = 1
[pretrain]
steps = 4
batch_size = 4
checkpoint_every = 2
precision = "fp32"
[finetune]
steps = 4
batch_size = 4
validate_every = 2
precision = "fp32"
[extract_visual]
encoders = ["mae", "landmarks", "static"]
[encoders.static]
encoder = "finetuned"
weights = "runs/finetune-va-vit_tiny_64"
batch_size = 4
[fuse]
steps = 6
batch_size = 2
window = 4
stride = 2
validate_every = 2
visual = ["features/visual-a", "features/visual-b"]
audio = []
"""


def make_set(root: Path) -> Path:
    """Two training tracks, one for validation (its third face is missing) and one for testing."""
    rows = {name: [picture(10 * k + row) for row in range(ROWS)] for k, name in enumerate(TRACKS)}
    rows["v1"][2] = None
    make_faces(root / "features" / "faces", rows)
    make_features(root / "features" / "visual-a", seed=1)
    make_features(root / "features" / "visual-b", seed=2)
    for split, names in (("Train_Set", ["t1", "t2"]), ("Validation_Set", ["v1"])):
        (root / "va" / split).mkdir(parents=True)
        for name in names:
            values = "".join(f"{0.1 * row:.2f},{-0.1 * row:.2f}\n" for row in range(ROWS))
            (root / "va" / split / f"{name}.txt").write_text("valence,arousal\n" + values)
    (root / "test.txt").write_text("x1\n")
    (root / "videos").mkdir()
    (root / "data.toml").write_text(TOML)
    return root


def make_features(path: Path, *, seed: int, recipe: str = "a", kind: str = "visual") -> FeatureStore:
    """A feature store of three random columns."""
    arrays = {"features": ArraySpec("float16", (3,)), "reason": ArraySpec("uint8")}
    header = StoreHeader(kind, path.name, arrays, {"seed": seed}, make_recipe({"r": recipe}))
    store = FeatureStore.create(path, header)
    for number, track_id in enumerate(TRACKS):
        features = np.random.default_rng([seed, number]).normal(size=(ROWS, 3)).astype(np.float16)
        valid = np.ones(ROWS, bool)
        store.write(track_id, {"features": features, "reason": np.zeros(ROWS, np.uint8), "valid": valid}, fps=25)
    return store


def config(root: Path, *overrides: str) -> Config:
    return load_config(root / "data.toml", overrides=list(overrides))


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
