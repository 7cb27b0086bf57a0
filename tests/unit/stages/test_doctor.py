"""`abaw doctor` on a healthy set, on broken ones, and with libraries that crash or hang."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from abaw import console
from abaw.config_file import load_config
from abaw.errors import AbawError, ExitCode
from abaw.stages import doctor
from abaw.stages.doctor import child, device, layout, machine, media, room, software, weights
from abaw.stages.doctor.child import Child, Outcome
from abaw.stages.doctor.findings import Finding, Level, good, isolated, lines_of, note, problem, worst
from tests.unit.conftest import write_video

LABELS = "valence,arousal\n" + "0.5,0\n" * 6
TOML = """
[data]
videos = "videos"
annotations = { va = "va" }
test = { va = "test.txt" }
[run]
device = "cpu"
workers = 1
[align]
detector = "center"
"""


def make(root: Path, toml: str = TOML) -> Path:
    """Three videos of six frames: one to train on, one to validate, one to test."""
    picture = np.full((48, 64, 3), 90, np.uint8)
    for name in ("a", "b", "c"):
        write_video(root / "videos" / f"{name}.mp4", [picture] * 6)
    for split, name in (("Train_Set", "a"), ("Validation_Set", "b")):
        (root / "va" / split).mkdir(parents=True)
        (root / "va" / split / f"{name}.txt").write_text(LABELS)
    (root / "test.txt").write_text("c\n")
    (root / "data.toml").write_text(toml)
    return root


# In a process of its own, as the command is: which heavy libraries it imports shows at the end.
RUN = """
import json, sys
from pathlib import Path
from abaw import console
from abaw.config_file import load_config
from abaw.stages import doctor
config = Path(sys.argv[1])
summary = doctor.run(load_config(config), config=config)
console.show(summary, json="--json" in sys.argv)
print([name for name in ("torch", "av", "cv2", "matplotlib") if name in sys.modules])
sys.exit(int(summary.exit_code))
"""


class Examined(NamedTuple):
    """What doctor said of the healthy set, its status, the libraries it had imported, and files it left."""

    said: dict
    status: int
    imported: str
    left: list[Path]


@pytest.fixture(scope="module")
def examined(tmp_path_factory) -> Examined:
    root = make(tmp_path_factory.mktemp("healthy"))
    before = set(root.rglob("*"))
    command = [sys.executable, "-c", RUN, str(root / "data.toml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text, _, imported = done.stdout.strip().rpartition("\n")
    return Examined(json.loads(text), done.returncode, imported, sorted(set(root.rglob("*")) - before))


def config(root: Path, text: str):
    (root / "data.toml").write_text(text)
    return load_config(root / "data.toml")


def checks(said: dict) -> dict[str, dict]:
    """The last record of each check."""
    return {record["check"]: record for record in said["checks"]}


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level.value for finding in findings]


# -- the whole ---------------------------------------------------------------------------------------------------------
def test_a_healthy_set_is_ready_but_for_the_weights_that_runs_will_make(examined: Examined) -> None:
    odd = [(record["check"], record["fix"]) for record in examined.said["checks"] if record["level"] != "ok"]
    allowed = {"memory", "processors", "open files", "device"}  # of the machine that the tests run on
    assert [one for one in odd if one[0] not in allowed] == [("weights", "`abaw pretrain` makes them")]
    assert (examined.status, examined.said["ready"], examined.said["code"]) == (0, True, 0)


def test_the_data_is_counted(examined: Examined) -> None:
    found = checks(examined.said)
    assert found["media"]["data"]["count"] == 3
    assert found["va labels"]["data"]["splits"] == {"train": 1, "val": 1, "test": 1}
    assert found["pairs"]["data"] == {"named": 3, "without_media": [], "without_labels": []}
    assert found["disk"]["data"]["rows"] == 18


def test_each_check_is_there(examined: Examined) -> None:
    named = {"configuration", "python", "packages", "torch", "device", "codecs", "opencv", "processors", "memory"}
    assert named | {"output", "cache", "weights", "open files"} <= set(checks(examined.said))


def test_nothing_is_left_behind(examined: Examined) -> None:
    assert examined.left == []


def test_neither_torch_nor_av_nor_opencv_enters_its_process(examined: Examined) -> None:
    assert examined.imported == "[]"


def test_without_a_configuration_the_machine_alone_is_checked(tmp_path: Path, capsys) -> None:
    summary = doctor.run(None, config=tmp_path / "data.toml")
    console.show(summary)
    found, lines = checks(summary.data), capsys.readouterr().out.splitlines()
    assert "the machine alone was checked" in found["configuration"]["text"]
    assert "media" not in found
    assert summary.exit_code == 0
    assert lines[0].startswith("~ configuration")
    assert lines[-1].startswith("  doctor")
    assert len(lines) < 30


def test_a_broken_configuration_and_a_broken_torch_are_both_told(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "data.toml").write_text("[data]\nvidoes = 1\n")
    (tmp_path / "torch.py").write_text("raise ImportError('no libtorch.so')")
    monkeypatch.syspath_prepend(tmp_path)
    summary = doctor.run(None, config=tmp_path / "data.toml")
    found = checks(summary.data)
    assert 'did you mean "videos"?' in found["configuration"]["text"]
    assert found["configuration"]["code"] == ExitCode.CONFIG
    assert "no libtorch.so" in found["torch"]["text"]
    assert found["codecs"]["level"] == "ok"
    assert summary.exit_code == ExitCode.MISSING


# -- findings ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("codes", "expected"), [([], 0), ([3], 3), ([4, 3], 4), ([3, 5, 4], 5), ([1, 3], 3), ([1], 1)])
def test_the_worst_problem_gives_the_exit_code(codes: list[int], expected: int) -> None:
    found = [good("a", "x"), note("b", "y"), *(problem("c", "z", fix="f", code=ExitCode(code)) for code in codes)]
    assert worst(found) == expected


def test_a_fix_stands_below_its_problem() -> None:
    found = problem("disk", "too full\nby far", fix="free some\nor move", code=ExitCode.DATA)
    assert lines_of([good("python", "3.12"), found]) == [
        ("  python", "3.12"),
        ("! disk", "too full"),
        ("", "  by far"),
        ("", "  fix: free some"),
        ("", "       or move"),
    ]


def test_a_check_that_fails_is_a_finding_that_keeps_what_came_before(caplog) -> None:
    def check():
        yield good("labels", "first")
        raise ValueError("second")

    logger = logging.getLogger("abaw.stages.doctor.findings")
    logger.addHandler(caplog.handler)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        first, failed = isolated("labels", check)
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(before)
    assert first.text == "first"
    assert (failed.level, failed.code) == (Level.PROBLEM, ExitCode.BUG)
    assert "ValueError: second" in failed.text
    assert "Traceback" in failed.trace
    assert "Traceback" in caplog.text


def test_a_library_that_ends_the_program_ends_its_check_alone() -> None:
    def check():
        sys.exit(3)
        yield

    assert [finding.code for finding in isolated("weights", check)] == [ExitCode.BUG]


def test_a_missing_module_is_missing() -> None:
    def check():
        import a_module_that_nobody_has  # noqa: F401

        yield good("x", "y")

    (found,) = isolated("weights", check)
    assert found.code == ExitCode.MISSING
    assert "a_module_that_nobody_has" in found.text


def test_a_users_mistake_is_told_as_its_stage_would() -> None:
    def check():
        raise AbawError("no folder x", where="data.videos", fix="make it", code=ExitCode.DATA)
        yield

    (found,) = isolated("media", check)
    assert (found.text, found.fix, found.code) == ("no folder x\ndata.videos", "make it", ExitCode.DATA)


def test_a_check_that_hangs_is_a_finding() -> None:
    def check():
        time.sleep(30)
        yield good("x", "y")

    (found,) = isolated("media", check, limit_s=0.1)
    assert "did not come back within 0.1 s" in found.text


# -- probes ------------------------------------------------------------------------------------------------------------
def test_a_probe_that_hangs_is_ended() -> None:
    code = "from abaw.stages.doctor.child import say; import time; say('first', n=1); time.sleep(60)"
    running = Child(["-c", code], limit_s=2)
    outcome = running.result()
    assert outcome.failure == "did not come back within 2 s"
    assert outcome["first"] == {"n": 1}
    assert running.result() is outcome


def test_a_probe_that_crashes_is_told_by_its_signal() -> None:
    code = "from abaw.stages.doctor.child import say; import os; say('first'); os.kill(os.getpid(), 11)"
    outcome = Child(["-c", code], limit_s=30).result()
    assert outcome.failure.startswith("was ended by SIGSEGV")
    assert "first" in outcome


def test_the_last_line_of_an_exception_says_why_a_probe_ended() -> None:
    assert Child(["-c", "raise ValueError('odd')"], limit_s=30).result().failure == "ValueError: odd"


def test_what_libraries_print_is_no_step() -> None:
    code = "print('{\"step\": \"x\"}', end=''); from abaw.stages.doctor.child import say; say('a'); say('end')"
    outcome = Child(["-c", code], limit_s=30).result()
    assert (list(outcome.steps), outcome.failure) == (["a", "end"], "")


def test_no_module_is_taken_from_the_folder_one_is_in(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "av.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    outcome = child.start("probe_media", limit_s=60).result()
    assert outcome["clip"] == {"error": ""}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13"),
    ],
)
def test_a_torch_that_does_not_import_is_a_problem(tmp_path: Path, monkeypatch, body: str, words: str) -> None:
    (tmp_path / "torch.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    outcome = child.start("probe_torch", "auto", limit_s=60).result()
    (found,) = device.findings(outcome, "auto")
    assert words in found.text
    assert "cannot be imported" in found.text
    assert (found.check, found.code) == ("torch", ExitCode.MISSING)


# -- device ------------------------------------------------------------------------------------------------------------
RIGHT = {"precision": "fp32", "wrong": []}
UNTIL_CPU = {"imported": {"version": "2.12.0", "cuda_build": "13.0", "hub": "/hub"}, "cpu": RIGHT}
CHOSEN = {
    **UNTIL_CPU,
    "cuda": {"names": ["GPU A", "GPU B"]},
    "auto": {"device": "cuda:0"},
    "chosen": {"device": "cuda:1"},
    "memory": {"free": 9e9, "total": 24e9},
}


def test_a_driver_that_hangs_is_said_with_what_it_was_asked() -> None:
    found = list(device.findings(Outcome(UNTIL_CPU, "did not come back within 90 s"), "auto"))
    assert levels(found) == ["ok", "problem"]
    assert (
        "while the driver was asked for its devices, the trial process did not come back within 90 s" in found[1].text
    )
    assert "--device cpu" in found[1].fix


def test_a_driver_that_hangs_is_a_note_where_the_cpu_is_wanted() -> None:
    found = list(device.findings(Outcome(UNTIL_CPU, "was ended by SIGSEGV"), "cpu"))
    assert levels(found) == ["ok", "note"]


def test_a_device_that_crashes_while_it_computes_is_named() -> None:
    _, found = device.findings(Outcome(CHOSEN, "was ended by SIGABRT (Aborted)"), "cuda:1")
    assert "cuda:1 (GPU B, 9 of 24 GB free) was to compute" in found.text
    assert found.code == ExitCode.MISSING


def test_a_device_that_computes_wrongly_is_a_problem() -> None:
    steps = {**CHOSEN, "computed": {"precision": "bf16", "wrong": ["gradient"]}}
    _, found = device.findings(Outcome(steps), "cuda:1")
    assert "cuda:1 computes wrongly: gradient" in found.text


def test_what_auto_would_take_is_said_beside_another_choice() -> None:
    steps = {**CHOSEN, "computed": {"precision": "bf16", "wrong": []}}
    _, found = device.findings(Outcome(steps), "cuda:1")
    assert found.data == {"device": "cuda:1", "auto": "cuda:0", "precision": "bf16"}
    assert "auto would take cuda:0" in found.text


def test_a_device_that_nobody_has_is_refused_as_a_run_would() -> None:
    outcome = child.start("probe_torch", "cuda:77", limit_s=90).result()
    _, found = device.findings(outcome, "cuda:77")
    assert 'device "cuda:77" is not available' in found.text
    assert found.code == ExitCode.MISSING


def test_an_unused_gpu_is_noted(tmp_path: Path) -> None:
    steps = {**UNTIL_CPU, "cuda": {"names": []}, "auto": {"device": "cpu"}, "chosen": {"device": "cpu"}}
    _, found = device.findings(Outcome({**steps, "computed": RIGHT}), "auto", nvidia=tmp_path)
    assert found.level is Level.NOTE
    assert "although this machine has an NVIDIA device" in found.text


# -- media -------------------------------------------------------------------------------------------------------------
AV = {"av": {"version": "14", "missing": []}, "clip": {"error": ""}}


def test_missing_decoders_are_listed() -> None:
    found = next(media.findings(Outcome({**AV, "av": {"version": "14", "missing": ["hevc", "av1"]}})))
    assert (found.text, found.code) == ("PyAV 14 has no decoder of hevc, av1", ExitCode.MISSING)


def test_a_missing_system_library_names_its_package() -> None:
    failure = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    _, found = media.findings(Outcome(AV, failure))
    assert found.fix.splitlines()[0] == "apt-get install libgl1"
    _, found = media.findings(Outcome(AV, failure.replace("libGL.so.1", "libgthread-2.0.so.0")))
    assert found.fix.splitlines()[0] == "apt-get install libglib2.0-0"


def test_a_clip_that_does_not_come_back_is_a_problem() -> None:
    found = next(media.findings(Outcome({**AV, "clip": {"error": "3 of 8 frames came back"}}, "")))
    assert "does not decode a clip of H.264 and AAC: 3 of 8 frames" in found.text


# -- packages ----------------------------------------------------------------------------------------------------------
def test_installed_packages_fit_their_ranges() -> None:
    assert levels(list(software.packages())) == ["ok"]
    assert levels(list(software.python())) == ["ok"]


@pytest.mark.parametrize(
    ("lines", "words", "fix"),
    [
        (["numpy>=99", "h5py"], "needed is numpy>=99", '"numpy>=99"'),
        (["no-such-package>=2", "h5py"], "not installed: no-such-package", '"no-such-package>=2"'),
    ],
)
def test_packages_out_of_range_are_named_with_what_to_install(monkeypatch, lines, words, fix) -> None:
    monkeypatch.setattr(software, "requirements", lambda: (">=3.11", lines))
    (found,) = software.packages()
    assert words in found.text
    assert found.fix.endswith(f"-m pip install {fix}")
    assert found.code == ExitCode.MISSING


def test_a_cluster_engine_that_is_not_installed_is_a_problem(tmp_path: Path, monkeypatch) -> None:
    cfg = config(tmp_path, "")
    assert list(software.ray(cfg)) == []
    cfg = cfg.model_copy(update={"run": cfg.run.model_copy(update={"executor": "ray"})})
    monkeypatch.setattr(software, "installed", lambda name: None)
    assert [found.code for found in software.ray(cfg)] == [ExitCode.MISSING]


def test_a_python_out_of_range_is_a_problem(monkeypatch) -> None:
    monkeypatch.setattr(software, "requirements", lambda: (">=4.0", []))
    (found,) = software.python()
    assert "but >=4.0 is needed" in found.text


# -- machine -----------------------------------------------------------------------------------------------------------
def system(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_limits_of_a_container_are_the_lowest_on_the_way_up(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        proc__self__cgroup="0::/jobs/mine\n",
        sys__fs__cgroup__jobs__memory_DOT_max="8000000000\n",
        sys__fs__cgroup__jobs__mine__memory_DOT_max="max\n",
        sys__fs__cgroup__jobs__mine__cpu_DOT_max="150000 100000\n",
    )
    assert machine.cgroup_memory(root) == 8e9
    assert machine.cpu_quota(root) == 1.5


def test_too_many_workers_for_the_memory_are_noted(tmp_path: Path) -> None:
    root = system(tmp_path, proc__meminfo="MemTotal: 16000000 kB\nMemAvailable: 2000000 kB\n")
    (found,) = machine.memory(config(tmp_path, "[run]\nworkers = 16\n"), root=root)
    assert (found.level, found.fix) == (Level.NOTE, "set workers = 4 in [run]")  # 2.048 GB / 0.45


def test_a_quota_of_processors_is_noted(tmp_path: Path) -> None:
    root = system(tmp_path, sys__fs__cgroup__cpu_DOT_max="200000 100000\n")
    (found,) = machine.processors(config(tmp_path, "[run]\nworkers = 16\n"), root=root)
    assert "this container may use 2 cores" in found.text


def test_a_cache_that_takes_no_file_is_a_problem_where_a_download_needs_it(tmp_path: Path) -> None:
    cfg = config(tmp_path, '[run]\nweights_dir = "data.toml/w"\n[align]\ndetector = "yunet"\n')
    assert levels(list(machine.cache(cfg))) == ["problem"]
    cfg = config(tmp_path, '[run]\nweights_dir = "data.toml/w"\n')
    assert levels(list(machine.cache(cfg))) == ["note"]


# -- output and room ---------------------------------------------------------------------------------------------------
def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "out"  # below a file, where not even root writes
    outcome = child.start("probe_folder", str(machine.nearest(place)), limit_s=60).result()
    (found,) = room.folder(outcome, place)
    assert found.code == ExitCode.DATA
    assert "no store can be kept there" in found.text


def test_a_network_folder_is_told_by_its_mount() -> None:
    mounts = "/dev/sda / ext4 rw 0 0\nserver:/x /mnt nfs4 rw 0 0\n//s/y /mnt/a\\040b cifs rw 0 0\n"
    assert room.file_system(Path("/mnt"), mounts) in ("nfs4", "ext4")
    assert room.file_system(Path("/"), mounts) == "ext4"


def test_a_folder_without_locks_is_noted(tmp_path: Path) -> None:
    steps = {"read": {}, "no locks": {"why": "no"}, "hdf5 locks": {}}
    (found,) = room.folder(Outcome(steps), tmp_path)
    assert found.level is Level.NOTE
    assert "it knows no locks" in found.text


def test_the_room_that_stores_take_is_worked_out_from_their_rows(tmp_path: Path) -> None:
    toml = '[align]\nsize_px = 224\n[extract_visual]\nencoders = ["dan"]\n[extract_audio]\nencoders = ["hubert"]\n'
    found = room.needed(config(tmp_path, toml), 1000, done={"faces": 0.75})
    assert found["faces"] == 1000 * (4 * 12_000 + 120) * 0.25
    assert found["visual-dan"] == 1000 * (2 * 512 + 120)
    assert found["audio-hubert"] == 1000 * (2 * 768 + 120)


def test_a_disk_that_is_too_small_is_a_problem(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(room, "FACE_BYTES", 1 << 50)
    cfg = load_config(make(tmp_path) / "data.toml")
    known = layout.Known()
    list(layout.media(cfg, known))
    (found,) = room.disk(cfg, known.tracks)
    assert found.code == ExitCode.DATA
    assert "18 rows" in found.text


def test_widths_and_stages_are_those_of_the_registries() -> None:
    from abaw.encoders.visual import VISUAL_ENCODERS
    from abaw.models.vit import VIT_PRESETS

    assert {name: preset.width for name, preset in VIT_PRESETS.items()} == room.VIT_WIDTHS
    assert {name: entry.stage for name, entry in VISUAL_ENCODERS.items() if entry.stage} == weights.OF_RUNS


# -- weights -----------------------------------------------------------------------------------------------------------
def weighed(root: Path, toml: str) -> list[Finding]:
    return list(weights.findings(config(root, toml), hub=root / "hub"))


def test_the_detector_of_the_package_is_verified(tmp_path: Path) -> None:
    found = weighed(tmp_path, "[extract_visual]\nencoders = []\n")
    assert [item["verified"] for item in found[-1].data["found"]] == [True]


def test_a_download_that_is_not_there_yet_is_a_note_and_offline_a_problem(tmp_path: Path) -> None:
    toml = '[run]\nweights_dir = "w"\n[align]\ndetector = "yunet"\n[extract_visual]\nencoders = []\n'
    assert levels(weighed(tmp_path, toml)) == ["note"]
    assert levels(weighed(tmp_path, toml.replace("[run]", "[run]\noffline = true"))) == ["problem"]
    assert not (tmp_path / "w").exists()


def test_half_of_a_download_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "w600k_r50.onnx").write_bytes(b"half")
    found = weighed(tmp_path, '[run]\nweights_dir = "w"\n[extract_visual]\nencoders = ["iresnet"]\n')
    assert levels(found) == ["problem", "ok"]
    assert "w600k_r50.onnx is not the published file" in found[0].text
    assert found[0].code == ExitCode.MISSING


def test_published_files_that_are_missing_are_listed_with_their_origin(tmp_path: Path) -> None:
    found = weighed(tmp_path, '[run]\nweights_dir = "w"\n[extract_audio]\nencoders = ["vggish"]\n')
    lost = next(finding for finding in found if finding.level is Level.PROBLEM)
    assert "vggish-10086976.pth (sha256 10086976" in lost.fix
    assert "torchvggish" in lost.fix


def test_a_file_in_torchs_hub_is_found(tmp_path: Path) -> None:
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "hubert_fairseq_base_ls960.pth").write_bytes(b"x")
    found = weighed(
        tmp_path, '[run]\nweights_dir = "w"\n[extract_visual]\nencoders = []\n[extract_audio]\nencoders = ["hubert"]\n'
    )
    assert [item["key"] for item in found[-1].data["found"]] == ["align.detector", "encoders.hubert"]


def test_a_checkpoint_that_is_cut_off_is_a_problem_of_weights(tmp_path: Path) -> None:
    save_file({"a": np.zeros(100, np.float32)}, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-10])
    found = weighed(tmp_path, '[pretrain]\ninit_from = "w.safetensors"\n[extract_visual]\nencoders = []\n')
    assert (found[0].code, found[0].text.startswith("pretrain.init_from: ")) == (ExitCode.MISSING, True)


def test_weights_that_a_stage_will_make_are_a_note(tmp_path: Path) -> None:
    toml = (
        '[extract_visual]\nencoders = ["own"]\n[encoders.own]\nencoder = "finetuned"\nweights = "runs/finetune-au-x"\n'
    )
    found = weighed(tmp_path, toml)
    assert (found[0].level, found[0].fix) == (Level.NOTE, "`abaw finetune` makes it")


def test_weights_of_timm_without_a_file_are_left_to_the_run(tmp_path: Path) -> None:
    toml = '[extract_visual]\nencoders = ["own"]\n[encoders.own]\nencoder = "timm:resnet18"\n'
    assert "hub cache when it runs" in weighed(tmp_path, toml)[0].text


# -- data --------------------------------------------------------------------------------------------------------------
def examine(root: Path, toml: str = TOML) -> list[Finding]:
    cfg, known = config(root, toml), layout.Known()
    found = [*layout.media(cfg, known), *layout.labels(cfg, known), *layout.pairs(cfg, known)]
    return [*found, *layout.samples(cfg, known)]


def test_labels_of_another_task_are_told(tmp_path: Path) -> None:
    make(tmp_path)
    found = examine(tmp_path, TOML.replace("{ va =", "{ expr ="))
    assert [finding.code for finding in found if finding.check == "expr labels"] == [ExitCode.DATA]


def test_tracks_without_recordings_and_the_reverse_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "videos" / "a.mp4").unlink()
    (tmp_path / "test.txt").write_text("d\n")
    found = [finding for finding in examine(tmp_path) if finding.check == "pairs"]
    assert found[0].data["without_media"] == ["a", "d"]
    assert found[0].code == ExitCode.DATA
    assert found[1].data["without_labels"] == ["c"]
    assert found[1].level is Level.NOTE


def test_one_missing_folder_does_not_hide_the_others(tmp_path: Path) -> None:
    make(tmp_path)
    found = examine(tmp_path, TOML.replace('{ va = "va" }', '{ va = "va", au = "nowhere" }'))
    assert {finding.check: finding.level.value for finding in found} == {
        "media": "ok",
        "va labels": "ok",
        "au labels": "problem",
    }


def test_recordings_may_be_elsewhere_once_faces_are_aligned(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "features" / "faces").mkdir(parents=True)
    (tmp_path / "features" / "faces" / "store.json").write_text("{}")
    found = examine(tmp_path, TOML.replace('videos = "videos"', 'videos = "gone"'))
    assert (found[0].check, found[0].level) == ("media", Level.NOTE)


def test_a_sample_file_is_read_and_its_tracks_are_looked_for(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "s.txt").write_text("image_location,valence,arousal\nc/00001.jpg,0,0\nz/00001.jpg,0,0\n")
    found = examine(tmp_path, TOML + '[submit]\nsample = "s.txt"\n')
    assert found[-1].data == {"rows": 2, "tracks": 2, "unknown": ["z"]}
    found = examine(tmp_path, TOML + '[submit]\nsample = "test.txt"\n')
    assert (found[-1].check, found[-1].level) == ("va sample", Level.PROBLEM)
