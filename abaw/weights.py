"""Weight files that are downloaded once: which, from where, under which licence, and that they are the right ones.

Knows nothing of what a file is for. Addresses are https and stay so through redirects; a file appears under its name
only when it is whole and its sha256 is right, and is checked again before it is used.
"""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from abaw.errors import AbawError, ExitCode, choose
from abaw.provenance import file_sha256
from abaw.publish import publish

DEFAULT_FOLDER = Path("~/.cache/abaw")
TIMEOUT_S = 30  # without a byte, before an address is given up
CHUNK = 1 << 20
UNREADABLE_FIX = 'make it readable, or name another folder: run.weights_dir = "FOLDER"'


class WeightFile(NamedTuple):
    """A published file: its name, equal copies of it (https), ``sha256``, ``size`` in bytes, terms and origin."""

    file: str
    urls: tuple[str, ...]
    sha256: str
    size: int
    licence: str
    origin: str


# Both addresses name a commit: the main branches may replace the file.
WEIGHTS: Mapping[str, WeightFile] = {
    "yunet": WeightFile(
        file="face_detection_yunet_2023mar.onnx",
        urls=(
            "https://media.githubusercontent.com/media/opencv/opencv_zoo/f12e12798e8314f7c074a6656816c048dcc95b7a"
            "/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
            "https://huggingface.co/opencv/face_detection_yunet/resolve/3cc26e7f1014a5ee5d74a42acee58bafc9d0a310"
            "/face_detection_yunet_2023mar.onnx",
        ),
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        size=232_589,
        licence="MIT",
        origin="opencv_zoo, models/face_detection_yunet (Shiqi Yu and others)",
    )
}


def weight_file(name: str, *, folder: Path | None = None, offline: bool = False) -> Path:
    """The file ``name`` of `WEIGHTS` in ``folder`` (default `DEFAULT_FOLDER`), downloaded where it is not there yet.

    Raises AbawError (missing) where the file there has another sha256 or may not be read, where it is absent and
    ``offline`` is set, where no address gives it, and where the user has no home folder for the default.
    """
    entry = choose(WEIGHTS, name, what="weight file", where="abaw.weights")
    path = (folder or DEFAULT_FOLDER) / entry.file
    with readable(path):
        path = path.expanduser()
        there = path.exists()
    if there:
        _check(path, entry)
    elif offline:
        raise _missing(entry, path, "is not there, and nothing is downloaded offline")
    else:
        _download(entry, path)
    return path


def known_sha256(path: Path) -> str:
    """SHA-256 of a file, computed once per process while its size and time stay the same; raises as `readable`."""
    with readable(path):
        stat = path.stat()
        return _sha256(path, stat.st_size, stat.st_mtime_ns)


@contextmanager
def readable(path: Path, *, fix: str = UNREADABLE_FIX) -> Iterator[None]:
    """Turn the system's refusals about a file of weights into AbawError (missing); so for an unknown home folder."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: "~" of a user who has no home
        why = getattr(error, "strerror", None) or error
        raise AbawError(
            f"{path.name} cannot be read ({why})", where=str(path), fix=fix, code=ExitCode.MISSING
        ) from error


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def _check(path: Path, entry: WeightFile) -> None:
    if path.is_file() and known_sha256(path) == entry.sha256:
        return
    raise AbawError(
        f"{path.name} is not the published file (its sha256 is not {entry.sha256})",
        where=str(path),
        fix=f"delete it and run the same command again: rm '{path}'",
        code=ExitCode.MISSING,
    )


class _RefusedError(Exception):
    """One address does not give the file; the next one may."""


def _download(entry: WeightFile, path: Path) -> None:
    reasons = []
    for url in entry.urls:
        try:
            publish(path, partial(_fetch, url, entry))
            return
        except _RefusedError as refusal:
            reasons.append(f"{url}: {refusal}")
    raise _missing(entry, path, "could not be downloaded\n" + "\n".join(reasons))


def _missing(entry: WeightFile, path: Path, why: str) -> AbawError:
    return AbawError(
        f"the weight file {entry.file} {why}",
        where=str(path.parent),
        fix=f"put the file there by hand: {path}\nfrom {entry.origin}, licence {entry.licence}, {entry.urls[0]}",
        code=ExitCode.MISSING,
    )


def _fetch(url: str, entry: WeightFile, temporary: Path) -> None:
    """Write what ``url`` gives to ``temporary``; raises _RefusedError unless it is the published file."""
    size = 0
    with _open(url) as answer, temporary.open("wb") as file:
        while chunk := _read(answer):
            size += len(chunk)
            if size > entry.size:
                break
            file.write(chunk)
    if size != entry.size:
        more = "more than" if size > entry.size else f"{size} of"
        message = f"gave {more} {entry.size} bytes"
        raise _RefusedError(message)
    if file_sha256(temporary) != entry.sha256:
        message = f"gave another file (its sha256 is not {entry.sha256})"
        raise _RefusedError(message)


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        message = f"refused, {url} is not https"
        raise _RefusedError(message)


def _open(url: str) -> Any:
    _require_https(url)
    request = urllib.request.Request(url, headers={"User-Agent": "abaw", "Accept-Encoding": "identity"})
    try:
        return urllib.request.build_opener(_HttpsOnly).open(request, timeout=TIMEOUT_S)
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
        raise _RefusedError(str(error)) from error


def _read(answer: Any) -> bytes:
    """The next bytes; the network's errors are told apart from those of the disk."""
    try:
        return bytes(answer.read(CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _RefusedError(str(error) or type(error).__name__) from error
