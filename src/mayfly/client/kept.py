"""The connection to a node that is kept for the next request: one of each sandbox object, for a few seconds.

Only a Unix socket is kept, only by the task's own event loop and process, and only after an answer that was read to
its end. Before it is used again it is looked at: one that the node has closed meanwhile is replaced. TCP connections
are not kept, since what the other side did with them cannot be seen there.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from mayfly.host.unix_stream import UnixStream

if TYPE_CHECKING:
    import h11
    from anyio.abc import ByteStream

__all__ = ["Kept"]

_IDLE_S = 5.0
"""A third of what a node gives a connection on which nothing is asked."""


class _Idle(msgspec.Struct, frozen=True):
    stream: UnixStream
    http: h11.Connection
    loop: asyncio.AbstractEventLoop
    pid: int
    timer: asyncio.TimerHandle


class Kept:
    """At most one idle connection, closed after 5 s. Any thread may call any of its methods."""

    def __init__(self) -> None:
        self._idle: list[_Idle] = []
        """One at most; taking it out is one step, which no two threads can both do."""

    def take(self) -> tuple[UnixStream, h11.Connection] | None:
        """The connection, if it is open and belongs to this event loop; it is the caller's then."""
        idle = self._taken()
        if idle is None:
            return None
        if idle.pid == os.getpid() and idle.loop is _running_loop():
            idle.timer.cancel()
            if idle.stream.is_quiet():
                return idle.stream, idle.http
        idle.stream.close()
        return None

    def give(self, stream: ByteStream, http: h11.Connection) -> bool:
        """Keep a connection whose answer was read to its end; False where it is to be closed by the caller."""
        loop = _running_loop()
        if loop is None or self._idle or not isinstance(stream, UnixStream):
            return False
        http.start_next_cycle()
        timer = loop.call_later(_IDLE_S, self._expire, stream)
        self._idle.append(_Idle(stream, http, loop, os.getpid(), timer))
        return True

    def close(self) -> None:
        """Close what is kept. What is given later is kept again."""
        if (idle := self._taken()) is not None:
            idle.stream.close()

    def _expire(self, stream: UnixStream) -> None:
        idle = self._taken()
        if idle is None:
            return
        if idle.stream is stream:
            stream.close()
        else:
            self._idle.append(idle)

    def _taken(self) -> _Idle | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
