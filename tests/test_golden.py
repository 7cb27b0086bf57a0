"""Stores and a run of the first format version, written once: every later version reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from abaw.checkpoint import load_checkpoint, load_weights
from abaw.cli import app
from abaw.data.frames import read_faces
from abaw.models.fusion import fusion_from_header
from abaw.store import FeatureStore

GOLDEN = Path(__file__).parent / "golden" / "v1"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
STORES = ["features/faces", "features/visual-landmarks", "features/audio-logmel", "predictions/fuse-va-linear"]


@pytest.mark.parametrize("name", STORES)
def test_a_golden_store_reads_as_it_was_written(name):
    store = FeatureStore.open(GOLDEN / name)
    expected = EXPECTED[name]
    assert store.fingerprint == expected["fingerprint"] == store.header.fingerprint
    assert store.track_ids() == expected["tracks"]
    track_id = store.track_ids()[0]
    assert (store.num_rows(track_id), store.fps(track_id)) == (expected["rows"], expected["fps"])
    for array, total in expected["sums"].items():
        assert float(store.read(track_id, array).astype(np.float64).sum()) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("name", [*STORES, "runs/fuse-va-linear"])
def test_inspect_describes_what_is_golden(name):
    args = ["inspect", str(GOLDEN / name)] + ([] if name.startswith("runs") else ["--verify"])
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output


def test_golden_faces_decode():
    store = FeatureStore.open(GOLDEN / "features/faces", kind="faces")
    track_id = store.track_ids()[0]
    rows = np.flatnonzero(store.valid(track_id))
    faces = read_faces(store, track_id, rows, 32)
    assert faces.shape == (len(rows), 32, 32, 3)
    assert 40 < faces.mean() < 220


def test_golden_weights_load_and_give_the_golden_scores():
    weights, header = load_checkpoint(GOLDEN / "runs/fuse-va-linear/best.safetensors", kind="fusion")
    model = fusion_from_header(header, where="golden")
    load_weights(model, weights, where="golden")
    store = FeatureStore.open(GOLDEN / "features/visual-landmarks")
    track_id = store.track_ids()[0]
    features = torch.from_numpy(store.read(track_id, "features").astype(np.float32))[None]
    present = torch.ones(1, features.shape[1], 1, dtype=torch.bool)
    with torch.inference_mode():
        scores = model.eval()(features, present, present[..., 0])["va"][0].clamp(-1, 1).numpy()
    predictions = FeatureStore.open(GOLDEN / "predictions/fuse-va-linear")
    valid = predictions.valid(track_id)
    assert valid.any()
    assert np.allclose(scores[valid], predictions.read(track_id, "scores/va")[valid], atol=1e-4)


def test_golden_resume_point_loads_without_pickle():
    content = torch.load(GOLDEN / "runs/fuse-va-linear/resume.pt", weights_only=True)
    assert content["state"]["step"] == EXPECTED["steps"]
