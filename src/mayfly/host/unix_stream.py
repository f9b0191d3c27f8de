"""A connected Unix socket as a stream of bytes, for connections of which many are made and little is said on each.

As `anyio.connect_unix` gives them, and cheaper: what is there is read without a turn of the loop before, waiting is one
future with a timer at most, and closing gives no turn away. Waiting goes by descriptor: asked to watch a socket, the
loop first looks it up and raises an error whose message asks the kernel for both of its addresses.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["UnixStream", "connect"]

_BACKLOG_PAUSE_S = 0.005
_SMALL_BYTES = 4096
"""Sending so little gives no turn away: whoever does it waits for an answer next, or for more to send."""


class _Socket(socket.socket):
    """One that is closed without a warning when nobody holds it any more: nothing of the loop hangs on it."""

    def __del__(self) -> None:
        self.close()


class UnixStream(ByteStream):
    """Made by `connect`. One task may receive while one sends. No watch of the event loop outlives a call."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._closed = False
        self._receiving: asyncio.Future[None] | None = None
        self._sending: asyncio.Future[None] | None = None
        self.refused = False
        """Whether the other side was closed before it had read all that was sent."""

    async def receive(self, max_bytes: int = 65536, *, within_s: float | None = None) -> bytes:
        """What has come, one byte at least. EndOfStream, BrokenResourceError, ClosedResourceError.

        TimeoutError when nothing comes `within_s`.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                waited = True
                await self._readable(within_s)
            except OSError as error:
                self.refused |= isinstance(error, ConnectionResetError)
                raise self._failure() from error
            else:
                if not waited:  # others have their turn, whatever the other side sends
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes, *, within_s: float | None = None) -> None:
        """All of it. BrokenResourceError where the other side reads no more, ClosedResourceError.

        TimeoutError when the other side takes nothing of it `within_s`.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        waited = False
        view = memoryview(item)
        while view:
            try:
                sent = self._socket.send(view)
            except BlockingIOError:
                waited = True
                await self._writable(within_s)
            except OSError as error:
                self.refused |= len(view) == len(item)
                raise self._failure() from error
            else:
                view = view[sent:]
        if not waited and len(item) > _SMALL_BYTES:
            await anyio.lowlevel.cancel_shielded_checkpoint()

    async def send_eof(self) -> None:
        """Nothing more will be sent."""
        await anyio.lowlevel.checkpoint()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._failure() from error

    def is_quiet(self) -> bool:
        """Whether it is open at both ends, and there is nothing to read."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it; for one on which no task waits. Also of another process or event loop."""
        self._closed = True
        self._socket.close()

    async def aclose(self) -> None:
        """Close it; tasks that wait on it get ClosedResourceError. Idempotent."""
        if self._closed:
            return
        self._closed = True
        loop, fd = asyncio.get_running_loop(), self._socket.fileno()
        for waiting, forget in ((self._receiving, loop.remove_reader), (self._sending, loop.remove_writer)):
            if waiting is not None:
                forget(fd)
                _fail(waiting, anyio.ClosedResourceError())
        self._socket.close()

    async def _readable(self, within_s: float | None) -> None:
        if self._receiving is not None:
            raise anyio.BusyResourceError("reading from")
        loop, fd = asyncio.get_running_loop(), self._socket.fileno()
        self._receiving = ready = loop.create_future()
        loop.add_reader(fd, _wake, ready)
        try:
            await _until(ready, within_s)
        finally:
            self._receiving = None
            if not self._closed:
                loop.remove_reader(fd)

    async def _writable(self, within_s: float | None) -> None:
        if self._sending is not None:
            raise anyio.BusyResourceError("writing to")
        loop, fd = asyncio.get_running_loop(), self._socket.fileno()
        self._sending = ready = loop.create_future()
        loop.add_writer(fd, _wake, ready)
        try:
            await _until(ready, within_s)
        finally:
            self._sending = None
            if not self._closed:
                loop.remove_writer(fd)

    def _failure(self) -> Exception:
        return anyio.ClosedResourceError() if self._closed else anyio.BrokenResourceError()


async def _until(ready: asyncio.Future[None], within_s: float | None) -> None:
    if within_s is None:
        await ready
        return
    timer = ready.get_loop().call_later(within_s, _fail, ready, TimeoutError())
    try:
        await ready
    finally:
        timer.cancel()


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _fail(waiting: asyncio.Future[None], error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)


async def connect(name: str | Path) -> UnixStream:
    """Connect to the socket; OSError as the system reports it. Waits while its listener has no room: set a deadline."""
    await anyio.lowlevel.checkpoint()
    connecting = _Socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        while True:
            try:
                connecting.connect(str(name))
            except BlockingIOError:
                await anyio.sleep(_BACKLOG_PAUSE_S)
            else:
                return UnixStream(connecting)
    except BaseException:
        connecting.close()
        raise
