"""Files as the challenge's protocol shows them, written by hand: `abaw submit` writes the same bytes.

One small file for every format: values, classes, units, compound expressions, the multi-task row, images named alone,
and the three that have a file per video.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.editions import EDITIONS, check_submission, read_sample
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.tasks import TASKS

GOLDEN = Path(__file__).parents[2] / "golden" / "submissions"
FILES = {
    ("10", "va"): "va.txt",
    ("8", "expr"): "expr.txt",
    ("5", "au"): "au.txt",
    ("9", "ce"): "ce.txt",
    ("11", "mtl"): "mtl.txt",
    ("4", "lsd"): "lsd.txt",
    ("3", "va"): "va-videos",
    ("3", "expr"): "expr-videos",
    ("3", "au"): "au-videos",
}
HIGH, LOW = 0.9, 0.02
UNITS = [[HIGH, *[LOW] * 10, HIGH], [LOW] * 12, [HIGH] * 12]
SCORES = {
    "va": [[0.5, -0.25], [3.0, -3.0], [0.1, -1e-8]],
    "expr": np.full((3, 8), LOW) + HIGH * np.eye(8)[[0, 7, 4]],
    "au": UNITS,
    "ce": np.full((3, 7), LOW) + HIGH * np.eye(7)[[0, 6, 3]],
    "lsd": np.full((3, 6), LOW) + HIGH * np.eye(6)[[2, 5, 0]],  # in the order of the store
}
PARTS = {"10-60-1280x720_right": slice(0, 2), "video45_1": slice(2, 3)}
COMPOUND_PARTS = {"01": slice(0, 2), "02": slice(2, 3)}


def golden_text(name: str) -> str:
    """The file, or the first of its folder."""
    path = GOLDEN / name
    return (path if path.is_file() else min(path.iterdir())).read_text()


def write_sample(folder: Path, task: str, name: str) -> Path:
    """What the organisers would give: dummy labels behind the images, or the list of videos."""
    path = folder / "sample.txt"
    if name.endswith("-videos"):
        path.write_text("10-60-1280x720_right,2\nvideo45_1,1\n")
    else:
        header, *rows = golden_text(name).splitlines()
        path.write_text("\r\n".join([header, *(f"{row.partition(',')[0]},0" for row in rows), ""]))
    return path


def write_predictions(folder: Path, task: str) -> Path:
    heads = TASKS[task].heads
    header = StoreHeader(
        "predictions",
        f"fuse-{task}-x",
        {f"scores/{head.name}": ArraySpec("float32", (head.output_dim,)) for head in heads},
        {"run": "x"},
        label_order={head.name: list(head.labels) for head in heads},
    )
    store = FeatureStore.create(folder / "predictions" / header.name, header)
    parts = COMPOUND_PARTS if task == "ce" else {"images-0": slice(0, 3)} if task == "lsd" else PARTS
    for track_id, part in parts.items():
        scores = {f"scores/{head.name}": np.array(SCORES[head.name], np.float32)[part] for head in heads}
        store.write(track_id, {"valid": np.ones(part.stop - part.start, bool), **scores}, fps=25)
    return store.path


def write_keys(folder: Path) -> None:
    """The faces store of the images that are named alone, in another order than the sample's."""
    store = FeatureStore.create(folder / "features/faces", StoreHeader("faces", "x", {"key": ArraySpec("str")}, {}))
    keys = np.array(["test/10.jpg", "test/0.jpg", "test/1.jpg"], object)
    store.write("images-0", {"valid": np.ones(3, bool), "key": keys}, fps=25)


@pytest.mark.parametrize(("edition", "task"), FILES)
def test_submit_writes_the_golden_file(edition, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "data.toml").write_text('[data]\nvideos = "videos"\n')
    name = FILES[edition, task]
    sample, store = write_sample(tmp_path, task, name), write_predictions(tmp_path, task)
    if task == "lsd":
        write_keys(tmp_path)
    args = ["submit", str(store), "--edition", edition, "--task", task, "--sample", str(sample), "--acknowledge"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    written = tmp_path / f"submissions/{edition}-{task}/submission-1"
    if (GOLDEN / name).is_file():
        assert (written / "predictions.txt").read_bytes() == (GOLDEN / name).read_bytes()
    else:
        files = {path.name: path.read_bytes() for path in (written / "predictions").iterdir()}
        assert files == {path.name: path.read_bytes() for path in (GOLDEN / name).iterdir()}


@pytest.mark.parametrize(("edition", "task"), FILES)
def test_the_golden_file_is_accepted(edition, task, tmp_path):
    submission, name = EDITIONS[edition].submissions[task], FILES[edition, task]
    sample = read_sample(write_sample(tmp_path, task, name), submission)
    verdict = check_submission(GOLDEN / name, submission, sample)
    assert verdict.ok
    assert verdict.notes == []


def test_editions_with_one_header_share_a_golden_file():
    for edition in EDITIONS.values():
        for task, submission in edition.submissions.items():
            names = {name for (_, of_task), name in FILES.items() if of_task == task}
            name = next(name for name in names if name.endswith("-videos") == (submission.layout == "videos"))
            assert golden_text(name).partition("\n")[0] == submission.header
