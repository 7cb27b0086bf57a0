"""Collections of images: a shard holds several folders, each of which is drawn as one recording."""

from pathlib import Path

import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.data.manifest import Manifest
from abaw.data.scored_labels import predictions_labels
from abaw.errors import AbawError
from abaw.evaluation import Evaluation, evaluate_tracks
from abaw.pooled import resamples
from abaw.scored import Predictions
from abaw.store import FeatureStore
from abaw.tasks import TASKS
from tests.unit.evaluation.small_set import reference, write_scores
from tests.unit.faces_store import make_images

KEYS = [*(f"anna/{k}.jpg" for k in range(5)), *(f"ben/{k}.jpg" for k in range(6)), *(f"cy/{k}.jpg" for k in range(4))]
SHARD = 4  # so that anna lies in two shards, ben in two, cy in two
VA = TASKS["va"].heads[0]


@pytest.fixture
def photos(tmp_path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Labelled images of three folders, one of them without a label, and their scores. Returns labels and scores."""
    rng = np.random.default_rng(0)
    make_images(tmp_path / "features/faces", KEYS, shard_size=SHARD, faceless=["ben/2.jpg"])
    labels = rng.integers(-100, 101, (len(KEYS), 2)) / 100
    labels[7] = -5  # ben/2.jpg
    (tmp_path / "labels").mkdir()
    rows = [f"{key},{v},{a}" for key, (v, a) in zip(KEYS, labels, strict=True)]
    (tmp_path / "labels/val.csv").write_text("\n".join(["path,valence,arousal", *rows, ""]))
    (tmp_path / "data.toml").write_text('[data]\nkind = "images"\nimages = "photos"\nannotations = { va = "labels" }\n')
    (tmp_path / "photos").mkdir()
    scores = (0.5 * labels.clip(-1) + 0.3 * rng.normal(size=labels.shape)).astype(np.float32)
    shards = {f"photos-{n:05d}": {"va": scores[n * SHARD : (n + 1) * SHARD]} for n in range(4)}
    write_scores(tmp_path, "p", "va", shards)
    return tmp_path, labels, scores


def evaluated(root: Path) -> Evaluation:
    cfg = load_config(root / "data.toml")
    scored = Predictions(root / "predictions/p")
    source = predictions_labels(cfg, scored, Manifest.from_config(cfg.data, need_media=False))
    return evaluate_tracks(cfg, scored, source, faces=FeatureStore.open(root / "features/faces"))


def test_all_labelled_images_count(photos):
    root, labels, scores = photos
    found = evaluated(root)
    assert found.metrics()["score"] == pytest.approx(reference(VA, scores, labels).mean(), abs=1e-7)
    assert (found.num_rows, found.num_recordings, len(found.tracks)) == (14, 3, 4)
    assert found.rows.with_face.sum() == 14  # the one without a face


def test_folders_are_drawn_as_a_whole_across_shards(photos):
    root, labels, scores = photos
    folder = np.array([key.partition("/")[0] for key in KEYS])
    drawn = []
    for counts in resamples(3, 60, seed=1).astype(int):
        rows = np.concatenate(
            [np.tile(np.flatnonzero(folder == name), n) for name, n in zip(("anna", "ben", "cy"), counts, strict=True)]
        )
        drawn.append(reference(VA, scores[rows], labels[rows]).mean())
    assert evaluated(root).intervals(60, 1)["score"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-7)


def test_a_shard_is_a_track_of_the_table(photos):
    root, labels, scores = photos
    first, *_, last = evaluated(root).by_track()
    assert (first["track"], first["labelled"], last["labelled"]) == ("photos-00000", 4, 3)
    assert first["score"] == pytest.approx(reference(VA, scores[:4], labels[:4]).mean(), abs=1e-7)


def test_folders_that_are_classes_are_said_to_be_no_recordings(tmp_path):
    keys = [f"val/{name}/{number}.jpg" for name in ("Anger", "Fear") for number in range(3)]
    make_images(tmp_path / "features/faces", keys)
    (tmp_path / "lsd").mkdir()
    (tmp_path / "data.toml").write_text('[data]\nkind = "images"\nimages = "lsd"\nannotations = { lsd = "lsd" }\n')
    decided = np.eye(6, dtype=np.float32)[[0, 0, 2, 2, 2, 2]]
    write_scores(tmp_path, "p", "lsd", {"photos-00000": {"lsd": decided}})
    found = evaluated(tmp_path)
    assert found.metrics()["score"] == pytest.approx((4 / 5 + 6 / 7) / 6)
    assert any("every folder holds images of one class only" in note for note in found.notes)


def test_people_and_parts_of_one_recording_are_drawn_together_as_of_videos(tmp_path):
    names = ("1-30-640x480", "1-30-640x480_left", "1-30-640x480_right", "video45_1", "video45_2", "video46")
    keys = [f"{name}/{number:05d}.jpg" for name in names for number in (1, 2)]
    make_images(tmp_path / "features/faces", keys, shard_size=5)
    (tmp_path / "labels").mkdir()
    rows = [f"{key},{place / 20},{-place / 30}" for place, key in enumerate(keys)]
    (tmp_path / "labels/val.csv").write_text("\n".join(["path,valence,arousal", *rows, ""]))
    (tmp_path / "photos").mkdir()
    (tmp_path / "data.toml").write_text('[data]\nkind = "images"\nimages = "photos"\nannotations = { va = "labels" }\n')
    scores = np.random.default_rng(0).uniform(-1, 1, (12, 2))
    write_scores(tmp_path, "p", "va", {f"photos-{n:05d}": {"va": scores[5 * n : 5 * n + 5]} for n in range(3)})
    assert evaluated(tmp_path).num_recordings == 3


def test_images_aligned_again_since_they_were_scored_are_a_message(photos):
    root, _, scores = photos
    fewer = {f"photos-{n:05d}": {"va": scores[n * SHARD : (n + 1) * SHARD - 1]} for n in range(4)}
    write_scores(root, "q", "va", fewer)
    cfg = load_config(root / "data.toml")
    scored = Predictions(root / "predictions/q")
    source = predictions_labels(cfg, scored, Manifest.from_config(cfg.data, need_media=False))
    with pytest.raises(AbawError, match="photos-00000 has 4 images now, but had 3 when it was scored"):
        evaluate_tracks(cfg, scored, source, faces=None)
