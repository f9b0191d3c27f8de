"""Standard streams as bytes, as they come: what the program reads from ours, and what it writes to ours."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["has_input", "input_chunks", "write_all"]

_CHUNK_BYTES = 64 * 1024


def has_input(fd: int = 0) -> bool:
    """Whether there is a standard input to pass on at all."""
    try:
        return os.fstat(fd).st_rdev != Path(os.devnull).stat().st_rdev
    except OSError:
        return False


async def input_chunks(fd: int = 0) -> AsyncIterator[bytes]:
    """The bytes of `fd` as they come, until its end."""
    waits = _can_be_waited_for(fd)
    while True:
        try:
            if waits:
                await anyio.wait_readable(fd)
                data = os.read(fd, _CHUNK_BYTES)
            else:
                data = await anyio.to_thread.run_sync(os.read, fd, _CHUNK_BYTES, abandon_on_cancel=True)
        except BlockingIOError:
            continue
        except OSError:  # a terminal that went away, or is not ours while we run in the background
            return
        if not data:
            return
        yield data


def _can_be_waited_for(fd: int) -> bool:
    """False for files, which are always ready and which epoll refuses."""
    with select.epoll() as poll:
        try:
            poll.register(fd, select.EPOLLIN)
        except OSError:
            return False
        return True


async def write_all(fd: int, data: bytes) -> None:
    """Write to `fd`, however long its reader takes, in a thread, so that Ctrl-C is heard; BrokenPipeError."""
    await anyio.to_thread.run_sync(_write_all, fd, data, abandon_on_cancel=True)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            select.select([], [fd], [])
