"""Locks between processes: on a file, released by the kernel when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["holder", "is_locked", "lock_file", "try_lock"]

_POLL_S = 0.05
_FLOCK = "hhqqi4x"
"""`struct flock`: type, whence, start, length, pid. Locks of open file descriptions can be looked at untaken."""


def try_lock(path: Path) -> int | None:
    """Take the lock and return its descriptor, to be kept open while it is held; None when another holds it.

    The holder's pid is the file's content.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock; only looks, so that it is in nobody's way."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    finally:
        os.close(descriptor)
    kind: int = struct.unpack(_FLOCK, answer)[0]
    return kind != fcntl.F_UNLCK


def holder(path: Path) -> int | None:
    """Pid of the process that holds the lock, as it wrote it; None when nobody does."""
    if not is_locked(path):
        return None
    try:
        return int(path.read_text()[:16])
    except (OSError, ValueError):
        return None


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


@contextlib.contextmanager
def lock_file(path: Path, *, timeout_s: float) -> Iterator[None]:
    """Hold the lock inside the block; TimeoutError when it did not come free in time."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} is locked by another process")
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)
