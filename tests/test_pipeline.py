"""All commands on a tiny generated set, through the command line, as a user would run them."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from abaw.cli import app

STEPS = """
[run]
threads = 1
workers = 1
[extract_visual]
encoders = ["mae", "landmarks", "static-va"]
[encoders.static-va]
encoder = "finetuned"
weights = "runs/finetune-va-vit_tiny_64"
[pretrain]
steps = 6
batch_size = 16
checkpoint_every = 3
warmup_steps = 1
[finetune]
steps = 6
batch_size = 16
validate_every = 3
warmup_steps = 1
[fuse]
steps = 6
batch_size = 4
window = 20
stride = 10
validate_every = 3
warmup_steps = 1
visual = ["features/visual-mae", "features/visual-landmarks"]
[fuse.va]
visual = ["features/visual-static-va"]
"""
COMMANDS = [
    ["align"],
    ["pretrain"],
    ["finetune", "--task", "va"],
    ["finetune", "--task", "expr"],
    ["finetune", "--task", "au"],
    ["extract-visual"],
    ["extract-audio"],
    ["fuse"],
    ["fuse", "--task", "expr"],
    ["fuse", "--task", "au"],
    ["evaluate"],
    ["submit"],
    ["submit", "--task", "expr"],
    ["submit", "--task", "au"],
    ["report", "fuse-expr-netease"],
    ["predict", "aff-wild2/videos/1-25-480x360.mp4", "--timeline"],
]


def invoke(*args, code=0):
    result = CliRunner().invoke(app, [*args, "-q"])
    assert result.exit_code == code, result.output
    return result


def write_config(root: Path, extra: str) -> None:
    """Replace the tables that `extra` brings; keep the generated [data] and [submit]."""
    text = (root / "data.toml").read_text()
    kept = [block for block in text.split("\n\n") if re.search(r"^\[(data|submit)", block, re.MULTILINE)]
    (root / "data.toml").write_text("\n\n".join(kept) + "\n" + extra)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A tiny set, every command run once in its folder; the truth is deleted before anything reads the set."""
    root = tmp_path_factory.mktemp("pipeline") / "tiny"
    invoke("synth", str(root), "--videos", "8", "--seconds", "2", "--workers", "1")
    shutil.rmtree(root / "truth")
    write_config(root, STEPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        outputs = {" ".join(command): invoke(*command).stdout for command in COMMANDS}
    return root, outputs


@pytest.fixture
def inside(project, monkeypatch):
    monkeypatch.chdir(project[0])
    return project[0]


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob("*") if p.is_file()}


def test_every_artefact_is_where_the_names_say(inside):
    for name in ("faces", "visual-mae", "visual-landmarks", "visual-static-va", "audio-logmel"):
        assert (inside / "features" / name / "store.json").is_file()
    for run in ("pretrain-vit_tiny_64", "finetune-va-vit_tiny_64", "fuse-expr-netease"):
        assert {"run.json", "config.json", "metrics.jsonl", "best.safetensors", "resume.pt", "done"} <= {
            path.name for path in (inside / "runs" / run).iterdir()
        }
    assert len(list((inside / "predictions").iterdir())) == 6


def test_running_all_again_changes_nothing(inside):
    before = snapshot(inside)
    for command in COMMANDS:
        invoke(*command)
    assert snapshot(inside) == before


def test_evaluate_reports_every_predictions_store(inside, project):
    for task in ("va", "expr", "au"):
        assert f"finetune-{task}-vit_tiny_64:" in project[1]["evaluate"]
        assert f"fuse-{task}-netease:" in project[1]["evaluate"]


@pytest.mark.parametrize("task", ["va", "expr", "au"])
def test_submissions_have_the_sample_files_rows(inside, task):
    examples = inside / "aff-wild2/test_set/test_set_examples"
    sample = (examples / f"CVPR_10th_ABAW_{task.upper()}_test_set_example.txt").read_text().splitlines()
    written = (inside / f"submissions/10-{task}/submission-1/predictions.txt").read_text().splitlines()
    assert written[0] == sample[0]
    assert [line.partition(",")[0] for line in written] == [line.partition(",")[0] for line in sample]
    assert {line.count(",") for line in written[1:]} == {{"va": 2, "expr": 1, "au": 12}[task]}


def test_predict_gives_every_task_in_one_table(inside):
    with (inside / "predicted" / "1-25-480x360.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert {"valence", "arousal", "expr", "AU12", "AU12_present"} <= set(rows[0])


def test_all_stores_of_a_track_have_the_same_rows(inside):
    rows = {
        json.loads(invoke("inspect", str(path), "--json").stdout)["rows"] for path in (inside / "features").iterdir()
    }
    assert len(rows) == 1


def test_every_store_verifies(inside):
    for path in [*(inside / "features").iterdir(), *(inside / "predictions").iterdir()]:
        invoke("inspect", str(path), "--verify")


def test_provenance_is_inherited_by_the_last_store(inside):
    header = json.loads((inside / "predictions/fuse-va-netease/store.json").read_text())
    assert [record["labels"] for record in header["trained_on"]] == ["none", "va"]
    faces = json.loads((inside / "features/faces/store.json").read_text())
    assert header["recipe"]["fingerprint"] == faces["recipe"]["fingerprint"] != "unknown"


def test_a_run_says_what_it_was_trained_on(inside):
    record = json.loads((inside / "runs/fuse-va-netease/run.json").read_text())
    header = json.loads((inside / "predictions/fuse-va-netease/store.json").read_text())
    assert (record["trained_on"], record["recipe"]) == (header["trained_on"], header["recipe"])


def test_other_settings_are_refused_and_nothing_changes(inside):
    before = snapshot(inside)
    for command, key in (
        (["align"], "align.size_px=96"),
        (["finetune", "--task", "va"], "finetune.lr=0.5"),
        (["fuse"], "fuse.dropout=0.25"),
        (["extract-audio"], "encoders.logmel={encoder='logmel', num_mels=20}"),
        (["pretrain"], "pretrain.mask_ratio=0.5"),
    ):
        result = invoke(*command, "--set", key, code=4)
        assert invoke(*command, "--set", key, "--dry-run", code=4).stderr == result.stderr
        assert "made with other settings" in result.stderr
        assert "recorded" in result.stderr
    assert snapshot(inside) == before


def test_a_lost_track_is_redone_alone(inside):
    before = snapshot(inside / "features/faces")
    path = next((inside / "features/faces").glob("3-*.h5"))
    content = path.read_bytes()
    path.unlink()
    invoke("align")
    assert path.read_bytes() == content
    after = snapshot(inside / "features/faces")
    assert {name for name in before if before[name] != after[name]} == {str(path)}


def test_a_damaged_track_of_faces_fails_alone(inside):
    path = next((inside / "features/faces").glob("2-*_left.h5"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    for command in ("extract-visual", "extract-audio"):
        encoder = "landmarks" if command == "extract-visual" else "logmel"
        name = f"new{command[8:10]}"
        result = invoke(command, "--encoder", name, "--set", f"encoders.{name}.encoder={encoder}", code=6)
        assert [line for line in result.stderr.splitlines() if line.startswith("failed:")] == [
            line for line in result.stderr.splitlines() if line.startswith(f"failed: {path.stem}:")
        ]
    path.write_bytes(content)
    for folder in (inside / "features").glob("*-new*"):
        shutil.rmtree(folder)


def test_a_missing_track_stops_the_fusion_before_any_training(inside):
    path = next((inside / "features/audio-logmel").glob("3-*.h5"))
    content = path.read_bytes()
    path.unlink()
    result = invoke("fuse", "--overwrite", code=4)
    assert "audio-logmel lacks 1 of" in result.stderr
    assert "abaw extract-audio" in result.stderr
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["fuse", "--set", "fuse.model=netese"], 3, 'did you mean "netease"?'),
        (["fuse", "--set", "fuse.stride=50"], 3, "stride 50 is larger than window 20"),
        (["fuse", "--set", "fuse.visual=['features/none']", "--set", "fuse.name=x"], 4, "there is no visual store"),
        (["fuse", "--set", "fuse.visual=['features/audio-logmel']"], 4, 'is of kind "audio", not "visual"'),
        (["fuse", "--task", "lsd"], 4, "no labels are configured for task lsd"),
        (["fuse", "--task", "vaa"], 3, 'unknown task "vaa"'),
        (["finetune", "--task", "va", "--device", "tpu"], 3, 'unknown device "tpu"'),
        (["extract-visual", "--encoder", "none"], 3, 'unknown visual encoder "none"'),
        (["extract-audio", "--encoder", "none"], 3, 'unknown audio encoder "none"'),
        (["align", "--set", "align.detector=none"], 3, 'unknown face detector "none"'),
        (["align", "--shard", "3/2"], 2, "3/2"),
        (["align", "--set", "data.videos=none"], 4, "does not exist"),
        (["synth", "."], 4, "."),
    ],
)
def test_mistakes_are_messages_with_their_exit_code(inside, args, code, message):
    before = snapshot(inside)
    result = CliRunner().invoke(app, [*args, "-q"])
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert [line.split()[0] for line in result.stderr.splitlines() if not line.startswith("   ")] == [
        "error:",
        "where:",
        "fix:",
    ]
    assert snapshot(inside) == before


def test_dry_run_of_a_finished_stage_says_so(inside):
    before = snapshot(inside)
    for command in COMMANDS[:10]:
        assert "done" in invoke(*command, "--dry-run").stdout
    assert snapshot(inside) == before


def test_an_interrupt_leaves_nothing_half_written(tmp_path):
    command = [sys.executable, "-m", "abaw", "synth", str(tmp_path / "set"), "--videos", "40", "--workers", "2"]
    # A shell's background jobs ignore the signal, and pass that on.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: nothing half-written is left" in stderr
    assert list(tmp_path.iterdir()) == []


def test_one_unreadable_video_is_reported_and_the_others_are_done(inside, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in sorted((inside / "aff-wild2/videos").iterdir())[:2]:
        shutil.copy(path, videos)
    (videos / "broken.mp4").write_text("this is no video")
    (tmp_path / "data.toml").write_text('[data]\nvideos = "videos"\n')
    result = invoke("align", "-c", str(tmp_path / "data.toml"), code=6)
    assert "failed: broken" in result.stderr
    assert len(list((tmp_path / "features/faces").glob("*.h5"))) == 2
    assert "Traceback" not in result.output
