"""Commands on a Ray cluster of two nodes give the bytes of a local run, also where a node goes midway."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.stages import extract_audio, extract_visual, fuse
from tests.scale.conftest import TwoNodes
from tests.unit.conftest import write_video
from tests.unit.stages.test_fuse_folds import PRETRAINED, features, make_root

pytestmark = pytest.mark.slow
NUM_VIDEOS, FRAMES = 8, 200
TOML = '[data]\nvideos = "{videos}"\n[run]\nworkers = 2\n[align]\ndetector = "center"\n'
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short videos whose pictures all differ."""
    folder = tmp_path_factory.mktemp("scale") / "videos"
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    for number in range(NUM_VIDEOS):
        pictures = [np.roll(noise, 3 * row + 20 * number, axis=1) for row in range(FRAMES)]
        write_video(folder / f"{number}.mp4", pictures)
    return folder


def start(folder: Path, videos: Path, *overrides: str) -> subprocess.Popen[str]:
    """`abaw align --json` on a folder, in a process of its own."""
    folder.mkdir()
    (folder / "data.toml").write_text(TOML.format(videos=videos))
    command = [sys.executable, "-m", "abaw", "align", "--json", "-c", str(folder / "data.toml")]
    command += [part for text in overrides for part in ("--set", text)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def files(folder: Path, store: str = "faces") -> dict[str, bytes]:
    """Bytes of each track file of a store."""
    return {path.name: path.read_bytes() for path in sorted((folder / "features" / store).glob("[!.]*.h5"))}


def busy_workers(node: Any) -> list[str]:
    """Names of the tasks that run on a node: Ray names its idle processes so."""
    raylet = str(node.all_processes["raylet"][0].process.pid)
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
            title = (path.parent / "cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:  # it has ended meanwhile
            continue
        if parent == raylet and title.startswith("ray::") and title.removeprefix("ray::").isdecimal():
            found.append(title)
    return found


def wait_until(is_so: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def local(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run in local processes."""
    folder = tmp_path_factory.mktemp("whole") / "local"
    process = start(folder, videos)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    return folder


def test_a_node_that_is_removed_midway_changes_no_byte(
    two_nodes: TwoNodes, videos: Path, local: Path, tmp_path: Path
) -> None:
    ray = f"run.ray_address={two_nodes.address}"
    process = start(tmp_path / "ray", videos, "run.executor=ray", ray, "run.workers=0")
    second = next(iter(two_nodes.cluster.worker_nodes))
    wait_until(lambda: len(files(tmp_path / "ray")) >= 2, process)
    wait_until(lambda: busy_workers(second), process)
    two_nodes.cluster.remove_node(second, allow_graceful=False)
    there = len(files(tmp_path / "ray"))
    out, err = process.communicate(timeout=TIMEOUT_S)
    two_nodes.add()  # for the tests that follow
    assert process.returncode == 0, err
    assert 2 <= there < NUM_VIDEOS
    assert "was lost, it is run again (1 of 3)" in err
    assert json.loads(out)["tracks"] == NUM_VIDEOS
    assert files(tmp_path / "ray") == files(local)


def test_features_are_those_of_a_local_run(two_nodes: TwoNodes, local: Path, tmp_path: Path) -> None:
    shared = [f"extract_{kind}.faces={local}/features/faces" for kind in ("visual", "audio")]
    for name, executor in (("here", "local"), ("there", "ray")):
        own = [f"run.output={tmp_path / name}", f"run.executor={executor}", f"run.ray_address={two_nodes.address}"]
        cfg = load_config(local / "data.toml", overrides=[*shared, *own, "run.threads=1"])
        extract_visual.run(cfg, encoder="landmarks")
        extract_audio.run(cfg, encoder="logmel")
    for store in ("visual-landmarks", "audio-logmel"):
        assert len(files(tmp_path / "here", store)) == NUM_VIDEOS
        assert files(tmp_path / "there", store) == files(tmp_path / "here", store)


def test_folds_of_fuse_are_those_of_a_local_run(two_nodes: TwoNodes, tmp_path: Path) -> None:
    found = {}
    for name, executor in (("here", "local"), ("there", "ray")):
        root = make_root(tmp_path / name)
        features(root, "own", trained_on=[PRETRAINED])
        own = [f"run.executor={executor}", f"run.ray_address={two_nodes.address}", "run.threads=1"]
        summary = fuse.run(load_config(root / "data.toml", overrides=own), task="va", folds="3")
        assert [key for key, _ in summary.lines] == ["split", "fold 0", "fold 1", "fold 2", "scores"]
        found[name] = {
            str(path.relative_to(root)): path.read_bytes()
            for pattern in ("predictions/*/*.h5", "runs/*/*/best.safetensors", "splits/*.json")
            for path in root.glob(pattern)
        }
    assert len([name for name in found["here"] if name.endswith("best.safetensors")]) == 3
    assert found["there"] == found["here"]
