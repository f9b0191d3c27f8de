"""A connection to a port of the guest's loopback, carried over a link."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mayfly.guest.asking import ask, refusal
from mayfly.guest.frames import PAYLOAD_MAX_BYTES, FrameType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mayfly.guest.link import Link

__all__ = ["PortLink", "connect_port"]


class PortLink:
    """Raw bytes both ways. Made by `Guest.open_port`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ended = False

    async def send(self, data: bytes) -> None:
        """Sends all of it. Raises AgentLostError when the connection is gone."""
        view = memoryview(data)
        for start in range(0, len(view), PAYLOAD_MAX_BYTES):
            await self._link.send(FrameType.PIECE, bytes(view[start : start + PAYLOAD_MAX_BYTES]))

    async def send_eof(self) -> None:
        """Says that no more will be sent."""
        await self._link.send(FrameType.PIECE, b"")

    async def receive(self) -> bytes:
        """Some bytes; b"" once the guest's side has ended."""
        if self._ended:
            return b""
        frame = await self._link.receive()
        if frame.type != FrameType.DATA:
            raise refusal(frame)
        self._ended = not frame.payload
        return frame.payload


@asynccontextmanager
async def connect_port(link: Link, port: int) -> AsyncIterator[PortLink]:
    """Connects. Raises UnsupportedError where nobody listens."""
    await ask(link, "port", {"port": port})
    yield PortLink(link)
