"""The emulated host's disk, where there is no room to make it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Never

import pytest

from mayfly.errors import DiskFullError, EmulatedHostError
from mayfly.host.drives import ensure_state_disk
from mayfly.host.ext4 import change_ext4
from mayfly.host.paths import StatePaths

if TYPE_CHECKING:
    from pathlib import Path


def test_a_disk_that_is_full_while_artefacts_are_copied_is_named_and_nothing_half_made_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Never:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    paths = StatePaths(tmp_path).make()
    entry = paths.store / "kernel" / "one"
    entry.mkdir(parents=True)
    (entry / "vmlinux").write_bytes(b"kernel")
    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(DiskFullError):
        ensure_state_disk(paths, [entry])
    assert list(paths.host.iterdir()) == []
    assert list(paths.build.iterdir()) == []


def _entry(paths: StatePaths, kind: str, key: str, content: bytes = b"x") -> Path:
    entry = paths.store / kind / key
    entry.mkdir(parents=True)
    (entry / "rootfs.squashfs").write_bytes(content)
    (entry / "entry.json").write_text("{}")
    (entry / "entry.json").chmod(0o444)
    return entry


def _inside(disk: Path, command: str) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        ["debugfs", "-R", command, str(disk)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PATH": path, "DEBUGFS_PAGER": "cat"},
    )
    return done.stdout


@pytest.fixture
def _tools() -> None:
    for tool in ("mke2fs", "debugfs", "e2fsck"):
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{tool} is not installed")


@pytest.mark.usefixtures("_tools")
def test_an_image_that_was_built_later_is_put_into_the_disk_that_is_there(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path).make()
    base = [_entry(paths, "image-python", "one")]
    disk = ensure_state_disk(paths, base)
    before = disk.stat().st_ino
    later = _entry(paths, "image-node", "two", b"content" * 100_000)
    os.utime(later / "rootfs.squashfs", ns=(10**18, 10**18 + 5))
    assert ensure_state_disk(paths, base, [later]) == disk
    assert disk.stat().st_ino == before
    assert "two" in _inside(disk, "ls -p /store/image-node")
    assert _inside(disk, "cat /store/image-node/two/rootfs.squashfs") == "content" * 100_000
    assert "one" in _inside(disk, "ls -p /store/image-python")
    status = _inside(disk, "stat /store/image-node/two/rootfs.squashfs")
    assert "User:     0" in status
    assert f"mtime: 0x{10**9:08x}" in status
    assert 'Fast link dest: "two"' in _inside(disk, "stat /store/image-node/current")


@pytest.mark.usefixtures("_tools")
def test_a_later_image_is_replaced_by_a_newer_one_and_taken_out_when_it_is_gone(tmp_path: Path) -> None:
    paths = StatePaths(tmp_path).make()
    base = [_entry(paths, "image-python", "one")]
    disk = ensure_state_disk(paths, base, [_entry(paths, "image-node", "two")])
    ensure_state_disk(paths, base, [_entry(paths, "image-node", "three")])
    assert "/two/" not in _inside(disk, "ls -p /store/image-node")
    assert 'Fast link dest: "three"' in _inside(disk, "stat /store/image-node/current")
    ensure_state_disk(paths, base)
    assert "/three/" not in _inside(disk, "ls -p /store/image-node")
    assert "/one/" in _inside(disk, "ls -p /store/image-python")


@pytest.mark.usefixtures("_tools")
@pytest.mark.parametrize("damage", [b"\0" * 65536, b"\xff" * 65536], ids=["zeros", "ones"])
def test_a_disk_that_cannot_be_changed_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    paths = StatePaths(tmp_path).make()
    base = [_entry(paths, "image-python", "one")]
    disk = ensure_state_disk(paths, base)
    with disk.open("r+b") as file:
        file.write(damage)
    ensure_state_disk(paths, base, [_entry(paths, "image-node", "two")])
    assert "/one/" in _inside(disk, "ls -p /store/image-python")
    assert "/two/" in _inside(disk, "ls -p /store/image-node")


@pytest.mark.usefixtures("_tools")
def test_a_name_that_is_none_of_the_stores_reaches_no_tool(tmp_path: Path) -> None:
    entry = tmp_path / "image-node" / 'x" rm'
    entry.mkdir(parents=True)
    paths = StatePaths(tmp_path / "s").make()
    disk = ensure_state_disk(paths, [_entry(paths, "image-python", "one")])
    with pytest.raises(EmulatedHostError):
        change_ext4(disk, [entry], [])
