"""A transport that sends what is written in one turn of the event loop in one piece.

An answer is written as head, pieces of the body and end; each sent by itself costs a system call, and wakes a client
that then finds a part.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["GatheringTransport"]

_AT_ONCE_BYTES = 64 * 1024
"""So much is passed on at once, so that a reader that is slow is noticed as soon as without this."""


class GatheringTransport(asyncio.Transport):
    """`inner` for one protocol: all else is as there."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._gathered: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it, at the end of this turn of the loop at the latest."""
        if not data:
            return
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self._gathered.append(bytes(data))
        self._bytes += len(data)
        if self._bytes >= _AT_ONCE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what was written now: nothing will follow it soon."""
        gathered, self._gathered, self._bytes = self._gathered, [], 0
        if gathered:
            self._inner.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    def close(self) -> None:
        """Close it when all that was written has been sent."""
        self.flush()
        self._inner.close()

    def abort(self) -> None:
        """Close it at once; what was written may be lost."""
        self._gathered.clear()
        self._inner.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the inner transport says it."""
        return self._inner.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Another protocol takes over."""
        self.flush()
        self._inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The one that is told of what comes."""
        return self._inner.get_protocol()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._inner.resume_reading()

    def is_reading(self) -> bool:
        """Whether it reads."""
        return self._inner.is_reading()

    def can_write_eof(self) -> bool:
        """Whether one half can be closed."""
        return self._inner.can_write_eof()

    def write_eof(self) -> None:
        """Nothing more will be written."""
        self.flush()
        self._inner.write_eof()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return self._bytes + self._inner.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol is told to pause."""
        self._inner.set_write_buffer_limits(high, low)
