"""Files from strangers run no code and lead nowhere, and the program itself starts no shell.

Each malicious file would touch a trace if it were executed; a first test shows that it does where nothing stops it.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from abaw.cli import app
from abaw.config_file import load_config
from abaw.encoders.audio import AudioOptions, build_audio_encoder
from abaw.encoders.visual import VisualOptions, build_visual_encoder
from abaw.errors import AbawError
from abaw.media.container import open_container
from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.mtcnn_weights import weight_files
from abaw.stages import import_features
from abaw.store import ArraySpec, FeatureStore, StoreHeader
from abaw.training.resume import read_state, saved_step

ROOT = Path(__file__).parents[2] / "abaw"
NAMES = ("../outside", "/tmp/outside", "..", "a/../../outside", "a\\..\\outside")


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, trace: Path) -> None:
        self._trace = str(trace)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.open, (self._trace, os.O_CREAT | os.O_WRONLY)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """What is there once something was executed."""
    return tmp_path / "was_run"


def as_zip(path: Path, trace: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}, "state": {"step": 3}, "threads": 1, "x": Touch(trace)}, path)


def as_old_pickle(path: Path, trace: Path) -> None:
    content = {"model": {"a": torch.ones(2)}, "state": {"step": 3}, "x": Touch(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_plain_pickle(path: Path, trace: Path) -> None:
    path.write_bytes(pickle.dumps({"x": Touch(trace)}))


def as_npy(path: Path, trace: Path) -> None:
    np.save(path, np.array([Touch(trace)], dtype=object), allow_pickle=True)


def as_npz(path: Path, trace: Path) -> None:
    np.savez(path, a=np.array([Touch(trace)], dtype=object))


CHECKPOINTS = [as_zip, as_old_pickle, as_plain_pickle]
checkpoints = pytest.mark.parametrize("make", CHECKPOINTS, ids=lambda make: make.__name__)


@pytest.mark.parametrize(
    ("make", "name", "load"),
    [
        (as_zip, "w.pt", lambda path: torch.load(path, weights_only=False)),
        (as_old_pickle, "w.pt", lambda path: torch.load(path, weights_only=False)),
        (as_plain_pickle, "w.pt", lambda path: pickle.loads(path.read_bytes())),
        (as_npy, "a.npy", lambda path: np.load(path, allow_pickle=True)),
        (as_npz, "a.npz", lambda path: np.load(path, allow_pickle=True)["a"]),
    ],
    ids=["zip", "old pickle", "plain pickle", "npy", "npz"],
)
def test_the_malicious_files_work_where_nothing_stops_them(tmp_path: Path, trace: Path, make, name, load) -> None:
    make(tmp_path / name, trace)
    load(tmp_path / name)
    assert trace.exists()


# -- no code in files --------------------------------------------------------------------------------------------------
@checkpoints
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.safetensors", "w.ckpt"])
def test_inspect_runs_nothing_of_a_checkpoint(tmp_path: Path, trace: Path, make, name: str) -> None:
    make(tmp_path / name, trace)
    for extra in ([], ["--verify"], ["--convert", str(tmp_path / "out.safetensors")]):
        assert CliRunner().invoke(app, ["inspect", str(tmp_path / name), *extra]).exit_code == 4
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@checkpoints
def test_a_resume_point_runs_nothing(tmp_path: Path, trace: Path, make) -> None:
    make(tmp_path / "resume.pt", trace)
    with pytest.raises(AbawError, match="resume point of run r cannot be read"):
        read_state(tmp_path / "resume.pt", torch.device("cpu"), run="r")
    assert saved_step(tmp_path / "resume.pt") is None
    assert not trace.exists()


@checkpoints
@pytest.mark.parametrize(
    "name", ["mae", "finetuned", "emma", "emae", "dan", "iresnet", "hsemotion", "timm:resnet18", "onnx:w.pt"]
)
def test_weights_of_visual_encoders_run_nothing(tmp_path: Path, trace: Path, make, name: str) -> None:
    make(tmp_path / "w.pt", trace)
    with pytest.raises(AbawError):
        build_visual_encoder(name, VisualOptions(weights="" if name == "onnx:w.pt" else "w.pt", root=tmp_path))
    assert not trace.exists()


@checkpoints
@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm", "vggish"])
def test_weights_of_audio_encoders_run_nothing(tmp_path: Path, trace: Path, make, name: str) -> None:
    make(tmp_path / "w.pt", trace)
    with pytest.raises(AbawError):
        build_audio_encoder(name, AudioOptions(weights="w.pt", root=tmp_path))
    assert not trace.exists()


def test_a_folder_of_hugging_face_runs_nothing(tmp_path: Path, trace: Path) -> None:
    (tmp_path / "model").mkdir()
    config = '{"model_type": "hubert", "auto_map": {"AutoModel": "evil.Model"}, "hidden_size": 8}'
    (tmp_path / "model" / "config.json").write_text(config)
    (tmp_path / "model" / "evil.py").write_text(f"open({str(trace)!r}, 'w')")
    as_zip(tmp_path / "model" / "pytorch_model.bin", trace)
    with pytest.raises(AbawError):
        build_audio_encoder("hubert", AudioOptions(weights="model", root=tmp_path))
    assert not trace.exists()


# -- imports -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a faces store of one track, and an empty folder of foreign features."""
    (tmp_path / "data.toml").write_text('[data]\nvideos = "videos"\n[run]\nworkers = 1\n')
    arrays = {"time": ArraySpec("float64"), "reason": ArraySpec("uint8"), "box": ArraySpec("float32", (4,))}
    faces = FeatureStore.create(tmp_path / "features" / "faces", StoreHeader("faces", "faces", arrays, {}))
    rows = {"valid": np.ones(1, bool), "time": np.zeros(1), "reason": np.zeros(1, np.uint8)}
    faces.write("a", {**rows, "box": np.zeros((1, 4), np.float32)}, fps=25)
    (tmp_path / "theirs").mkdir()
    return tmp_path


@pytest.mark.parametrize(("make", "name"), [(as_npy, "a.npy"), (as_npz, "a.npz"), (as_plain_pickle, "a.npy")])
def test_imported_arrays_run_nothing(project: Path, trace: Path, make, name: str) -> None:
    make(project / "theirs" / name, trace)
    with suppress(AbawError):  # refused before any track
        assert import_features.run(load_config(project / "data.toml"), project / "theirs", name="x").failed
    assert not trace.exists()


@pytest.mark.parametrize("name", NAMES)
def test_names_in_an_imported_table_lead_nowhere(project: Path, name: str) -> None:
    (project / "theirs" / "all.csv").write_text(f"filename,frame,f1\n{name},0,1\na,0,1\n")
    assert made_by_import(project, "all.csv") <= {"a.h5", "store.json"}


def test_names_in_an_imported_hdf5_file_lead_nowhere(project: Path) -> None:
    with h5py.File(project / "theirs" / "all.h5", "w") as file:
        for name in ("..", "outside\\x", "a", ".hidden"):
            file.create_group(name)["features"] = np.ones((1, 2))
    assert made_by_import(project, "all.h5") <= {"a.h5", "store.json"}


@pytest.mark.parametrize("kind", ["external storage", "external link", "virtual"])
def test_an_imported_hdf5_file_shows_no_other_file_of_the_machine(project: Path, kind: str) -> None:
    secret = project / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["1"] = np.full((1, 4), 7, np.uint8)
    with h5py.File(project / "theirs" / "a.h5", "w") as file:
        group = file.create_group("a")
        if kind == "external storage":
            group.create_dataset("1", (1, 4), np.uint8, external=[(str(secret), 0, 4)])
        elif kind == "external link":
            group["1"] = h5py.ExternalLink(str(secret), "1")
        else:
            layout = h5py.VirtualLayout((1, 4), np.uint8)
            layout[:] = h5py.VirtualSource(str(secret), "1", (1, 4))
            group.create_virtual_dataset("1", layout)
    with suppress(AbawError):
        import_features.run(load_config(project / "data.toml"), project / "theirs" / "a.h5", name="x")
    assert not list((project / "features").glob("visual-x/a.h5"))


@pytest.mark.parametrize("name", ["../y", "/tmp/y", "..", "a/b"])
def test_the_name_of_an_imported_store_leads_nowhere(project: Path, name: str) -> None:
    np.save(project / "theirs" / "a.npy", np.ones((1, 2)))
    before = everything(project.parent)
    with pytest.raises(AbawError):
        import_features.run(load_config(project / "data.toml"), project / "theirs", name=name)
    assert everything(project.parent) == before


def made_by_import(project: Path, source: str) -> set[str]:
    """Names of the files that an import made, all of them in its store; refusing the file as a whole makes none."""
    before = everything(project.parent)
    with suppress(AbawError):
        import_features.run(load_config(project / "data.toml"), project / "theirs" / source, name="x")
    made = {path for path in everything(project.parent) - before if path.is_file()}
    assert {path.parent for path in made} <= {project / "features" / "visual-x"}
    return {path.name for path in made}


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", [*NAMES, "", ".hidden", "a\x00b", "a\nb"])
def test_a_store_writes_no_track_of_such_a_name(tmp_path: Path, name: str) -> None:
    header = StoreHeader("visual", "x", {"features": ArraySpec("float32", (2,))}, {})
    store = FeatureStore.create(tmp_path / "in" / "store", header)
    before = everything(tmp_path)
    with pytest.raises(AbawError, match="cannot be a track name"):
        store.write(name, {"valid": np.ones(1, bool), "features": np.ones((1, 2), np.float32)}, fps=25)
    assert everything(tmp_path) == before


# -- media -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server of this machine that nobody should call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{url}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".avi"])
@pytest.mark.parametrize("kind", list(PLAYLISTS))
def test_a_playlist_in_the_guise_of_a_video_calls_nobody(tmp_path: Path, listener, kind: str, suffix: str) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.ts"
    (tmp_path / f"v{suffix}").write_text(PLAYLISTS[kind].format(url=url))
    with pytest.raises(AbawError):
        open_container(tmp_path / f"v{suffix}", kind="video")
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_a_playlist_in_the_guise_of_a_video_opens_no_file_elsewhere(tmp_path: Path, kind: str) -> None:
    (tmp_path / "v").mkdir()
    for url in ("file:///etc/passwd", "/etc/passwd", "../elsewhere.ts"):
        (tmp_path / "v" / "v.mp4").write_text(PLAYLISTS[kind].format(url=url))
        with pytest.raises(AbawError):
            open_container(tmp_path / "v" / "v.mp4", kind="video")


# -- the one exception -------------------------------------------------------------------------------------------------
def test_the_weights_that_are_unpickled_are_those_inside_the_installed_package() -> None:
    package = Path(importlib.util.find_spec("mtcnn").origin).parent
    assert {file.parent for file in weight_files()} == {package / "assets" / "weights"}


def test_no_configuration_names_other_files_to_unpickle(tmp_path: Path, trace: Path) -> None:
    """`align.weights` and `align.pack` are of other detectors; mtcnn reads the package's files whatever they say."""
    for name in ("pnet", "rnet", "onet"):
        as_plain_pickle(tmp_path / f"{name}.lz4", trace)
    build_detector("mtcnn", DetectorOptions(weights=tmp_path / "pnet.lz4", pack=tmp_path, weights_dir=tmp_path))
    assert not trace.exists()


# -- the program itself ------------------------------------------------------------------------------------------------
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput"}
RUNS_TEXT = {"eval", "exec", "compile", "builtins.eval", "builtins.exec"}
UNPICKLES = {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"}
RUNS_FILES = {"torch.hub.load", "torch.jit.load", "yaml.load", "yaml.unsafe_load", "runpy.run_path", "tarfile.open"}
EXTRACTS = ("extract", "extractall")
# Unpickles the weights inside the installed package `mtcnn`, docs/security.md.
EXCEPTIONS = {("media/mtcnn.py", "joblib.load")}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or an attribute; "" for what is computed."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else f"?.{node.attr}"
    return ""


def aliases(tree: ast.AST) -> dict[str, str]:
    """Names that imports bind, and what they stand for: {"np": "numpy", "loads": "pickle.loads"}."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.asname: one.name for one in node.names if one.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def offences(source: str, file: str) -> list[str]:
    """Calls that would run a shell, text, or code from a file."""
    tree, found = ast.parse(source), []
    names = aliases(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, dot, rest = dotted(node.func).partition(".")
        called = names.get(first, first) + dot + rest
        given = {word.arg: word.value for word in node.keywords}
        flags = {name: value.value for name, value in given.items() if isinstance(value, ast.Constant)}
        bad = (
            called in SHELLS | RUNS_TEXT | UNPICKLES | RUNS_FILES
            or called.rpartition(".")[2] in EXTRACTS
            or (called.startswith(("subprocess.", "asyncio.create_subprocess_shell")) and "shell" in given)
            or (called == "torch.load" and flags.get("weights_only") is not True)
            or (called == "numpy.load" and flags.get("allow_pickle") is not False)
            or ("allow_pickle" in given and flags.get("allow_pickle") is not False)
            or "trust_remote_code" in given
            or (called in ("joblib.load", "cloudpickle.load", "dill.load") and (file, called) not in EXCEPTIONS)
        )
        if bad:
            found.append(f"{file}:{node.lineno} {called}")
    return found


def test_the_program_runs_no_shell_no_text_and_no_code_of_files() -> None:
    found = [
        offence
        for path in sorted(ROOT.rglob("*.py"))
        for offence in offences(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "from subprocess import run as go\ngo(command, shell=flag)",
        "import os\nos.system('ls')",
        "eval('1')",
        "from pickle import loads\nloads(data)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import yaml\nyaml.load(text)",
        "import joblib\njoblib.load(path)",
        "import zipfile\nzipfile.ZipFile(path).extractall(folder)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert len(offences(source, "x.py")) == 1


def test_the_search_passes_what_is_safe() -> None:
    source = (
        "import torch, subprocess, re\ntorch.load(path, weights_only=True)\nsubprocess.run(['ls'])\nre.compile('a')"
    )
    assert offences(source, "x.py") == []
