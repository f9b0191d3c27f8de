"""One WebSocket to a node: messages both ways, bounded, over a connection of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio

from mayfly.client.http import connect
from mayfly.errors import NodeError, NodeLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream

    from mayfly.client.address import NodeAddress

__all__ = ["MESSAGE_MAX_BYTES", "WebSocket", "open_websocket"]

MESSAGE_MAX_BYTES = 1024 * 1024
"""The largest message that is taken; larger ones that are sent are cut into several."""

_READ_BYTES = 64 * 1024
_SEND_S = 60.0
_OPEN_S = 60.0
_CLOSE_S = 2.0
_GOODBYES = frozenset({1000, 1001, 1005})
"""Codes of a close that is no failure."""


class WebSocket:
    """Made by `open_websocket`. One task receives; sending may be done by several, one at a time."""

    def __init__(self, stream: ByteStream, protocol: Any, name: str) -> None:
        self._stream = stream
        self._protocol = protocol
        self._name = name
        self._sending = anyio.Lock()
        self._pending: list[bytes | str] = []
        self._partial: list[Any] = []
        self._partial_size = 0
        self._ended = False

    async def receive(self) -> bytes | str | None:
        """The next message, None when the node has closed it; NodeLostError when it failed, or went without a word."""
        while not self._pending:
            if self._ended:
                return None
            await self._take()
        return self._pending.pop(0)

    async def send(self, message: bytes | str) -> None:
        """Send a message; NodeLostError when it cannot be sent any more."""
        from wsproto.events import BytesMessage, TextMessage

        if isinstance(message, str):
            await self._send(TextMessage(data=message))
            return
        for start in range(0, len(message), _READ_BYTES):
            await self._send(BytesMessage(data=message[start : start + _READ_BYTES]))

    async def close(self) -> None:
        """Say goodbye; the connection itself ends with the block of `open_websocket`."""
        from wsproto.events import CloseConnection

        with contextlib.suppress(NodeError), anyio.move_on_after(_CLOSE_S):
            await self._send(CloseConnection(code=1000))

    async def _send(self, event: Any) -> None:
        from wsproto.utilities import LocalProtocolError

        async with self._sending:
            try:
                data = self._protocol.send(event)
                with anyio.fail_after(_SEND_S):
                    await self._stream.send(data)
            except (LocalProtocolError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                raise NodeLostError(f"the node at {self._name} closed the connection") from None
            except TimeoutError:
                raise NodeLostError(f"the node at {self._name} took nothing for {_SEND_S:g} s") from None

    async def _take(self) -> None:
        from wsproto.utilities import RemoteProtocolError

        try:
            data = await self._stream.receive(_READ_BYTES)
        except anyio.EndOfStream:
            raise NodeLostError(f"the node at {self._name} went away") from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise NodeLostError(f"the node at {self._name} went away") from None
        try:
            self._protocol.receive_data(data)
            for event in list(self._protocol.events()):
                await self._handle(event)
        except RemoteProtocolError as error:
            raise NodeLostError(f"the node at {self._name} sent what is no WebSocket ({error})") from None

    async def _handle(self, event: Any) -> None:
        from wsproto.events import CloseConnection, Message, Ping

        if isinstance(event, Message):
            self._partial.append(event.data)
            self._partial_size += len(event.data)
            if self._partial_size > MESSAGE_MAX_BYTES:
                raise NodeError(f"the node sent a message larger than {MESSAGE_MAX_BYTES:,} bytes", retryable=False)
            if event.message_finished:
                empty: Any = "" if isinstance(event.data, str) else b""
                self._pending.append(empty.join(self._partial))
                self._partial, self._partial_size = [], 0
        elif isinstance(event, Ping):
            await self._send(event.response())
        elif isinstance(event, CloseConnection):
            self._ended = True
            with contextlib.suppress(NodeError):
                await self._send(event.response())
            if event.code not in _GOODBYES:
                raise NodeLostError(f"the node at {self._name} closed the connection: {event.reason or event.code}")

    async def opened(self, authority: str, target: str, token: str | None) -> tuple[int, bytes]:
        """Ask for the upgrade; the answer's status (101 when it is a WebSocket now) and, for others, the body."""
        from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request

        headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
        await self._send(Request(host=authority, target=target, extra_headers=headers))
        status, body = 0, b""
        with anyio.fail_after(_OPEN_S):
            while True:
                data = await self._stream.receive(_READ_BYTES)
                self._protocol.receive_data(data)
                for event in list(self._protocol.events()):
                    if isinstance(event, AcceptConnection):
                        status = 101
                    elif isinstance(event, RejectConnection):
                        status = event.status_code
                        if not event.has_body:
                            return status, body
                    elif isinstance(event, RejectData):
                        body += event.data
                        if event.body_finished or len(body) > _READ_BYTES:
                            return status, body
                    else:
                        await self._handle(event)
                if status == 101:
                    return status, body


@contextlib.asynccontextmanager
async def open_websocket(address: NodeAddress, target: str) -> AsyncIterator[tuple[WebSocket, int, bytes]]:
    """A WebSocket, the answer's status and the body of a refusal. The caller turns a refusal into its error.

    NodeUnavailableError when the node cannot be reached, NodeLostError when it does not answer as HTTP does.
    """
    from wsproto import ConnectionType, WSConnection
    from wsproto.utilities import RemoteProtocolError

    stream = await connect(address)
    try:
        socket = WebSocket(stream, WSConnection(ConnectionType.CLIENT), str(address))
        try:
            status, body = await socket.opened(address.authority, target, address.token)
        except (RemoteProtocolError, anyio.EndOfStream, anyio.BrokenResourceError, TimeoutError) as error:
            raise NodeLostError(f"the node at {address} did not open a WebSocket ({error})") from None
        yield socket, status, body
        if status == 101:
            await socket.close()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)
