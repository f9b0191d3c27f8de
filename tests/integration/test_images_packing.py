"""File systems made by the real tools, from small trees: what a guest and an emulated host would see of them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from mayfly.errors import SetupError
from mayfly.images import emulated, guest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{tool} is not installed")


def make_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in (".", "./home", "./home/user", "./usr", "./dev", "./boot", "./usr/share", "./usr/share/mayfly"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.uid = member.gid = 1000 if name.endswith("user") else 0
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return path


def run(*argv: object) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    words = [str(word) for word in argv]
    return subprocess.run(
        words, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=60
    ).stdout


def test_guests_root_directory_belongs_to_root_and_is_not_writable_for_others(tmp_path: Path) -> None:
    need("mksquashfs", "unsquashfs")
    guest._pack(make_tar(tmp_path / "root.tar", {"usr/x": b"x"}), tmp_path / "rootfs.squashfs")
    lines = run("unsquashfs", "-lln", tmp_path / "rootfs.squashfs").splitlines()
    seen = {line.split()[-1].removeprefix("squashfs-root"): line.split()[:2] for line in lines if "root" in line}
    assert seen[""] == ["drwxr-xr-x", "0/0"]
    assert seen["/home/user"] == ["drwxr-xr-x", "1000/1000"]
    assert seen["/usr/x"] == ["-rw-r--r--", "0/0"]


def test_equal_trees_give_equal_guest_images(tmp_path: Path) -> None:
    need("mksquashfs")
    tar = make_tar(tmp_path / "root.tar", {"usr/x": b"x" * 10_000})
    for name in ("a", "b"):
        guest._pack(tar, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_manifest_is_taken_out_of_the_tree(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "root.tar", {"usr/share/mayfly/manifest.json": b'{"python": "3.13.5"}'})
    assert guest._take_manifest(tar) == {"python": "3.13.5"}


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b" " * (2 << 20)], ids=["cut off", "a list", "no text", "huge"]
)
def test_manifest_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SetupError):
        guest._take_manifest(make_tar(tmp_path / "root.tar", {"usr/share/mayfly/manifest.json": content}))


def test_tree_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no manifest"):
        guest._take_manifest(make_tar(tmp_path / "root.tar", {}))


@pytest.mark.root
def test_emulated_hosts_disk_is_sound_and_keeps_owners(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: owners are kept through a user namespace otherwise")
    need("mke2fs", "debugfs", "e2fsck")
    disk = tmp_path / "root.ext4"
    emulated._make_ext4(make_tar(tmp_path / "root.tar", {"usr/x": b"x", "boot/vmlinuz": b"k"}), disk)
    run("e2fsck", "-fn", disk)
    assert "User:     0" in run("debugfs", "-R", "stat /", disk)
    assert "Mode:  0755" in run("debugfs", "-R", "stat /", disk)
    assert "User:  1000" in run("debugfs", "-R", "stat /home/user", disk)
    assert "vmlinuz" not in run("debugfs", "-R", "ls /boot", disk)


def test_boot_files_are_taken_out_of_the_tree(tmp_path: Path) -> None:
    boot = {"vmlinuz": b"kernel", "initrd": b"disk", "guest-initrd": b"small disk", "version": b"6.12\n"}
    files = {f"boot/{name}": content for name, content in {**boot, "other": b"x"}.items()}
    (tmp_path / "out").mkdir()
    emulated._take_boot_source(make_tar(tmp_path / "root.tar", files), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == boot


def test_missing_boot_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no boot/version"):
        emulated._take_boot_source(
            make_tar(tmp_path / "root.tar", {"boot/vmlinuz": b"k", "boot/initrd": b"d"}), tmp_path
        )


def test_image_for_nodes_has_what_mayfly_requires_and_nothing_for_developers() -> None:
    packages = emulated.runtime_packages()
    assert {"anyio", "msgspec", "uvicorn", "starlette"} <= packages.keys()
    assert not {"pytest", "mypy", "ruff", "hypothesis"} & packages.keys()
    assert "pytest" not in emulated._imports(packages)


def test_key_of_the_emulated_host_changes_with_a_package() -> None:
    assert emulated.emulated_host_key({"anyio": "4.9"}) != emulated.emulated_host_key({"anyio": "4.10"})
