"""The Ray executor as far as it needs no cluster: what is asked of it, what is refused, what a node checks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from abaw import __version__
from abaw.config import RunConfig
from abaw.data.manifest import Track
from abaw.errors import AbawError, ExitCode
from abaw.executors import Resources, TrackResult, run_units
from abaw.executors.ray_node import Job, Told, run_on_node

RAY = RunConfig(executor="ray", ray_address="head:6379", workers=3)
UNIT = [Track("a", None, {})]


def work(unit: list[Track]) -> Iterator[TrackResult]:
    for track in unit:
        yield TrackResult(track.track_id)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(AbawError, match="needs the package ray") as caught:
        run_units([UNIT], work, resources=Resources("ray"))
    assert caught.value.code == ExitCode.MISSING
    assert "pip install 'abaw[ray]'" in caught.value.fix


def test_nothing_to_do_needs_no_cluster(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_units([], work, resources=Resources("ray")) == []


def test_ray_is_not_imported_unless_it_is_chosen():
    code = (
        "import sys\nfrom abaw import executors\nimport abaw.executors.ray_tasks\nfrom abaw.stages import align, fuse\n"
        "executors.run_units([], print, workers=2)\nprint('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_unit_declares_a_gpu_where_its_device_is_one(tmp_path):
    found = Resources.of(RAY, writes=tmp_path, device="cuda:0", gpu_share=0.25)
    assert (found.gpus, found.cpus, found.at_once, found.address) == (0.25, 1, 3, "head:6379")
    assert Resources.of(RAY, writes=tmp_path, device="cpu", cpus=4).gpus == 0
    assert Resources.of(RAY, writes=tmp_path, device="cpu", cpus=4).cpus == 4


def test_folders_that_nodes_need_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Resources.of(RAY, writes=Path("out"), reads=[Path("videos"), None])
    assert (found.writes, found.reads) == (tmp_path / "out", (tmp_path / "videos",))


def test_the_local_executor_asks_for_nothing(tmp_path):
    assert Resources.of(RunConfig(device="cuda:1"), writes=tmp_path, device="cuda:1") == Resources()


def test_a_gpu_by_its_number_is_refused(tmp_path):
    with pytest.raises(AbawError, match='as device "cuda:1" does') as caught:
        Resources.of(RAY.model_copy(update={"device": "cuda:1"}), writes=tmp_path, device="cuda:1")
    assert caught.value.fix == "use --device cuda: Ray gives each unit a GPU"


# -- what a node checks before it works --------------------------------------------------------------------------------
def test_a_node_with_another_version_says_so(tmp_path):
    found = run_on_node(UNIT, "0.0.0", Job(work, tmp_path))
    assert isinstance(found, AbawError)
    assert f"has abaw {__version__}, the command is of abaw 0.0.0" in found.what


def test_a_node_whose_folder_of_that_name_is_another_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run_on_node(UNIT, __version__, Job(work, tmp_path, marker=tmp_path / ".0.tmp"))
    assert isinstance(found, AbawError)
    assert f"has another folder {tmp_path}" in found.what


def test_a_node_without_the_folder_of_results_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run_on_node(UNIT, __version__, Job(work, tmp_path, marker=tmp_path / "out" / ".0.tmp"))
    assert isinstance(found, AbawError)
    assert f"has no {tmp_path / 'out'}" in found.what


def test_a_node_that_is_fit_does_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".0.tmp").touch()
    found = run_on_node(UNIT, __version__, Job(work, tmp_path, reads=(tmp_path,), marker=tmp_path / ".0.tmp"))
    assert isinstance(found, Told)
    assert [result.track_id for result in found.results] == ["a"]


def test_relative_paths_start_at_the_commands_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").mkdir()
    run_on_node(UNIT, __version__, Job(work, tmp_path / "project"))
    assert Path.cwd() == tmp_path / "project"
