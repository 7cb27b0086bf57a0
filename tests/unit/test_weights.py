"""Downloads come from a server on this machine, with a certificate made for it."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from abaw import weights
from abaw.errors import AbawError, ExitCode
from abaw.weights import WEIGHTS, WeightFile, known_sha256, weight_file

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site(http.server.ThreadingHTTPServer):
    """Serves by path; remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.asked: list[str] = []
        self.halfway = threading.Event()
        self.release = threading.Event()
        self.elsewhere = ""

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hung up


class Page(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        getattr(self, "_" + self.path.strip("/"), self._nothing)()

    def _whole(self, content: bytes = CONTENT) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _other(self) -> None:
        self._whole(CONTENT[::-1])

    def _longer(self) -> None:
        self._whole(CONTENT + b"more")

    def _cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:5000])

    def _stalls(self) -> None:
        self._cut()
        self.wfile.flush()
        self.server.halfway.set()
        self.server.release.wait(60)

    def _moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.server.elsewhere)
        self.end_headers()

    def _nothing(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def serving(site: Site) -> Iterator[Site]:
    thread = threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield site
    site.release.set()
    site.shutdown()
    site.server_close()


@pytest.fixture
def https(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    site.socket = context.wrap_socket(site.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield from serving(site)


@pytest.fixture
def http_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield from serving(Site())


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch):
    """``offer(url, ...)`` makes the file "tiny" one that these addresses give."""

    def add(*urls: str) -> None:
        entry = WeightFile("tiny.onnx", urls, SHA256, len(CONTENT), "MIT", "a test")
        monkeypatch.setattr(weights, "WEIGHTS", {"tiny": entry})

    return add


def url(site: Site, path: str, scheme: str = "https") -> str:
    return f"{scheme}://127.0.0.1:{site.server_address[1]}/{path}"


def refusal(folder: Path, *, offline: bool = False) -> AbawError:
    with pytest.raises(AbawError) as caught:
        weight_file("tiny", folder=folder, offline=offline)
    assert caught.value.code == ExitCode.MISSING
    return caught.value


def test_a_missing_file_is_downloaded_whole(https, offer, tmp_path):
    offer(url(https, "whole"))
    path = weight_file("tiny", folder=tmp_path / "new" / "cache")
    assert path == tmp_path / "new" / "cache" / "tiny.onnx"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_there_is_never_downloaded(https, offer, tmp_path):
    offer(url(https, "whole"))
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)
    assert weight_file("tiny", folder=tmp_path) == tmp_path / "tiny.onnx"
    assert weight_file("tiny", folder=tmp_path, offline=True) == tmp_path / "tiny.onnx"
    assert https.asked == []


def test_another_file_of_that_name_is_refused_and_kept(https, offer, tmp_path):
    offer(url(https, "whole"))
    (tmp_path / "tiny.onnx").write_bytes(b"mine")
    error = refusal(tmp_path)
    assert f"rm '{tmp_path / 'tiny.onnx'}'" in error.fix
    assert (tmp_path / "tiny.onnx").read_bytes() == b"mine"
    assert https.asked == []


def test_a_file_exchanged_after_its_first_use_is_noticed(https, offer, tmp_path):
    offer(url(https, "whole"))
    weight_file("tiny", folder=tmp_path).write_bytes(CONTENT[::-1])
    os.utime(tmp_path / "tiny.onnx", (1, 1))
    assert "not the published file" in refusal(tmp_path).what


def test_a_folder_of_that_name_is_refused(offer, tmp_path):
    offer("https://example.org/tiny")
    (tmp_path / "tiny.onnx").mkdir()
    assert "not the published file" in refusal(tmp_path).what


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("other", "gave another file"),
        ("cut", "gave 5000 of 10240 bytes"),
        ("longer", "gave more than 10240 bytes"),
        ("gone", "404"),
    ],
)
def test_what_is_not_the_published_file_leaves_none(https, offer, tmp_path, path, why):
    offer(url(https, path))
    error = refusal(tmp_path)
    assert why in error.what
    assert url(https, path) in error.what
    assert f"{tmp_path / 'tiny.onnx'}" in error.fix
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_is_tried(https, offer, tmp_path):
    offer(url(https, "cut"), url(https, "whole"))
    assert weight_file("tiny", folder=tmp_path).read_bytes() == CONTENT
    assert https.asked == ["/cut", "/whole"]


def test_a_redirect_to_https_is_followed(https, offer, tmp_path):
    offer(url(https, "moved"))
    https.elsewhere = url(https, "whole")
    assert weight_file("tiny", folder=tmp_path).read_bytes() == CONTENT


def test_plain_http_is_refused(http_site, offer, tmp_path):
    offer(url(http_site, "whole", "http"))
    assert "is not https" in refusal(tmp_path).what
    assert http_site.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_plain_http_is_refused(https, http_site, offer, tmp_path):
    offer(url(https, "moved"))
    https.elsewhere = url(http_site, "whole", "http")
    assert "is not https" in refusal(tmp_path).what
    assert http_site.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_that_nobody_signed_is_refused(https, offer, tmp_path, monkeypatch):
    offer(url(https, "whole"))
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(tmp_path).what
    assert https.asked == []


def test_a_server_that_is_not_there_is_named(offer, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    closed = Site()
    closed.server_close()
    offer(url(closed, "whole"))
    error = refusal(tmp_path)
    assert url(closed, "whole") in error.what
    assert "refused" in error.what


def test_a_server_that_falls_silent_is_given_up(https, offer, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "TIMEOUT_S", 0.2)
    offer(url(https, "stalls"))
    assert "timed out" in refusal(tmp_path).what
    assert list(tmp_path.iterdir()) == []


def test_offline_never_tries_and_says_what_to_do(https, offer, tmp_path):
    offer(url(https, "whole"))
    error = refusal(tmp_path, offline=True)
    assert "tiny.onnx" in error.what
    assert str(tmp_path / "tiny.onnx") in error.fix
    assert "MIT" in error.fix
    assert https.asked == []


@pytest.mark.parametrize(("sign", "left"), [(signal.SIGINT, 0), (signal.SIGKILL, 1)])
def test_an_interrupted_download_leaves_no_file_of_that_name(https, tmp_path, sign, left):
    code = (
        "import sys; from pathlib import Path; from abaw import weights\n"
        f"entry = weights.WeightFile('tiny.onnx', ({url(https, 'stalls')!r},), {SHA256!r}, {len(CONTENT)}, '', '')\n"
        "weights.WEIGHTS = {'tiny': entry}\n"
        "weights.weight_file('tiny', folder=Path(sys.argv[1]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) as download:
        assert https.halfway.wait(60)
        download.send_signal(sign)
        assert download.wait(60) != 0
    names = [path.name for path in tmp_path.iterdir()]
    assert "tiny.onnx" not in names
    assert len(names) == left  # only a kill leaves the temporary file, hidden


def test_a_folder_that_cannot_be_written_says_so(https, offer, tmp_path):
    offer(url(https, "whole"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AbawError) as caught:
        weight_file("tiny", folder=tmp_path / "file" / "cache")
    assert "writable folder" in caught.value.fix


def test_an_unknown_file_is_refused_with_the_closest_name():
    with pytest.raises(AbawError) as caught:
        weight_file("yunt")
    assert 'did you mean "yunet"' in caught.value.fix


def test_files_are_kept_in_the_users_cache_by_default(offer, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    offer("https://example.org/tiny")
    (tmp_path / ".cache" / "abaw").mkdir(parents=True)
    (tmp_path / ".cache" / "abaw" / "tiny.onnx").write_bytes(CONTENT)
    assert weight_file("tiny") == tmp_path / ".cache" / "abaw" / "tiny.onnx"


def test_a_folder_that_may_not_be_looked_at_says_what_to_set(offer):
    offer("https://example.org/tiny")
    error = refusal(Path("x" * 300))
    assert "cannot be read (File name too long)" in error.what
    assert "run.weights_dir" in error.fix


def test_a_file_that_may_not_be_read_is_named(offer, tmp_path, monkeypatch):
    """The system's refusal is staged: the superuser may read everything."""
    offer("https://example.org/tiny")
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)

    def refuse(path, *args):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    error = refusal(tmp_path)
    assert "tiny.onnx cannot be read (Permission denied)" in error.what
    assert error.where == str(tmp_path / "tiny.onnx")


def test_without_a_home_folder_the_message_says_what_to_set(offer, monkeypatch):
    """A user without HOME and without an entry in the system's list of users is staged."""
    offer("https://example.org/tiny")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(AbawError, match="home directory") as caught:
        weight_file("tiny", offline=True)
    assert caught.value.code == ExitCode.MISSING
    assert "run.weights_dir" in caught.value.fix


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_entry_is_complete(name):
    entry = WEIGHTS[name]
    assert entry.urls
    assert all(address.startswith("https://") and address.endswith(entry.file) for address in entry.urls)
    assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert entry.size > 0
    assert entry.licence
    assert entry.origin


@pytest.mark.real
def test_the_yunet_entry_describes_the_published_file(real_data):
    path = real_data / "weights" / WEIGHTS["yunet"].file
    assert (known_sha256(path), path.stat().st_size) == (WEIGHTS["yunet"].sha256, WEIGHTS["yunet"].size)
