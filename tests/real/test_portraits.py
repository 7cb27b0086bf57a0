"""A mini set made from frames of real speakers goes through training and is reported."""

from __future__ import annotations

import json

import cv2
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.media.video import read_frames
from tests.test_pipeline import STEPS, write_config

pytestmark = pytest.mark.real


def invoke(*args):
    result = CliRunner().invoke(app, [*args, "-q"])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_set_of_real_speakers_trains_and_is_reported(real_data, tmp_path, monkeypatch):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for path in sorted((real_data / "videos").glob("grid_*.mpg")):
        frame = next(iter(read_frames(path)))
        cv2.imwrite(str(photographs / f"{path.stem}.png"), frame.image[..., ::-1])
    root = tmp_path / "set"
    invoke("synth", str(root), "--videos", "8", "--seconds", "2", "--portraits", str(photographs))
    write_config(root, STEPS.replace("steps = 6", "steps = 20"))
    monkeypatch.chdir(root)
    align = json.loads(invoke("align", "--json"))
    invoke("pretrain")
    finetune = json.loads(invoke("finetune", "--task", "va", "--json"))
    invoke("extract-visual", "--encoder", "static-va")
    invoke("extract-audio")
    invoke("fuse", "--task", "va")
    results = {entry["name"]: entry for entry in json.loads(invoke("evaluate", "--json"))["results"]}
    assert align["reasons"]["VALID"] > 0.8 * align["rows"]
    assert finetune["last_loss"] < finetune["first_loss"]
    assert set(results) == {"finetune-va-vit_tiny_64", "fuse-va-netease"}
    assert all(-1 <= entry["metrics"]["score"] <= 1 and entry["num_rows"] > 0 for entry in results.values())
