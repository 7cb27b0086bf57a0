"""Weights that a configuration names: are they there, whole, and the published ones? No torch, nothing downloaded."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from abaw.checkpoint import read_layout
from abaw.config import AudioEncoderConfig, Config, VisualEncoderConfig
from abaw.config.encoders import AUDIO_NAMES, VISUAL_NAMES, registry_name
from abaw.encoders.audio import AUDIO_ENCODERS
from abaw.encoders.published import PUBLISHED
from abaw.errors import AbawError, ExitCode
from abaw.media.mtcnn_weights import weight_files
from abaw.stages.doctor.findings import Finding, good, note, problem
from abaw.weights import DEFAULT_FOLDER, WEIGHTS, known_sha256, readable, weight_file

CHECK = "weights"
RANDOM = "random"
# Encoders that take the weights of a run of this configuration where none are named: by the run's stage.
OF_RUNS = {"mae": "pretrain", "finetuned": "finetune", "emma": "finetune", "emae": "finetune"}
MODEL_FOLDER = ("config.json", "model.safetensors", "pytorch_model.bin")  # a folder of Hugging Face holds one of them
Table = VisualEncoderConfig | AudioEncoderConfig


class Good(NamedTuple):
    """A file that is there; ``verified``: its sha256 is the published one."""

    key: str
    path: str
    verified: bool = False


class Sought(NamedTuple):
    """Published files, the first of which that is found is taken: name -> sha256 (or its beginning), "" = unknown."""

    files: Mapping[str, str]
    origin: str
    licence: str


def findings(cfg: Config, *, hub: Path | None) -> Iterator[Finding]:
    """A finding for all that is well, and one for each file that is missing, damaged or not made yet.

    ``hub``: torch's hub folder; None where torch did not say.
    """
    found: list[Good] = []
    for key, check in _named(cfg, hub or _hub()).items():
        try:
            for item in check:
                if isinstance(item, Good):
                    found.append(item)
                else:
                    yield item
        except AbawError as error:
            code = ExitCode.CONFIG if error.code is ExitCode.CONFIG else ExitCode.MISSING
            yield problem(CHECK, f"{key}: {error.what}\n{error.where}", fix=error.fix, code=code)
        except ImportError as error:
            yield problem(CHECK, f"{key}: {error}", fix="install it again: pip install abaw", code=ExitCode.MISSING)
    if found:
        verified = sum(item.verified for item in found)
        text = f"{', '.join(item.key for item in found)}: there"
        text += f", {verified} of {len(found)} verified by sha256" if verified else ""
        yield good(CHECK, text, found=[item._asdict() for item in found])


Checks = Iterator[Good | Finding]


def _named(cfg: Config, hub: Path) -> dict[str, Checks]:
    """Key of the configuration -> check of what it names; each is done when it is iterated over."""
    checks: dict[str, Checks] = {"align.detector": _detector(cfg)}
    if cfg.pretrain.init_from != "none":
        checks["pretrain.init_from"] = _file(cfg, "pretrain.init_from", cfg.pretrain.init_from)
    tables = {"finetune": cfg.finetune, **{f"finetune.{task}": one for task, one in cfg.finetune_tasks.items()}}
    for name, table in tables.items():
        if table.init_from not in ("none", "pretrain"):
            checks[f"{name}.init_from"] = _file(cfg, f"{name}.init_from", table.init_from)
        if table.model == "emma" and table.emma.classifier:
            key, file = f"{name}.emma.classifier", table.emma.classifier.rpartition(":")[2]
            checks[key] = _file(cfg, key, file)
    for name in dict.fromkeys([*cfg.extract_visual.encoders, *cfg.extract_audio.encoders]):
        encoder = table_of(cfg, name)
        if encoder is not None:
            checks[f"encoders.{name}"] = _encoder(cfg, name, encoder, hub)
    return checks


def table_of(cfg: Config, name: str) -> Table | None:
    """[encoders.<name>], or the defaults of the registry's encoder of that name; None where there is neither."""
    if name in cfg.encoders:
        return cfg.encoders[name]
    if name in VISUAL_NAMES:
        return VisualEncoderConfig(encoder=name)
    return AudioEncoderConfig(encoder=name) if name in AUDIO_NAMES else None


# -- alignment ---------------------------------------------------------------------------------------------------------
def _detector(cfg: Config) -> Checks:
    detector = cfg.align.detector
    if detector == "mtcnn":
        for file in weight_files():
            if not _is_as_installed(file):
                fix = 'pip install --force-reinstall --no-deps "mtcnn>=1.0,<2"'
                text = f"{file.name} of the package mtcnn is not the file that was installed"
                yield problem(CHECK, text, fix=fix, code=ExitCode.MISSING)
                return
        yield Good("align.detector", "package mtcnn", verified=True)
    elif detector == "yunet":
        yield _yunet(cfg)
    if detector == "insightface" or cfg.align.pack is not None:
        from abaw.media.insightface_pack import pack_files

        files = pack_files(cfg.align.pack)
        for kind, file in files._asdict().items():
            if file is not None:
                yield Good(f"align.pack ({kind})", str(file), _is_published(file, PUBLISHED["iresnet"].files))
        if detector == "insightface" and files.detection is None:
            fix = "give a pack with a detection model, such as buffalo_l"
            yield problem(CHECK, f"{cfg.align.pack} holds no detection model", fix=fix, code=ExitCode.MISSING)


def _is_as_installed(file: Path) -> bool:
    """Whether a file of mtcnn has the sha256 in the record of its installation."""
    for entry in metadata.files("mtcnn") or []:
        if entry.hash is not None and entry.hash.mode == "sha256" and Path(str(entry.locate())) == file:
            digest = hashlib.sha256(file.read_bytes()).digest()
            return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == entry.hash.value
    return True  # installed in another way, without a record


def _yunet(cfg: Config) -> Good | Finding:
    entry, folder = WEIGHTS["yunet"], cfg.run.weights_dir or DEFAULT_FOLDER
    if cfg.align.weights is not None:
        named = cfg.align.weights
        if named.is_file():
            return Good("align.weights", str(named), known_sha256(named) == entry.sha256)
        text, fix = f"align.weights: there is no file {named}", "correct the path, or leave it out: it is downloaded"
        return problem(CHECK, text, fix=fix, code=ExitCode.MISSING)
    with readable(folder / entry.file):
        path = (folder / entry.file).expanduser()
        there = path.exists()
    if there or cfg.run.offline:
        return Good("align.detector", str(weight_file("yunet", folder=folder, offline=True)), verified=True)
    text = f"align.detector: {entry.file} is not there yet; the first `abaw align` downloads it ({entry.size} bytes)"
    return note(CHECK, text, f"where there is no network, put it to {path}, from {entry.urls[0]}")


# -- encoders ----------------------------------------------------------------------------------------------------------
def _encoder(cfg: Config, name: str, table: Table, hub: Path) -> Checks:
    key, encoder = f"encoders.{name}", registry_name(table.encoder)
    if table.weights == RANDOM:
        yield note(CHECK, f"{key}: random weights, for tests of speed only", "name a file with weights")
    elif encoder == "onnx":
        yield _file_there(key, _path(cfg, table.encoder.partition(":")[2]))
    elif table.weights:
        yield from _file(cfg, key, table.weights, sought=_sought(encoder, table))
    elif encoder in OF_RUNS:
        yield _of_run(cfg, key, encoder)
    elif encoder == "timm":
        text = f"{key}: the weights of {table.encoder} are looked for in the folder of weights and the hub cache"
        yield note(CHECK, f"{text} when it runs", 'name a file to be sure: weights = "FILE"')
    else:
        sought = _sought(encoder, table)
        if sought is not None:
            yield _published(cfg, key, sought, hub)
    if isinstance(table, AudioEncoderConfig) and table.pca:
        yield _file_there(f"{key}.pca", _path(cfg, table.pca))


def _of_run(cfg: Config, key: str, encoder: str) -> Good | Finding:
    """Weights of a run that this configuration describes; not there is what a new project looks like."""
    stage = OF_RUNS[encoder]
    if stage == "pretrain":
        runs = [cfg.run_dir("pretrain", cfg.pretrain.name or cfg.pretrain.preset)]
    else:
        tables = {cfg.finetune.task: cfg.finetune_for(cfg.finetune.task), **cfg.finetune_tasks}
        wanted = {task: table for task, table in tables.items() if encoder in (table.model, "finetuned")}
        runs = [cfg.run_dir("finetune", table.run_name, task) for task, table in wanted.items()][:1]
    for run in runs:
        if (run / "best.safetensors").is_file():
            return _file_there(key, run / "best.safetensors")
    place = f" ({runs[0]})" if runs else ""
    return note(CHECK, f"{key}: its weights are not there yet{place}", f"`abaw {stage}` makes them")


def _sought(encoder: str, table: Table) -> Sought | None:
    """The published files of an encoder; None where it has none."""
    if isinstance(table, VisualEncoderConfig):
        entry = PUBLISHED.get(encoder)
        return Sought(entry.files, entry.origin, entry.licence) if entry and entry.files else None
    own = AUDIO_ENCODERS[encoder]
    file = own.weights.get(table.model) or own.weights.get("")
    return Sought({file.file: file.sha256}, file.url or own.origin, own.licence) if file else None


def _published(cfg: Config, key: str, sought: Sought, hub: Path) -> Good | Finding:
    folders = [cfg.run.weights_dir or DEFAULT_FOLDER, hub / "checkpoints"]
    for folder in folders:
        for name, sha256 in sought.files.items():
            with readable(folder / name):
                path = (folder / name).expanduser()
                there = path.is_file()
            if there:
                return _compared(key, path, sha256, sought.origin)
    listed = "\n".join(name + (f" (sha256 {sha256})" if sha256 else "") for name, sha256 in sought.files.items())
    fix = f"put one of these into {folders[0]}, or name a file under [{key}] weights:\n{listed}"
    fix += f"\nfrom {sought.origin}; {sought.licence}"
    text = f"{key}: none of its published files is in {folders[0]} or {folders[1]}"
    return problem(CHECK, text, fix=fix, code=ExitCode.MISSING)


def _compared(key: str, path: Path, sha256: str, origin: str) -> Good | Finding:
    if sha256 and not known_sha256(path).startswith(sha256):
        text = f"{key}: {path} is not the published file (its sha256 does not begin with {sha256[:16]})"
        return problem(CHECK, text, fix=f"download it again from {origin}", code=ExitCode.MISSING)
    return Good(key, str(path), verified=bool(sha256))


# -- files that are named ----------------------------------------------------------------------------------------------
def _file(cfg: Config, key: str, named: str, *, sought: Sought | None = None) -> Checks:
    """A weights file, a run folder, or a folder of Hugging Face."""
    path = _path(cfg, named)
    if path.is_dir() and any((path / name).is_file() for name in MODEL_FOLDER):
        yield Good(key, str(path))
        return
    files = list(sought.files) if sought else []
    inside = next((path / name for name in files if (path / name).is_file()), None) if path.is_dir() else None
    path = inside or cfg.weights_file(named)
    if not path.is_file() and (cfg.run.output / "runs") in path.parents:
        run = path.relative_to(cfg.run.output / "runs").parts[0]
        yield note(CHECK, f"{key}: {path} is not there yet", f"`abaw {run.partition('-')[0]}` makes it")
        return
    found = _file_there(key, path, origin=sought.origin if sought else "")
    if isinstance(found, Good) and sought and _is_published(path, sought.files):
        found = found._replace(verified=True)
    yield found


def _file_there(key: str, path: Path, *, origin: str = "") -> Good | Finding:
    if not path.is_file():
        fix = "correct the path" + (f", or get the file from {origin}" if origin else "")
        return problem(CHECK, f"{key}: there is no file {path}", fix=fix, code=ExitCode.MISSING)
    with readable(path), path.open("rb") as file:
        if not file.read(1):
            fix = "make it again, or restore it from a copy"
            return problem(CHECK, f"{key}: {path} is empty", fix=fix, code=ExitCode.MISSING)
    if path.suffix == ".safetensors":
        read_layout(path)  # AbawError where it is cut off
    return Good(key, str(path))


def _is_published(path: Path, files: Mapping[str, str]) -> bool:
    sha256 = files.get(path.name, "")
    return bool(sha256) and known_sha256(path).startswith(sha256)


def _path(cfg: Config, named: str) -> Path:
    return cfg.root / Path(named).expanduser()


def _hub() -> Path:
    """Where torch keeps its hub, by its own rule, for a torch that could not say."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub"
