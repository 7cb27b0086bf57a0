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
