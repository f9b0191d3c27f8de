"""WebSockets into a sandbox: a command's input and output, and connections to its ports."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Annotated

import anyio
import msgspec
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from mayfly.errors import InvalidRequestError, MayflyError, NotFoundError, UnsupportedError
from mayfly.host.tasks import single_error
from mayfly.node.sandbox_commands import follow_command
from mayfly.sandbox_model import CommandAccepted, CommandOutput, TerminalSize
from mayfly.server.answers import error_answer
from mayfly.server.asked import OFFSET_MAX, number_of, pid_of, sandbox_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

    from mayfly.guest.ports import PortLink
    from mayfly.guest.processes import ProcessLink
    from mayfly.guest.sandbox import Guest
    from mayfly.server.contract import NodeService

__all__ = ["socket_routes"]

_STALL_S = 300.0
_REASON_MAX_BYTES = 120
_FAILED = 1011
_STREAMS = {"stdout": b"\x01", "stderr": b"\x02"}


class _Told(msgspec.Struct, forbid_unknown_fields=True):
    """A text message from the client: one of these."""

    eof: bool = False
    resize: TerminalSize | None = None
    signal: Annotated[str, msgspec.Meta(max_length=16)] | None = None


def socket_routes(node: NodeService) -> list[BaseRoute]:
    """Their routes over `node`; a request that is no handshake is told so."""
    sockets = _Sockets(node)
    command = "/v1/sandboxes/{id}/commands/{pid}/socket"
    port = "/v1/sandboxes/{id}/ports/{port}"
    return [
        WebSocketRoute(command, sockets.command),
        Route(command, _no_handshake, methods=["GET"]),
        WebSocketRoute(port, sockets.port),
        Route(port, _no_handshake, methods=["GET"]),
    ]


async def _no_handshake(_: Request) -> Response:
    error = InvalidRequestError("a WebSocket handshake is expected here", field="upgrade")
    response = error_answer(error, status=426)
    response.headers["Upgrade"] = "websocket"
    return response


class _Sockets:
    def __init__(self, node: NodeService) -> None:
        self._node = node

    async def command(self, socket: WebSocket) -> None:
        async with _answering(socket):
            sandbox, pid = sandbox_of(socket, self._node), pid_of(socket)
            offset = number_of(socket, "from", least=0, most=OFFSET_MAX, default=0)
            async with sandbox.using() as guest, guest.attach_process(pid, offset=offset) as link:
                await socket.accept()
                with single_error():
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_tell_command, socket, link, tasks.cancel_scope)
                        await _show_command(socket, link)
                        tasks.cancel_scope.cancel()

    async def port(self, socket: WebSocket) -> None:
        async with _answering(socket):
            sandbox, number = sandbox_of(socket, self._node), _port_of(socket)
            async with sandbox.using() as guest, _listening(guest, number) as link:
                await socket.accept()
                await _carry(socket, link)


@contextlib.asynccontextmanager
async def _answering(socket: WebSocket) -> AsyncIterator[None]:
    """Errors before the handshake's answer are HTTP answers; later ones close the socket with their message."""
    try:
        yield
        code, reason = 1000, ""
    except WebSocketDisconnect:
        return
    except MayflyError as error:
        if socket.application_state.name == "CONNECTING":
            await socket.send_denial_response(error_answer(error))
            return
        code, reason = _FAILED, str(error).encode()[:_REASON_MAX_BYTES].decode("utf-8", "ignore")
    except TimeoutError:
        code, reason = _FAILED, "nothing was taken for too long"
    if socket.application_state.name == "CONNECTED":
        with contextlib.suppress(RuntimeError, OSError, WebSocketDisconnect):  # closed from the other side meanwhile
            await socket.close(code, reason)


@contextlib.asynccontextmanager
async def _listening(guest: Guest, port: int) -> AsyncIterator[PortLink]:
    async with contextlib.AsyncExitStack() as stack:
        try:
            link = await stack.enter_async_context(guest.open_port(port))
        except UnsupportedError as error:
            raise NotFoundError(str(error), field="port") from error
        yield link


async def _show_command(socket: WebSocket, link: ProcessLink) -> None:
    async for event in follow_command(link):
        if isinstance(event, CommandOutput):
            data = base64.b64decode(event.base64) if event.base64 is not None else (event.text or "").encode()
            await _send(socket, _STREAMS[event.stream] + data)
        elif not isinstance(event, CommandAccepted):
            await _send(socket, msgspec.json.encode(event).decode())


async def _tell_command(socket: WebSocket, link: ProcessLink, scope: anyio.CancelScope) -> None:
    """What the client sends, to the command; the end of the socket ends its being followed."""
    while (message := await socket.receive())["type"] == "websocket.receive":
        if (data := message.get("bytes")) is not None:
            await link.send_stdin(data)
            continue
        told = _told(message.get("text") or "")
        if told.resize is not None:
            await link.resize(told.resize.cols, told.resize.rows)
        if told.signal is not None:
            await link.signal(told.signal)
        if told.eof:
            await link.close_stdin()
    scope.cancel()


async def _carry(socket: WebSocket, link: PortLink) -> None:
    """Bytes both ways, until both sides have said their end or the socket is closed."""
    told_end = anyio.Event()

    async def take(scope: anyio.CancelScope) -> None:
        while (message := await socket.receive())["type"] == "websocket.receive":
            if (data := message.get("bytes")) is not None:
                await link.send(data)
            elif _told(message.get("text") or "").eof:
                await link.send_eof()
                told_end.set()
        scope.cancel()

    with single_error():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take, tasks.cancel_scope)
            while data := await link.receive():
                await _send(socket, data)
            await _send(socket, '{"eof":true}')
            await told_end.wait()
            tasks.cancel_scope.cancel()


def _told(text: str) -> _Told:
    try:
        return msgspec.json.decode(text, type=_Told)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequestError(f"a text message must be one of eof, resize and signal: {error}") from None


def _port_of(socket: WebSocket) -> int:
    given = socket.path_params["port"]
    if not (given.isascii() and given.isdecimal() and len(given) <= 5 and 1 <= int(given) <= 65535):
        raise NotFoundError("a port is a number from 1 to 65535", field="port")
    return int(given)


async def _send(socket: WebSocket, data: bytes | str) -> None:
    message: dict[str, object] = {"type": "websocket.send"}
    message["bytes" if isinstance(data, bytes) else "text"] = data
    with anyio.fail_after(_STALL_S):
        await socket.send(message)
