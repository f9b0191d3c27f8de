"""Changes what is in an ext4 image that is not in use: with e2fsprogs alone, without mounting it and without root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from mayfly.errors import DiskFullError, EmulatedHostError, SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["change_ext4"]

_DEADLINE_S = 300
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_REPAIRED = 1
"""Exit codes of e2fsck up to this one say that the file system is sound now."""


def change_ext4(disk: Path, add: Sequence[Path], remove: Sequence[str]) -> None:
    """Put store entries (directories `kind/key` of plain files) into the image's `store`, and take others out.

    `remove` names them as `kind/key`. Each that is put in becomes the current one of its kind. EmulatedHostError when
    it did not work, and the image is then not to be used; DiskFullError when there is no room.
    """
    _check(disk)
    for name in remove:
        kind, key = name.split("/")
        _debugfs(disk, _removal(kind, key, _names(disk, f"store/{kind}/{key}")), None)
    for entry in add:
        _debugfs(disk, _addition(entry), entry)
        missing = {path.name for path in entry.iterdir()} - _names(disk, f"store/{entry.parent.name}/{entry.name}")
        if missing:
            raise EmulatedHostError(f"{min(missing)} could not be written into {disk.name}")
    _check(disk)


def _addition(entry: Path) -> list[str]:
    kind, key = _checked(entry.parent.name), _checked(entry.name)
    commands = [f"mkdir /store/{kind}", f"mkdir /store/{kind}/{key}"]
    commands.append(f"cd /store/{kind}/{key}")
    for path in sorted(entry.iterdir()):
        name, status = _checked(path.name), path.stat()
        commands.append(f"write {name} {name}")
        fields = {
            "mode": f"0100{status.st_mode & 0o777:03o}",
            "uid": "0",
            "gid": "0",
            "mtime": f"@{int(status.st_mtime)}",
        }
        commands += [f"sif {name} {field} {value}" for field, value in fields.items()]
    return [*commands, f"cd /store/{kind}", "rm current", f"symlink current {key}"]


def _removal(kind: str, key: str, names: set[str]) -> list[str]:
    commands = [f"rm /store/{_checked(kind)}/{_checked(key)}/{_checked(name)}" for name in sorted(names)]
    return [*commands, f"rmdir /store/{kind}/{key}", f"rm /store/{kind}/current"]


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise EmulatedHostError(f"{name!r} is no name of an entry or file of the store")
    return name


def _names(disk: Path, directory: str) -> set[str]:
    """Names of the files in a directory of the image."""
    lines = _run(["debugfs", "-R", f"ls -p /{directory}", str(disk)]).stdout.decode("utf-8", "replace").split("\n")
    names = {fields[5] for line in lines if len(fields := line.split("/")) > 6}
    return names - {".", ".."}


def _debugfs(disk: Path, commands: Sequence[str], cwd: Path | None) -> None:
    """Run commands; it goes on after a failing one and tells of it in words only."""
    done = _run(["debugfs", "-w", "-f", "-", str(disk)], "\n".join(commands).encode() + b"\n", cwd)
    words = done.stderr.decode("utf-8", "replace").splitlines()
    harmless = ("debugfs 1.", "mkdir: Ext2 directory already exists", "rm: File not found by ext2_lookup")
    bad = [line for line in words if line.strip() and not line.startswith(harmless)]
    if any("No space" in line or "no free" in line.lower() for line in bad):
        raise DiskFullError(f"no space left in the emulated host's disk {disk.name}")
    if done.returncode or bad:
        raise EmulatedHostError(f"debugfs could not change {disk.name}: {' '.join(bad)[:500]}")


def _check(disk: Path) -> None:
    """Replay the journal of a host that was killed, and mend what can be mended without loss."""
    done = _run(["e2fsck", "-p", str(disk)])
    if done.returncode > _REPAIRED:
        raise EmulatedHostError(f"{disk.name} is damaged: {done.stdout[-300:].decode('utf-8', 'replace').strip()}")


def _run(command: list[str], stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    tool = shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if tool is None:
        raise SetupError(f"{command[0]} is not installed", hint="run `mayfly setup`")
    try:
        return subprocess.run(
            [tool, *command[1:]],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "DEBUGFS_PAGER": "cat"},
            timeout=_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EmulatedHostError(f"{command[0]} did not end within {_DEADLINE_S} s") from error
