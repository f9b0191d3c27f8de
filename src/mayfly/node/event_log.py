"""Events of one stream, kept so that several readers can follow it, each from where it wants to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["EventLog"]


class EventLog:
    """Encoded events by offset, counted from 0. Who appends never waits for who reads: bound what is appended."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of all that was appended."""
        self._lines: list[bytes] = []
        self._changed: anyio.Event | None = None
        """Set at the next change; there is one only while somebody waits for it."""
        self._closed = False

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, line: bytes) -> None:
        """Add the event of offset `len(self)`."""
        self._lines.append(line)
        self.bytes += len(line)
        self._wake()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._wake()

    async def follow(self, offset: int = 0) -> AsyncIterator[list[bytes]]:
        """What is there from `offset` on, then what comes, in batches, until `close`."""
        while True:
            if batch := self._lines[offset : offset + 64]:
                offset += len(batch)
                yield batch
            elif self._closed:
                return
            else:
                if self._changed is None:
                    self._changed = anyio.Event()
                await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()
