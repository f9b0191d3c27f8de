"""The agent's drive, really built: needs mksquashfs and unsquashfs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mayfly.host.paths import StatePaths
from mayfly.images.agent_drive import build_agent_drive
from mayfly.images.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from mayfly.images.store import Entry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for tool in ("mksquashfs", "unsquashfs"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    return Store(StatePaths(tmp_path / "state").make())


def unpack(drive: Path, target: Path) -> Path:
    # no -xattrs and no owners: works for plain users too
    subprocess.run(["unsquashfs", "-q", "-n", "-no-xattrs", "-d", target, drive], check=True, capture_output=True)
    return target


def test_drive_holds_the_agent_and_can_import_it_alone(store: Store, tmp_path: Path) -> None:
    tree = unpack(build_agent_drive(store).file("agent.squashfs"), tmp_path / "tree")
    code = "import sys; sys.path[:0] = [sys.argv[1]]; import mayfly.agent.__main__ as m; print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code, tree], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == str(tree / "mayfly/agent/__main__.py")
    assert (tree / "boot.py").is_file()
    inside = {path.name for path in (tree / "mayfly/agent/inside").iterdir()}
    assert {"python.py", "notebook.py", "node.js"} <= inside
    assert (tree / "mayfly/__init__.py").read_bytes() == b""


def test_compiled_files_are_used_without_looking_at_the_sources(store: Store, tmp_path: Path) -> None:
    tree = unpack(build_agent_drive(store).file("agent.squashfs"), tmp_path / "tree")
    (tree / "mayfly/guest/frames.py").write_text("raise SystemExit('compiled again')")
    code = "import sys; sys.path[:0] = [sys.argv[1]]; import mayfly.guest.frames"
    subprocess.run([sys.executable, "-S", "-E", "-c", code, tree], check=True, cwd=tmp_path)


def test_equal_sources_give_an_equal_drive(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_agent_drive(store)
    assert build_agent_drive(store) == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    other = build_agent_drive(Store(StatePaths(tmp_path / "other").make()))
    assert (other.key, other.sha256("agent.squashfs")) == (first.key, first.sha256("agent.squashfs"))


def test_programs_user_can_read_the_drive_whatever_the_umask(store: Store) -> None:
    before = os.umask(0o077)
    try:
        drive = build_agent_drive(store).file("agent.squashfs")
    finally:
        os.umask(before)
    listing = subprocess.run(["unsquashfs", "-lln", drive], check=True, capture_output=True, text=True).stdout
    modes = {tuple(line.split()[:2]) for line in listing.splitlines() if "squashfs-root" in line}
    assert modes == {("drwxr-xr-x", "0/0"), ("-rw-r--r--", "0/0")}


@pytest.fixture
def image(tmp_path: Path, store: Store) -> Entry:
    """An image whose Python is not the running one: a tree of one program that writes what it is asked to compile."""
    version = f"{sys.version_info[0]}.{sys.version_info[1] + 1}"
    library = tmp_path / "image/usr/lib/x86_64-linux-gnu"
    (tmp_path / "image/usr/bin").mkdir(parents=True)
    library.mkdir(parents=True)
    (tmp_path / f"image/usr/lib/python{version}/encodings").mkdir(parents=True)
    loader = library / "ld-linux-x86-64.so.2"
    loader.write_text(f'#!/bin/sh\nunset PYTHONHOME\nshift 3\nexec {sys.executable} "$@"\n')
    loader.chmod(0o755)
    (tmp_path / f"image/usr/bin/python{version}").touch()

    def build(directory: Path) -> dict[str, str]:
        command = ["mksquashfs", tmp_path / "image", directory / "rootfs.squashfs", "-quiet", "-no-progress"]
        subprocess.run(command, check=True, capture_output=True)
        return {"python": f"{version}.5"}

    return store.build("image-python", "another", build)


def test_the_agent_is_compiled_by_the_images_own_python(store: Store, image: Entry, tmp_path: Path) -> None:
    drive = build_agent_drive(store, image)
    assert drive.meta["python"] == f"cpython-{image.meta['python'].replace('.', '')[:-1]}"
    assert drive != build_agent_drive(store)
    tree = unpack(drive.file("agent.squashfs"), tmp_path / "tree")
    assert sorted(path.name for path in tree.iterdir()) == ["__pycache__", "boot.py", "mayfly"]
    assert list((tree / "mayfly/agent/__pycache__").glob("server.*.pyc"))
    assert not drive.meta["uncompiled"]


def test_an_image_whose_python_does_not_run_here_gives_a_drive_without_compiled_files(
    store: Store, tmp_path: Path
) -> None:
    def build(directory: Path) -> dict[str, str]:
        (directory / "rootfs.squashfs").write_bytes(b"none")
        return {"python": "3.99.1"}

    drive = build_agent_drive(store, store.build("image-python", "broken", build))
    tree = unpack(drive.file("agent.squashfs"), tmp_path / "tree")
    assert (tree / "mayfly/agent/server.py").is_file()
    assert not list(tree.rglob("*.pyc"))
    assert "unsquashfs" in drive.meta["uncompiled"]
