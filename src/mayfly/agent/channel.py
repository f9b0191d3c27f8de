"""The agent's end of the socket to an interpreter that keeps state.

A message is a length (u32, big endian), a kind (one byte) and so many bytes of payload. The interpreter runs what
anybody wrote, so its messages are judged by their headers, and the long ones are passed on in pieces, never kept.
"""

from __future__ import annotations

import os
import struct

from mayfly.agent.loop import READ, WRITE
from mayfly.guest.frames import PAYLOAD_MAX_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from mayfly.agent.loop import Loop

    class Listener(Protocol):
        """Who is told what the interpreter says."""

        def message(self, kind: bytes, payload: bytes) -> None:
            """A short message, whole."""

        def item(self, kind: bytes, size: int) -> None:
            """A long message begins."""

        def item_data(self, data: bytes) -> None:
            """A piece of it."""

        def channel_ended(self) -> None:
            """Nothing more will come: closed, or not the protocol."""


__all__ = ["ACK", "DONE", "ERROR", "FAILED", "INIT", "READY", "RESULT", "RUN", "Channel", "message"]

INIT = b"I"
RUN = b"R"
ACK = b"a"
READY = b"o"
FAILED = b"f"
RESULT = b"r"
ERROR = b"e"
DONE = b"d"
_SHORT = {READY: 4096, FAILED: PAYLOAD_MAX_BYTES, DONE: PAYLOAD_MAX_BYTES}
_LONG = {RESULT: 64 << 20, ERROR: 1 << 20}
_WORDS_MAX_BYTES = 1000
_HEADER = struct.Struct("!Ic")


def message(kind: bytes, payload: bytes) -> bytes:
    """One message as bytes."""
    return _HEADER.pack(len(payload), kind) + payload


class Channel:
    """Owns `fd`. Reads while it is not paused; writes as the interpreter takes it."""

    def __init__(self, loop: Loop, fd: int, listener: Listener) -> None:
        self._loop = loop
        self._fd = fd
        self._listener = listener
        self._out = b""
        self._paused = False
        self._head = b""
        self._kind = b""
        self._left = 0  # of the payload at hand
        self._payload: list[bytes] | None = None  # None for a long one
        self.last_words = b""
        """What came instead of a message: the child tells there why it could not become the interpreter."""
        self._watch()

    def _watch(self) -> None:
        if self._fd < 0:
            return
        events = (0 if self._paused else READ) | (WRITE if self._out else 0)
        if events:
            self._loop.watch(self._fd, events, self._ready)
        else:
            self._loop.forget(self._fd)

    def pause(self) -> None:
        """Reads nothing until `resume`."""
        if not self._paused:
            self._paused = True
            self._watch()

    def resume(self) -> None:
        """Reads again."""
        if self._paused:
            self._paused = False
            self._watch()

    def write(self, data: bytes) -> None:
        """Sends it all, sooner or later; dropped where the interpreter has gone."""
        if self._fd >= 0:
            self._out += data
            self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                self._out = self._out[os.write(self._fd, self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._out = b""  # its end is told by reading
        self._watch()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & ~WRITE and self._fd >= 0:
            self._read()

    def _read(self) -> bool:
        """Takes one piece; False when there is none."""
        try:
            data = os.read(self._fd, PAYLOAD_MAX_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data or not self._take(data):
            self.last_words = data[:_WORDS_MAX_BYTES]
            self.close()
            self._listener.channel_ended()
            return False
        return True

    def _take(self, data: bytes) -> bool:
        """Passes on what the bytes complete; False for what is no message."""
        while data:
            if not self._kind:
                used = _HEADER.size - len(self._head)
                self._head, data = self._head + data[:used], data[used:]
                if len(self._head) < _HEADER.size:
                    return True
                if not self._begin(*_HEADER.unpack(self._head)):
                    return False
            piece, data = data[: self._left], data[self._left :]
            self._left -= len(piece)
            if self._payload is not None:
                self._payload.append(piece)
            elif piece:
                self._listener.item_data(piece)
            if self._left == 0:
                self._complete()
        return True

    def _begin(self, size: int, kind: bytes) -> bool:
        if size > _SHORT.get(kind, _LONG.get(kind, -1)):
            return False
        self._head = b""
        self._kind, self._left = kind, size
        self._payload = [] if kind in _SHORT else None
        if self._payload is None:
            self._listener.item(kind, size)
        if size == 0:
            self._complete()
        return True

    def _complete(self) -> None:
        kind, payload = self._kind, self._payload
        self._kind, self._payload = b"", None
        if kind and payload is not None:
            self._listener.message(kind, b"".join(payload))

    def drain(self) -> None:
        """Takes what has come, of an interpreter that has ended."""
        while self._fd >= 0 and self._read():
            pass

    def close(self) -> None:
        """Gives the descriptor back. Idempotent."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
