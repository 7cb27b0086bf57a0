"""Weights of other programs: which files are published, where they are looked for, and what to say when none is there.

Nothing is downloaded: the files are for their users to accept the terms of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from abaw.encoders.faces import VisualOptions
from abaw.errors import AbawError, ExitCode
from abaw.weights import DEFAULT_FOLDER, known_sha256

WHERE = "encoders.<name>.weights"


@dataclass(frozen=True)
class Published:
    """Files of one encoder: name -> sha256, "" where nobody states one; the first that is found is taken.

    ``origin``: where they come from; ``licence``: terms of the weights.
    """

    origin: str = ""
    licence: str = ""
    files: dict[str, str] = field(default_factory=dict)


DAN = Published(
    origin="github.com/yaoing/DAN (its checkpoints for AffectNet)",
    licence="trained on AffectNet, which is for research only",
    files=dict.fromkeys(("affecnet8_epoch6_acc0.6326.pth", "affecnet8_epoch5_acc0.6209.pth"), ""),
)
# Recognition models of insightface's packs buffalo_l, antelopev2 and buffalo_s; sha256 as their users state them.
ARCFACE = Published(
    origin="github.com/deepinsight/insightface (packs of the release v0.7: buffalo_l, antelopev2, buffalo_s; "
    "backbone.pth of its model zoo arcface_torch)",
    licence="for non-commercial research only",
    files={
        "w600k_r50.onnx": "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        "glintr100.onnx": "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
        "w600k_mbf.onnx": "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
        "backbone.pth": "",
    },
)
# File names as the library publishes them; sha256 as users of the files state them.
HSEMOTION = Published(
    origin="github.com/sb-ai-lab/EmotiEffLib (models/affectnet_emotions/onnx)",
    licence="code Apache-2.0; trained on AffectNet, which is for research only",
    files={
        "enet_b0_8_best_vgaf.onnx": "00085f9a8ef0bf8fc24a645550185703768951a53aff9f141c8637529eba1840",
        "enet_b0_8_best_afew.onnx": "",
        "enet_b0_8_va_mtl.onnx": "c43e056ad388d4a8dc911832b8291435b2af537f967e5870ebd731574ec7e812",
        "enet_b2_8.onnx": "180a9d4845b59393de4511598a0d1d34b705034691ea32959ce5009db7cf52b7",
        "enet_b2_7.onnx": "",
        "mbf_va_mtl.onnx": "0323ace52ea6dbe9aa4a909d20933f7b8629c3fb41249e338f4316abf2a4828c",
        "mobilevit_va_mtl.onnx": "93a2bee1f2e0b04e313c695078e9351c75e8fb4c457af4268a1716cb35601b0c",
        "mobilenet_7.onnx": "",
    },
)
# By the registry's name, for everything that has weights; here because reading it needs no torch.
PUBLISHED: dict[str, Published] = {
    "mae": Published(origin="abaw pretrain; MAE, MAE-Face, FMAE, timm, Hugging Face", licence="of the file"),
    "finetuned": Published(origin="abaw finetune", licence="of the weights it started from"),
    "emma": Published(origin="abaw finetune, or the authors' file (feature alone)", licence="of the file"),
    "emae": Published(origin="abaw finetune", licence="of the weights it started from"),
    "dan": DAN,
    "iresnet": ARCFACE,
    "hsemotion": HSEMOTION,
    "timm": Published(origin="a file, or the hub cache", licence="of the weights"),
    "onnx": Published(origin="a file", licence="of the file"),
}


def named_path(options: VisualOptions) -> Path:
    """What `options.weights` names: file or folder, from `root` on."""
    return options.root / Path(options.weights).expanduser()


def find_weights(encoder: str, options: VisualOptions, published: Published) -> tuple[Path, tuple[str, ...]]:
    """The weights file of an encoder, and notes about it.

    That is the one named; in a named folder, or in the usual ones where none is named, the first published file.
    Raises AbawError (missing) that names the files, their sha256 and where they go, and for a file of the usual
    folders that is not the published one, such as half of a download.
    """
    if options.weights:
        path = named_path(options)
        if path.is_dir():
            path = _first(encoder, [path], published)
            return path, (_found(path), *_notes(path, published))
        if not path.is_file():
            raise _missing(encoder, f"there is no file {path}", path.parent, published, wanted=path.name)
        return path, _notes(path, published)
    path = _first(encoder, usual_folders(options), published)
    _require_published(path, published)
    return path, (_found(path),)


def usual_folders(options: VisualOptions) -> list[Path]:
    """Where published files are looked for when nobody names one: our folder of weights, and torch's hub cache."""
    import torch

    own = (options.weights_dir or DEFAULT_FOLDER).expanduser()
    return [own, Path(torch.hub.get_dir()).expanduser() / "checkpoints"]


def _first(encoder: str, folders: Sequence[Path], published: Published) -> Path:
    for folder in folders:
        for name in published.files:
            if (folder / name).is_file():
                return folder / name
    places = " or ".join(str(folder) for folder in folders)
    raise _missing(encoder, f"none of its published files is in {places}", folders[0], published)


def _found(path: Path) -> str:
    return f"weights are those of {path}, the first that was found"


def _missing(encoder: str, why: str, folder: Path, published: Published, *, wanted: str = "") -> AbawError:
    listed = {wanted: published.files.get(wanted, "")} if wanted in published.files else published.files
    fix = ["correct the path"]
    if listed:
        fix = [f'name a file: weights = "FILE", or put one into {folder}:', *_listing(listed)]
        fix.append(f"from {published.origin}; {published.licence}")
    return AbawError(
        f'encoder "{encoder}" has no weights: {why}', where=WHERE, fix="\n".join(fix), code=ExitCode.MISSING
    )


def _listing(files: dict[str, str]) -> Iterable[str]:
    return [f"{name} (sha256 {sha256})" if sha256 else name for name, sha256 in files.items()]


def _require_published(path: Path, published: Published) -> None:
    expected = published.files[path.name]
    if expected and known_sha256(path) != expected:
        raise AbawError(
            f"{path.name} is not the published file (its sha256 is not {expected})",
            where=str(path),
            fix=f'download it again from {published.origin}, or name it to use it as it is: weights = "{path}"',
            code=ExitCode.MISSING,
        )


def _notes(path: Path, published: Published) -> tuple[str, ...]:
    expected = published.files.get(path.name, "")
    if expected and known_sha256(path) != expected:
        return (f"{path.name} bears a published name, but its sha256 is not the published {expected}",)
    return ()
