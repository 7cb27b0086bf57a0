"""What is learned comes from the labels: on shuffled labels, and for predictors that look at nothing, it is chance."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.data.manifest import split_side
from tests.test_pipeline import write_config

CONFIG = """
[run]
threads = 1
workers = 1
[fuse]
model = "static"
visual = []
window = 50
stride = 50
steps = 60
batch_size = 16
lr = 2e-3
validate_every = 60
"""


def invoke(*args):
    result = CliRunner().invoke(app, [*args, "-q"])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """A small set with its sound extracted: sound is the cheapest stream that carries the labels."""
    root = tmp_path_factory.mktemp("learning") / "set"
    invoke("synth", str(root), "--videos", "16", "--seconds", "4", "--workers", "1")
    shutil.rmtree(root / "truth")
    write_config(root, CONFIG)
    # The frames' times are all that extract-audio wants of the faces.
    invoke("align", "-c", str(root / "data.toml"), "--set", "align.detector=center", "--set", "align.size_px=16")
    invoke("extract-audio", "-c", str(root / "data.toml"))
    return root


def score(root, name, *extra):
    config = str(root / "data.toml")
    invoke("fuse", "--task", "va", "-c", config, "--set", f"fuse.name={name}", *extra)
    result = invoke("evaluate", str(root / f"predictions/fuse-va-{name}"), "-c", config, "--json")
    return json.loads(result.stdout)["results"][0]["metrics"]["score"]


def shuffle_labels(source, target):
    """Give every track of a split the labels of another video, cut or repeated to its own length."""
    shutil.copytree(source, target)
    for split in ("Train_Set", "Validation_Set"):
        paths = sorted((target / split).glob("*.txt"))
        texts = [path.read_text().splitlines() for path in paths]
        for index, path in enumerate(paths):
            others = [
                texts[(index + step) % len(paths)]
                for step in range(1, len(paths))
                if split_side(paths[(index + step) % len(paths)].stem)[0] != split_side(path.stem)[0]
            ]
            header, *body = others[0]
            rows = np.resize(np.array(body), len(texts[index]) - 1)
            path.write_text("\n".join([header, *rows]) + "\n")


def test_labels_are_learned_and_shuffled_labels_are_not(heard, tmp_path):
    honest = score(heard, "honest")
    shuffle_labels(heard / "aff-wild2/annotations/VA_Estimation_Challenge", tmp_path / "VA")
    # Trained and scored on labels that belong to other tracks
    shuffled = score(heard, "shuffled", "--set", f"data.annotations.va={tmp_path / 'VA'}")
    # A few dozen seconds hold few independent stretches, so chance is near 0 but not at it.
    assert honest > 0.35
    assert shuffled < 0.2
