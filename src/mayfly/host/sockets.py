"""Unix sockets whose path may be longer than the 107 bytes an address holds, and waiting for one to appear."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import socket
import struct
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import RunVar

from mayfly.errors import HostError
from mayfly.host.unix_stream import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mayfly.host.unix_stream import UnixStream

__all__ = ["connect_unix", "free_port", "listens", "short_path", "wait_for_file"]

_ADDRESS_MAX = 107
_IN_CREATE = 0x100
_IN_MOVED_TO = 0x80
_IN_Q_OVERFLOW = 0x4000
_INOTIFY_READ_BYTES = 64 * 1024
_INOTIFY_EVENT = struct.Struct("iIII")
"""`struct inotify_event` without its name: watch, mask, cookie, length of the name."""


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for `path` that fits a socket address, valid inside the block."""
    if len(os.fsencode(path)) <= _ADDRESS_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def connect_unix(path: Path) -> UnixStream:
    """Connect to a Unix socket of any path length; OSError as the system reports it."""
    with short_path(path) as name:
        return await connect(name)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    with short_path(path) as name, socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(name)
        except OSError:
            return False
        return True


async def wait_for_file(path: Path) -> None:
    """Return as soon as `path` exists. The caller sets the deadline; HostError when the directory is gone."""
    watch = _watch_of_this_loop()
    while not path.exists():
        with watch.changes_of(path.parent) as changed:
            if path.exists():
                return
            await changed.wait()


class _DirectoryWatch:
    """The one inotify instance of an event loop.

    It is kept until the loop ends: giving an instance back makes its thread wait for a grace period of the kernel's,
    seen as 5 to 20 ms, while adding and removing a watch takes microseconds.
    """

    def __init__(self) -> None:
        self._descriptor = -1
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._waiting: dict[int, list[anyio.Event]] = {}
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise HostError(f"inotify is not available: {os.strerror(ctypes.get_errno())}")
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @contextlib.contextmanager
    def changes_of(self, directory: Path) -> Iterator[anyio.Event]:
        """An event that is set when a name comes to be in the directory, or when the directory goes."""
        mask = _IN_CREATE | _IN_MOVED_TO
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), mask)
        if watch < 0:
            raise HostError(f"cannot watch {directory}: {os.strerror(ctypes.get_errno())}")
        changed = anyio.Event()
        self._waiting.setdefault(watch, []).append(changed)
        try:
            yield changed
        finally:
            others = self._waiting[watch]
            others.remove(changed)
            if not others:
                del self._waiting[watch]
                self._libc.inotify_rm_watch(self._descriptor, watch)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _INOTIFY_READ_BYTES)
        except BlockingIOError:
            return
        offset = 0
        while offset + _INOTIFY_EVENT.size <= len(data):
            watch, mask, _, name_bytes = _INOTIFY_EVENT.unpack_from(data, offset)
            offset += _INOTIFY_EVENT.size + name_bytes
            woken = self._waiting.values() if mask & _IN_Q_OVERFLOW else [self._waiting.get(watch, [])]
            for changed in itertools.chain.from_iterable(woken):
                changed.set()


def _watch_of_this_loop() -> _DirectoryWatch:
    watch = _watch.get(None)
    if watch is None:
        watch = _DirectoryWatch()
        _watch.set(watch)
    return watch


_watch: RunVar[_DirectoryWatch | None] = RunVar("mayfly-directory-watch")
