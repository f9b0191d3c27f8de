"""The program's standard streams: bounded on the way in and on the way out."""

from __future__ import annotations

import errno
import os

from mayfly.agent.loop import READ, WRITE, log
from mayfly.guest.frames import PAYLOAD_MAX_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from mayfly.agent.connection import Connection
    from mayfly.agent.loop import Loop

__all__ = ["InputPipe", "OutputPipe"]

_INPUT_HIGH_BYTES = 2 * PAYLOAD_MAX_BYTES


class OutputPipe:
    """One output pipe of the program, turned into frames. Owns `fd`.

    After `limit_bytes` the rest is read, counted and dropped, so that the program never waits for a reader.
    """

    def __init__(self, loop: Loop, fd: int, connection: Connection, frame_type: int, *, limit_bytes: int) -> None:
        self._loop = loop
        self._fd = fd
        self._connection = connection
        self.frame_type = frame_type
        self._limit_bytes = limit_bytes
        self._writers_gone = False
        self.seen_bytes = 0

    @property
    def ended(self) -> bool:
        """Whether everything has been taken that will ever come."""
        return self._fd < 0

    @property
    def truncated(self) -> bool:
        """Whether more came than was kept."""
        return self.seen_bytes > self._limit_bytes

    def resume(self) -> None:
        """Takes output whenever there is some, until the connection is congested."""
        if self._writers_gone:
            self.drain()
        elif self._fd >= 0:
            self._loop.watch(self._fd, READ, self._ready)

    def drain(self) -> None:
        """Takes what is in the pipe now that the program is gone, without waiting for a copy of it elsewhere."""
        self._writers_gone = True
        while self._fd >= 0 and not self._connection.congested:
            self._ready(0)

    def _ready(self, _: int) -> None:
        if self._connection.congested:
            self._loop.forget(self._fd)  # until `resume`; watched, an ended pipe would wake the loop forever
            return
        try:
            data = os.read(self._fd, PAYLOAD_MAX_BYTES)
        except BlockingIOError:
            if self._writers_gone:
                self.close()
            return
        if not data:
            self.close()
            return
        room = self._limit_bytes - self.seen_bytes
        self.seen_bytes += len(data)
        if room > 0:
            self._connection.send(self.frame_type, data[:room])

    def close(self) -> None:
        """Gives the descriptor back. Idempotent."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1


class InputPipe:
    """The program's standard input. Owns `fd`; calls `on_room` when more may be pushed."""

    def __init__(self, loop: Loop, fd: int, on_room: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._on_room = on_room
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.ended = False

    @property
    def full(self) -> bool:
        """Whether the host should not be read from for now."""
        return self._pending_bytes >= _INPUT_HIGH_BYTES

    def push(self, data: bytes) -> None:
        """Passes `data` on as the program takes it; dropped once the program has closed its end."""
        if self._fd >= 0:
            self._pending.append(data)
            self._pending_bytes += len(data)
            self._write(0)

    def end(self) -> None:
        """Closes the pipe after what was pushed."""
        self.ended = True
        self._write(0)

    def _write(self, _: int) -> None:
        if self._fd < 0:
            return
        try:
            while self._pending:
                written = os.write(self._fd, self._pending[0])
                self._pending_bytes -= written
                self._pending[0] = self._pending[0][written:]
                if not self._pending[0]:
                    del self._pending[0]
        except BlockingIOError:
            self._loop.watch(self._fd, WRITE, self._write)
        except OSError as error:
            if error.errno != errno.EPIPE:
                log(f"standard input: {error}")
            self.close()
            return
        else:
            self._loop.forget(self._fd)
            if self.ended:
                self.close()
        self._on_room()

    def close(self) -> None:
        """Gives the descriptor back and drops what was not taken. Idempotent."""
        self._pending.clear()
        self._pending_bytes = 0
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._on_room()
