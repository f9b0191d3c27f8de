"""Where Mayfly keeps its state: one directory, chosen by one rule."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mayfly.errors import ConfigError, DiskFullError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StatePaths", "spread_directories", "state_paths"]

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000
_FLAGS = struct.Struct("l")


@dataclass(frozen=True, slots=True)
class StatePaths:
    """The state directory and what is in it.

    `store` holds finished artefacts, `build` half-built ones (always removable), `run` sockets, locks, tokens
    and logs, `jails` the VMMs' chroots, `host` the emulated host's disks.
    """

    root: Path

    @property
    def store(self) -> Path:
        """Finished artefacts, content-addressed."""
        return self.root / "store"

    @property
    def build(self) -> Path:
        """Half-built artefacts; removable at any time."""
        return self.root / "build"

    @property
    def run(self) -> Path:
        """Sockets, locks, tokens, logs."""
        return self.root / "run"

    @property
    def jails(self) -> Path:
        """Base directory given to the jailer; on the store's file system, for hard links."""
        return self.root / "jails"

    @property
    def host(self) -> Path:
        """The emulated host's disks and state."""
        return self.root / "host"

    @property
    def database(self) -> Path:
        """The node's record of executions."""
        return self.root / "executions.db"

    @property
    def sandboxes(self) -> Path:
        """The node's record of sandboxes."""
        return self.root / "sandboxes.db"

    @property
    def node_socket(self) -> Path:
        """Unix socket of this state directory's node."""
        return self.run / "node.sock"

    @property
    def node_token(self) -> Path:
        """Bearer token for that node, where it needs one."""
        return self.run / "node.token"

    def make(self) -> StatePaths:
        """Create the directories, mode 0700. PermissionDeniedError or DiskFullError when that fails."""
        for path in (self.root, self.store, self.build, self.run, self.jails, self.host):
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except PermissionError as error:
                raise PermissionDeniedError(
                    f"cannot create the state directory {path}",
                    hint="set MAYFLY_HOME to a directory of yours",
                ) from error
            except OSError as error:
                raise DiskFullError(f"cannot create the state directory {path}: {error.strerror}") from error
        return self


def state_paths(env: Mapping[str, str]) -> StatePaths:
    """Rule: `$MAYFLY_HOME`, else `$XDG_DATA_HOME/mayfly`, else `~/.local/share/mayfly` of `$HOME`."""
    if chosen := env.get("MAYFLY_HOME"):
        root = Path(chosen)
        if not root.is_absolute():
            raise ConfigError(f"MAYFLY_HOME must be an absolute path, not {chosen!r}", field="MAYFLY_HOME")
        return StatePaths(root)
    if (data := env.get("XDG_DATA_HOME")) and Path(data).is_absolute():
        return StatePaths(Path(data) / "mayfly")
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    return StatePaths(home / ".local" / "share" / "mayfly")


def spread_directories(directory: Path) -> None:
    """Ask a file system without journal to place each directory made in this one elsewhere; others are let be.

    ext4 puts neighbouring directories and their files into one group of inodes, and without a journal does not give
    out an inode again for five seconds after its file was deleted: where jails come and go by the hundred a second,
    each new file searched through thousands of such inodes, half of all the time that a jail took.
    """
    if _has_journal(directory):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = bytearray(_FLAGS.size)
            fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, _FLAGS.pack(_FLAGS.unpack(flags)[0] | _FS_TOPDIR_FL))
        finally:
            os.close(descriptor)


def _has_journal(directory: Path) -> bool:
    """Whether ext4 keeps a journal there; False for what is no ext4, which knows no flag to set either."""
    try:
        device = directory.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").readlink().name
        return any(entry.startswith(f"{name}-") for entry in os.listdir("/proc/fs/jbd2"))
    except OSError:
        return False
