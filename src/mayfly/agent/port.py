"""A connection to a port of the sandbox's loopback, carried by a connection of the host."""

from __future__ import annotations

import errno
import os

from mayfly.agent.bare import socket
from mayfly.agent.fields import RequestError, number
from mayfly.agent.loop import READ, WRITE
from mayfly.guest.frames import PAYLOAD_MAX_BYTES, FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mayfly.agent.connection import Connection
    from mayfly.agent.server import Server
    from mayfly.guest.frames import Frame

__all__ = ["begin_port"]

_CONNECT_S = 10.0
_PENDING_HIGH_BYTES = 4 * PAYLOAD_MAX_BYTES
_FAMILIES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class _Port:
    """Bytes both ways. Either side may end before the other; both ended is the end of the operation."""

    def __init__(self, server: Server, connection: Connection, port: int) -> None:
        self._loop = server.loop
        self._connection = connection
        self._port = port
        self._families = list(_FAMILIES)
        self._socket: socket.socket | None = None
        self._fd = -1
        self._connected = False
        self._reads = True
        self._pending = b""
        self._input_ended = False
        self._deadline = self._loop.call_in(_CONNECT_S, lambda: self._refuse("it took too long to connect"))
        self._connect()

    def _connect(self) -> None:
        if not self._families:
            self._refuse("nobody listens there")
            return
        family, address = self._families.pop(0)
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:
            self._connect()
            return
        self._fd = self._socket.fileno()
        error = self._socket.connect_ex((address, self._port))
        if error not in (0, errno.EINPROGRESS):
            self._close()
            self._connect()
            return
        self._loop.watch(self._fd, WRITE, self._connecting)

    def _connecting(self, _: int) -> None:
        if self._socket is None:
            return
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self._close()
            self._connect()
            return
        self._deadline.cancel()
        self._connected = True
        self._connection.send(FrameType.ANSWER, {})
        self._connection.resume_reading()
        self._write()
        self._watch()

    def _refuse(self, why: str) -> None:
        self._connection.fail("unsupported", f"port {self._port}: {why}")

    def _watch(self) -> None:
        if self._fd < 0:
            return
        reads = READ if self._reads and not self._connection.congested else 0
        writes = WRITE if self._pending else 0
        if reads or writes:
            self._loop.watch(self._fd, reads | writes, self._ready)
        else:
            self._loop.forget(self._fd)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if events & ~WRITE and self._fd >= 0 and self._reads:
            self._read()
        self._watch()

    def _read(self) -> None:
        if self._connection.congested:
            return
        try:
            data = os.read(self._fd, PAYLOAD_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._reads = False
        self._connection.send(FrameType.DATA, data)
        self._finish_if_over()

    def _write(self) -> None:
        was_full = self.full
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._fd, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""  # it does not read any more; what it still says comes by reading
        if self._input_ended and not self._pending and self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has gone
        if was_full and not self.full:
            self._connection.resume_reading()

    def _finish_if_over(self) -> None:
        if not self._reads and self._input_ended and not self._pending:
            self._close()
            self._connection.finish()

    @property
    def full(self) -> bool:
        """Whether what comes from the host is not taken for now."""
        return len(self._pending) >= _PENDING_HIGH_BYTES or not self._connected

    def frame(self, frame: Frame) -> None:
        """PIECE, empty as the end. Raises RequestError for anything else."""
        if frame.type != FrameType.PIECE or self._input_ended:
            raise RequestError("bad_request", "only PIECE may follow this request, and nothing its end")
        self._pending += frame.payload
        self._input_ended = not frame.payload
        if self._connected:
            self._write()
            self._watch()
            self._finish_if_over()

    def resume_output(self) -> None:
        """The host has read."""
        if self._connected:
            self._watch()

    def _close(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._fd)
            self._socket.close()
            self._socket = None
            self._fd = -1

    def abort(self) -> None:
        """Closes."""
        self._deadline.cancel()
        self._close()


def begin_port(server: Server, connection: Connection, args: dict[str, Any]) -> _Port:
    """The operation `port`: ANSWER once connected, then PIECE and DATA."""
    return _Port(server, connection, int(number(args, "port", 1, 65535)))
