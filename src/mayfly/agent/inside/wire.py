"""The interpreter's end of the socket to the agent; see `mayfly.agent.channel` for the messages."""

from __future__ import annotations

import fcntl
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ACK", "DONE", "ERROR", "FAILED", "INIT", "READY", "RESULT", "RUN", "Wire"]

INIT = b"I"
RUN = b"R"
ACK = b"a"
READY = b"o"
FAILED = b"f"
RESULT = b"r"
ERROR = b"e"
DONE = b"d"
_HEADER = struct.Struct("!Ic")
_HIGH_FD = 128  # out of the way of programs that close the first few


class Wire:
    """Takes the descriptor over; blocking both ways."""

    def __init__(self, fd: int) -> None:
        self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
        os.close(fd)
        self._pid = os.getpid()
        self.busy = False
        """Whether a message is under way, which nothing may break off."""
        self.on_free: Callable[[], None] = lambda: None
        """Called when one is through."""

    def receive(self) -> tuple[bytes, bytes]:
        """The next message's kind and payload. Raises EOFError when the agent has gone."""
        size, kind = _HEADER.unpack(self._exactly(_HEADER.size))
        return kind, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = os.read(self._fd, min(size - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def send(self, kind: bytes, payload: bytes, *, wait: bool = False) -> None:
        """Sends one message, waiting as long as the agent does not read; with `wait` until it has begun to."""
        if self.is_copy:
            return  # a fork of the program may show what it likes, but only one may speak
        self.busy = True
        try:
            rest = memoryview(_HEADER.pack(len(payload), kind) + payload)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            while wait and self.receive()[0] != ACK:
                pass
        finally:
            self.busy = False
        self.on_free()

    @property
    def is_copy(self) -> bool:
        """Whether this process is a fork of the interpreter."""
        return os.getpid() != self._pid

    @property
    def waiting(self) -> bool:
        """Whether a message has come."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))
