"""A port of a sandbox, reachable on this machine: a listener here, a WebSocket to the node for each connection.

It runs in the process's shared loop (`mayfly.client.blocking`), so that it serves also while the caller's own loop is
busy, or has none.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio

from mayfly.client.blocking import call, in_shared_loop
from mayfly.errors import InvalidRequestError, MayflyError, NodeError

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import SocketStream

    from mayfly.client.calls import SandboxCalls
    from mayfly.client.websocket import WebSocket

__all__ = ["Forward", "open_forward"]

_READ_BYTES = 64 * 1024
_EOF = '{"eof": true}'
_CONNECTIONS_MAX = 256


class Forward:
    """A local port that leads to one of the sandbox. `url` is for browsers and HTTP clients; `close` ends it."""

    def __init__(self, server: _Server, host: str, port: int, remote_port: int) -> None:
        self._server = server
        self.host = host
        self.port = port
        self.remote_port = remote_port

    @property
    def url(self) -> str:
        """`http://HOST:PORT`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def close(self) -> None:
        """End it and the connections through it. Blocking."""
        call(self._server.stop)

    async def aclose(self) -> None:
        """End it and the connections through it."""
        await in_shared_loop(self._server.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Forward({self.url} -> port {self.remote_port})"


async def open_forward(calls: SandboxCalls, port: int, *, host: str, local_port: int) -> Forward:
    """Listen here; NodeError where the local port cannot be had."""
    for name, value, low in (("port", port, 1), ("local_port", local_port, 0)):
        if not isinstance(value, int) or not low <= value <= 65535:
            raise InvalidRequestError(f"{name} must be from {low} to 65535, not {value!r}", field=name)
    server = _Server(calls, port)
    return Forward(server, host, await in_shared_loop(partial(server.start, host, local_port)), port)


class _Server:
    """Lives in the shared loop."""

    def __init__(self, calls: SandboxCalls, port: int) -> None:
        self._calls = calls
        self._port = port
        self._scope: anyio.CancelScope | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    async def start(self, host: str, local_port: int) -> int:
        try:
            listener = await anyio.create_tcp_listener(local_host=host, local_port=local_port)
        except OSError as error:
            reason = error.strerror or str(error)
            raise NodeError(f"cannot listen on {host}:{local_port}: {reason}", retryable=False) from None
        found: int = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - nothing of Django
        ready = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._serve(listener, ready))
        await ready.wait()
        return found

    async def stop(self) -> None:
        if self._scope is not None:
            self._scope.cancel()
            await self._ended.wait()

    async def _serve(self, listener: Any, ready: asyncio.Event) -> None:
        limiter = anyio.CapacityLimiter(_CONNECTIONS_MAX)
        try:
            with anyio.CancelScope() as self._scope:
                ready.set()

                async def handle(stream: SocketStream) -> None:
                    async with limiter, stream:
                        with contextlib.suppress(MayflyError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                            await self._join(stream)

                async with listener:
                    await listener.serve(handle)
        finally:
            self._ended.set()

    async def _join(self, stream: SocketStream) -> None:
        async with self._calls.socket(f"/ports/{self._port}") as socket, anyio.create_task_group() as tasks:
            sent = anyio.Event()
            tasks.start_soon(_outward, stream, socket, sent)
            await _inward(socket, stream)
            with anyio.move_on_after(60):
                await sent.wait()
            tasks.cancel_scope.cancel()


async def _outward(stream: SocketStream, socket: WebSocket, sent: anyio.Event) -> None:
    try:
        with contextlib.suppress(MayflyError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            with contextlib.suppress(anyio.EndOfStream):
                while True:
                    await socket.send(await stream.receive(_READ_BYTES))
            await socket.send(_EOF)
    finally:
        sent.set()


async def _inward(socket: WebSocket, stream: SocketStream) -> None:
    while (message := await socket.receive()) is not None:
        if isinstance(message, bytes):
            await stream.send(message)
        elif "eof" in message:
            await stream.send_eof()
            return
