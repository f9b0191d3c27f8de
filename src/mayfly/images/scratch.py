"""Empty scratch disks: an ext4 file system of each size that was asked for, kept packed in the store."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from mayfly.errors import SetupError
from mayfly.host.sparse import pack_sparse
from mayfly.images.commands import run_tool, tool_path

if TYPE_CHECKING:
    from pathlib import Path

    from mayfly.images.store import Store

__all__ = ["KIND", "scratch_disk"]

KIND = "scratch"
_RECIPE = "1"
_TIMEOUT_S = 60.0
_FILE = "disk.pack"
# no journal, since it does not outlive its machine
_OPTIONS = ("-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0")


def scratch_disk(store: Store, mib: int) -> Path:
    """The pack of an empty disk of `mib` MiB, made unless it is there. SetupError without mke2fs, DiskFullError."""
    tool = shutil.which("mke2fs", path=tool_path())
    if tool is None:
        raise SetupError("mke2fs is not installed", hint="install e2fsprogs: scratch disks are made with it")

    def build(directory: Path) -> None:
        disk = directory / "disk"
        with disk.open("wb") as file:
            file.truncate(mib << 20)
        run_tool([tool, "-q", "-F", *_OPTIONS, str(disk)], timeout_s=_TIMEOUT_S)
        pack_sparse(disk, directory / _FILE)
        disk.unlink()

    return store.build(KIND, f"{mib}-{_RECIPE}", build).file(_FILE)
